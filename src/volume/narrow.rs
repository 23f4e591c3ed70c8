//! f32 values to float16 in one pass over them: mapped, checked and rounded while they are in registers. The scan for
//! values that do not fit and the map would otherwise take as long as the conversion.

use half::f16;

/// A linear map in f32: x becomes slope · x + intercept.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearF32 {
    /// The slope.
    pub slope: f32,
    /// The intercept.
    pub intercept: f32,
}

impl LinearF32 {
    /// The mapped value, rounded as by NumPy: twice, never fused.
    #[inline] // else loops of other modules call it for each value, ten times as slow
    pub(super) fn apply(self, x: f32) -> f32 {
        x * self.slope + self.intercept
    }
}

/// The bits of the largest magnitude that rounds to a finite float16: the last f32 below 65520. The bits of magnitudes
/// are ordered like the numbers, with infinity and NaN above them all.
const LARGEST: u32 = 0x477f_efff;
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Converts `source` to `voxels`, after `map` if there is one. False if a value is infinite, NaN or rounds beyond
/// ±65504; `voxels` is then unspecified, because the processor's instruction treats such values otherwise than NumPy.
pub(super) fn narrow(source: &[f32], map: Option<LinearF32>, voxels: &mut [f16]) -> bool {
    debug_assert_eq!(source.len(), voxels.len());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has both features.
        return unsafe { x86::narrow(source, map, voxels) };
    }
    portable(source, map, voxels)
}

/// The portable definition: one value after the other.
fn portable(source: &[f32], map: Option<LinearF32>, voxels: &mut [f16]) -> bool {
    let mut excess = 0;
    for (x, voxel) in source.iter().zip(voxels) {
        let x = map.map_or(*x, |map| map.apply(*x));
        excess |= LARGEST.wrapping_sub(x.to_bits() & MAGNITUDE); // bit 31 where the magnitude is larger
        *voxel = f16::from_f32(x);
    }
    excess >> 31 == 0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256, _MM_FROUND_TO_NEAREST_INT, _mm256_add_ps, _mm256_and_si256, _mm256_castps_si256,
        _mm256_castsi256_ps, _mm256_cvtps_ph, _mm256_movemask_ps, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi32,
        _mm256_set1_ps, _mm256_setzero_si256, _mm256_sub_epi32,
    };

    use half::f16;

    use super::{LARGEST, LinearF32, MAGNITUDE};

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn narrow(source: &[f32], map: Option<LinearF32>, voxels: &mut [f16]) -> bool {
        let mapped = map.map(|map| (_mm256_set1_ps(map.slope), _mm256_set1_ps(map.intercept)));
        // Two loops, because the map is not the identity for 1 and 0: it makes +0 of -0.
        let all_fit = match mapped {
            None => convert(source, voxels, |x| x),
            Some((slope, intercept)) => convert(source, voxels, |x| _mm256_add_ps(_mm256_mul_ps(x, slope), intercept)),
        };
        let rest = source.len() / 8 * 8;
        super::portable(&source[rest..], map, &mut voxels[rest..]) && all_fit
    }

    /// Converts all whole groups of eight.
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    fn convert(source: &[f32], voxels: &mut [f16], map: impl Fn(__m256) -> __m256) -> bool {
        let (magnitude, largest) =
            (_mm256_set1_epi32(MAGNITUDE.cast_signed()), _mm256_set1_epi32(LARGEST.cast_signed()));
        let mut excess = _mm256_setzero_si256();
        for (x, voxels) in source.as_chunks::<8>().0.iter().zip(voxels.as_chunks_mut::<8>().0) {
            let x = map(bytemuck::must_cast(*x));
            let too_large = _mm256_sub_epi32(largest, _mm256_and_si256(_mm256_castps_si256(x), magnitude));
            excess = _mm256_or_si256(excess, too_large);
            let halves: __m128i = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
            *voxels = bytemuck::must_cast(halves);
        }
        _mm256_movemask_ps(_mm256_castsi256_ps(excess)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every float16, its neighbours in f32 and the ties between, in every place of a group, whole and with a rest.
    #[test]
    fn equals_the_definition() {
        let mut values: Vec<f32> = (0..=u16::MAX)
            .map(|bits| f16::from_bits(bits).to_f32())
            .filter(|x| x.is_finite())
            .flat_map(|x| [x, x.next_up(), x.next_down(), x + x * 2f32.powi(-11)])
            .filter(|x| x.abs() < 65_520.0)
            .collect();
        for map in
            [None, Some(LinearF32 { slope: 1.0, intercept: 0.0 }), Some(LinearF32 { slope: 0.37, intercept: -1024.5 })]
        {
            for _ in 0..9 {
                values.pop();
                let (mut fast, mut slow) = (vec![f16::ZERO; values.len()], vec![f16::ZERO; values.len()]);
                assert!(narrow(&values, map, &mut fast) && portable(&values, map, &mut slow));
                assert!(fast.iter().zip(&slow).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_seen_in_every_place() {
        for len in [1usize, 7, 8, 9, 16, 31] {
            for at in 0..len {
                for bad in [65_520.0, -65_520.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
                    let (mut values, mut voxels) = (vec![65_519.99; len], vec![f16::ZERO; len]);
                    assert!(narrow(&values, None, &mut voxels));
                    values[at] = bad;
                    assert!(!narrow(&values, None, &mut voxels), "{bad} at {at} of {len}");
                    let map = LinearF32 { slope: 0.5, intercept: 0.0 };
                    values[at] = bad * 2.0;
                    assert!(!narrow(&values, Some(map), &mut voxels), "{bad} at {at} of {len}, mapped");
                }
            }
        }
    }
}
