//! Planes of a volume that are computed: mapped, clipped, interpolated linearly, and divided.
//!
//! Each plane of the array that has a weight is mapped and resampled along its two axes; the last two are kept, and the
//! volume's planes are interpolated between them.

use std::io;

use super::NpzVolume;
use super::cast::{Unfit, widen};
use super::plane_size::{AxisSize, Lengths};
use super::planes::{Plane, PlaneReader, PlaneSteps};
use super::resample::{Axis, along, between};
use super::voxel::Computed;
use crate::base::memory::zeros;
use crate::error::{Error, Result};
use crate::formats::npz::Payload;

/// A reader that keeps the two planes between which the volume's next one is interpolated.
pub(super) struct LinearPlanes<'a, T> {
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

impl<'a, T: Computed> PlaneReader<'a, T> for LinearPlanes<'a, T> {
    fn axis(source: usize, resampled: usize, len: usize) -> Axis {
        Axis::linear(source, resampled, len)
    }

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

impl<T: Computed> LinearPlanes<'_, T> {
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
}
