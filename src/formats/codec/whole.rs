//! Float16 that are whole numbers, as integers of two bytes. Pure.
//!
//! The bits of whole numbers as float16 end with as many zeros as the number is small. Differences of such bits carry
//! from one number of zeros into another, and take more room than those of the numbers: stored values of a phantom
//! with noise of 12 HU took 1.6 times as much.
//!
//! The integer of a number is its magnitude, which is below 32,768; of a negative one, the negative zero too, all bits
//! are inverted. So integers have the order of the numbers.
//!
//! `unsafe` is the promise that the processor has the instructions, made after a look at the processor; the functions
//! read and write slices alone. The test compares every float16 with the definition, in each place of a register.

use half::f16;

const SIGN: u16 = 0x8000;

/// Writes the values of a block of float16 as integers into `out`, which is as long. False if one has none.
pub(super) fn to_integers(block: &[u8], out: &mut [u8]) -> bool {
    let (values, out) = (block.as_chunks::<2>().0, out.as_chunks_mut::<2>().0);
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has the features.
        let done = unsafe { x86::to_integers(values, out) };
        return done.is_some_and(|done| to_integers_portably(&values[done..], &mut out[done..]));
    }
    to_integers_portably(values, out)
}

/// [`to_integers`] on every processor.
fn to_integers_portably(values: &[[u8; 2]], out: &mut [[u8; 2]]) -> bool {
    values.iter().zip(out).all(|(value, out)| {
        let bits = u16::from_le_bytes(*value);
        let float = f16::from_bits(bits & !SIGN).to_f32();
        // A float that is added to this has its whole number in its lowest bits, if it is below 2²².
        let [low, high, ..] = (float + (3 << 22) as f32).to_bits().to_le_bytes();
        let magnitude = i16::from_le_bytes([low, high]);
        let is_negative = bits.cast_signed() >> 15; // all bits, or none
        *out = (magnitude ^ is_negative).to_le_bytes();
        f32::from(magnitude).to_bits() == float.to_bits()
    })
}

/// Writes the float16 in place of the integers that [`to_integers`] made of them.
pub(super) fn to_halves(values: &mut [u8]) {
    let values = values.as_chunks_mut::<2>().0;
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has the features.
        let rest = unsafe { x86::to_halves(values) };
        return to_halves_portably(rest);
    }
    to_halves_portably(values);
}

/// [`to_halves`] on every processor.
fn to_halves_portably(values: &mut [[u8; 2]]) {
    for bytes in values {
        let integer = i16::from_le_bytes(*bytes);
        let half = f16::from_f32(f32::from(integer ^ (integer >> 15))).to_bits();
        *bytes = (half | integer.cast_unsigned() & SIGN).to_le_bytes();
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_andnot_si128, _mm_or_si128, _mm_packs_epi32, _mm_set1_epi16, _mm_srai_epi16,
        _mm_xor_si128, _mm256_castps_si256, _mm256_castsi256_si128, _mm256_cvtepi16_epi32, _mm256_cvtepi32_ps,
        _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_cvttps_epi32, _mm256_extracti128_si256, _mm256_or_si256,
        _mm256_setzero_si256, _mm256_testz_si256, _mm256_xor_si256,
    };

    use bytemuck::must_cast;

    /// The pieces of eight values after which is looked whether one has no integer.
    const LOOK: usize = 64;

    /// Eight values at a time; returns how many there were, `None` if one has no integer. Through arrays of floats, as
    /// the crate `half` has it, this took 60 µs more for 256 KiB.
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn to_integers(values: &[[u8; 2]], out: &mut [[u8; 2]]) -> Option<usize> {
        let (pieces, sign) = (values.as_chunks::<8>().0, _mm_set1_epi16(i16::MIN));
        let outs = out.as_chunks_mut::<8>().0;
        for (pieces, outs) in pieces.chunks(LOOK).zip(outs.chunks_mut(LOOK)) {
            let mut wrong = _mm256_setzero_si256();
            for (piece, out) in pieces.iter().zip(outs) {
                let halves: __m128i = must_cast(*piece);
                let floats = _mm256_cvtph_ps(_mm_andnot_si128(sign, halves));
                let numbers = _mm256_cvttps_epi32(floats); // too large ones, and those that are none, become others
                let (low, high) = (_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
                let magnitudes = _mm_packs_epi32(low, high);
                let back = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(magnitudes));
                let differs = _mm256_xor_si256(_mm256_castps_si256(back), _mm256_castps_si256(floats));
                wrong = _mm256_or_si256(wrong, differs);
                *out = must_cast(_mm_xor_si128(magnitudes, _mm_srai_epi16(halves, 15)));
            }
            if _mm256_testz_si256(wrong, wrong) == 0 {
                return None;
            }
        }
        Some(pieces.len() * 8)
    }

    /// Eight values at a time; returns the rest. Of the crate `half`, which calls a function for each eight, this took
    /// more than twice the time.
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn to_halves(values: &mut [[u8; 2]]) -> &mut [[u8; 2]] {
        let (pieces, rest) = values.as_chunks_mut::<8>();
        for piece in pieces {
            let integers: __m128i = must_cast(*piece);
            let magnitudes = _mm_xor_si128(integers, _mm_srai_epi16(integers, 15));
            let halves = _mm256_cvtps_ph(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(magnitudes)), 0);
            *piece = must_cast(_mm_or_si128(halves, _mm_and_si128(integers, _mm_set1_epi16(i16::MIN))));
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_come_back_and_all_others_are_told_apart() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            let number = f64::from(value);
            let is_whole = number.fract() == 0.0 && number.abs() < 32768.0;
            let mut out = [0; 2];
            assert_eq!(to_integers(&bits.to_le_bytes(), &mut out), is_whole, "{value}");
            // At each place of eight, and behind them.
            for place in 0..9 {
                let (mut many, mut integers) = ([[0; 2]; 9], [[0xaa; 2]; 9]);
                many[place] = bits.to_le_bytes();
                assert_eq!(to_integers(many.as_flattened(), integers.as_flattened_mut()), is_whole, "{value}");
                assert!(!is_whole || integers[place] == out, "{value}");
            }
            if is_whole {
                let integer = i16::from_le_bytes(out);
                let magnitude = if value.is_sign_negative() { !integer } else { integer };
                assert!(f64::from(magnitude) == number.abs(), "{value} became {integer}");
                // In place of each of eight, and of one alone.
                let mut many = [out; 9];
                to_halves(many.as_flattened_mut());
                assert_eq!(many, [bits.to_le_bytes(); 9]);
            }
        }
    }
}
