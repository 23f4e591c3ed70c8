//! Planes of a volume whose voxels are elements of the array as they are: of each voxel the nearest one.

use std::io;

use super::plane_size::{AxisSize, Lengths};
use super::planes::{Plane, PlaneReader, PlaneSteps};
use super::resample::Axis;
use super::voxel::{Elements, Voxel};
use super::{NpzVolume, cast::Unfit};
use crate::base::memory::zeros;
use crate::error::{Error, Result};
use crate::formats::npz::Payload;

/// A reader that keeps the last plane that was resampled.
pub(super) struct NearestPlanes<'a, T> {
    planes: &'a PlaneSteps<T>,
    volume: &'a NpzVolume<'a>,
    payload: Payload<'a>,
    /// The number of the plane that is read next.
    next: usize,
    /// Array bytes of some rows.
    bytes: Vec<u8>,
    row: Vec<T>,
    /// The plane before `next`, resampled along its two axes.
    result: Vec<T>,
}

impl<'a, T: Voxel> PlaneReader<'a, T> for NearestPlanes<'a, T> {
    fn axis(source: usize, resampled: usize, len: usize) -> Axis {
        Axis::nearest(source, resampled, len)
    }

    fn new(planes: &'a PlaneSteps<T>, volume: &'a NpzVolume<'a>, payload: Payload<'a>) -> io::Result<Self> {
        let [_, (middle, _), (fast, _)] = &planes.axes;
        let element = volume.array.header.element.size();
        let Lengths { bytes, row, plane, .. } = Lengths::new(AxisSize::of(middle), AxisSize::of(fast), element);
        Ok(Self { planes, volume, payload, next: 0, bytes: zeros(bytes)?, row: zeros(row)?, result: zeros(plane)? })
    }

    fn plane(&mut self, at: usize, cancelled: &mut dyn FnMut() -> bool) -> Result<Option<Plane<'_, T>>> {
        let [(slow, _), (middle, _), (fast, _)] = &self.planes.axes;
        let columns = fast.neighbours.len();
        let Some(voxel) = at.checked_sub(slow.before).and_then(|at| slow.neighbours.get(at)).copied() else {
            return Ok(Some(Plane { values: &[], columns, before: 0 }));
        };
        while self.next <= voxel.lower {
            if cancelled() {
                return Ok(None);
            }
            if self.next < voxel.lower { self.skip_plane()? } else { self.take_plane()? }
        }
        Ok(Some(Plane { values: &self.result, columns, before: middle.before }))
    }

    fn finish(mut self, cancelled: &mut dyn FnMut() -> bool) -> Result<bool> {
        while self.next < self.planes.axes[0].0.source {
            if cancelled() {
                return Ok(false);
            }
            self.skip_plane()?;
        }
        self.payload.finish().map(|()| true)
    }
}

impl<T: Voxel> NearestPlanes<'_, T> {
    fn skip_plane(&mut self) -> Result<()> {
        let [_, (middle, _), (fast, _)] = &self.planes.axes;
        let len = middle.source * fast.source * self.volume.array.header.element.size();
        self.payload.skip(len as u64, &mut self.bytes)?;
        self.next += 1;
        Ok(())
    }

    /// Reads the next plane, and takes the nearest elements of it.
    fn take_plane(&mut self) -> Result<()> {
        let [_, (middle, _), (fast, _)] = &self.planes.axes;
        let header = &self.volume.array.header;
        let (row_bytes, columns) = (fast.source * header.element.size(), fast.neighbours.len());
        let mut out = self.result.chunks_exact_mut(columns.max(1)).zip(&middle.neighbours).peekable();
        let mut at = 0;
        while at < middle.source {
            let count = (self.bytes.len() / row_bytes).min(middle.source - at);
            let bytes = &mut self.bytes[..count * row_bytes];
            self.payload.read_exact(bytes)?;
            for (row, bytes) in (at..).zip(bytes.chunks_exact_mut(row_bytes)) {
                if out.peek().is_none_or(|(_, voxel)| voxel.lower != row) {
                    continue;
                }
                let elements = Elements { element: header.element, big_endian: header.big_endian, bytes };
                T::of_elements(elements, None, &mut self.row, self.planes.rules).map_err(
                    |Unfit { value, .. }| {
                        let reason = format!("a voxel is {}", self.volume.format.refusal(value));
                        Error::malformed(&self.volume.path, reason)
                    },
                )?;
                while let Some((out, _)) = out.next_if(|(_, voxel)| voxel.lower == row) {
                    out.iter_mut().zip(&fast.neighbours).for_each(|(out, voxel)| *out = self.row[voxel.lower]);
                }
            }
            at += count;
        }
        self.next += 1;
        Ok(())
    }
}
