//! A volume with its rows of the three tables, before its NPZ file was looked into.

use std::path::PathBuf;

use super::Meta;

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
