//! The texts that digests of shards and plans are made of. Pure.
//!
//! The texts are part of the formats on disk: manifests, journals and lists of reclaimed volumes hold digests that were
//! made of them, and a plan finds its finished shards by these digests. So each text is written out here and pinned by
//! the tests below. A renamed type, variant or field changes no text; a text must never change.
//!
//! | type | text |
//! |---|---|
//! | [`Profile`] | `Ctclip`, `Npy` |
//! | [`Overflow`] | `Error`, `Saturate`, `Inf` |
//! | [`Axes`] | `Hwd`, `Hdw`, `Whd`, `Wdh`, `Dhw`, `Dwh` |
//! | `bool` | `true`, `false` |
//! | `u64` | decimal digits |
//! | `f64` | see below |
//! | list | `[512, 512, 300]`; `[]` for an empty one |
//! | [`Recipe`] | `Stored`; `Rescaled { slope: 1.0, … }`; `Preprocessed(Preprocess { slope: 1.0, … })` |
//! | [`VoxelFormat`] | `Voxels Float16`, `Voxels Float32`, `Voxels Int16`, `Voxels Uint8 [-160.0, 240.0]` |
//!
//! A float is the shortest decimal number that reads back as the same `f64`. If it is 0 or its magnitude is from 1e-4
//! to below 1e16, it is written without an exponent and with at least one digit behind the point: `1.0`, `-0.0`,
//! `0.0001`. Any other is written with an exponent, and with a point only if there is more than one digit: `1e16`,
//! `-1.5e-7`. Not a number is `NaN`, whatever its sign; infinities are `inf` and `-inf`.

use crate::plan::members::Profile;
use crate::volume::{Axes, Overflow, Preprocess, Recipe, VoxelFormat};

/// A value that is part of a digest.
pub(super) trait DigestText {
    /// The text of the value, as the module's table has it.
    fn digest_text(&self) -> String;
}

impl DigestText for Profile {
    fn digest_text(&self) -> String {
        match self {
            Self::Ctclip => "Ctclip",
            Self::Npy => "Npy",
        }
        .to_owned()
    }
}

impl DigestText for Overflow {
    fn digest_text(&self) -> String {
        match self {
            Self::Error => "Error",
            Self::Saturate => "Saturate",
            Self::Inf => "Inf",
        }
        .to_owned()
    }
}

impl DigestText for Axes {
    fn digest_text(&self) -> String {
        match self {
            Self::Hwd => "Hwd",
            Self::Hdw => "Hdw",
            Self::Whd => "Whd",
            Self::Wdh => "Wdh",
            Self::Dhw => "Dhw",
            Self::Dwh => "Dwh",
        }
        .to_owned()
    }
}

impl DigestText for bool {
    fn digest_text(&self) -> String {
        if *self { "true" } else { "false" }.to_owned()
    }
}

impl DigestText for u64 {
    fn digest_text(&self) -> String {
        self.to_string()
    }
}

impl DigestText for f64 {
    fn digest_text(&self) -> String {
        let magnitude = self.abs();
        if magnitude >= 1e16 || (magnitude > 0.0 && magnitude < 1e-4) {
            return format!("{self:e}");
        }
        let text = self.to_string();
        if text.contains('.') || self.is_nan() { text } else { text + ".0" }
    }
}

impl<T: DigestText> DigestText for [T] {
    fn digest_text(&self) -> String {
        let elements: Vec<String> = self.iter().map(DigestText::digest_text).collect();
        format!("[{}]", elements.join(", "))
    }
}

impl DigestText for Recipe {
    fn digest_text(&self) -> String {
        match self {
            Self::Stored => "Stored".to_owned(),
            Self::Rescaled { slope, intercept, axes } => {
                let fields = [
                    ("slope", slope.digest_text()),
                    ("intercept", intercept.digest_text()),
                    ("axes", axes.digest_text()),
                ];
                format!("Rescaled {}", named(&fields))
            }
            Self::Preprocessed(steps) => format!("Preprocessed({})", steps.digest_text()),
        }
    }
}

impl DigestText for VoxelFormat {
    fn digest_text(&self) -> String {
        match self {
            Self::Float16 => "Voxels Float16".to_owned(),
            Self::Float32 => "Voxels Float32".to_owned(),
            Self::Int16 => "Voxels Int16".to_owned(),
            Self::Uint8 { window } => format!("Voxels Uint8 {}", window.digest_text()),
        }
    }
}

impl DigestText for Preprocess {
    fn digest_text(&self) -> String {
        let Self { slope, intercept, clip, resampled, is_resampled, divisor, shape, pad_value, axes } = self;
        let fields = [
            ("slope", slope.digest_text()),
            ("intercept", intercept.digest_text()),
            ("clip", clip.digest_text()),
            ("resampled", resampled.digest_text()),
            ("is_resampled", is_resampled.digest_text()),
            ("divisor", divisor.digest_text()),
            ("shape", shape.digest_text()),
            ("pad_value", pad_value.digest_text()),
            ("axes", axes.digest_text()),
        ];
        format!("Preprocess {}", named(&fields))
    }
}

/// Fields in braces: `{ slope: 1.0, axes: Hwd }`.
fn named(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, text)| format!("{name}: {text}")).collect();
    format!("{{ {} }}", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text of this test was printed by version 0.1.0 and stands in digests on disk: never to change.
    fn check(value: &(impl DigestText + ?Sized), pinned: &str) {
        assert_eq!(value.digest_text(), pinned);
    }

    #[test]
    fn options_are_pinned() {
        check(&Profile::Ctclip, "Ctclip");
        check(&Profile::Npy, "Npy");
        check(&Overflow::Error, "Error");
        check(&Overflow::Saturate, "Saturate");
        check(&Overflow::Inf, "Inf");
        for (axes, text) in [(Axes::Hdw, "Hdw"), (Axes::Whd, "Whd"), (Axes::Wdh, "Wdh"), (Axes::Dwh, "Dwh")] {
            check(&axes, text);
        }
    }

    #[test]
    fn recipes_are_pinned() {
        check(&Recipe::Stored, "Stored");
        let rescaled = |slope, intercept, axes| Recipe::Rescaled { slope, intercept, axes };
        check(&rescaled(1.0, -1024.0, Axes::Hwd), "Rescaled { slope: 1.0, intercept: -1024.0, axes: Hwd }");
        check(&rescaled(1.0, -1024.0, Axes::Dhw), "Rescaled { slope: 1.0, intercept: -1024.0, axes: Dhw }");
        check(&rescaled(0.1, -0.0, Axes::Hwd), "Rescaled { slope: 0.1, intercept: -0.0, axes: Hwd }");
        check(&rescaled(0.1, -0.0, Axes::Dhw), "Rescaled { slope: 0.1, intercept: -0.0, axes: Dhw }");
        let preprocessed = |is_resampled, axes| {
            Recipe::Preprocessed(Preprocess {
                slope: 0.5,
                intercept: -1e-7,
                clip: [-1000.0, 1e16],
                resampled: [1, 2, 3],
                is_resampled,
                divisor: 1000.0,
                shape: [480, 481, 240],
                pad_value: -1.0,
                axes,
            })
        };
        check(
            &preprocessed(false, Axes::Hwd),
            "Preprocessed(Preprocess { slope: 0.5, intercept: -1e-7, clip: [-1000.0, 1e16], resampled: [1, 2, 3], \
             is_resampled: false, divisor: 1000.0, shape: [480, 481, 240], pad_value: -1.0, axes: Hwd })",
        );
        check(
            &preprocessed(true, Axes::Hwd),
            "Preprocessed(Preprocess { slope: 0.5, intercept: -1e-7, clip: [-1000.0, 1e16], resampled: [1, 2, 3], \
             is_resampled: true, divisor: 1000.0, shape: [480, 481, 240], pad_value: -1.0, axes: Hwd })",
        );
        check(
            &preprocessed(false, Axes::Dhw),
            "Preprocessed(Preprocess { slope: 0.5, intercept: -1e-7, clip: [-1000.0, 1e16], resampled: [1, 2, 3], \
             is_resampled: false, divisor: 1000.0, shape: [480, 481, 240], pad_value: -1.0, axes: Dhw })",
        );
        check(
            &preprocessed(true, Axes::Dhw),
            "Preprocessed(Preprocess { slope: 0.5, intercept: -1e-7, clip: [-1000.0, 1e16], resampled: [1, 2, 3], \
             is_resampled: true, divisor: 1000.0, shape: [480, 481, 240], pad_value: -1.0, axes: Dhw })",
        );
    }

    #[test]
    fn voxel_formats_are_pinned() {
        check(&VoxelFormat::Float16, "Voxels Float16");
        check(&VoxelFormat::Float32, "Voxels Float32");
        check(&VoxelFormat::Int16, "Voxels Int16");
        check(&VoxelFormat::Uint8 { window: [-160.0, 240.5] }, "Voxels Uint8 [-160.0, 240.5]");
    }

    #[test]
    fn lists_are_pinned() {
        check(&[0u64; 0][..], "[]");
        check(&[7u64][..], "[7]");
        check(&[512, 512, u64::MAX][..], "[512, 512, 18446744073709551615]");
        check(&[-0.0, 1e-7][..], "[-0.0, 1e-7]");
    }

    #[test]
    fn floats_are_pinned() {
        for (value, pinned) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.0, "-1.0"),
            (1000.0, "1000.0"),
            (65504.0, "65504.0"),
            (0.1, "0.1"),
            (0.75, "0.75"),
            (-1024.5, "-1024.5"),
            (123_456.789, "123456.789"),
            (1.0 / 3.0, "0.3333333333333333"),
            // Where the exponent begins, downwards,
            (0.00012, "0.00012"),
            (0.0001, "0.0001"),
            (f64::from_bits(0.0001f64.to_bits() - 1), "9.999999999999999e-5"),
            (1e-7, "1e-7"),
            (-1.5e-7, "-1.5e-7"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::from_bits(1), "5e-324"),
            // and upwards.
            (1e15, "1000000000000000.0"),
            (9_007_199_254_740_992.0, "9007199254740992.0"),
            (f64::from_bits(1e16f64.to_bits() - 1), "9999999999999998.0"),
            (1e16, "1e16"),
            (-1e16, "-1e16"),
            (12_345_678_901_234_567_000.0, "1.2345678901234567e19"),
            (1e21, "1e21"),
            (1.5e300, "1.5e300"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::MIN, "-1.7976931348623157e308"),
            // --pad-value takes these.
            (f64::NAN, "NaN"),
            (-f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            check(&value, pinned);
        }
    }
}
