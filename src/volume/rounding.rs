//! f32 values to whole numbers, rounded half to even: mapped, checked and rounded in one pass over them.
//!
//! Rounding is by addition: a magnitude below 2²² plus 1.5 · 2²³ has the nearest whole number in its last bits, ties to
//! even, as every f32 sum is rounded. The compiler turns that into instructions for several values at a time, which
//! `round_ties_even` is not on a processor without SSE4.1.

use super::narrow::LinearF32;

/// 1.5 · 2²³.
const MAGIC: f32 = 12_582_912.0;

/// The whole number nearest to `x`, if its magnitude is below 2²²; else one that int16 cannot hold.
#[inline]
fn whole(x: f32) -> i32 {
    (x + MAGIC).to_bits().cast_signed().wrapping_sub(MAGIC.to_bits().cast_signed())
}

/// The map from a window of values to 0 to 255, in f32 and in the order in which NumPy computes
/// `(np.clip(x, low, high) - low) / (high - low) * 255` for an array of f32 and Python floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowF32 {
    low: f32,
    high: f32,
    width: f32,
}

impl WindowF32 {
    /// The map for a window, which is not empty in f32.
    #[expect(clippy::cast_possible_truncation, reason = "meant: NumPy's arithmetic")]
    pub(super) fn new([low, high]: [f64; 2]) -> Self {
        Self { low: low as f32, high: high as f32, width: (high - low) as f32 }
    }

    /// The voxel of a value before rounding; NaN of NaN.
    #[inline]
    pub(super) fn apply(self, x: f32) -> f32 {
        (x.clamp(self.low, self.high) - self.low) / self.width * 255.0
    }
}

/// Rounds `source` to `voxels`, after `map` if there is one. False if a value is NaN or rounds beyond int16; `voxels`
/// is then unspecified.
pub(super) fn to_i16(source: &[f32], map: Option<LinearF32>, voxels: &mut [i16]) -> bool {
    match map {
        None => rounded(source, voxels, |x| x),
        Some(map) => rounded(source, voxels, |x| map.apply(x)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "in range, or the result is thrown away")]
fn rounded(source: &[f32], voxels: &mut [i16], map: impl Fn(f32) -> f32) -> bool {
    let mut excess = 0;
    for (x, voxel) in source.iter().zip(voxels) {
        let whole = whole(map(*x));
        // Of values that are too large for `whole`, of infinities and of NaN, too, the bits give nothing in range.
        excess |= whole.wrapping_add(1 << 15) & !0xffff;
        *voxel = whole as i16;
    }
    excess == 0
}

/// Maps a window of `source` to `voxels`, after `map` if there is one. False if a value is NaN; `voxels` is then
/// unspecified.
pub(super) fn to_u8(source: &[f32], map: Option<LinearF32>, window: WindowF32, voxels: &mut [u8]) -> bool {
    match map {
        None => windowed(source, voxels, |x| window.apply(x)),
        Some(map) => windowed(source, voxels, |x| window.apply(map.apply(x))),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255, or thrown away")]
fn windowed(source: &[f32], voxels: &mut [u8], map: impl Fn(f32) -> f32) -> bool {
    let mut all_fit = true;
    for (x, voxel) in source.iter().zip(voxels) {
        let x = map(*x);
        all_fit &= !x.is_nan();
        *voxel = whole(x) as u8;
    }
    all_fit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every half of a whole number of int16 and its neighbours, against the standard library's rounding.
    #[test]
    fn equals_the_definition() {
        let halves = (-65_537..=65_535).map(|n| n as f32 / 2.0);
        let values: Vec<f32> = halves.flat_map(|x| [x, x.next_up(), x.next_down()]).collect();
        let values: Vec<f32> = values.into_iter().filter(|x| (-32_768.5..32_767.5).contains(x)).collect();
        let mut voxels = vec![0; values.len()];
        assert!(to_i16(&values, None, &mut voxels));
        for (x, voxel) in values.iter().zip(&voxels) {
            assert_eq!(f32::from(*voxel), x.round_ties_even(), "{x}");
        }
        let map = LinearF32 { slope: 0.37, intercept: -12.5 };
        assert!(to_i16(&values, Some(map), &mut voxels));
        assert!(values.iter().zip(&voxels).all(|(x, voxel)| f32::from(*voxel) == map.apply(*x).round_ties_even()));
    }

    #[test]
    fn what_int16_cannot_hold_is_seen_in_every_place() {
        for len in [1usize, 7, 8, 9, 16, 31] {
            for at in 0..len {
                let mut values = vec![32_767.49; len];
                let mut voxels = vec![0; len];
                assert!(to_i16(&values, None, &mut voxels) && voxels[at] == 32_767);
                for bad in [
                    32_767.5,
                    -32_768.51,
                    4e6,
                    -5e6,
                    1e7,
                    -1.3e7,
                    1e9,
                    -1e30,
                    f32::MAX,
                    f32::MIN,
                    f32::INFINITY,
                    f32::NEG_INFINITY,
                    f32::NAN,
                    -f32::NAN,
                ] {
                    values[at] = bad;
                    assert!(!to_i16(&values, None, &mut voxels), "{bad} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn a_window_is_mapped_and_clipped() {
        let window = WindowF32::new([-160.0, 240.0]);
        let values = [f32::NEG_INFINITY, -1000.0, -160.0, 40.0, 239.0, 240.0, 3000.0, f32::INFINITY];
        let mut voxels = [0; 8];
        assert!(to_u8(&values, None, window, &mut voxels));
        assert_eq!(voxels, [0, 0, 0, 128, 254, 255, 255, 255]); // 127.5 is a tie
        assert!(!to_u8(&[0.0, f32::NAN], None, window, &mut voxels[..2]));
    }
}
