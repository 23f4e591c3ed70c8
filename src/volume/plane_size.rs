//! The sizes of the buffers that planes take, known before any is read. Pure.

use super::resample::Axis;
use super::scratch::CHUNK_LEN;
use crate::base::num::to_usize;

/// The numbers of voxels along an axis.
pub(super) struct AxisSize {
    /// In the array.
    source: usize,
    /// In the array, of those that have a weight.
    window: usize,
    /// In the volume, without padding.
    result: usize,
}

impl AxisSize {
    /// The sizes for an [`Axis`] of these arguments, without its voxels; the window is never smaller than its own.
    pub(super) fn planned(source: u64, resampled: u64, len: u64) -> Self {
        let result = resampled.min(len);
        // The neighbours of each voxel are within two of its place in the array.
        let window = source.saturating_mul(result).div_ceil(resampled.max(1)).saturating_add(2).min(source);
        Self { source: to_usize(source), window: to_usize(window), result: to_usize(result) }
    }

    /// The sizes of an axis.
    pub(super) fn of(axis: &Axis) -> Self {
        Self { source: axis.source, window: axis.window().count(), result: axis.neighbours.len() }
    }
}

/// The lengths of a `PlaneReader`'s buffers: bytes of the array, and else numbers of values.
pub(super) struct Lengths {
    /// Bytes of the array.
    pub(super) bytes: usize,
    /// Values of a row.
    pub(super) row: usize,
    /// Values of the rows that have a weight.
    pub(super) rows: usize,
    /// Values of a plane.
    pub(super) plane: usize,
}

impl Lengths {
    /// The lengths for the two faster axes; an element of the array has `element` bytes.
    pub(super) fn new(middle: AxisSize, fast: AxisSize, element: usize) -> Self {
        let row_bytes = fast.source * element;
        let bytes = row_bytes * (CHUNK_LEN / row_bytes.max(1)).clamp(1, middle.source.max(1));
        let (rows, plane) = (middle.window * fast.result, middle.result * fast.result);
        Self { bytes, row: fast.source, rows, plane }
    }

    /// The bytes of all buffers, for voxels of `voxel` bytes.
    pub(super) fn in_bytes(&self, voxel: usize) -> u64 {
        let values = self.row + self.rows + 3 * self.plane;
        (self.bytes + values * size_of::<f32>() + self.plane * voxel) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_axis_takes_more_rows_than_are_counted_and_few_less() {
        let sizes = [1, 2, 3, 7, 64, 500, 1001];
        for (source, resampled, len) in sizes
            .iter()
            .flat_map(|s| sizes.iter().map(move |r| (s, r)))
            .flat_map(|(s, r)| sizes.iter().map(move |l| (*s, *r, *l)))
        {
            let (made, planned) = (
                AxisSize::of(&Axis::linear(source, resampled, len)),
                AxisSize::planned(source as u64, resampled as u64, len as u64),
            );
            assert_eq!((made.source, made.result), (planned.source, planned.result));
            let fits = made.window <= planned.window && planned.window <= made.window + 4 + source.div_ceil(resampled);
            assert!(fits, "{source} {resampled} {len}: {} rows, {} counted", made.window, planned.window);
        }
    }
}
