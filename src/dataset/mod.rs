//! The data set: which volumes there are, in which order, what the tables say of them, and which are left out and why.
//!
//! The order is total and the same on every machine. Only malformed content leaves a sample out; an I/O error is
//! fatal, because a plan must not depend on passing faults of storage.
//!
//! Knows nothing of shards or tar. A sample whose members are finished already carries their bytes, and for the voxels
//! a place in a file; what that file is, and how it is read, only [`crate::volume`] knows.

mod columns;
mod comma;
mod condition;
mod csv_file;
mod encoded;
mod extras;
mod files;
mod found;
pub mod guess;
mod header;
mod header_values;
mod ids;
mod inputs;
mod inspect;
mod join;
mod json_columns;
mod left_out;
mod listing;
mod matched;
mod messages;
mod other_column;
mod progress;
pub mod quarantine;
mod recipes;
mod roles;
mod scan;
mod scan_cache;
mod select;
pub(crate) mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use columns::{Columns, NamedColumns, Names, meta as meta_columns, texts as text_columns};
pub use condition::Condition;
pub use extras::{Extra, ExtraArray, ExtraChoice, ExtraPlace};
pub use files::{FileChoice, FilePattern, Source};
pub use header_values::SpacingFrom;
pub use inputs::Inputs;
pub use json_columns::{FieldValue, JsonColumn, JsonField, is_own_field};
pub use left_out::LeftOut;
pub use matched::Meta;
pub use other_column::other_column;
pub use progress::{ScanObserver, ScanProgress};
pub use select::{Selected, Selection, list_of_studies};
use serde::{Deserialize, Serialize};

use crate::base::file_id::FileId;
use crate::error::{Error, Result};
use crate::formats::npz;
use crate::storage::{self, Store};
use crate::volume::{Dialect, Kind, KindOptions, Recipe, VolumeMember, VoxelFormat};
use header_values::Spacings;
use matched::{Matched, Row};
use recipes::Made;

/// The treatment of a sample for which the metadata table lacks a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MissingMeta {
    /// The sample is left out, with the reason.
    #[default]
    Exclude,
    /// The sample's JSON has `NaN`, as the original converter wrote it (Python reads that, strict JSON readers do not).
    Nan,
}

/// The treatment of a label that is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MissingLabel {
    /// The table is refused.
    #[default]
    Error,
    /// The label is 0.
    #[value(name = "0")]
    Zero,
    /// The label is NaN.
    Nan,
    /// The sample is left out, with the reason.
    Exclude,
}

/// The options of a scan: what to read, and how strictly.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store in which volumes, tables and lists lie: a disk, or buckets.
    pub store: Arc<dyn Store>,
    /// The folder of the volumes.
    pub data_folder: PathBuf,
    /// The files of the table with `Findings_EN` and `Impressions_EN`; none for empty texts.
    pub reports_files: Vec<PathBuf>,
    /// The files of the table with the rescale and spacing columns; none for values that are not known.
    pub meta_files: Vec<PathBuf>,
    /// The files of the table with a column for each class; none for samples without labels.
    pub labels_files: Vec<PathBuf>,
    /// The columns of the tables.
    pub columns: Columns,
    /// The treatment of a label that is missing.
    pub missing_label: MissingLabel,
    /// The source of the spacing of NIfTI volumes; by default the metadata table, if there is one.
    pub spacing_from: Option<SpacingFrom>,
    /// The array to take of each NPZ file, and what of it.
    pub array: npz::ArrayChoice,
    /// The choice of the files that are volumes.
    pub files: FileChoice,
    /// The arrays beside the volumes that each sample has as well.
    pub extras: Vec<ExtraChoice>,
    /// The value around an extra that is smaller than the shape of preprocessed volumes.
    pub extra_pad: f64,
    /// The files to take, relative to the data folder; by default the data folder is listed.
    pub volumes: Option<Vec<PathBuf>>,
    /// The volumes to take of those that all tables know; the others take no slot.
    pub selection: Selection,
    /// The number of selected volumes to take, from the first on; by default all.
    pub limit: Option<usize>,
    /// Whether a volume that would be left out is an error instead.
    pub strict: bool,
    /// The text that stands for a missing field of a report.
    pub missing_text: String,
    /// The treatment of a sample with missing metadata.
    pub missing_meta: MissingMeta,
    /// The kind of the volumes: what becomes of values and shapes.
    pub kind: KindOptions,
    /// The list of samples that the user leaves out ([`crate::dataset::quarantine`]).
    pub exclude: Option<PathBuf>,
    /// The folder in which the findings of this scan are kept for the next one; `None` to keep nothing.
    pub scan_cache: Option<PathBuf>,
    /// Whether to look into every file, whatever was found in it earlier.
    pub rescan: bool,
    /// The number of threads that scan; the work waits on storage, so more than cores.
    pub threads: usize,
    /// The display of the scan's progress.
    pub progress: ScanProgress,
}

impl Config {
    /// The paths of the tables, and of the lists of excluded and of selected samples if there are any.
    fn tables(&self) -> Vec<&PathBuf> {
        [&self.reports_files, &self.meta_files, &self.labels_files]
            .into_iter()
            .flatten()
            .chain(&self.exclude)
            .chain(&self.selection.studies)
            .collect()
    }
}

/// A sample: a volume, and everything else that its members are made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The sample's position in the data set. Positions of left-out samples stay empty.
    pub slot: u32,
    /// The study id: the stem of the NPZ file's name.
    pub study_id: String,
    /// The NPZ file, relative to the data folder.
    pub path: PathBuf,
    /// The origin of the sample's members.
    pub origin: Origin,
}

/// The origin of a sample's members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// An NPZ file and the tables: the members are still to be made.
    Study(Box<Study>),
    /// Members that an earlier run finished: they are only read.
    Finished(Box<FinishedMembers>),
}

/// An NPZ file and what the tables say of its volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Study {
    /// The volume's array in the NPZ file.
    pub array: npz::Array,
    /// The row of the metadata table.
    pub meta: Meta,
    /// The dialect of the array; `None` if its name and type stand for none, and the user named none.
    pub dialect: Option<Dialect>,
    /// The steps from the array to the values of the voxels.
    pub recipe: Recipe,
    /// The format of the voxels.
    pub format: VoxelFormat,
    /// The report: findings, a newline, impressions; empty without a table of reports.
    pub text: String,
    /// The labels, one value for each class of [`Dataset::label_names`].
    pub labels: Vec<f32>,
    /// The values of further columns of the tables, which stand in the JSON behind its own fields.
    pub fields: Vec<JsonField>,
    /// The arrays beside the volume, one for each of [`Dataset::extras`].
    pub extras: Vec<ExtraArray>,
}

/// The members of a sample that an earlier run finished.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinishedMembers {
    /// The place of the volume's member in a file; only [`crate::volume`] knows what that file is.
    pub volume: VolumeMember,
    /// The places of the extras' members, in their order in the shard.
    pub extras: Vec<VolumeMember>,
    /// The kind of the volume.
    pub kind: Kind,
    /// The format of the voxels.
    pub format: VoxelFormat,
    /// The dialect of the array that the volume was made from; `None` if it is not known.
    pub dialect: Option<Dialect>,
    /// The bytes of the members without voxels, in their order in the shard; not those of extras.
    pub small: Vec<Vec<u8>>,
    /// The size in bytes of the NPZ file that the members were made from.
    pub npz_size: u64,
    /// The CRC-32 of the NPZ file's array; `None` for an NPY file, which has none.
    pub npz_crc: Option<u32>,
}

impl Sample {
    /// The NPZ file and the tables' values, for a sample that is made from them.
    pub fn study(&self) -> Option<&Study> {
        match &self.origin {
            Origin::Study(study) => Some(study),
            Origin::Finished(_) => None,
        }
    }

    /// The state of the file that the volume is read from, as it was when the data set was scanned.
    pub fn file_id(&self) -> &FileId {
        match &self.origin {
            Origin::Study(study) => &study.array.file_id,
            Origin::Finished(finished) => &finished.volume.file_id,
        }
    }

    /// The kind of the sample's volume.
    pub fn kind(&self) -> Kind {
        match &self.origin {
            Origin::Study(study) => study.recipe.kind(),
            Origin::Finished(finished) => finished.kind,
        }
    }

    /// The format of the sample's voxels.
    pub fn format(&self) -> VoxelFormat {
        match &self.origin {
            Origin::Study(study) => study.format,
            Origin::Finished(finished) => finished.format,
        }
    }

    /// The dialect of the sample's array; `None` if it is not known.
    pub fn dialect(&self) -> Option<Dialect> {
        match &self.origin {
            Origin::Study(study) => study.dialect,
            Origin::Finished(finished) => finished.dialect,
        }
    }

    /// The size in bytes of the sample's file, and the CRC-32 of its array; an NPY file has none.
    pub fn npz_size_and_crc(&self) -> (u64, Option<u32>) {
        match &self.origin {
            Origin::Study(study) => (study.array.file_id.size, study.array.member.crc),
            Origin::Finished(finished) => (finished.npz_size, finished.npz_crc),
        }
    }

    /// The entry of the list of left-out samples for this sample.
    pub fn left_out(&self, reason: String) -> LeftOut {
        let path = self.path.to_string_lossy().into_owned();
        LeftOut { slot: self.slot, study_id: self.study_id.clone(), path, reason }
    }
}

/// The ordered data set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dataset {
    /// The data folder, as an absolute path, or its address.
    pub root: PathBuf,
    /// The store in which volumes, or finished shards, lie.
    #[serde(skip, default = "storage::local")]
    pub store: Arc<dyn Store>,
    /// The samples, by ascending slot.
    pub samples: Vec<Sample>,
    /// The number of positions: those of samples and of left-out volumes.
    pub slots: u32,
    /// The volumes that are left out, by ascending slot.
    pub left_out: Vec<LeftOut>,
    /// The study ids that a table does not know, each with the names of these tables. They take no slot.
    pub unmatched: Vec<(String, String)>,
    /// How one of these is spelled most nearly in a table that does not know it, as a sentence.
    pub nearest: Option<String>,
    /// The counts of the selection, if the user asked for one.
    pub selected: Option<Selected>,
    /// The number of rows of the label table (without one, of that of metadata or reports) that have no volume.
    pub rows_without_volume: usize,
    /// The class columns of the label table, in its order; none without such a table.
    pub label_names: Vec<String>,
    /// The number of labels of each class that the table lacks, of the samples and of those that are left out for it;
    /// empty where none is missing.
    pub missing_labels: Vec<usize>,
    /// The arrays beside the volumes, in the order of their members; of finished members, the names alone.
    pub extras: Vec<Extra>,
    /// The number of columns that each text is made of, with newlines between them; 0 without a table of reports.
    pub text_columns: usize,
    /// The columns whose values stand in the samples' JSON, in their order there.
    pub extra_columns: Vec<JsonColumn>,
    /// Messages for the user about what is no error.
    pub warnings: Vec<String>,
    /// The states of the tables, folders and files that the data set was read from.
    pub inputs: Inputs,
}

impl Dataset {
    /// Makes the data set of the tables and of the NPZ files' headers.
    ///
    /// # Errors
    /// [`Error::Io`] if something cannot be read, [`Error::Table`] for an unusable table, [`Error::Refused`] if there
    /// is no usable volume or two have one study id, and with `config.strict` [`Error::Malformed`] for a malformed
    /// volume.
    pub fn scan(config: &Config) -> Result<Self> {
        let joined = join::join(config)?;
        // Absolute, because a daemon leaves the folder that it was started in.
        let root = absolute(config, &config.data_folder)?;
        let findings = inspect::volumes(config, &root, &joined)?;
        let mut inputs = joined.inputs;
        let folder = (&*root, &joined.objects);
        let found = extras::all(config, folder, &joined.matched, &findings, &mut inputs)?;
        let mut found = extras::BySample::new(found);
        let mut dataset = Self {
            root,
            store: config.store.clone(),
            samples: Vec::with_capacity(findings.len()),
            slots: u32::try_from(joined.matched.len())
                .map_err(|_| Error::Refused("more than 4 billion volumes".into()))?,
            left_out: Vec::new(),
            unmatched: joined.unmatched,
            nearest: joined.nearest,
            selected: joined.selected,
            rows_without_volume: joined.rows_without_volume,
            label_names: joined.label_names,
            missing_labels: Vec::new(),
            extras: found.extras(),
            text_columns: if config.reports_files.is_empty() { 0 } else { config.columns.texts.len() },
            extra_columns: joined.extra_columns,
            warnings: joined.warnings,
            inputs,
        };
        let mut spacings = Spacings::default();
        for ((slot, matched), finding) in (0..).zip(joined.matched).zip(findings) {
            let Matched { study_id, path, row: Row { meta, text, labels, missing, fields, .. }, excluded } = matched;
            let samples = dataset.samples.len();
            let file_id = *finding.file_id();
            let (beside, others) = found.next_sample();
            match recipes::with_extras(config, finding, meta, beside) {
                Ok(Made { array, meta, recipe, extras }) => {
                    spacings.compare(config, &study_id, &array, &meta);
                    let dialect = config.kind.dialect_of(&array);
                    let format = config.kind.format;
                    let study = Study { array, meta, dialect, recipe, format, text, labels, fields, extras };
                    let origin = Origin::Study(Box::new(study));
                    dataset.samples.push(Sample { slot, study_id, path, origin });
                }
                Err(unusable) => {
                    let reason = unusable.reason(config, &path, excluded.is_some())?;
                    let path = path.to_string_lossy().into_owned();
                    dataset.left_out.push(LeftOut { slot, study_id, path, reason });
                    dataset.inputs.left_out.push(file_id);
                    dataset.inputs.others.extend(others);
                }
            }
            if dataset.samples.len() > samples || config.missing_label == MissingLabel::Exclude {
                dataset.count_missing(&missing);
            }
        }
        if dataset.samples.is_empty() {
            return Err(dataset.nothing_left(config));
        }
        dataset.warnings.extend(spacings.warning());
        let warnings = dataset.about_tables(config);
        dataset.warnings.extend(warnings);
        Ok(dataset)
    }
}

/// An absolute path, or the address that it is.
///
/// # Errors
/// [`Error::Io`] if there is no current folder.
fn absolute(config: &Config, path: &Path) -> Result<PathBuf> {
    match config.store.is_remote(path) {
        true => Ok(path.to_owned()),
        false => std::path::absolute(path).map_err(|error| Error::io(path, "resolve the path", error)),
    }
}
