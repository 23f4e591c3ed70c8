//! The value that every voxel should have, from the definition of the volume's kind. Voxels are computed one at a time,
//! in f64, by code that is plain rather than fast.

use super::dtype::{Dtype, Rounding};
use super::source::SourceArray;
use crate::base::num::to_usize;
use crate::volume::{Axes, Preprocess, Recipe};

/// The value that a voxel should have.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedVoxel {
    /// The value before rounding, in the unit of the volume.
    pub value: f64,
    /// The number that the voxel should be.
    pub rounded: f64,
    /// The number that it should be if the steps before are done in f32, as NumPy does them for arrays of f32.
    pub in_f32: f64,
    /// Whether the voxel is padding around the volume.
    pub is_padding: bool,
}

/// Largest error of a resampled float16, where a unit in the last place is less.
const NEAR: f64 = 1e-6;

/// The voxels that one volume should have.
pub(super) struct Expected<'a> {
    source: &'a SourceArray,
    recipe: &'a Recipe,
    rounding: Rounding,
    /// Interpolation along height, width and depth, for each position of the result; none at padding. Empty unless the
    /// volume is preprocessed.
    weights: [Vec<Option<AxisWeights>>; 3],
    /// The padding.
    pad: ExpectedVoxel,
    /// Largest error, before rounding, of a resampled number that is not float16: the steps are done in f32.
    slack: f64,
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
    pub(super) fn new(source: &'a SourceArray, recipe: &'a Recipe, rounding: Rounding) -> Self {
        let (weights, pad_value, largest) = match recipe {
            Recipe::Preprocessed(steps) => {
                let from = hwd(steps.axes, source.shape());
                let axis = |axis: usize| {
                    axis_weights(from[axis], to_usize(steps.resampled[axis]), to_usize(steps.shape[axis]))
                };
                let [low, high] = steps.clip.map(f64::abs);
                ([axis(0), axis(1), axis(2)], steps.pad_value, low.max(high) / steps.divisor)
            }
            _ => (Default::default(), 0.0, 0.0),
        };
        let pad = ExpectedVoxel { is_padding: true, ..rounded(rounding, pad_value, pad_value) };
        // Some dozens of roundings, and what a number of the shard stands for.
        let step = rounding.value_of(1.0) - rounding.value_of(0.0);
        let slack = 32.0 * f64::from(f32::EPSILON) * largest / step;
        Self { source, recipe, rounding, weights, pad, slack }
    }

    /// Shape of the result: height, width and depth; of a stored volume, the axes of the source.
    pub(super) fn shape(&self) -> [usize; 3] {
        match self.recipe {
            Recipe::Stored => self.source.shape(),
            Recipe::Rescaled { axes, .. } => hwd(*axes, self.source.shape()),
            Recipe::Preprocessed(steps) => steps.shape.map(to_usize),
        }
    }

    /// Whether each voxel must be right to the bit. A resampled one may be off by as much as [`Self::is_near`] says.
    pub(super) fn is_exact(&self) -> bool {
        !self.recipe.kind().is_resampled()
    }

    /// The rounding of the voxels.
    pub(super) fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// Whether a number that was found is near what it should be: of float16, off by at most a unit in the last place
    /// of the larger one, or by [`NEAR`]; else by what the arithmetic in f32 is off before it is rounded.
    pub(super) fn is_near(&self, found: f64, voxel: &ExpectedVoxel) -> bool {
        let distance = (found - self.rounding.unrounded(voxel.value)).abs();
        match Dtype::planned(self.rounding.format) {
            Dtype::Float16 => {
                const SMALLEST: f64 = 1.0 / 16_384.0; // of those that are not subnormal
                let exponent = found.abs().max(voxel.rounded.abs()).max(SMALLEST).log2().floor();
                (found - voxel.rounded).abs() <= (exponent - 10.0).exp2().max(NEAR)
            }
            Dtype::Float32 => distance <= self.slack,
            Dtype::Int16 | Dtype::Uint8 => distance <= 0.5 + self.slack,
        }
    }

    /// The voxel at a position of the result.
    pub(super) fn voxel(&self, place: [usize; 3]) -> ExpectedVoxel {
        match self.recipe {
            Recipe::Stored => {
                let value = self.source.at(place);
                // f64 cannot hold every integer of 64 bits, so that float32 would be rounded twice.
                let in_f32 = match Dtype::planned(self.rounding.format) {
                    Dtype::Float16 => value,
                    _ => f64::from(self.source.in_f32(place)),
                };
                rounded(self.rounding, value, in_f32)
            }
            Recipe::Rescaled { slope, intercept, axes } => {
                let place = source_place(*axes, place);
                #[expect(clippy::cast_possible_truncation, reason = "meant: NumPy's arithmetic")]
                let in_f32 = self.source.in_f32(place) * *slope as f32 + *intercept as f32;
                let value = self.source.at(place);
                if (*slope, *intercept) == (1.0, 0.0) {
                    return rounded(self.rounding, value, f64::from(self.source.in_f32(place))); // -0.0 stays
                }
                rounded(self.rounding, slope * value + intercept, f64::from(in_f32))
            }
            Recipe::Preprocessed(steps) => self.preprocessed(steps, place),
        }
    }

    /// Trilinear interpolation between eight values in HU that were clipped; the result is divided.
    fn preprocessed(&self, steps: &Preprocess, place: [usize; 3]) -> ExpectedVoxel {
        let [Some(h), Some(w), Some(d)] = [0, 1, 2].map(|axis| self.weights[axis][place[axis]]) else {
            return self.pad;
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
        rounded(self.rounding, value, value)
    }
}

/// A voxel of the volume from its value in f64 and its value in f32.
fn rounded(rounding: Rounding, value: f64, in_f32: f64) -> ExpectedVoxel {
    let (rounded, in_f32) = (rounding.round(value), rounding.round_f32(in_f32));
    ExpectedVoxel { value, rounded, in_f32, is_padding: false }
}

impl AxisWeights {
    /// Both positions with their weights; the lower one alone where they are one.
    fn positions(self) -> impl Iterator<Item = (usize, f64)> {
        let count = if self.upper_weight == 0.0 && self.upper == self.lower { 1 } else { 2 };
        [(self.lower, 1.0 - self.upper_weight), (self.upper, self.upper_weight)].into_iter().take(count)
    }
}

/// The shape of a source as height, width and depth.
pub(super) fn hwd<T>(axes: Axes, shape: [T; 3]) -> [T; 3] {
    let [a, b, c] = shape;
    match axes {
        Axes::Hwd => [a, b, c],
        Axes::Hdw => [a, c, b],
        Axes::Whd => [b, a, c],
        Axes::Wdh => [c, a, b],
        Axes::Dhw => [b, c, a],
        Axes::Dwh => [c, b, a],
    }
}

/// The position in the source of a height, width and depth.
pub(super) fn source_place<T>(axes: Axes, [h, w, d]: [T; 3]) -> [T; 3] {
    match axes {
        Axes::Hwd => [h, w, d],
        Axes::Hdw => [h, d, w],
        Axes::Whd => [w, h, d],
        Axes::Wdh => [w, d, h],
        Axes::Dhw => [d, h, w],
        Axes::Dwh => [d, w, h],
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
