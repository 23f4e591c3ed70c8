//! What makes HU of a volume's voxels, as a reader of the shards does it.

use crate::dataset::{Origin, Sample};
use crate::formats::pyjson;
use crate::plan::Plan;
use crate::plan::members::Member;
use crate::plan::values::ValueGroup;
use crate::volume::{Dialect, Kind, Rescale, VoxelFormat};

/// HU of the voxels of one volume: scale · voxel + offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ToHu {
    scale: f64,
    offset: f64,
}

impl ToHu {
    /// The HU of a voxel, of which a window of 8 bits is already undone.
    #[expect(clippy::cast_possible_truncation, reason = "HU, which pictures show in 256 steps")]
    pub(super) fn of(self, voxel: f32) -> f32 {
        (f64::from(voxel) * self.scale + self.offset) as f32
    }
}

/// What the voxels of a volume are, and what makes HU of them.
pub(super) struct Reading {
    /// What makes HU of the voxels.
    pub(super) to_hu: ToHu,
    /// The name of the volumes that are read alike.
    pub(super) name: String,
    /// Whether the slope and the intercept of the voxels are known, or needless.
    pub(super) is_known: bool,
}

impl Reading {
    /// The reading of a sample's volume: nothing is done where it is HU, and 1000 is the factor where it is HU / 1000;
    /// else slope and intercept count as far as the values of their group were found to need them.
    pub(super) fn new(plan: &Plan, sample: &Sample) -> Self {
        let known =
            |scale, offset, name: &str| Self { to_hu: ToHu { scale, offset }, name: name.into(), is_known: true };
        match (sample.kind(), sample.dialect()) {
            (Kind::Rescaled, _) => return known(1.0, 0.0, "HU, of which slope and intercept are part already"),
            (Kind::Stored, Some(Dialect::Hu)) => {
                return known(1.0, 0.0, "HU as stored; slope and intercept not applied");
            }
            (Kind::Preprocessed, _) if sample.format().is_integer() => return known(1.0, 0.0, "HU, preprocessed"),
            (Kind::Preprocessed, _) => return known(1000.0, 0.0, "HU / 1000, preprocessed"),
            (Kind::Stored, Some(Dialect::Normalized)) => return known(1000.0, 0.0, "taken for HU / 1000"),
            (Kind::Stored, Some(Dialect::Native) | None) => {}
        }
        let unknown = || Self {
            to_hu: ToHu { scale: 1.0, offset: 0.0 },
            name: "values as stored: slope and intercept are not known".into(),
            is_known: false,
        };
        let Some((slope, intercept)) = slope_and_intercept(plan, sample) else { return unknown() };
        let pair = format!("slope {slope}, intercept {intercept}");
        match verdict(plan, slope, intercept) {
            Rescale::None => known(1.0, 0.0, &format!("{pair}, not applied: the values are HU")),
            Rescale::Values(by, plus) => known(by, plus, &format!("{pair}, replaced by slope {by}, intercept {plus}")),
            Rescale::Auto | Rescale::Table if slope != 0.0 && slope.is_finite() && intercept.is_finite() => {
                known(slope, intercept, &format!("{pair}, applied"))
            }
            Rescale::Auto | Rescale::Table => unknown(),
        }
    }
}

/// What makes HU of the values of the volumes with this slope and intercept.
fn verdict(plan: &Plan, slope: f64, intercept: f64) -> Rescale {
    let same = |group: &&ValueGroup| {
        group.rescale_slope.to_bits() == slope.to_bits() && group.rescale_intercept.to_bits() == intercept.to_bits()
    };
    plan.values.iter().flatten().find(same).map_or(Rescale::Table, |group| group.rescale)
}

/// The slope and the intercept of a sample's row; `None` where there is none that can be read.
fn slope_and_intercept(plan: &Plan, sample: &Sample) -> Option<(f64, f64)> {
    match &sample.origin {
        Origin::Study(study) => Some((study.meta.rescale_slope, study.meta.rescale_intercept)),
        Origin::Finished(_) => {
            let json = pyjson::loads(&plan.members.payload(Member::Json, sample)).ok()?;
            Some((json["RescaleSlope"].as_f64()?, json["RescaleIntercept"].as_f64()?))
        }
    }
}

/// The value of a voxel by its two bytes; of one byte by it, where a window is undone; of float32 by the nearest finite
/// float16.
pub(super) fn value_of(pattern: u16, format: VoxelFormat) -> f32 {
    match format {
        VoxelFormat::Float16 | VoxelFormat::Float32 => half::f16::from_bits(pattern).to_f32(),
        VoxelFormat::Int16 => f32::from(pattern.cast_signed()),
        #[expect(clippy::cast_possible_truncation, reason = "a window of HU")]
        VoxelFormat::Uint8 { window: [low, high] } => (low + f64::from(pattern) / 255.0 * (high - low)) as f32,
    }
}
