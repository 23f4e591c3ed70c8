//! Fortran-order planes into a C-order volume, in cache-sized blocks.

use std::ops::Range;

use half::f16;

/// Planes that are collected before they are written out: 32 voxels of float16 are one cache line of the result.
const PLANES: u64 = 32;
/// The block's size is bounded so that a decoder's scratch memory is: 1024² planes come 16 at a time.
const MAX_BLOCK_BYTES: u64 = 32 << 20;
/// Voxels between two planes of the block beyond their size. Planes of 2^n bytes would otherwise compete for the
/// same few sets of L1 and L2 in the strided reads below.
const SKEW: usize = 32;

/// A block of consecutive planes (third axis) in which the first axis varies fastest.
pub(super) struct PlaneBlock<'a> {
    voxels: &'a mut [f16],
    shape: [usize; 3],
}

impl<'a> PlaneBlock<'a> {
    /// How many planes of a volume of `shape` a block holds.
    pub(super) fn planes(shape: [u64; 3]) -> u64 {
        let plane_bytes = (shape[0] * shape[1] * 2).max(1);
        (MAX_BLOCK_BYTES / plane_bytes).clamp(1, PLANES).min(shape[2].max(1))
    }

    /// How many voxels of scratch memory a block takes.
    pub(super) fn scratch_len(shape: [usize; 3], planes: usize) -> usize {
        (shape[0] * shape[1] + SKEW) * planes
    }

    /// A block in `scratch`, which has [`Self::scratch_len`] voxels.
    pub(super) fn new(scratch: &'a mut [f16], shape: [usize; 3]) -> Self {
        Self { voxels: scratch, shape }
    }

    /// The voxels of plane number `index` of the block, to be filled.
    pub(super) fn plane(&mut self, index: usize) -> &mut [f16] {
        let len = self.shape[0] * self.shape[1];
        let start = index * (len + SKEW);
        &mut self.voxels[start..start + len]
    }

    /// Writes the block as planes `range` of the third axis into `volume`, which is C-order of the whole shape.
    pub(super) fn scatter(&self, range: Range<usize>, volume: &mut [f16]) {
        const TILE: usize = 32;
        let [rows, columns, depth] = self.shape;
        let stride = rows * columns + SKEW;
        let count = range.len();
        for column in 0..columns {
            for row_start in (0..rows).step_by(TILE) {
                // One cache line of each plane, read row by row while it stays in L1.
                for row in row_start..rows.min(row_start + TILE) {
                    let to = (row * columns + column) * depth + range.start;
                    let line = &mut volume[to..to + count];
                    let from = &self.voxels[column * rows + row..];
                    for (voxel, plane) in line.iter_mut().zip(from.iter().step_by(stride)) {
                        *voxel = *plane;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition() {
        for shape in [[3usize, 5, 7], [33, 2, 65], [1, 1, 1], [40, 33, 32]] {
            let [rows, columns, depth] = shape;
            let planes = usize::try_from(PlaneBlock::planes(shape.map(|n| n as u64))).unwrap();
            let mut scratch = vec![f16::ZERO; PlaneBlock::scratch_len(shape, planes)];
            let mut volume = vec![f16::ZERO; rows * columns * depth];
            let value =
                |i: usize, j: usize, k: usize| f16::from_bits(u16::try_from((i * columns + j) * depth + k).unwrap());
            for start in (0..depth).step_by(planes) {
                let mut block = PlaneBlock::new(&mut scratch, shape);
                let range = start..depth.min(start + planes);
                for k in range.clone() {
                    for (at, voxel) in block.plane(k - start).iter_mut().enumerate() {
                        *voxel = value(at % rows, at / rows, k);
                    }
                }
                block.scatter(range, &mut volume);
            }
            assert!(volume.iter().enumerate().all(|(at, voxel)| usize::from(voxel.to_bits()) == at));
        }
    }
}
