//! A source array plane by plane: mapped, clipped, resampled, and put where it belongs in height, width, depth.
//!
//! The slowest axis in memory is that of the planes. Each plane that has a weight is mapped and resampled along its two
//! axes; the last two are kept, and the volume's planes are interpolated between them. Where the slowest axis is the
//! height, each plane is the next part of the volume and is published at once; else the volume is put together in
//! memory first.

use std::io;

use super::axes::Axes;
use super::cast::{Linear, Unfit, widen};
use super::kind::Preprocess;
use super::plane_size::{AxisSize, Lengths};
use super::resample::{Axis, along, between};
use super::scratch::VoxelBuffer;
use super::transpose::BlockSize;
use super::voxel::{Rules, Voxel};
use super::{FillEnd, NpzVolume, Sink};
use crate::base::memory::zeros;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::npz::{ArrayHeader, Payload};

const HEIGHT: usize = 0;
const WIDTH: usize = 1;
const DEPTH: usize = 2;

/// The steps from an array to one volume, plane by plane.
pub(super) struct PlaneSteps<T> {
    linear: Linear,
    clip: [f32; 2],
    divisor: f32,
    rules: Rules,
    pad: T,
    /// The axes, from the slowest in memory to the fastest, each with its number in the volume (`HEIGHT`, `WIDTH`,
    /// `DEPTH`).
    axes: [(Axis, usize); 3],
}

impl<T: Voxel> PlaneSteps<T> {
    /// The steps `steps` for an array with this header; `rules` for what becomes of the computed values.
    ///
    /// # Errors
    /// The value of the padding, if the voxels cannot hold it.
    pub(super) fn new(header: &ArrayHeader, steps: &Preprocess, rules: Rules) -> Result<Self, f64> {
        let source = steps.axes.hwd([header.shape[0], header.shape[1], header.shape[2]]);
        let axis =
            |at: usize| (Axis::new(to_usize(source[at]), to_usize(steps.resampled[at]), to_usize(steps.shape[at])), at);
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
        file: &std::fs::File,
        payload: Payload<'_>,
        buffer: &mut VoxelBuffer,
        sink: &mut impl Sink,
        verify_first: bool,
    ) -> Result<FillEnd> {
        let mut source = PlaneReader::new(self, volume, payload)
            .map_err(|error| Error::io(&volume.path, "get memory for planes", error))?;
        let finished = match self.axes[0].1 {
            HEIGHT => self.by_height(&mut source, volume, file, sink, verify_first)?,
            WIDTH => self.by_width(&mut source, sink)?,
            _ => self.by_depth(&mut source, volume, buffer, sink)?,
        };
        if !finished || !source.skip_rest(|| sink.cancelled())? {
            return Ok(FillEnd::Cancelled);
        }
        source.payload.finish()?;
        Ok(FillEnd::Withheld)
    }

    /// Makes the volume in order, plane by plane along the height; false if the fill was cancelled.
    fn by_height<S: Sink>(
        &self,
        source: &mut PlaneReader<'_, T>,
        volume: &NpzVolume<'_>,
        file: &std::fs::File,
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
        source: &mut PlaneReader<'_, T>,
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
    fn by_width<S: Sink>(&self, source: &mut PlaneReader<'_, T>, sink: &mut S) -> Result<bool> {
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

/// A reader of the array's planes in order; it keeps the two between which the volume's next plane is interpolated.
struct PlaneReader<'a, T> {
    planes: &'a PlaneSteps<T>,
    volume: &'a NpzVolume<'a>,
    payload: Payload<'a>,
    /// The number of the plane that is read next.
    next: usize,
    /// Array bytes of some rows.
    bytes: Vec<u8>,
    row: Vec<f32>,
    /// Rows of one plane that have a weight, resampled along the fastest axis.
    rows: Vec<f32>,
    /// The last two resampled planes: the one before the last, and the last.
    pair: [Vec<f32>; 2],
    between: Vec<f32>,
    result: Vec<T>,
}

/// A plane of the volume without its padding.
struct Plane<'a, T> {
    values: &'a [T],
    columns: usize,
    before: usize,
}

impl<'a, T> Plane<'a, T> {
    /// The rows, each with its number in the volume's plane.
    fn rows(&self) -> impl Iterator<Item = (usize, &'a [T])> {
        (self.before..).zip(self.values.chunks_exact(self.columns.max(1)))
    }
}

impl<'a, T: Voxel> PlaneReader<'a, T> {
    /// A reader at the first plane.
    ///
    /// # Errors
    /// There is no memory for the planes.
    fn new(planes: &'a PlaneSteps<T>, volume: &'a NpzVolume<'a>, payload: Payload<'a>) -> io::Result<Self> {
        let [_, (middle, _), (fast, _)] = &planes.axes;
        let element = volume.array.header.element.size();
        let Lengths { bytes, row, rows, plane } = Lengths::new(AxisSize::of(middle), AxisSize::of(fast), element);
        Ok(Self {
            planes,
            volume,
            payload,
            next: 0,
            bytes: zeros(bytes)?,
            row: zeros(row)?,
            rows: zeros(rows)?,
            pair: [zeros(plane)?, zeros(plane)?],
            between: zeros(plane)?,
            result: zeros(plane)?,
        })
    }

    /// Plane number `at` of the volume; no rows if it is padding. `None` if the fill was cancelled.
    fn plane(&mut self, at: usize, cancelled: &mut dyn FnMut() -> bool) -> Result<Option<Plane<'_, T>>> {
        let [(slow, _), (middle, _), (fast, _)] = &self.planes.axes;
        let columns = fast.neighbours.len();
        let Some(voxel) = at.checked_sub(slow.before).and_then(|at| slow.neighbours.get(at)).copied() else {
            return Ok(Some(Plane { values: &[], columns, before: 0 }));
        };
        while self.next <= voxel.upper {
            if cancelled() {
                return Ok(None);
            }
            // Planes before the pair are not needed.
            if self.next < voxel.lower { self.skip_plane()? } else { self.take_plane()? }
        }
        let [before, last] = &self.pair;
        let plane = |at: usize| &**if at + 1 == self.next { last } else { before };
        between(voxel, plane, &mut self.between);
        let divisor = self.planes.divisor;
        if divisor != 1.0 {
            self.between.iter_mut().for_each(|x| *x /= divisor);
        }
        T::of_f32(&self.between, &mut self.result, self.planes.rules).map_err(|Unfit { value, .. }| {
            let reason = format!("a voxel is {}", self.volume.format.refusal(value));
            Error::malformed(&self.volume.path, reason)
        })?;
        Ok(Some(Plane { values: &self.result, columns, before: middle.before }))
    }

    fn skip_plane(&mut self) -> Result<()> {
        let [_, (middle, _), (fast, _)] = &self.planes.axes;
        let len = middle.source * fast.source * self.volume.array.header.element.size();
        self.payload.skip(len as u64, &mut self.bytes)?;
        self.next += 1;
        Ok(())
    }

    /// Reads and resamples the next plane, which becomes the last of the pair.
    fn take_plane(&mut self) -> Result<()> {
        let [_, (middle, _), (fast, _)] = &self.planes.axes;
        let header = &self.volume.array.header;
        let (row_bytes, columns) = (fast.source * header.element.size(), fast.neighbours.len());
        let (window, [low, high]) = (middle.window(), self.planes.clip);
        let mut at = 0;
        while at < middle.source {
            let count = (self.bytes.len() / row_bytes).min(middle.source - at);
            let bytes = &mut self.bytes[..count * row_bytes];
            self.payload.read_exact(bytes)?;
            for (row, bytes) in (at..).zip(bytes.chunks_exact_mut(row_bytes)) {
                if !window.contains(&row) {
                    continue;
                }
                widen(header.element, header.big_endian, bytes, Some(self.planes.linear), &mut self.row);
                self.row.iter_mut().for_each(|x| *x = x.clamp(low, high));
                let row = row - window.start();
                along(&self.row, &fast.neighbours, &mut self.rows[row * columns..(row + 1) * columns]);
            }
            at += count;
        }
        self.pair.swap(0, 1);
        let out = self.pair[1].chunks_exact_mut(columns.max(1));
        for (out, voxel) in out.zip(&middle.neighbours) {
            between(*voxel, |at| &self.rows[(at - window.start()) * columns..][..columns], out);
        }
        self.next += 1;
        Ok(())
    }

    /// Reads the rest of the array for the checksum; false if the fill was cancelled.
    fn skip_rest(&mut self, mut cancelled: impl FnMut() -> bool) -> Result<bool> {
        while self.next < self.planes.axes[0].0.source {
            if cancelled() {
                return Ok(false);
            }
            self.skip_plane()?;
        }
        Ok(true)
    }
}
