//! The dtypes of voxels: how their bytes are read, and what becomes of a value. By definition, one value at a time.

use half::f16;

use crate::volume::{Overflow, VoxelFormat};

/// A dtype of voxels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    /// Half precision.
    Float16,
    /// Single precision.
    Float32,
    /// Signed integers of 16 bits.
    Int16,
    /// Unsigned integers of 8 bits, which stand for a window of values.
    Uint8,
}

impl Dtype {
    /// All dtypes.
    const ALL: [Self; 4] = [Self::Float16, Self::Float32, Self::Int16, Self::Uint8];

    /// The dtype of this name, if there is one.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The dtype that an NPY header spells so, if there is one.
    pub(super) fn of_descr(descr: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.descr() == descr)
    }

    /// The dtype of a plan's voxels.
    pub(super) fn planned(format: VoxelFormat) -> Self {
        match format {
            VoxelFormat::Float16 => Self::Float16,
            VoxelFormat::Float32 => Self::Float32,
            VoxelFormat::Int16 => Self::Int16,
            VoxelFormat::Uint8 { .. } => Self::Uint8,
        }
    }

    /// NumPy's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Float16 => "float16",
            Self::Float32 => "float32",
            Self::Int16 => "int16",
            Self::Uint8 => "uint8",
        }
    }

    fn descr(self) -> &'static str {
        match self {
            Self::Float16 => "<f2",
            Self::Float32 => "<f4",
            Self::Int16 => "<i2",
            Self::Uint8 => "|u1",
        }
    }

    /// Whether voxels are floats.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::Float32)
    }

    /// Bytes of a voxel.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Uint8 => 1,
            Self::Float16 | Self::Int16 => 2,
            Self::Float32 => 4,
        }
    }

    /// The number that the bytes of one voxel are; f64 holds all of them.
    pub(super) fn read(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Self::Float16, &[a, b]) => f16::from_le_bytes([a, b]).to_f64(),
            (Self::Float32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
            (Self::Int16, &[a, b]) => i16::from_le_bytes([a, b]).into(),
            (_, bytes) => bytes.first().map_or(f64::NAN, |byte| f64::from(*byte)),
        }
    }
}

/// What a value becomes in a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding {
    /// Dtype and window of the voxels.
    pub format: VoxelFormat,
    /// Treatment of values that the voxels cannot hold.
    pub overflow: Overflow,
}

impl Rounding {
    /// The number before rounding: of uint8 the place in the window, from 0 to 255; else the value.
    pub(super) fn unrounded(self, value: f64) -> f64 {
        match self.format {
            VoxelFormat::Uint8 { window: [low, high] } if !value.is_nan() => {
                (value.max(low).min(high) - low) / (high - low) * 255.0
            }
            _ => value,
        }
    }

    /// The number that a value computed in f64 becomes; NaN where integers have none.
    pub(super) fn round(self, value: f64) -> f64 {
        self.nearest(self.unrounded(value))
    }

    /// The number that a value computed in f32 becomes: the window is applied in f32 too.
    #[expect(clippy::cast_possible_truncation, reason = "meant: NumPy's arithmetic")]
    pub(super) fn round_f32(self, value: f64) -> f64 {
        match self.format {
            VoxelFormat::Uint8 { window: [low, high] } if !value.is_nan() => {
                let (value, low, high, width) = (value as f32, low as f32, high as f32, (high - low) as f32);
                self.nearest(f64::from((value.max(low).min(high) - low) / width * 255.0))
            }
            _ => self.round(value),
        }
    }

    /// The value that a number of a shard stands for.
    pub(super) fn value_of(self, found: f64) -> f64 {
        match self.format {
            VoxelFormat::Uint8 { window: [low, high] } => low + found / 255.0 * (high - low),
            _ => found,
        }
    }

    /// The nearest number that the dtype has, ties to even.
    fn nearest(self, value: f64) -> f64 {
        let (rounded, most) = match self.format {
            VoxelFormat::Float16 => (nearest(value).to_f64(), [f16::MIN.to_f64(), f16::MAX.to_f64()]),
            #[expect(clippy::cast_possible_truncation, reason = "rounded to f32")]
            VoxelFormat::Float32 => (f64::from(value as f32), [f32::MIN.into(), f32::MAX.into()]),
            // Integers have one zero.
            VoxelFormat::Int16 => (value.round_ties_even() + 0.0, [-32_768.0, 32_767.0]),
            VoxelFormat::Uint8 { .. } => (value.round_ties_even() + 0.0, [0.0, 255.0]),
        };
        let is_integer = matches!(self.format, VoxelFormat::Int16 | VoxelFormat::Uint8 { .. });
        let is_beyond = rounded < most[0] || rounded > most[1];
        match self.overflow {
            Overflow::Saturate if is_beyond && (is_integer || value.is_finite()) => rounded.clamp(most[0], most[1]),
            _ if is_beyond && is_integer => f64::NAN,
            _ => rounded,
        }
    }
}

/// The float16 nearest to a value, ties to even; infinite beyond the largest float16. Computed from the definition: two
/// neighbours are 2⁻¹⁰ of the power of two below them apart, and 2⁻²⁴ near 0.
fn nearest(value: f64) -> f16 {
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

    fn rounded(format: VoxelFormat, overflow: Overflow, values: &[f64]) -> Vec<f64> {
        values.iter().map(|value| Rounding { format, overflow }.round(*value)).collect()
    }

    #[test]
    fn integers_round_half_to_even_and_have_ends() {
        let values = [-0.5, 1.5, -2.5, 32_767.49, 32_767.5, -32_768.5, -40_000.0, f64::INFINITY];
        let clipped = rounded(VoxelFormat::Int16, Overflow::Saturate, &values);
        assert!(clipped[0].is_sign_positive());
        assert_eq!(clipped, [0.0, 2.0, -2.0, 32_767.0, 32_767.0, -32_768.0, -32_768.0, 32_767.0]);
        let strict = rounded(VoxelFormat::Int16, Overflow::Error, &values);
        assert_eq!(strict.iter().map(|x| x.is_nan()).collect::<Vec<_>>()[3..], [false, true, false, true, true]);
        assert!(rounded(VoxelFormat::Int16, Overflow::Saturate, &[f64::NAN])[0].is_nan());
    }

    #[test]
    fn a_window_is_undone_by_what_it_stands_for() {
        let rounding = Rounding { format: VoxelFormat::Uint8 { window: [-160.0, 240.0] }, overflow: Overflow::Error };
        assert_eq!([-2000.0, -160.0, 40.0, 240.0, 9e9].map(|x| rounding.round(x)), [0.0, 0.0, 128.0, 255.0, 255.0]);
        assert_eq!([-160.0, 40.0, 240.0].map(|x| rounding.round_f32(x)), [0.0, 128.0, 255.0]);
        assert_eq!([0.0, 51.0, 255.0].map(|x| rounding.value_of(x)), [-160.0, -80.0, 240.0]);
        assert!(rounding.round(f64::NAN).is_nan());
    }

    #[test]
    fn every_dtype_reads_its_bytes() {
        for (dtype, bytes, number) in [
            (Dtype::Float16, &[0x00, 0xc0][..], -2.0),
            (Dtype::Float32, &[0, 0, 0x80, 0x3f], 1.0),
            (Dtype::Int16, &[0xff, 0xff], -1.0),
            (Dtype::Uint8, &[200], 200.0),
        ] {
            assert_eq!((dtype.read(bytes), dtype.size()), (number, bytes.len()));
            assert_eq!((Dtype::of(dtype.name()), Dtype::of_descr(dtype.descr())), (Some(dtype), Some(dtype)));
        }
    }
}
