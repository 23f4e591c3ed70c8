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

    /// What makes HU of the voxels of a sample's volume: nothing where the volume is HU, 1000 where it is HU / 1000;
    /// else slope and intercept as far as the values of the group were found to need them.
    pub(super) fn new(plan: &Plan, sample: &Sample) -> Self {
        let as_is = Self { scale: 1.0, offset: 0.0 };
        let thousand = Self { scale: 1000.0, offset: 0.0 };
        match (sample.kind(), sample.dialect()) {
            (Kind::Rescaled, _) | (Kind::Stored, Some(Dialect::Hu)) => as_is,
            (Kind::Preprocessed, _) if sample.format().is_integer() => as_is,
            (Kind::Preprocessed, _) | (Kind::Stored, Some(Dialect::Normalized)) => thousand,
            (Kind::Stored, Some(Dialect::Native) | None) => {
                let Some((slope, intercept)) = slope_and_intercept(plan, sample) else { return as_is };
                match verdict(plan, slope, intercept) {
                    Rescale::None => as_is,
                    Rescale::Values(slope, intercept) => Self { scale: slope, offset: intercept },
                    Rescale::Auto | Rescale::Table if slope != 0.0 && slope.is_finite() && intercept.is_finite() => {
                        Self { scale: slope, offset: intercept }
                    }
                    Rescale::Auto | Rescale::Table => as_is,
                }
            }
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

/// The name of the volumes whose rows have the slope and the intercept of this sample, with what they do to the values.
pub(super) fn group(plan: &Plan, sample: &Sample) -> String {
    let Some((slope, intercept)) = slope_and_intercept(plan, sample) else { return "slope unknown".into() };
    let effect = match verdict(plan, slope, intercept) {
        Rescale::None => "not applied: the values are HU".into(),
        Rescale::Values(slope, intercept) => format!("replaced by slope {slope}, intercept {intercept}"),
        Rescale::Auto | Rescale::Table => "applied".to_owned(),
    };
    format!("slope {slope}, intercept {intercept}, {effect}")
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

/// The values of voxels in little-endian bytes; those of a window are the values that it holds.
pub(super) fn values(bytes: &[u8], format: VoxelFormat) -> Vec<f32> {
    match format {
        VoxelFormat::Float16 => {
            bytes.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect()
        }
        VoxelFormat::Float32 => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        VoxelFormat::Int16 => bytes.as_chunks().0.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes))).collect(),
        VoxelFormat::Uint8 { window: [low, high] } => {
            #[expect(clippy::cast_possible_truncation, reason = "a window of HU")]
            let value = |step: &u8| (low + f64::from(*step) / 255.0 * (high - low)) as f32;
            bytes.iter().map(value).collect()
        }
    }
}
