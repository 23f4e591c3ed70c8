//! What becomes of a volume's values and shape: the kinds, the dialects of the sources, and the recipe of one volume.
//! Pure: decided from headers and tables alone.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::formats::npz::{Array, Element};

/// The kinds of volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The array as it is.
    #[default]
    Stored,
    /// HU: slope · x + intercept.
    Rescaled,
    /// HU, clipped, resampled to one spacing, divided by 1000, cropped and padded to one shape.
    Preprocessed,
}

/// What the arrays of a data set hold; the axes are height, width, depth unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Stored values or HU at the scanner's spacing (`data`).
    Native,
    /// HU, resampled and cropped (`volume`, 16-bit integers).
    Hu,
    /// HU / 1000, resampled, axes depth, height, width (`arr_0`, floats).
    Normalized,
}

/// Where slope and intercept come from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rescale {
    /// The metadata table, unless the values contradict it.
    #[default]
    Auto,
    /// The metadata table.
    Table,
    /// The values are HU already.
    None,
    /// These.
    Values(f64, f64),
}

impl FromStr for Rescale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "table" => Ok(Self::Table),
            "none" => Ok(Self::None),
            values => {
                let [slope, intercept] = floats(values)
                    .map_err(|_| "expected auto, table, none, or SLOPE,INTERCEPT such as 1,-1024".to_owned())?;
                Ok(Self::Values(slope, intercept))
            }
        }
    }
}

/// Which volumes are resampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Resample {
    /// Those of native spacing.
    #[default]
    Auto,
    /// All.
    Always,
    /// None.
    Never,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct KindOptions {
    /// The kind.
    pub kind: Kind,
    /// The dialect; by default that of the array's name and type.
    pub dialect: Option<Dialect>,
    /// Slope and intercept.
    pub rescale: Rescale,
    /// Which volumes are resampled.
    pub resample: Resample,
    /// Target spacing of height, width and depth, in mm.
    pub spacing: [f64; 3],
    /// Target shape: height, width, depth.
    pub shape: [u64; 3],
    /// HU are clipped to this.
    pub hu_range: [f64; 2],
    /// What is put around a volume that is smaller than the shape.
    pub pad_value: f64,
}

impl Default for KindOptions {
    /// Those of CT-CLIP.
    fn default() -> Self {
        Self {
            kind: Kind::Stored,
            dialect: None,
            rescale: Rescale::Auto,
            resample: Resample::Auto,
            spacing: [0.75, 0.75, 1.5],
            shape: [480, 480, 240],
            hu_range: [-1000.0, 1000.0],
            pad_value: -1.0,
        }
    }
}

/// Numbers separated by commas.
///
/// # Errors
/// It is not as many finite numbers as wanted.
pub fn floats<const N: usize>(text: &str) -> Result<[f64; N], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse::<f64>()).collect();
    let numbers = numbers.ok().filter(|numbers| numbers.iter().all(|number| number.is_finite()));
    let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| format!("expected {N} numbers with commas between them"))
}

/// The order of a source array's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Axes {
    /// Height, width, depth.
    Hwd,
    /// Depth, height, width.
    Dhw,
}

impl Axes {
    /// Height, width and depth of an array's shape.
    pub fn hwd(self, shape: [u64; 3]) -> [u64; 3] {
        match self {
            Self::Hwd => shape,
            Self::Dhw => [shape[1], shape[2], shape[0]],
        }
    }
}

/// How one volume is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Recipe {
    /// Cast.
    Stored,
    /// slope · x + intercept, then cast.
    Rescaled {
        /// HU per stored unit.
        slope: f64,
        /// HU.
        intercept: f64,
        /// Of the source; the result is height, width, depth.
        axes: Axes,
    },
    /// All steps.
    Preprocessed(Preprocess),
}

/// The steps of a preprocessed volume, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// x becomes slope · x + intercept.
    pub slope: f64,
    /// As above.
    pub intercept: f64,
    /// Then it is clipped to this,
    pub clip: [f64; 2],
    /// and resampled to this many voxels (height, width, depth), or left as it is;
    pub resampled: [u64; 3],
    /// Whether that is done: the sizes may happen to be those of the source.
    pub is_resampled: bool,
    /// divided by this,
    pub divisor: f64,
    /// cropped and padded around its middle to this shape,
    pub shape: [u64; 3],
    /// with this value.
    pub pad_value: f64,
    /// Of the source.
    pub axes: Axes,
}

/// What the metadata table says of a volume, NaN or "nan" where it says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Geometry<'a> {
    /// HU per stored unit.
    pub slope: f64,
    /// HU.
    pub intercept: f64,
    /// `XYSpacing`, such as "[0.75, 0.75]" in mm.
    pub xy_spacing: &'a str,
    /// `ZSpacing` in mm.
    pub z_spacing: f64,
}

impl Recipe {
    /// The recipe of a volume.
    ///
    /// # Errors
    /// Why it cannot be of this kind, as a reason to leave the sample out.
    pub fn new(options: &KindOptions, array: &Array, geometry: Geometry<'_>) -> Result<Self, String> {
        if options.kind == Kind::Stored {
            return Ok(Self::Stored);
        }
        let dialect = options.dialect.or_else(|| Dialect::of(array)).ok_or_else(|| {
            format!(
                "array '{}' of dtype {} is of no known dialect, so that its values' unit is unknown; \
                 --dialect names it",
                array.member.name,
                array.header.descr()
            )
        })?;
        let (slope, intercept) = linear(options.rescale, dialect, geometry)?;
        let axes = dialect.axes();
        if options.kind == Kind::Rescaled {
            let slope = if dialect == Dialect::Normalized { 1000.0 } else { slope };
            return Ok(Self::Rescaled { slope, intercept, axes });
        }
        // Values that are divided already are not multiplied first: it would cost a rounding.
        let divisor = if dialect == Dialect::Normalized { 1.0 } else { 1000.0 };
        let clip = options.hu_range.map(|hu| hu / 1000.0 * divisor);
        let source = axes.hwd(array_shape(array));
        let is_resampled = match options.resample {
            Resample::Auto => dialect == Dialect::Native,
            Resample::Always => true,
            Resample::Never => false,
        };
        let resampled = if is_resampled { resampled(options, source, geometry)? } else { source };
        let (shape, pad_value) = (options.shape, options.pad_value);
        Ok(Self::Preprocessed(Preprocess {
            slope,
            intercept,
            clip,
            resampled,
            is_resampled,
            divisor,
            shape,
            pad_value,
            axes,
        }))
    }

    /// The result's shape; the array's axes for a stored volume, height, width, depth for the others.
    pub fn shape(&self, source: [u64; 3]) -> [u64; 3] {
        match self {
            Self::Stored => source,
            Self::Rescaled { axes, .. } => axes.hwd(source),
            Self::Preprocessed(steps) => steps.shape,
        }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Stored => Kind::Stored,
            Self::Rescaled { .. } => Kind::Rescaled,
            Self::Preprocessed(_) => Kind::Preprocessed,
        }
    }
}

impl Dialect {
    /// The dialect that an array's name and type stand for.
    pub fn of(array: &Array) -> Option<Self> {
        use Element::{F16, F32, F64, I16};
        match (array.member.name.as_str(), array.header.element) {
            ("data", _) => Some(Self::Native),
            ("volume", I16) => Some(Self::Hu),
            ("arr_0", F16 | F32 | F64) => Some(Self::Normalized),
            _ => None,
        }
    }

    fn axes(self) -> Axes {
        if self == Self::Normalized { Axes::Dhw } else { Axes::Hwd }
    }
}

fn array_shape(array: &Array) -> [u64; 3] {
    let shape = &array.header.shape;
    [shape[0], shape[1], shape[2]] // `npz::inspect` admits three axes only
}

fn linear(rescale: Rescale, dialect: Dialect, geometry: Geometry<'_>) -> Result<(f64, f64), String> {
    match (dialect, rescale) {
        (Dialect::Hu | Dialect::Normalized, _) | (_, Rescale::None) => Ok((1.0, 0.0)),
        (_, Rescale::Values(slope, intercept)) => Ok((slope, intercept)),
        (_, Rescale::Auto | Rescale::Table) if geometry.slope.is_finite() && geometry.intercept.is_finite() => {
            Ok((geometry.slope, geometry.intercept))
        }
        _ => Err("the metadata table has no RescaleSlope or RescaleIntercept (--rescale gives them)".into()),
    }
}

/// Upstream's arithmetic, in f64 and in its order: `int(n * (current / target))`. Like it, this takes the first of the
/// two in-plane spacings for both axes.
fn resampled(options: &KindOptions, source: [u64; 3], geometry: Geometry<'_>) -> Result<[u64; 3], String> {
    let list = geometry.xy_spacing.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    let xy = floats::<2>(list).ok().filter(|[x, y]| *x > 0.0 && (x - y).abs() <= 1e-6 * x);
    let (Some([xy, _]), true) = (xy, geometry.z_spacing > 0.0) else {
        return Err(format!(
            "XYSpacing {:?} and ZSpacing {} of the metadata table are no spacing to resample from (--resample never \
             crops and pads only)",
            geometry.xy_spacing, geometry.z_spacing
        ));
    };
    let current = [xy, xy, geometry.z_spacing];
    let mut sizes = [0; 3];
    for axis in 0..3 {
        let size = source[axis] as f64 * (current[axis] / options.spacing[axis]);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
        if (1.0..1e6).contains(&size) {
            sizes[axis] = size as u64;
        } else {
            return Err(format!("resampling {} voxels of {} mm gives {size:.1}", source[axis], current[axis]));
        }
    }
    Ok(sizes)
}
