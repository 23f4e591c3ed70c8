//! The value that every voxel should have, from the definition of the volume's kind. Voxels are computed one at a time,
//! in f64, by code that is plain rather than fast.

use half::f16;

use super::source::SourceArray;
use crate::base::num::to_usize;
use crate::volume::{Axes, Overflow, Preprocess, Recipe};

/// The value that a voxel should have.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedVoxel {
    /// The value before rounding to float16.
    pub value: f64,
    /// The value rounded to float16.
    pub rounded: f16,
    /// The value rounded to float16 if the steps before are done in f32, as NumPy does them for arrays of f32.
    pub in_f32: f16,
    /// Whether the voxel is padding around the volume.
    pub is_padding: bool,
}

/// The voxels that one volume should have.
pub(super) struct Expected<'a> {
    source: &'a SourceArray,
    recipe: &'a Recipe,
    overflow: Overflow,
    /// Interpolation along height, width and depth, for each position of the result; none at padding. Empty unless the
    /// volume is preprocessed.
    weights: [Vec<Option<AxisWeights>>; 3],
    /// The value of padding.
    pad: f16,
}

/// Linear interpolation along one axis: two positions of the source and the weight of the upper one.
#[derive(Clone, Copy, Debug)]
struct AxisWeights {
    lower: usize,
    upper: usize,
    /// From 0 to 1; the weight of the lower position is the rest.
    upper_weight: f64,
}

impl<'a> Expected<'a> {
    /// The voxels that `recipe` makes of `source`.
    pub(super) fn new(source: &'a SourceArray, recipe: &'a Recipe, overflow: Overflow) -> Self {
        let (weights, pad) = match recipe {
            Recipe::Preprocessed(steps) => {
                let from = hwd(steps.axes, source.shape());
                let axis = |axis: usize| {
                    axis_weights(from[axis], to_usize(steps.resampled[axis]), to_usize(steps.shape[axis]))
                };
                ([axis(0), axis(1), axis(2)], nearest(steps.pad_value))
            }
            _ => (Default::default(), f16::ZERO),
        };
        Self { source, recipe, overflow, weights, pad }
    }

    /// Shape of the result: height, width and depth; of a stored volume, the axes of the source.
    pub(super) fn shape(&self) -> [usize; 3] {
        match self.recipe {
            Recipe::Stored => self.source.shape(),
            Recipe::Rescaled { axes, .. } => hwd(*axes, self.source.shape()),
            Recipe::Preprocessed(steps) => steps.shape.map(to_usize),
        }
    }

    /// Whether each voxel must be right to the bit. A resampled voxel may be off by a unit in the last place.
    pub(super) fn is_exact(&self) -> bool {
        !matches!(self.recipe, Recipe::Preprocessed(_))
    }

    /// The voxel at a position of the result.
    pub(super) fn voxel(&self, place: [usize; 3]) -> ExpectedVoxel {
        match self.recipe {
            Recipe::Stored => {
                let value = self.source.at(place);
                self.rounded(value, value)
            }
            Recipe::Rescaled { slope, intercept, axes } => {
                let place = source_place(*axes, place);
                #[expect(clippy::cast_possible_truncation, reason = "meant: NumPy's arithmetic")]
                let in_f32 = self.source.in_f32(place) * *slope as f32 + *intercept as f32;
                self.rounded(slope * self.source.at(place) + intercept, f64::from(in_f32))
            }
            Recipe::Preprocessed(steps) => self.preprocessed(steps, place),
        }
    }

    /// A voxel of the volume from its value in f64 and its value in f32.
    fn rounded(&self, value: f64, in_f32: f64) -> ExpectedVoxel {
        let rounded = self.round(value);
        let in_f32 = if value.to_bits() == in_f32.to_bits() { rounded } else { self.round(in_f32) };
        ExpectedVoxel { value, rounded, in_f32, is_padding: false }
    }

    /// Rounds to float16, and treats overflow as the options say.
    fn round(&self, value: f64) -> f16 {
        let rounded = nearest(value);
        if self.overflow == Overflow::Saturate && rounded.is_infinite() && value.is_finite() {
            return if value > 0.0 { f16::MAX } else { f16::MIN };
        }
        rounded
    }

    /// Trilinear interpolation between eight values in HU that were clipped; the result is divided.
    fn preprocessed(&self, steps: &Preprocess, place: [usize; 3]) -> ExpectedVoxel {
        let [Some(h), Some(w), Some(d)] = [0, 1, 2].map(|axis| self.weights[axis][place[axis]]) else {
            return ExpectedVoxel { value: self.pad.to_f64(), rounded: self.pad, in_f32: self.pad, is_padding: true };
        };
        let [low, high] = steps.clip;
        let at = |h, w, d| {
            let x = self.source.at(source_place(steps.axes, [h, w, d]));
            (steps.slope * x + steps.intercept).clamp(low, high)
        };
        let mut sum = 0.0;
        for (h, a) in h.positions() {
            for (w, b) in w.positions() {
                for (d, c) in d.positions() {
                    sum += a * b * c * at(h, w, d); // a weight of 0 counts: PyTorch makes NaN of a NaN
                }
            }
        }
        let value = sum / steps.divisor;
        self.rounded(value, value)
    }
}

impl AxisWeights {
    /// Both positions with their weights; the lower one alone where they are one.
    fn positions(self) -> impl Iterator<Item = (usize, f64)> {
        let count = if self.upper_weight == 0.0 && self.upper == self.lower { 1 } else { 2 };
        [(self.lower, 1.0 - self.upper_weight), (self.upper, self.upper_weight)].into_iter().take(count)
    }
}

/// The shape of a source as height, width and depth.
fn hwd(axes: Axes, shape: [usize; 3]) -> [usize; 3] {
    match axes {
        Axes::Hwd => shape,
        Axes::Dhw => [shape[1], shape[2], shape[0]],
    }
}

/// The position in the source of a height, width and depth.
fn source_place(axes: Axes, [h, w, d]: [usize; 3]) -> [usize; 3] {
    match axes {
        Axes::Hwd => [h, w, d],
        Axes::Dhw => [d, h, w],
    }
}

/// Interpolation along an axis of `source` voxels that is resampled to `resampled` voxels, then cropped or padded to
/// `len` around the middle. Half-pixel centres, as PyTorch's `F.interpolate(align_corners=False)` defines them; the
/// scale is computed in f32, as PyTorch does. An axis that keeps its length has one position for each voxel.
fn axis_weights(source: usize, resampled: usize, len: usize) -> Vec<Option<AxisWeights>> {
    let start = resampled.saturating_sub(len) / 2;
    let before = len.saturating_sub(resampled) / 2;
    let scale = f64::from(source as f32 / resampled as f32);
    let weights = |at: usize| {
        let at = at.checked_sub(before)? + start;
        if at >= resampled {
            return None;
        }
        let place = (scale * (at as f64 + 0.5) - 0.5).max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `source`")]
        let lower = (place.floor() as usize).min(source - 1);
        Some(AxisWeights {
            lower,
            upper: if source == resampled { lower } else { (lower + 1).min(source - 1) },
            upper_weight: (place - lower as f64).clamp(0.0, 1.0),
        })
    };
    (0..len).map(weights).collect()
}

/// The float16 nearest to a value, ties to even; infinite beyond the largest float16. Computed from the definition: two
/// neighbours are 2⁻¹⁰ of the power of two below them apart, and 2⁻²⁴ near 0.
pub(super) fn nearest(value: f64) -> f16 {
    if !value.is_finite() {
        return f16::from_f64(value);
    }
    let exponent = (value.to_bits() >> 52 & 0x7ff).max(1023 - 14);
    let apart = f64::from_bits((exponent - 10) << 52);
    // A multiple of `apart` of eleven bits or a power of two: this conversion cannot round.
    f16::from_f64((value / apart).round_ties_even() * apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_its_own_nearest_and_so_is_what_lies_closer_to_it() {
        let halves: Vec<f16> = (0..=f16::MAX.to_bits()).map(f16::from_bits).collect();
        for pair in halves.windows(2) {
            let [low, high] = [pair[0].to_f64(), pair[1].to_f64()];
            let middle = (low + high) / 2.0;
            let even = if pair[0].to_bits() % 2 == 0 { pair[0] } else { pair[1] };
            for sign in [1.0, -1.0] {
                let near = |value: f64| nearest(sign * value).to_f64() * sign;
                assert_eq!(near(low), low);
                assert_eq!(near(middle), even.to_f64());
                assert_eq!((near(middle.next_down()), near(middle.next_up())), (low, high));
            }
        }
        assert_eq!(nearest(65_519.999), f16::MAX);
        assert_eq!((nearest(65_520.0), nearest(-1e9)), (f16::INFINITY, f16::NEG_INFINITY));
        assert!(nearest(f64::NAN).is_nan());
        assert_eq!(nearest(-0.0).to_bits(), 0x8000);
    }
}
