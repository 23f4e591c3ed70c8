//! A volume with its rows of the three tables, before its NPZ file was looked into.

use std::path::PathBuf;

use super::scan_cache::Finding;
use super::{Config, Meta};
use crate::formats::{npz, pyjson};
use crate::volume::Recipe;

/// A volume that has a row in all three tables.
pub(super) struct Matched {
    /// The study id: the stem of the file's name.
    pub(super) study_id: String,
    /// The NPZ file, relative to the data folder.
    pub(super) path: PathBuf,
    /// The volume's rows in the three tables.
    pub(super) row: Row,
    /// The reason why the user leaves the volume out, if so.
    pub(super) excluded: Option<String>,
}

/// The values of one study's rows in the three tables.
pub(super) struct Row {
    /// The metadata table's values.
    pub(super) meta: MetaValues,
    /// The report: findings, a newline, impressions.
    pub(super) text: String,
    /// The labels, one value for each class.
    pub(super) labels: Vec<f32>,
    /// The line of the label table that has them.
    pub(super) label_line: u64,
}

/// The values of a row of the metadata table.
pub(super) enum MetaValues {
    /// All values that the sample needs.
    Complete(Meta),
    /// A value is missing: the reason why the sample is left out.
    Missing(String),
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

/// The array, metadata and recipe that the volume is made from, or the reason why it is left out.
pub(super) fn recipe(
    config: &Config,
    finding: Finding,
    meta: MetaValues,
) -> Result<(npz::Array, Meta, Recipe), String> {
    match (finding, meta) {
        (Finding::Volume(array), MetaValues::Complete(meta)) => {
            let meta = meta.with_spacing(config.kind.spacing_in(&array));
            let recipe = Recipe::new(&config.kind, &array, meta.geometry())?;
            Ok((array, meta, recipe))
        }
        (Finding::Excluded(_, reason) | Finding::Malformed(_, reason), _) | (_, MetaValues::Missing(reason)) => {
            Err(reason)
        }
    }
}
