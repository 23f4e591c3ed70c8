//! What every voxel should be, from the definition of its kind: one at a time, in f64, slow and plain.

use half::f16;

use super::source::Source;
use crate::base::num::to_usize;
use crate::volume::{Axes, Overflow, Preprocess, Recipe};

/// A voxel as it should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voxel {
    /// Before it is rounded to float16.
    pub value: f64,
    /// After it.
    pub rounded: f16,
    /// The same where the steps before are done in f32, as NumPy does them for arrays of f32.
    pub in_f32: f16,
    /// Whether only what is around the volume.
    pub padding: bool,
}

/// The voxels of one volume.
pub(super) struct Expected<'a> {
    source: &'a Source,
    recipe: &'a Recipe,
    overflow: Overflow,
    /// Of height, width and depth, where there are steps.
    taps: [Vec<Option<HashingReader>>; 3],
    pad: f16,
}

/// Two voxels of the source and the weight of the second.
#[derive(Clone, Copy, Debug)]
struct HashingReader {
    lower: usize,
    upper: usize,
    weight: f64,
}

impl<'a> Expected<'a> {
    pub(super) fn new(source: &'a Source, recipe: &'a Recipe, overflow: Overflow) -> Self {
        let (taps, pad) = match recipe {
            Recipe::Preprocessed(steps) => {
                let from = hwd(steps.axes, source.shape());
                let axis = |axis: usize| taps(from[axis], to_usize(steps.resampled[axis]), to_usize(steps.shape[axis]));
                ([axis(0), axis(1), axis(2)], nearest(steps.pad_value))
            }
            _ => (Default::default(), f16::ZERO),
        };
        Self { source, recipe, overflow, taps, pad }
    }

    /// The shape of the result.
    pub(super) fn shape(&self) -> [usize; 3] {
        match self.recipe {
            Recipe::Stored => self.source.shape(),
            Recipe::Rescaled { axes, .. } => hwd(*axes, self.source.shape()),
            Recipe::Preprocessed(steps) => steps.shape.map(to_usize),
        }
    }

    /// Whether each voxel must be right to the bit; a resampled one may be off by a unit.
    pub(super) fn is_exact(&self) -> bool {
        !matches!(self.recipe, Recipe::Preprocessed(_))
    }

    /// One voxel.
    pub(super) fn voxel(&self, place: [usize; 3]) -> Voxel {
        match self.recipe {
            Recipe::Stored => {
                let value = self.source.at(place);
                self.both(value, value)
            }
            Recipe::Rescaled { slope, intercept, axes } => {
                let x = self.source.at(source_place(*axes, place));
                #[expect(clippy::cast_possible_truncation, reason = "meant: NumPy's arithmetic")]
                let in_f32 = x as f32 * *slope as f32 + *intercept as f32;
                self.both(slope * x + intercept, f64::from(in_f32))
            }
            Recipe::Preprocessed(steps) => self.preprocessed(steps, place),
        }
    }

    fn both(&self, value: f64, in_f32: f64) -> Voxel {
        let rounded = self.round(value);
        let in_f32 = if value.to_bits() == in_f32.to_bits() { rounded } else { self.round(in_f32) };
        Voxel { value, rounded, in_f32, padding: false }
    }

    fn round(&self, value: f64) -> f16 {
        let rounded = nearest(value);
        if self.overflow == Overflow::Saturate && rounded.is_infinite() && value.is_finite() {
            return if value > 0.0 { f16::MAX } else { f16::MIN };
        }
        rounded
    }

    /// Trilinear between eight values in HU that were clipped, then divided.
    fn preprocessed(&self, steps: &Preprocess, place: [usize; 3]) -> Voxel {
        let [Some(h), Some(w), Some(d)] = [0, 1, 2].map(|axis| self.taps[axis][place[axis]]) else {
            return Voxel { value: self.pad.to_f64(), rounded: self.pad, in_f32: self.pad, padding: true };
        };
        let [low, high] = steps.clip;
        let at = |h, w, d| {
            let x = self.source.at(source_place(steps.axes, [h, w, d]));
            (steps.slope * x + steps.intercept).clamp(low, high)
        };
        let mut sum = 0.0;
        for (h, a) in h.both() {
            for (w, b) in w.both() {
                for (d, c) in d.both() {
                    let weight = a * b * c;
                    if weight != 0.0 {
                        sum += weight * at(h, w, d);
                    }
                }
            }
        }
        let value = sum / steps.divisor;
        self.both(value, value)
    }
}

impl HashingReader {
    fn both(self) -> [(usize, f64); 2] {
        [(self.lower, 1.0 - self.weight), (self.upper, self.weight)]
    }
}

fn hwd(axes: Axes, shape: [usize; 3]) -> [usize; 3] {
    match axes {
        Axes::Hwd => shape,
        Axes::Dhw => [shape[1], shape[2], shape[0]],
    }
}

fn source_place(axes: Axes, [h, w, d]: [usize; 3]) -> [usize; 3] {
    match axes {
        Axes::Hwd => [h, w, d],
        Axes::Dhw => [d, h, w],
    }
}

/// Half-pixel centres, as `F.interpolate(align_corners=False)` defines them, which computes the scale in f32; then the
/// crop and the padding around the middle.
fn taps(source: usize, resampled: usize, len: usize) -> Vec<Option<HashingReader>> {
    let start = resampled.saturating_sub(len) / 2;
    let before = len.saturating_sub(resampled) / 2;
    let scale = f64::from(source as f32 / resampled as f32);
    let tap = |at: usize| {
        let at = at.checked_sub(before)? + start;
        if at >= resampled {
            return None;
        }
        let place = (scale * (at as f64 + 0.5) - 0.5).max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `source`")]
        let lower = (place.floor() as usize).min(source - 1);
        Some(HashingReader {
            lower,
            upper: (lower + 1).min(source - 1),
            weight: (place - lower as f64).clamp(0.0, 1.0),
        })
    };
    (0..len).map(tap).collect()
}

/// The float16 nearest to a value, ties to even; infinite beyond the largest. By its definition: neighbours are 2⁻¹⁰ of
/// the power of two below them apart, and 2⁻²⁴ near 0.
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
