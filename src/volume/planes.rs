//! A source array plane by plane: resampled by a [`PlaneReader`], and put where it belongs in height, width, depth.
//!
//! The slowest axis in memory is that of the planes. Where it is the height, each plane is the next part of the volume
//! and is published at once; else the volume is put together in memory first.

use std::io;

use super::axes::Axes;
use super::cast::Linear;
use super::kind::Preprocess;
use super::plane_size::{AxisSize, Lengths};
use super::resample::Axis;
use super::scratch::VoxelBuffer;
use super::transpose::BlockSize;
use super::voxel::{Rules, Voxel};
use super::{FillEnd, NpzVolume, Sink};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::npz::{ArrayHeader, Payload};
use crate::storage::Stored;

const HEIGHT: usize = 0;
const WIDTH: usize = 1;
const DEPTH: usize = 2;

/// The steps from an array to one volume, plane by plane.
pub(super) struct PlaneSteps<T> {
    /// The map of the array's values.
    pub(super) linear: Linear,
    /// The lowest and the highest value after it.
    pub(super) clip: [f32; 2],
    /// The divisor of resampled values.
    pub(super) divisor: f32,
    /// What becomes of values that the voxels cannot hold.
    pub(super) rules: Rules,
    pad: T,
    /// The axes, from the slowest in memory to the fastest, each with its number in the volume (`HEIGHT`, `WIDTH`,
    /// `DEPTH`).
    pub(super) axes: [(Axis, usize); 3],
}

/// A type of voxels of which volumes are put together plane by plane.
pub(super) trait InPlanes: Voxel {
    /// The reader of the planes.
    type Planes<'a>: PlaneReader<'a, Self>;
}

/// A reader of an array's planes in order, which makes the volume's planes of them.
pub(super) trait PlaneReader<'a, T: Voxel>: Sized {
    /// An axis of `source` voxels that is resampled, cropped and padded, as [`Axis`] has it.
    fn axis(source: usize, resampled: usize, len: usize) -> Axis;

    /// A reader at the first plane.
    ///
    /// # Errors
    /// There is no memory for the planes.
    fn new(planes: &'a PlaneSteps<T>, volume: &'a NpzVolume<'a>, payload: Payload<'a>) -> io::Result<Self>;

    /// Plane number `at` of the volume; no rows if it is padding. `None` if the fill was cancelled.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the data is damaged or a value does not fit, [`Error::Io`] if reading failed.
    fn plane(&mut self, at: usize, cancelled: &mut dyn FnMut() -> bool) -> Result<Option<Plane<'_, T>>>;

    /// Reads what is left of the array, and compares the checksum; false if the fill was cancelled.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the data is damaged, [`Error::Io`] if reading failed.
    fn finish(self, cancelled: &mut dyn FnMut() -> bool) -> Result<bool>;
}

/// A plane of the volume without its padding.
pub(super) struct Plane<'a, T> {
    /// The voxels, row by row.
    pub(super) values: &'a [T],
    /// The voxels of a row.
    pub(super) columns: usize,
    /// The number of the first row in the volume's plane.
    pub(super) before: usize,
}

impl<'a, T> Plane<'a, T> {
    /// The rows, each with its number in the volume's plane.
    fn rows(&self) -> impl Iterator<Item = (usize, &'a [T])> {
        (self.before..).zip(self.values.chunks_exact(self.columns.max(1)))
    }
}

impl<T: InPlanes> PlaneSteps<T> {
    /// The steps `steps` for an array with this header; `rules` for what becomes of the computed values.
    ///
    /// # Errors
    /// The value of the padding, if the voxels cannot hold it.
    pub(super) fn new(header: &ArrayHeader, steps: &Preprocess, rules: Rules) -> Result<Self, f64> {
        let source = steps.axes.hwd([header.shape[0], header.shape[1], header.shape[2]]);
        let axis = |at: usize| {
            let [source, resampled, len] = [source, steps.resampled, steps.shape].map(|sizes| to_usize(sizes[at]));
            (T::Planes::axis(source, resampled, len), at)
        };
        #[expect(clippy::cast_possible_truncation, reason = "the steps are done in f32")]
        Ok(Self {
            linear: Linear { slope: steps.slope, intercept: steps.intercept },
            clip: steps.clip.map(|hu| hu as f32),
            divisor: steps.divisor as f32,
            rules,
            pad: T::of_f64(steps.pad_value, rules).ok_or(steps.pad_value)?,
            axes: in_memory(steps.axes, header.fortran_order).map(axis),
        })
    }

    /// The memory in bytes that [`Self::fill`] takes for an array with this header, beside the volume.
    pub(super) fn scratch_bytes(header: &ArrayHeader, steps: &Preprocess) -> u64 {
        let voxel = size_of::<T>();
        let source = steps.axes.hwd([header.shape[0], header.shape[1], header.shape[2]]);
        let [slow, middle, fast] = in_memory(steps.axes, header.fortran_order);
        let size = |at: usize| AxisSize::planned(source[at], steps.resampled[at], steps.shape[at]);
        let block = if slow == DEPTH { (BlockSize::new(steps.shape, voxel).scratch_len() * voxel) as u64 } else { 0 };
        block + Lengths::new(size(middle), size(fast), header.element.size()).in_bytes(voxel)
    }

    /// Makes all bytes of the volume in `sink`. The last plane is not published, and with `verify_first` nothing is:
    /// the caller publishes the rest once the checksum was found right.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file changed, [`Error::Malformed`] if its data is damaged or a value does not fit,
    /// [`Error::Io`] if reading failed.
    pub(super) fn fill(
        &self,
        volume: &NpzVolume<'_>,
        file: &dyn Stored,
        payload: Payload<'_>,
        buffer: &mut VoxelBuffer,
        sink: &mut impl Sink,
        verify_first: bool,
    ) -> Result<FillEnd> {
        let mut source = T::Planes::new(self, volume, payload)
            .map_err(|error| Error::io(&volume.path, "get memory for planes", error))?;
        let finished = match self.axes[0].1 {
            HEIGHT => self.by_height(&mut source, volume, file, sink, verify_first)?,
            WIDTH => self.by_width(&mut source, sink)?,
            _ => self.by_depth(&mut source, volume, buffer, sink)?,
        };
        let finished = finished && source.finish(&mut || sink.cancelled())?;
        Ok(if finished { FillEnd::Withheld } else { FillEnd::Cancelled })
    }

    /// Makes the volume in order, plane by plane along the height; false if the fill was cancelled.
    fn by_height<S: Sink>(
        &self,
        source: &mut T::Planes<'_>,
        volume: &NpzVolume<'_>,
        file: &dyn Stored,
        sink: &mut S,
        mut verify_first: bool,
    ) -> Result<bool> {
        let (rows, columns) = (self.axes[1].0.len, self.axes[2].0.len);
        let len = self.axes[0].0.len;
        let mut withheld = 0;
        for at in 0..len {
            if sink.cancelled() {
                return Ok(false);
            }
            let plane = source.plane(at, &mut || sink.cancelled())?;
            let Some(plane) = plane else { return Ok(false) };
            let bytes = rows * columns * size_of::<T>();
            let out: &mut [T] = bytemuck::cast_slice_mut(&mut sink.spare()[withheld..withheld + bytes]);
            out.fill(self.pad);
            let before = self.axes[2].0.before;
            for (row, values) in plane.rows() {
                if self.axes[2].1 == DEPTH {
                    let start = row * columns + before;
                    out[start..start + values.len()].copy_from_slice(values);
                } else {
                    let column = out[before * rows + row..].iter_mut().step_by(rows);
                    column.zip(values).for_each(|(out, value)| *out = *value);
                }
            }
            verify_first = verify_first || volume.is_doubtful(file)?;
            if verify_first {
                withheld += bytes;
            } else if at + 1 < len {
                sink.publish(bytes);
            }
        }
        Ok(true)
    }

    /// Makes the volume of planes along the depth, transposed in blocks; false if the fill was cancelled.
    fn by_depth<S: Sink>(
        &self,
        source: &mut T::Planes<'_>,
        volume: &NpzVolume<'_>,
        buffer: &mut VoxelBuffer,
        sink: &mut S,
    ) -> Result<bool> {
        let mut block = volume.plane_block::<T>(buffer)?;
        let [height, _, depth] = volume.shape().map(to_usize);
        // A plane of the block has the height as its fastest axis.
        let is_transposed = self.axes[1].1 == HEIGHT;
        for start in (0..depth).step_by(block.step()) {
            let range = start..depth.min(start + block.step());
            for at in range.clone() {
                let Some(plane) = source.plane(at, &mut || sink.cancelled())? else { return Ok(false) };
                let out = block.plane(at);
                out.fill(self.pad);
                let before = self.axes[2].0.before;
                for (row, values) in plane.rows() {
                    if is_transposed {
                        let column = out[before * height + row..].iter_mut().step_by(height);
                        column.zip(values).for_each(|(out, value)| *out = *value);
                    } else {
                        let first = row * height + before;
                        out[first..first + values.len()].copy_from_slice(values);
                    }
                }
            }
            block.scatter(range, bytemuck::cast_slice_mut(sink.spare()));
        }
        Ok(true)
    }

    /// Makes the volume of planes along the width; false if the fill was cancelled.
    fn by_width<S: Sink>(&self, source: &mut T::Planes<'_>, sink: &mut S) -> Result<bool> {
        let rows_along_depth = self.axes[2].1 == DEPTH;
        let (width, depth) = (self.axes[0].0.len, self.axes[if rows_along_depth { 2 } else { 1 }].0.len);
        bytemuck::cast_slice_mut::<_, T>(sink.spare()).fill(self.pad);
        for at in 0..width {
            let Some(plane) = source.plane(at, &mut || sink.cancelled())? else { return Ok(false) };
            let out: &mut [T] = bytemuck::cast_slice_mut(sink.spare());
            for (row, values) in plane.rows() {
                let before = self.axes[2].0.before;
                if rows_along_depth {
                    let first = (row * width + at) * depth + before;
                    out[first..first + values.len()].copy_from_slice(values);
                } else {
                    let column = out[(before * width + at) * depth + row..].iter_mut().step_by(width * depth);
                    column.zip(values).for_each(|(out, value)| *out = *value);
                }
            }
        }
        Ok(true)
    }
}

/// The axes of an array, from the slowest in memory to the fastest, by their numbers in the volume.
fn in_memory(axes: Axes, fortran_order: bool) -> [usize; 3] {
    let [first, second, third] = axes.order();
    if fortran_order { [third, second, first] } else { [first, second, third] }
}
