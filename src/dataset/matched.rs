//! A volume with its rows of the tables, before its NPZ file was looked into.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::json_columns::JsonField;
use crate::formats::pyjson;
use crate::volume::Geometry;

/// The values of one row of the metadata table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// `RescaleSlope`, HU per stored unit.
    pub rescale_slope: f64,
    /// `RescaleIntercept`, HU.
    pub rescale_intercept: f64,
    /// `XYSpacing` as the table spells it (`"[0.75, 0.75]"`, mm); `"nan"` where it is missing and that is allowed.
    pub xy_spacing: String,
    /// `ZSpacing` in mm.
    pub z_spacing: f64,
}

impl Meta {
    /// The values that a volume's recipe is made from.
    pub fn geometry(&self) -> Geometry<'_> {
        let Self { rescale_slope: slope, rescale_intercept: intercept, ref xy_spacing, z_spacing } = *self;
        Geometry { slope, intercept, xy_spacing, z_spacing }
    }
}

/// A volume that has a row in all tables.
pub(super) struct Matched {
    /// The study id: the stem of the file's name.
    pub(super) study_id: String,
    /// The NPZ file, relative to the data folder.
    pub(super) path: PathBuf,
    /// The volume's rows in the tables.
    pub(super) row: Row,
    /// The reason why the user leaves the volume out, if so.
    pub(super) excluded: Option<String>,
}

/// The values of one study's rows in the tables.
pub(super) struct Row {
    /// The metadata table's values.
    pub(super) meta: MetaValues,
    /// The report: findings, a newline, impressions; empty without a table of reports.
    pub(super) text: String,
    /// The labels, one value for each class.
    pub(super) labels: Vec<f32>,
    /// The places of the classes whose labels are missing in the table.
    pub(super) missing: Vec<usize>,
    /// The values of further columns, for the sample's JSON.
    pub(super) fields: Vec<JsonField>,
    /// The place of the study's row in [`super::join`]'s first table; `None` if there is no table.
    pub(super) place: Option<usize>,
}

/// The values of a row of the metadata table.
pub(super) enum MetaValues {
    /// All values that the sample needs.
    Complete(Meta),
    /// A value is missing: the reason why the sample is left out.
    Missing(String),
    /// There is no table of metadata.
    NoTable,
}

impl Meta {
    /// Metadata with another spacing of height, width and depth in mm, if there is one, spelled as Python does.
    pub(super) fn with_spacing(self, spacing: Option<[f64; 3]>) -> Self {
        match spacing {
            Some([height, width, depth]) => {
                Self { xy_spacing: pyjson::dumps(&[height, width]), z_spacing: depth, ..self }
            }
            None => self,
        }
    }
}
