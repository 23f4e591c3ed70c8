//! Fortran-order planes into a C-order volume, in blocks.
//!
//! The planes of a block are collected, then each row of the result gets as many voxels as there are planes. What that
//! costs is decided by the result's cache lines, which lie far apart: one that is written in two steps is fetched and
//! written back twice. So, where the shape allows it, whole lines are written, past the caches (`lines`).

use std::ops::Range;

use bytemuck::Pod;

use crate::base::num::to_usize;

/// The bytes of a cache line. The planes that are collected before they are written out make one line of a row: 32 of
/// float16.
const LINE: usize = 64;
/// The planes of voxels of two bytes, which are the ones that are written in whole lines.
#[cfg(target_arch = "x86_64")]
const PLANES: usize = LINE / 2;
/// The size of what is collected is bounded so that a decoder's scratch memory is: 1024² planes come 16 at a time. A
/// single plane may be larger.
const MAX_BYTES: usize = 32 << 20;
/// Bytes between two planes beyond their size. Planes of 2^n bytes would otherwise compete for the same few sets of L1
/// and L2 in the strided reads below.
const SKEW: usize = LINE;

/// The number and the size of the planes that are collected for one volume.
#[derive(Clone, Copy)]
pub(super) struct BlockSize {
    /// Height, width, depth.
    shape: [usize; 3],
    /// The bytes of a voxel.
    voxel_len: usize,
    /// The planes from one [`PlaneBlock::scatter`] to the next.
    step: usize,
    /// Planes that are kept: twice as many where a line may begin in the block before.
    kept: usize,
    /// Whether the lines of all rows of a column begin at the same planes, and those that are kept have whole ones.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "the portable way writes no lines"))]
    in_lines: bool,
}

impl BlockSize {
    /// The size of the block for a volume of this height, width and depth, whose voxels have `voxel_len` bytes.
    pub(super) fn new(shape: [u64; 3], voxel_len: usize) -> Self {
        let shape = shape.map(to_usize);
        let [rows, columns, depth] = shape;
        let plane_bytes = (rows * columns * voxel_len).max(1);
        let planes = LINE / voxel_len;
        let step = (MAX_BYTES / plane_bytes).clamp(1, planes).min(depth.max(1));
        let kept = if depth.is_multiple_of(planes) { step } else { 2 * step };
        let in_lines = cfg!(target_arch = "x86_64")
            && voxel_len == 2
            && step == planes
            && rows.is_multiple_of(8)
            && (columns * depth).is_multiple_of(planes)
            && kept * plane_bytes <= MAX_BYTES;
        Self { shape, voxel_len, step, kept: if in_lines { kept } else { step }, in_lines }
    }

    /// The scratch memory that a block takes, in voxels.
    pub(super) fn scratch_len(&self) -> usize {
        self.stride() * self.kept
    }

    /// The voxels from the start of one plane to that of the next.
    fn stride(&self) -> usize {
        self.shape[0] * self.shape[1] + SKEW / self.voxel_len
    }
}

/// The planes (third axis) that were collected last, in which the first axis varies fastest.
pub(super) struct PlaneBlock<'a, T> {
    voxels: &'a mut [T],
    size: BlockSize,
}

impl<'a, T: Pod> PlaneBlock<'a, T> {
    /// A block in `scratch`, which has [`BlockSize::scratch_len`] voxels; `size` was made for voxels of this type.
    pub(super) fn new(scratch: &'a mut [T], size: BlockSize) -> Self {
        debug_assert_eq!(size.voxel_len, size_of::<T>());
        Self { voxels: scratch, size }
    }

    /// The number of planes from one [`Self::scatter`] to the next.
    pub(super) fn step(&self) -> usize {
        self.size.step
    }

    /// The memory for the voxels of plane number `at` of the volume.
    pub(super) fn plane(&mut self, at: usize) -> &mut [T] {
        let start = self.place(at);
        &mut self.voxels[start..start + self.size.shape[0] * self.size.shape[1]]
    }

    fn place(&self, plane: usize) -> usize {
        plane % self.size.kept * self.size.stride()
    }

    /// The rows of one column of a plane.
    #[cfg(target_arch = "x86_64")]
    fn column(&self, column: usize, plane: usize) -> &[T] {
        let rows = self.size.shape[0];
        let start = self.place(plane) + column * rows;
        &self.voxels[start..start + rows]
    }

    /// Writes the planes `new`, which were filled since the last call, into `volume`, the whole volume in C order.
    /// Voxels of a cache line that is not complete yet are written by the next call.
    pub(super) fn scatter(&self, new: Range<usize>, volume: &mut [T]) {
        let columns = self.size.shape[1];
        #[cfg(target_arch = "x86_64")]
        if self.size.in_lines
            && let Ok(units) = bytemuck::try_cast_slice_mut(volume)
        {
            let mut lines = lines::Lines(units);
            (0..columns).for_each(|column| self.scatter_in_lines(column, new.clone(), &mut lines));
            return;
        }
        (0..columns).for_each(|column| self.scatter_column(column, new.clone(), volume));
    }

    /// Writes the complete cache lines of a column, and the parts of lines at both ends of its rows.
    #[cfg(target_arch = "x86_64")]
    fn scatter_in_lines(&self, column: usize, new: Range<usize>, lines: &mut lines::Lines<'_>) {
        let depth = self.size.shape[2];
        // Voxels from the beginning of the line that the column's rows begin in.
        let phase = column * depth % PLANES;
        let complete = |plane: usize| ((plane + phase) / PLANES * PLANES).saturating_sub(phase);
        let end = if new.end == depth { depth } else { complete(new.end) };
        let mut at = complete(new.start);
        while at < end {
            let next = (at + phase) / PLANES * PLANES + PLANES - phase;
            if next - at == PLANES && next <= end {
                self.scatter_lines(column, at, lines);
            } else {
                self.scatter_column(column, at..next.min(end), lines.voxels());
            }
            at = next;
        }
    }

    /// Writes one cache line of each row of a column, from plane `first` on.
    #[cfg(target_arch = "x86_64")]
    fn scatter_lines(&self, column: usize, first: usize, lines: &mut lines::Lines<'_>) {
        /// The groups that are prefetched ahead: two lines. There are 32 streams, more than the processor prefetches by
        /// itself. Without this, a cold read takes 15 % longer; four lines ahead are no better than none.
        const AHEAD: usize = 8;
        let [rows, columns, depth] = self.size.shape;
        let column_of = |plane| bytemuck::cast_slice(self.column(column, first + plane));
        let planes: [&[[u16; 8]]; PLANES] = std::array::from_fn(|plane| column_of(plane).as_chunks::<8>().0);
        for group in 0..rows / 8 {
            if group % lines::GROUPS == 0 {
                planes.iter().for_each(|plane| lines::prefetch(plane, group + AHEAD));
            }
            let square = |at: usize| std::array::from_fn(|plane| bytemuck::must_cast(planes[at + plane][group]));
            let squares = [0, 8, 16, 24].map(|at| lines::transposed(square(at)));
            for row in 0..8 {
                let to = ((group * 8 + row) * columns + column) * depth + first;
                lines.put(to, squares.map(|square| square[row]));
            }
        }
    }

    /// Writes some planes of a column, voxel by voxel.
    fn scatter_column(&self, column: usize, planes: Range<usize>, volume: &mut [T]) {
        const TILE: usize = 32;
        let [rows, columns, depth] = self.size.shape;
        // Those that lie behind each other in memory.
        let turn = planes.start.next_multiple_of(self.size.kept);
        if planes.start < turn && turn < planes.end {
            self.scatter_column(column, planes.start..turn, volume);
            return self.scatter_column(column, turn..planes.end, volume);
        }
        let from = &self.voxels[self.place(planes.start) + column * rows..];
        for start in (0..rows).step_by(TILE) {
            // One cache line of each plane, read row by row while it stays in L1.
            for row in start..rows.min(start + TILE) {
                let to = (row * columns + column) * depth;
                let line = &mut volume[to + planes.start..to + planes.end];
                for (voxel, plane) in line.iter_mut().zip(from[row..].iter().step_by(self.size.stride())) {
                    *voxel = *plane;
                }
            }
        }
    }
}

/// Whole cache lines, written past the caches: a line that is overwritten as a whole need not be fetched before, which
/// halves the time of the transposition.
#[cfg(target_arch = "x86_64")]
mod lines {
    use std::arch::x86_64::{
        __m128i, _MM_HINT_T0, _mm_prefetch, _mm_sfence, _mm_stream_si128, _mm_unpackhi_epi16, _mm_unpackhi_epi32,
        _mm_unpackhi_epi64, _mm_unpacklo_epi16, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
    };

    use bytemuck::Pod;

    /// The groups of eight voxels in a cache line.
    pub(super) const GROUPS: usize = 4;

    /// Begins to fetch the line of group number `at`, which may lie behind the end of the column.
    pub(super) fn prefetch(groups: &[[u16; 8]], at: usize) {
        // SAFETY: the instruction is part of x86-64, and only a hint: it accesses nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(groups.as_ptr().wrapping_add(at).cast()) };
    }

    /// A volume that lines are written to; the lines are visible to other threads once this value is dropped.
    pub(super) struct Lines<'a>(pub(super) &'a mut [__m128i]);

    impl Lines<'_> {
        /// The voxels of the volume, for writes of less than a line.
        pub(super) fn voxels<T: Pod>(&mut self) -> &mut [T] {
            bytemuck::cast_slice_mut(self.0)
        }

        /// Writes 32 voxels of two bytes from voxel number `to` on, a multiple of 8.
        pub(super) fn put(&mut self, to: usize, line: [__m128i; 4]) {
            for (unit, value) in self.0[to / 8..to / 8 + 4].iter_mut().zip(line) {
                // SAFETY: the reference is valid for writes and aligned to 16 bytes. The store is not ordered with
                // later ones before the fence in `drop`; nobody else has the memory before, because it is borrowed.
                unsafe { _mm_stream_si128(unit, value) };
            }
        }
    }

    impl Drop for Lines<'_> {
        fn drop(&mut self) {
            // SAFETY: the instruction is part of x86-64.
            unsafe { _mm_sfence() };
        }
    }

    /// Transposes a square of eight rows of eight voxels.
    pub(super) fn transposed(rows: [__m128i; 8]) -> [__m128i; 8] {
        // SAFETY: these instructions are part of x86-64.
        unsafe {
            let [a, b, c, d, e, f, g, h] = rows;
            let pairs = |a, b| (_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b));
            let fours = |a, b| (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
            let eights = |a, b| [_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b)];
            let ((ab0, ab4), (cd0, cd4), (ef0, ef4), (gh0, gh4)) = (pairs(a, b), pairs(c, d), pairs(e, f), pairs(g, h));
            let ((ad0, ad2), (ad4, ad6)) = (fours(ab0, cd0), fours(ab4, cd4));
            let ((eh0, eh2), (eh4, eh6)) = (fours(ef0, gh0), fours(ef4, gh4));
            let ([r0, r1], [r2, r3]) = (eights(ad0, eh0), eights(ad2, eh2));
            let ([r4, r5], [r6, r7]) = (eights(ad4, eh4), eights(ad6, eh6));
            [r0, r1, r2, r3, r4, r5, r6, r7]
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Transposes planes of which every voxel is known, of every size, into memory that begins `before` voxels behind a
    /// page, and looks at every voxel.
    fn check(shape: [usize; 3], before: usize) {
        // Of a prime number of values, so that no two that could be mistaken for each other are the same; none is 0.
        check_voxels(shape, before, |at| u8::try_from(at % 251 + 1).unwrap_or_default());
        check_voxels(shape, before, |at| u16::try_from(at % 65_521 + 1).unwrap_or_default());
        check_voxels(shape, before, |at| u32::try_from(at).unwrap_or_default() + 1);
        check_voxels(shape, before, |at| at as u64 + 1);
    }

    fn check_voxels<T: Pod + Default + PartialEq + std::fmt::Debug>(
        shape: [usize; 3],
        before: usize,
        value: impl Fn(usize) -> T,
    ) {
        let [rows, columns, depth] = shape;
        let len = rows * columns * depth;
        let size = BlockSize::new(shape.map(|n| n as u64), size_of::<T>());
        let mut scratch = vec![T::default(); size.scratch_len()];
        let mut memory = memmap2::MmapMut::map_anon((before + len + 1) * size_of::<T>()).unwrap();
        let memory: &mut [T] = bytemuck::cast_slice_mut(&mut memory);
        let volume = &mut memory[before..before + len];
        let mut block = PlaneBlock::new(&mut scratch, size);
        for start in (0..depth).step_by(size.step) {
            let new = start..depth.min(start + size.step);
            for k in new.clone() {
                for (at, voxel) in block.plane(k).iter_mut().enumerate() {
                    *voxel = value((at % rows * columns + at / rows) * depth + k);
                }
            }
            block.scatter(new, volume);
        }
        for (at, voxel) in volume.iter().enumerate() {
            assert_eq!(*voxel, value(at), "{shape:?} at {at}, {before} voxels behind a page");
        }
        assert!(
            memory[..before].iter().chain(&memory[before + len..]).all(|voxel| *voxel == T::default()),
            "{shape:?}"
        );
    }

    #[test]
    fn equals_the_definition() {
        // The smallest shapes that come with whole lines, with lines across blocks, and with neither.
        for shape in [
            [3, 5, 7],
            [33, 2, 65],
            [1, 1, 1],
            [40, 33, 32],
            [8, 32, 33],
            [8, 32, 64],
            [16, 16, 50],
            [8, 64, 95],
            [8, 32, 31],
            [24, 8, 100],
        ] {
            // A volume that is aligned to a page, to a unit but no line, and to neither.
            for before in [0, 8, 1] {
                check(shape, before);
            }
        }
    }

    #[test]
    fn scratch_memory_is_bounded() {
        // From planes of which 64 fit exactly, through those of which 32 do, to one that alone is too large.
        for (shape, kept, in_lines) in [
            ([512, 512, 33], 64, true),
            ([520, 512, 33], 32, false),
            ([520, 512, 64], 32, true),
            ([1024, 512, 64], 32, true),
            ([1032, 512, 64], 31, false),
            ([1024, 1024, 70], 16, false),
            ([8192, 4096, 2], 1, false),
        ] {
            let size = BlockSize::new(shape, 2);
            if cfg!(target_arch = "x86_64") {
                assert_eq!((size.kept, size.in_lines), (kept, in_lines), "{shape:?}");
            }
            let bytes = size.scratch_len() * 2;
            let skews = kept * SKEW;
            assert!(bytes <= MAX_BYTES + skews || kept == 1, "{shape:?}: {bytes}");
        }
        check([520, 512, 33], 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn equals_the_definition_in_any_shape(
            rows in prop_oneof![1usize..40, (1usize..5).prop_map(|n| 8 * n)],
            columns in prop_oneof![1usize..20, Just(8usize), Just(16), Just(32)],
            depth in prop_oneof![1usize..140, (8usize..35).prop_map(|n| 4 * n)],
            before in prop_oneof![3 => Just(0usize), 1 => 0usize..32],
        ) {
            check([rows, columns, depth], before);
        }
    }
}
