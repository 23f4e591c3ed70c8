//! Whole numbers in which neighbours are subtracted, and the way back: portably; for bytes by instructions that every
//! x86-64 processor has, and for values of two bytes by AVX2, with the values above them added in the same pass. Pure.
//!
//! These functions read and write slices alone; `unsafe` is the promise that the processor has the instructions: the
//! target architecture makes it, or a look at the processor. The tests of [`super::predict`] compare them with the
//! portable definition.

use super::shuffle::unshuffle;
use super::split::Groups;

/// The bytes of a piece of a block that is summed up at a time.
#[cfg(target_arch = "x86_64")]
const PIECE: usize = 16;
/// The values of two bytes of such a piece.
#[cfg(target_arch = "x86_64")]
const PAIRS: usize = super::split::GROUP;

/// The folded differences of two bytes of a block.
pub(super) enum Differences<'a> {
    /// The low bytes of all, and the high ones.
    Shuffled([&'a [u8]; 2]),
    /// What is left of their groups.
    Split(Groups<'a>),
}

impl<'a> Differences<'a> {
    /// What a shuffled block holds.
    pub(super) fn shuffled(shuffled: &'a [u8]) -> Self {
        let (low, high) = shuffled.split_at(shuffled.len() / 2);
        Self::Shuffled([low, high])
    }

    /// What there is from value `at` on, where all before it were taken; fewer than [`PAIRS`].
    fn rest(&mut self, at: usize) -> [u16; PAIRS] {
        match self {
            Self::Split(groups) => groups.next().map_or([0; PAIRS], |group| group.values()),
            Self::Shuffled([low, high]) => {
                let mut rest = [0; PAIRS];
                let bytes = low[at..].iter().zip(&high[at..]);
                rest.iter_mut().zip(bytes).for_each(|(number, (low, high))| *number = u16::of([*low, *high]));
                rest
            }
        }
    }
}

/// The order of a value's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Whole numbers, as they are.
    Integer,
    /// Float16: neighbours among the numbers become neighbours among their bits.
    Half,
}

/// Whole numbers without sign of `N` bytes, in which all sums are taken.
pub(super) trait Word<const N: usize>: Copy {
    /// The number of little-endian bytes.
    fn of(bytes: [u8; N]) -> Self;
    /// The little-endian bytes.
    fn bytes(self) -> [u8; N];
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// The difference.
    fn minus(self, other: Self) -> Self;
    /// A difference as a number that is small if the difference is near 0 from either side.
    fn folded(self) -> Self;
    /// The difference of a folded number.
    fn unfolded(self) -> Self;
    /// The number whose order is that of floats with these bits.
    fn ordered(self) -> Self;
    /// The bits of the float that [`Self::ordered`] made the number of.
    fn unordered(self) -> Self;
    /// Writes the running sum of the unfolded numbers of shuffled bytes into `out`.
    fn running_sum(shuffled: &[u8], out: &mut [[u8; N]]);
    /// Undoes a whole prediction in one pass, if there is a faster way than the portable one; false if not.
    fn undo_at_once(shuffled: &[u8], row: usize, order: Order, out: &mut [[u8; N]]) -> bool;
}

macro_rules! word {
    ($word:ty, $len:literal, $running_sum:expr, $undo_at_once:expr) => {
        impl Word<$len> for $word {
            fn of(bytes: [u8; $len]) -> Self {
                Self::from_le_bytes(bytes)
            }
            fn bytes(self) -> [u8; $len] {
                self.to_le_bytes()
            }
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn folded(self) -> Self {
                (self << 1) ^ (self.cast_signed() >> (Self::BITS - 1)).cast_unsigned()
            }
            fn unfolded(self) -> Self {
                (self >> 1) ^ (0 as $word).wrapping_sub(self & 1)
            }
            fn ordered(self) -> Self {
                self ^ ((self.cast_signed() >> (Self::BITS - 1)).cast_unsigned() | 1 << (Self::BITS - 1))
            }
            fn unordered(self) -> Self {
                self ^ ((!self.cast_signed() >> (Self::BITS - 1)).cast_unsigned() | 1 << (Self::BITS - 1))
            }
            fn running_sum(shuffled: &[u8], out: &mut [[u8; $len]]) {
                $running_sum(shuffled, out);
            }
            fn undo_at_once(shuffled: &[u8], row: usize, order: Order, out: &mut [[u8; $len]]) -> bool {
                $undo_at_once(shuffled, row, order, out)
            }
        }
    };
}

word!(u8, 1, bytes_sum, |_, _, _, _| false);
word!(u16, 2, portable_sum::<Self, 2>, |shuffled, row, order, out| {
    let is_there = has_undo_pairs(row);
    if is_there {
        undo_pairs(Differences::shuffled(shuffled), row, order, out);
    }
    is_there
});
word!(u32, 4, portable_sum::<Self, 4>, |_, _, _, _| false);
word!(u64, 8, portable_sum::<Self, 8>, |_, _, _, _| false);

/// The running sum on every processor.
pub(super) fn portable_sum<W: Word<N>, const N: usize>(shuffled: &[u8], out: &mut [[u8; N]]) {
    unshuffle::<N>(shuffled, out.as_flattened_mut());
    let mut sum: Option<W> = None;
    for value in out {
        let left = W::of(*value).unfolded();
        let now = sum.map_or(left, |sum| sum.plus(left));
        (*value, sum) = (now.bytes(), Some(now));
    }
}

/// Whether [`undo_pairs`] is there: the processor has AVX2, and rows are as long as a piece at least; the values of
/// shorter ones would be needed before they are there.
pub(super) fn has_undo_pairs(row: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    return row >= PAIRS && is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Undoes the prediction of values of two bytes, where [`has_undo_pairs`].
pub(super) fn undo_pairs(differences: Differences<'_>, row: usize, order: Order, out: &mut [[u8; 2]]) {
    assert!(has_undo_pairs(row), "this processor or row needs another way");
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: the processor has the feature.
    unsafe {
        match order {
            Order::Integer => x86::undo_pairs::<false>(differences, row, out),
            Order::Half => x86::undo_pairs::<true>(differences, row, out),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (differences, order, out);
}

/// The running sum of bytes.
fn bytes_sum(folded: &[u8], out: &mut [[u8; 1]]) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: every x86-64 processor has SSE2.
    unsafe {
        x86::bytes_sum(folded, out);
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable_sum::<u8, 1>(folded, out);
}

/// Sums in a register: to its values, those of the register that was shifted by one, two, four (and eight) values are
/// added, or the last one of a part to all of the next part.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_add_epi8, _mm_and_si128, _mm_set1_epi8, _mm_setzero_si128, _mm_slli_si128,
        _mm_srli_epi16, _mm_sub_epi8, _mm_xor_si128, _mm256_add_epi16, _mm256_and_si256, _mm256_castsi256_si128,
        _mm256_extracti128_si256, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set_epi64x, _mm256_set_m128i,
        _mm256_set1_epi16, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_slli_epi64,
        _mm256_srai_epi16, _mm256_srli_epi16, _mm256_sub_epi16, _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
        _mm256_xor_si256,
    };

    use bytemuck::must_cast;

    use super::{Differences, PAIRS, PIECE, Word};

    /// Undoes the prediction of differences of two bytes, of float16 or integers; rows have at least [`PAIRS`] values.
    /// Each value is written once.
    #[target_feature(enable = "avx2")]
    pub(super) fn undo_pairs<const HALF: bool>(mut differences: Differences<'_>, row: usize, out: &mut [[u8; 2]]) {
        let mut sums = _mm256_setzero_si256(); // the last sum, in every place
        let whole = out.len() / PAIRS * PAIRS;
        for at in (0..whole).step_by(PAIRS) {
            let above = above::<HALF>(out, at, row);
            let [first, second] = piece(&mut differences, at);
            let (first, second) = (sums_of_halves(first), sums_of_halves(second));
            let (ends, other_ends) = (last_of_halves(first), last_of_halves(second));
            let both = _mm256_add_epi16(ends, other_ends); // of values 0 to 15 in its first half, of 16 to 31
            let before = _mm256_add_epi16(sums, _mm256_permute2x128_si256(both, both, 0x08));
            let first = _mm256_add_epi16(_mm256_add_epi16(first, above[0]), before);
            let second = _mm256_add_epi16(_mm256_add_epi16(second, above[1]), _mm256_add_epi16(before, ends));
            out[at..][..PAIRS].copy_from_slice(&joined(signed::<HALF>(first), signed::<HALF>(second)));
            let all = _mm256_add_epi16(both, _mm256_permute2x128_si256(both, both, 0x01));
            sums = _mm256_add_epi16(sums, all);
        }
        let mut sum = must_cast::<_, [u16; 16]>(sums)[0];
        let rest = differences.rest(whole);
        for (at, difference) in (whole..out.len()).zip(rest) {
            sum = sum.plus(difference.unfolded());
            let above = at.checked_sub(row).map(|above| u16::of(out[above]));
            out[at] = match (HALF, above) {
                (true, above) => sum.plus(above.map_or(0, u16::ordered)).unordered().bytes(),
                (false, above) => sum.plus(above.unwrap_or(0)).bytes(),
            };
        }
    }

    /// The values a row above a piece, [`signed`] and [`parted`]; above the first row stands the smallest one.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn above<const HALF: bool>(out: &[[u8; 2]], at: usize, row: usize) -> [__m256i; 2] {
        let none: [u8; 2] = if HALF { [0xff; 2] } else { [0; 2] }; // is signed as the smallest
        let mut some = [none; PAIRS];
        let above = match at.checked_sub(row) {
            Some(above) => out[above..].first_chunk().unwrap_or(&some),
            None if at + PAIRS <= row => &some,
            None => {
                let missing = row - at;
                some[missing..].copy_from_slice(&out[..PAIRS - missing]);
                &some
            }
        };
        parted(above).map(|above| signed::<HALF>(above))
    }

    /// The next piece of folded differences, [`parted`].
    #[inline]
    #[target_feature(enable = "avx2")]
    fn piece(differences: &mut Differences<'_>, at: usize) -> [__m256i; 2] {
        match differences {
            Differences::Shuffled([low, high]) => match (low[at..].first_chunk(), high[at..].first_chunk()) {
                (Some(low), Some(high)) => pairs(low, high),
                _ => [_mm256_setzero_si256(); 2],
            },
            Differences::Split(groups) => match groups.next().map(|group| (group.upper.first_chunk(), group.lower)) {
                Some((Some(upper), lower)) => group(upper, lower),
                _ => [_mm256_setzero_si256(); 2],
            },
        }
    }

    /// The differences of a group, [`parted`].
    #[inline]
    #[target_feature(enable = "avx2")]
    fn group(upper: &[u8; PAIRS], lower: &[u8]) -> [__m256i; 2] {
        let zero = _mm256_setzero_si256();
        let upper: __m256i = must_cast(*upper);
        let halves = [_mm256_unpacklo_epi8(upper, zero), _mm256_unpackhi_epi8(upper, zero)];
        if let Some(lower) = lower.first_chunk::<PAIRS>() {
            return pairs(lower, &must_cast(upper));
        }
        let Some(lower) = lower.first_chunk::<16>() else { return halves };
        let lower: __m128i = must_cast(*lower);
        let four = _mm_set1_epi8(15);
        let both = _mm256_set_m128i(_mm_and_si128(_mm_srli_epi16(lower, 4), four), _mm_and_si128(lower, four));
        let lower = [_mm256_unpacklo_epi8(both, zero), _mm256_unpackhi_epi8(both, zero)];
        std::array::from_fn(|at| _mm256_or_si256(_mm256_slli_epi16(halves[at], 4), lower[at]))
    }

    /// The values of two bytes whose lower and higher ones these are, [`parted`].
    #[target_feature(enable = "avx2")]
    fn pairs(low: &[u8; PAIRS], high: &[u8; PAIRS]) -> [__m256i; 2] {
        let (low, high) = (must_cast(*low), must_cast(*high));
        [_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)]
    }

    /// Two registers of 32 values: 0 to 7 and 16 to 23, 8 to 15 and 24 to 31. So they come of bytes in two planes
    /// without a step from half to half, of which a processor does one at a time.
    #[target_feature(enable = "avx2")]
    fn parted(values: &[[u8; 2]; PAIRS]) -> [__m256i; 2] {
        let [a, b, c, d]: [__m128i; 4] = must_cast(*values);
        [_mm256_set_m128i(c, a), _mm256_set_m128i(d, b)]
    }

    /// The values of two registers that are [`parted`], in order.
    #[target_feature(enable = "avx2")]
    fn joined(first: __m256i, second: __m256i) -> [[u8; 2]; PAIRS] {
        let (a, b) = (_mm256_castsi256_si128(first), _mm256_castsi256_si128(second));
        must_cast([a, b, _mm256_extracti128_si256(first, 1), _mm256_extracti128_si256(second, 1)])
    }

    /// The bits of float16 as numbers with sign in the order of floats, or the other way round: both invert all bits of
    /// negative ones but the sign. Such numbers are `Word::ordered` ones less half of all; in a sum with one above it,
    /// that cancels out. Integers are left as they are.
    #[target_feature(enable = "avx2")]
    fn signed<const HALF: bool>(value: __m256i) -> __m256i {
        if !HALF {
            return value;
        }
        _mm256_xor_si256(value, _mm256_srli_epi16(_mm256_srai_epi16(value, 15), 1))
    }

    /// The running sums of the unfolded numbers in each half of a register.
    #[target_feature(enable = "avx2")]
    fn sums_of_halves(folded: __m256i) -> __m256i {
        // To the upper four values of a half, the last one of the lower four.
        let last_of_quarter = _mm256_set_epi64x(0x0706_0706_0706_0706, -1, 0x0706_0706_0706_0706, -1);
        let sign = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_and_si256(folded, _mm256_set1_epi16(1)));
        let sums = _mm256_xor_si256(_mm256_srli_epi16(folded, 1), sign);
        let sums = _mm256_add_epi16(sums, _mm256_slli_epi64(sums, 16));
        let sums = _mm256_add_epi16(sums, _mm256_slli_epi64(sums, 32)); // of each quarter
        _mm256_add_epi16(sums, _mm256_shuffle_epi8(sums, last_of_quarter))
    }

    /// The last value of each half, in every place of that half.
    #[target_feature(enable = "avx2")]
    fn last_of_halves(sums: __m256i) -> __m256i {
        _mm256_shuffle_epi8(sums, _mm256_set1_epi16(0x0f0e))
    }

    /// The running sum of bytes.
    #[target_feature(enable = "sse2")]
    pub(super) fn bytes_sum(folded: &[u8], out: &mut [[u8; 1]]) {
        let (pieces, rest) = out.as_flattened_mut().as_chunks_mut::<PIECE>();
        let (folded, folded_rest) = folded.as_chunks::<PIECE>();
        let mut sum = 0;
        for (folded, piece) in folded.iter().zip(pieces) {
            let folded: __m128i = must_cast(*folded);
            let sign = _mm_sub_epi8(_mm_setzero_si128(), _mm_and_si128(folded, _mm_set1_epi8(1)));
            let halved = _mm_and_si128(_mm_srli_epi16(folded, 1), _mm_set1_epi8(0x7f));
            let values = _mm_xor_si128(halved, sign);
            let values = _mm_add_epi8(values, _mm_slli_si128(values, 1));
            let values = _mm_add_epi8(values, _mm_slli_si128(values, 2));
            let values = _mm_add_epi8(values, _mm_slli_si128(values, 4));
            let values = _mm_add_epi8(values, _mm_slli_si128(values, 8));
            *piece = must_cast(_mm_add_epi8(values, _mm_set1_epi8(sum)));
            sum = piece[PIECE - 1].cast_signed();
        }
        let mut sum = sum.cast_unsigned();
        for (value, folded) in rest.iter_mut().zip(folded_rest) {
            sum = sum.plus(folded.unfolded());
            *value = sum;
        }
    }
}
