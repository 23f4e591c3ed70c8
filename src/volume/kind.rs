//! The treatment of values and shapes: the kinds of volume, and the recipe of one volume.
//! Pure: decided from headers and tables alone.

use serde::{Deserialize, Serialize};

use super::axes::Axes;
use super::dialect::Dialect;
use super::element::element_of;
use super::rescale::{Rescale, linear};
use super::voxel_format::VoxelFormat;
use crate::formats::npz::Array;

/// The largest difference between the affines of a volume and of a mask that lies on it, in mm: that of rounding.
const SAME_PLACE: f64 = 1e-3;

/// The kind of the volumes: the unit and the shape of their voxels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The values and the shape of the array.
    #[default]
    Stored,
    /// Values in HU (slope · x + intercept), the shape of the array.
    Rescaled,
    /// Values in HU, clipped, resampled to one spacing, divided by 1000, cropped and padded to one shape.
    Preprocessed,
}

// What else depends on a kind asks here, or matches without a wildcard: so the compiler names each place for a new one.
impl Kind {
    /// Whether the voxels are the values of the array, so that HU are made of them by who reads them.
    pub fn keeps_values(self) -> bool {
        match self {
            Self::Stored => true,
            Self::Rescaled | Self::Preprocessed => false,
        }
    }

    /// Whether the volumes are resampled, cropped and padded: a voxel is computed of several elements, and a sample's
    /// JSON has no slope, intercept and spacing, because nobody needs them any more.
    pub fn is_resampled(self) -> bool {
        match self {
            Self::Stored | Self::Rescaled => false,
            Self::Preprocessed => true,
        }
    }
}

/// The choice of the volumes that are resampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Resample {
    /// The volumes of native spacing.
    #[default]
    Auto,
    /// All volumes.
    Always,
    /// No volume.
    Never,
}

/// The user's options for the kind of the volumes.
#[derive(Clone, Copy, Debug)]
pub struct KindOptions {
    /// The kind.
    pub kind: Kind,
    /// The dialect of the arrays; by default that of the array's name and type.
    pub dialect: Option<Dialect>,
    /// The order of the arrays' axes; by default that of the dialect.
    pub axes: Option<Axes>,
    /// The order of the numbers of a spacing array; by default that of the array's axes.
    pub spacing_axes: Option<Axes>,
    /// The source of slope and intercept.
    pub rescale: Rescale,
    /// The choice of the volumes that are resampled.
    pub resample: Resample,
    /// The target spacing of height, width and depth, in mm.
    pub spacing: [f64; 3],
    /// The target shape: height, width, depth, in voxels.
    pub shape: [u64; 3],
    /// The lowest and the highest HU, which values are clipped to.
    pub hu_range: [f64; 2],
    /// The voxel value around a volume that is smaller than the shape, in HU / 1000.
    pub pad_value: f64,
    /// The format of the voxels.
    pub format: VoxelFormat,
}

impl Default for KindOptions {
    /// The options of CT-CLIP.
    fn default() -> Self {
        Self {
            kind: Kind::Stored,
            dialect: None,
            axes: None,
            spacing_axes: None,
            rescale: Rescale::Auto,
            resample: Resample::Auto,
            spacing: [0.75, 0.75, 1.5],
            shape: [480, 480, 240],
            hu_range: [-1000.0, 1000.0],
            pad_value: -1.0,
            format: VoxelFormat::Float16,
        }
    }
}

/// The steps from an array to one volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Recipe {
    /// A cast to the voxels' dtype.
    Stored,
    /// x becomes slope · x + intercept, then a cast to the voxels' dtype.
    Rescaled {
        /// The slope, in HU per stored unit.
        slope: f64,
        /// The intercept, in HU.
        intercept: f64,
        /// The order of the array's axes; those of the volume are height, width, depth.
        axes: Axes,
    },
    /// All steps of a preprocessed volume.
    Preprocessed(Preprocess),
}

/// The steps of a preprocessed volume, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Step 1: the slope of x → slope · x + intercept, in HU per stored unit.
    pub slope: f64,
    /// Step 1: the intercept, in HU.
    pub intercept: f64,
    /// Step 2: the lowest and the highest value, which values are clipped to.
    pub clip: [f64; 2],
    /// Step 3: the voxels that the array is resampled to (height, width, depth); those of the array for no resampling.
    pub resampled: [u64; 3],
    /// Step 3: whether the array is resampled. The numbers of voxels may be equal by chance.
    pub is_resampled: bool,
    /// Step 4: the divisor of the values.
    pub divisor: f64,
    /// Step 5: the shape (height, width, depth) that the result is cropped and padded to, around its middle.
    pub shape: [u64; 3],
    /// Step 5: the value of the padding.
    pub pad_value: f64,
    /// The order of the array's axes.
    pub axes: Axes,
}

/// The metadata table's values that a recipe is made from; NaN or "nan" where a value is missing.
#[derive(Clone, Copy, Debug)]
pub struct Geometry<'a> {
    /// `RescaleSlope`, in HU per stored unit.
    pub slope: f64,
    /// `RescaleIntercept`, in HU.
    pub intercept: f64,
    /// `XYSpacing`, such as "[0.75, 0.75]" in mm.
    pub xy_spacing: &'a str,
    /// `ZSpacing` in mm.
    pub z_spacing: f64,
}

impl Geometry<'_> {
    /// Checks that HU can be made of stored values, and that these can be resampled: what a reader of a stored volume
    /// does with the table's values, or with those of `rescale`.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check(self, rescale: Rescale) -> Result<(), String> {
        linear(rescale, Dialect::Native, self.slope, self.intercept)?;
        self.spacing().map(|_| ()).ok_or_else(|| no_spacing(self))
    }
}

impl KindOptions {
    /// The dialect of an array: the one that the user named, else the one that its name and type stand for.
    pub fn dialect_of(&self, array: &Array) -> Option<Dialect> {
        self.dialect.or_else(|| Dialect::of(array))
    }

    /// The order of an array's axes.
    fn axes_of(&self, array: &Array) -> Axes {
        self.axes.unwrap_or_else(|| self.dialect_of(array).map_or(Axes::Hwd, Dialect::axes))
    }

    /// The spacing of height, width and depth in mm that another array of the file gives, if it does.
    pub fn spacing_in(&self, array: &Array) -> Option<[f64; 3]> {
        let order = self.spacing_axes.unwrap_or_else(|| self.axes_of(array));
        array.spacing.as_ref().map(|spacing| order.hwd(spacing.mm))
    }

    /// The spacing of height, width and depth in mm that the header of a NIfTI file gives, if it does.
    pub fn spacing_in_header(&self, array: &Array) -> Option<[f64; 3]> {
        array.nifti.as_ref()?.spacing.map(|mm| self.axes_of(array).hwd(mm))
    }

    /// Whether the array counts as one of stored values at the scanner's spacing: a reader needs slope, intercept and
    /// spacing for it. An array of unknown dialect does.
    pub fn is_native(&self, array: &Array) -> bool {
        !matches!(self.dialect_of(array), Some(Dialect::Hu | Dialect::Normalized))
    }
}

impl Recipe {
    /// The recipe for the volume in `array`, of the kind that `options` ask for.
    ///
    /// # Errors
    /// The reason why the volume cannot be of this kind, for the list of left-out samples.
    pub fn new(options: &KindOptions, array: &Array, geometry: Geometry<'_>) -> Result<Self, String> {
        match options.kind {
            Kind::Stored => check_stored(options.format, array).map(|()| Self::Stored),
            Kind::Rescaled => Self::rescaled(options, array, geometry),
            Kind::Preprocessed => Self::preprocessed(options, array, geometry),
        }
    }

    fn rescaled(options: &KindOptions, array: &Array, geometry: Geometry<'_>) -> Result<Self, String> {
        let dialect = known_dialect(options, array)?;
        let (slope, intercept) = linear(options.rescale, dialect, geometry.slope, geometry.intercept)?;
        let slope = if dialect == Dialect::Normalized { 1000.0 } else { slope };
        Ok(Self::Rescaled { slope, intercept, axes: options.axes_of(array) })
    }

    fn preprocessed(options: &KindOptions, array: &Array, geometry: Geometry<'_>) -> Result<Self, String> {
        let dialect = known_dialect(options, array)?;
        let (slope, intercept) = linear(options.rescale, dialect, geometry.slope, geometry.intercept)?;
        let axes = options.axes_of(array);
        // Integers hold HU. Values that are divided already are not multiplied first: it would cost a rounding.
        let in_hu = options.format.is_integer();
        let (slope, divisor) = match dialect {
            Dialect::Normalized if in_hu => (1000.0, 1.0),
            Dialect::Normalized => (slope, 1.0),
            _ => (slope, if in_hu { 1.0 } else { 1000.0 }),
        };
        let clip = if in_hu { options.hu_range } else { options.hu_range.map(|hu| hu / 1000.0 * divisor) };
        let source = axes.hwd(array.shape());
        let is_resampled = match options.resample {
            Resample::Auto => dialect == Dialect::Native,
            Resample::Always => true,
            Resample::Never => false,
        };
        let resampled = if is_resampled { resampled(options, source, geometry)? } else { source };
        let (shape, pad_value) = (options.shape, options.pad_value * if in_hu { 1000.0 } else { 1.0 });
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

    /// The recipe of an extra that lies on the voxels of a volume: `self` is the recipe of the volume's array `volume`,
    /// and `pad` the value around an extra that is smaller than the shape.
    ///
    /// # Errors
    /// The reason why there is none, for the list of left-out samples.
    pub fn of_extra(&self, volume: &Array, extra: &Array, pad: f64) -> Result<Self, String> {
        let (own, other) = (extra.shape(), volume.shape());
        if own != other {
            return Err(format!("{} has shape {own:?}, and that of the volume has {other:?}", extra.member.shown()));
        }
        let affine = |array: &Array| match array.placed() {
            Some(placed) => Some(placed.affine), // as it is turned
            None => array.nifti.as_ref()?.affine,
        };
        let [place, of_volume] = [extra, volume].map(affine);
        if let (Some(place), Some(of_volume)) = (place, of_volume) {
            let pairs = place.iter().flatten().zip(of_volume.iter().flatten());
            let is_same =
                |(own, other): (&f64, &f64)| (own - other).abs() <= SAME_PLACE || own.is_nan() && other.is_nan();
            if !pairs.into_iter().all(is_same) {
                return Err(format!(
                    "its header puts it elsewhere than the volume: by the affine {place:?}, and that of the volume is \
                     {of_volume:?}"
                ));
            }
        }
        match self {
            Self::Stored => Ok(Self::Stored),
            Self::Rescaled { axes, .. } => Ok(Self::Rescaled { slope: 1.0, intercept: 0.0, axes: *axes }),
            Self::Preprocessed(steps) => {
                let element = extra.header.element;
                if element_of(pad, element).is_none() {
                    let name = element.name();
                    return Err(format!("--also-pad {pad} is no {name}, as which {} is kept", extra.member.shown()));
                }
                Ok(Self::Preprocessed(Preprocess {
                    slope: 1.0,
                    intercept: 0.0,
                    clip: [f64::NEG_INFINITY, f64::INFINITY],
                    divisor: 1.0,
                    pad_value: pad,
                    ..steps.clone()
                }))
            }
        }
    }

    /// The shape of the volume that is made of an array of shape `source`: the array's axes for a stored volume;
    /// height, width, depth for the other kinds.
    pub fn shape(&self, source: [u64; 3]) -> [u64; 3] {
        match self {
            Self::Stored => source,
            Self::Rescaled { axes, .. } => axes.hwd(source),
            Self::Preprocessed(steps) => steps.shape,
        }
    }

    /// Whether every voxel is made of the element at its own place in the array.
    pub fn keeps_places(&self) -> bool {
        match self {
            Self::Stored => true,
            Self::Rescaled { axes, .. } => *axes == Axes::Hwd,
            Self::Preprocessed(_) => false,
        }
    }

    /// The kind of the volume.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Stored => Kind::Stored,
            Self::Rescaled { .. } => Kind::Rescaled,
            Self::Preprocessed(_) => Kind::Preprocessed,
        }
    }
}

/// The dialect of an array of which HU are to be made.
///
/// # Errors
/// The reason why nobody knows it, and the remedy.
fn known_dialect(options: &KindOptions, array: &Array) -> Result<Dialect, String> {
    options.dialect_of(array).ok_or_else(|| {
        let grey = "; 8 bits hold grey values of a window rather than HU: --rescale SLOPE,INTERCEPT makes HU of them";
        format!(
            "{} of dtype {} is of no known dialect, so that its values' unit is unknown; --dialect names it{}",
            array.member.shown(),
            array.header.descr(),
            if array.header.element.size() == 1 { grey } else { "" }
        )
    })
}

/// Checks that a stored volume can have this format: whole numbers are made of whole numbers alone, because no rounding
/// of stored values is known to be harmless before they are HU.
///
/// # Errors
/// The reason why not, and the remedy.
fn check_stored(format: VoxelFormat, array: &Array) -> Result<(), String> {
    let element = array.header.element;
    if !format.is_integer() || !element.is_float() {
        return Ok(());
    }
    Err(format!(
        "array '{}' of dtype {} holds floats, which {} would round before they are HU; --volume rescaled makes HU of \
         them, --output-dtype float16 or float32 keeps them",
        array.member.name,
        array.header.descr(),
        format.name()
    ))
}

/// The reason why a volume cannot be resampled whose spacing the metadata table does not give.
fn no_spacing(geometry: Geometry<'_>) -> String {
    format!(
        "XYSpacing {:?} and ZSpacing {} of the metadata table are no spacing to resample from (--resample never \
         crops and pads only)",
        geometry.xy_spacing, geometry.z_spacing
    )
}

/// The numbers of voxels after resampling, by the original converter's arithmetic, in f64 and in its order:
/// `int(n * (current / target))`. Unlike the converter, which takes the first in-plane spacing for both axes, each axis
/// has its own.
fn resampled(options: &KindOptions, source: [u64; 3], geometry: Geometry<'_>) -> Result<[u64; 3], String> {
    let current = geometry.spacing().ok_or_else(|| no_spacing(geometry))?;
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
