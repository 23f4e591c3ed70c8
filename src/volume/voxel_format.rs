//! What a volume's voxels are written as: their dtype, and the map of values that leads to it. Pure.

use serde::{Deserialize, Serialize};

use super::cast::Overflow;

/// The dtype of the voxels, as the user names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputDtype {
    /// IEEE half precision.
    #[default]
    Float16,
    /// Signed integers of 16 bits.
    Int16,
    /// Unsigned integers of 8 bits, which hold a window of the values.
    Uint8,
    /// IEEE single precision.
    Float32,
}

impl OutputDtype {
    /// NumPy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float16 => "float16",
            Self::Int16 => "int16",
            Self::Uint8 => "uint8",
            Self::Float32 => "float32",
        }
    }
}

/// The format of a volume's voxels: a dtype, and the window that `uint8` holds. Multi-byte voxels are little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum VoxelFormat {
    /// The values, rounded to float16.
    #[default]
    Float16,
    /// The values, rounded to float32.
    Float32,
    /// The values, rounded half to even to whole numbers. Preprocessed volumes hold HU, not HU / 1000.
    Int16,
    /// The values clipped to a window, mapped linearly to 0 to 255, and rounded half to even. Preprocessed volumes hold
    /// a window of HU, not of HU / 1000.
    Uint8 {
        /// The values that become 0 and 255, in the unit of the volume: HU, or stored values.
        window: [f64; 2],
    },
}

impl VoxelFormat {
    /// The format of a dtype and a window.
    ///
    /// # Errors
    /// The dtype needs a window and there is none, or there is one and it takes none: which, and the remedy.
    pub fn new(dtype: OutputDtype, window: Option<[f64; 2]>) -> Result<Self, String> {
        match (dtype, window) {
            (OutputDtype::Uint8, Some(window)) => check_window(window).map(|()| Self::Uint8 { window }),
            (OutputDtype::Uint8, None) => {
                Err("--output-dtype uint8 needs --window LOW,HIGH: the values that become 0 and 255".into())
            }
            (_, Some(_)) => Err("--window is for --output-dtype uint8 alone: leave it out, or ask for uint8".into()),
            (OutputDtype::Float16, None) => Ok(Self::Float16),
            (OutputDtype::Float32, None) => Ok(Self::Float32),
            (OutputDtype::Int16, None) => Ok(Self::Int16),
        }
    }

    /// The dtype of the voxels.
    pub fn dtype(self) -> OutputDtype {
        match self {
            Self::Float16 => OutputDtype::Float16,
            Self::Float32 => OutputDtype::Float32,
            Self::Int16 => OutputDtype::Int16,
            Self::Uint8 { .. } => OutputDtype::Uint8,
        }
    }

    /// The window of values that the voxels hold; `None` where they hold all.
    pub fn window(self) -> Option<[f64; 2]> {
        match self {
            Self::Uint8 { window } => Some(window),
            _ => None,
        }
    }

    /// NumPy's name of the dtype.
    pub fn name(self) -> &'static str {
        self.dtype().name()
    }

    /// The dtype as an NPY header spells it.
    pub fn descr(self) -> &'static str {
        match self {
            Self::Float16 => "<f2",
            Self::Float32 => "<f4",
            Self::Int16 => "<i2",
            Self::Uint8 { .. } => "|u1",
        }
    }

    /// The bytes of a voxel.
    pub fn voxel_len(self) -> usize {
        match self {
            Self::Uint8 { .. } => 1,
            Self::Float16 | Self::Int16 => 2,
            Self::Float32 => 4,
        }
    }

    /// Whether the voxels are whole numbers, which have no NaN and no infinity.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Int16 | Self::Uint8 { .. })
    }

    /// Checks that the padding of preprocessed volumes, in HU, can be a voxel.
    ///
    /// # Errors
    /// Why it cannot, and the remedy; never for floats.
    pub fn check_padding(self, hu: f64, overflow: Overflow) -> Result<(), String> {
        let is_beyond = self == Self::Int16 && !(-32_768.5..32_767.5).contains(&hu) && overflow == Overflow::Error;
        if self.is_integer() && (hu.is_nan() || is_beyond) {
            let name = self.name();
            return Err(format!("it is {hu} HU, which {name} cannot hold; give another, or --output-dtype float32"));
        }
        Ok(())
    }

    /// The message about a value that a voxel cannot be: which, why, and the remedy.
    pub(super) fn refusal(self, value: f64) -> String {
        let name = self.name();
        let most = match self {
            _ if self.is_integer() && value.is_nan() => {
                return format!(
                    "{value}, which {name} cannot hold; choose --output-dtype float16 or float32, or leave the study out"
                );
            }
            Self::Float16 => "at most 65504",
            Self::Float32 => "at most 3.4e38",
            Self::Int16 => {
                return format!(
                    "{value}, which {name} cannot hold (-32768 to 32767); choose --overflow saturate, or --output-dtype float32"
                );
            }
            Self::Uint8 { .. } => "0 to 255",
        };
        format!("{value}, which {name} cannot hold ({most}); choose --overflow saturate or inf")
    }
}

/// Checks that a window is one in float32, in which it is computed.
///
/// # Errors
/// What is wrong with it.
fn check_window([low, high]: [f64; 2]) -> Result<(), String> {
    #[expect(clippy::cast_possible_truncation, reason = "as the window is computed")]
    let (in_f32, width) = ([low as f32, high as f32], (high - low) as f32);
    if in_f32[0] < in_f32[1] && in_f32.iter().all(|bound| bound.is_finite()) && width.is_finite() && width > 0.0 {
        return Ok(());
    }
    Err(format!("--window {low},{high} is no range of float32; give two numbers that are farther apart, or smaller"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padding_that_is_no_voxel_is_found_before_any_volume() {
        let (int16, uint8) = (VoxelFormat::Int16, VoxelFormat::Uint8 { window: [0.0, 1.0] });
        assert!(int16.check_padding(-1000.0, Overflow::Error).is_ok());
        assert!(int16.check_padding(-40_000.0, Overflow::Error).is_err());
        assert!(int16.check_padding(-40_000.0, Overflow::Saturate).is_ok());
        assert!(uint8.check_padding(-40_000.0, Overflow::Error).is_ok());
        assert!(uint8.check_padding(f64::NAN, Overflow::Saturate).is_err());
        assert!(VoxelFormat::Float16.check_padding(f64::NAN, Overflow::Error).is_ok());
    }

    #[test]
    fn a_window_belongs_to_uint8() {
        let window = [-160.0, 240.0];
        assert_eq!(VoxelFormat::new(OutputDtype::Uint8, Some(window)), Ok(VoxelFormat::Uint8 { window }));
        assert!(VoxelFormat::new(OutputDtype::Uint8, None).is_err());
        for wrong in [[1.0, 1.0 + 1e-12], [0.0, 1e39], [-3e38, 3e38], [0.0, 1e-50]] {
            assert!(VoxelFormat::new(OutputDtype::Uint8, Some(wrong)).is_err(), "{wrong:?}");
        }
        for dtype in [OutputDtype::Float16, OutputDtype::Float32, OutputDtype::Int16] {
            assert_eq!(VoxelFormat::new(dtype, None).unwrap().dtype(), dtype);
            assert!(VoxelFormat::new(dtype, Some(window)).is_err());
        }
    }

    #[test]
    fn a_refusal_names_dtype_and_remedy() {
        let int16 = VoxelFormat::Int16;
        assert!(int16.refusal(40_000.0).contains("40000, which int16 cannot hold (-32768 to 32767)"));
        assert!(!int16.refusal(f64::NAN).contains("--overflow"), "no choice of --overflow makes a number of NaN");
        assert!(VoxelFormat::Float16.refusal(1e9).contains("float16 cannot hold (at most 65504)"));
    }
}
