//! The data set: which volumes there are, in which order, what the tables say of them, and who is left out and why.
//!
//! The order is total and the same on every machine. Only malformed content leaves a sample out; an I/O error is
//! fatal, because a plan must not depend on the weather. Knows nothing of shards or tar.

mod condition;
mod inputs;
mod inspect;
mod join;
pub mod quarantine;
mod saved;
mod scan;
mod select;
pub(crate) mod tables;

use std::path::{Path, PathBuf};

pub use condition::Condition;
pub use inputs::Inputs;
pub use select::{Selected, Selection};
use serde::{Deserialize, Serialize};

use crate::base::file_id::FileId;
use crate::error::{Error, Result};
use crate::formats::npz;
use crate::volume::{Geometry, Kind, KindOptions, Recipe, VolumeMember};
use saved::Finding;

/// What a sample gets where the metadata table has no value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MissingMeta {
    /// It is left out, with the reason.
    #[default]
    Exclude,
    /// `NaN` in its JSON, as the original converter wrote it (Python reads that, strict JSON readers do not).
    Nan,
}

/// What to read, and how strictly.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the NPZ files.
    pub data_folder: PathBuf,
    /// The table with `Findings_EN` and `Impressions_EN`.
    pub reports_file: PathBuf,
    /// The table with the rescale and spacing columns.
    pub meta_file: PathBuf,
    /// The table with a column for each class.
    pub labels_file: PathBuf,
    /// The array to take instead of the usual ones.
    pub array: Option<String>,
    /// Only these files, relative to the data folder, which is not listed then.
    pub volumes: Option<Vec<PathBuf>>,
    /// Only these of the volumes that the tables know; the others take no slot.
    pub selection: Selection,
    /// Only the first so many volumes of those.
    pub limit: Option<usize>,
    /// Whether a volume that would be left out is an error instead.
    pub strict: bool,
    /// What a missing report field reads as.
    pub missing_text: String,
    /// What missing metadata leads to.
    pub missing_meta: MissingMeta,
    /// What becomes of values and shapes.
    pub kind: KindOptions,
    /// The list of samples that the user leaves out ([`crate::dataset::quarantine`]).
    pub exclude: Option<PathBuf>,
    /// The folder in which what was found in the NPZ files is kept for the next scan, if at all.
    pub scan_cache: Option<PathBuf>,
    /// Whether to look into every file, whatever was kept of it.
    pub rescan: bool,
    /// Threads that scan; the work waits on storage, so more than cores.
    pub threads: usize,
}

impl Config {
    /// The tables, and the lists of excluded and of selected samples if there are any.
    fn tables(&self) -> Vec<&PathBuf> {
        [&self.reports_file, &self.meta_file, &self.labels_file]
            .into_iter()
            .chain(&self.exclude)
            .chain(&self.selection.studies)
            .collect()
    }
}

/// The values of the metadata table that a reader needs.
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
    /// What a volume's recipe needs of it.
    pub fn geometry(&self) -> Geometry<'_> {
        let Self { rescale_slope: slope, rescale_intercept: intercept, ref xy_spacing, z_spacing } = *self;
        Geometry { slope, intercept, xy_spacing, z_spacing }
    }
}

/// One volume with everything that becomes its members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Its position in the data set. Positions of left-out samples stay empty.
    pub slot: u32,
    /// The file's stem.
    pub study_id: String,
    /// The NPZ, relative to the data folder.
    pub path: PathBuf,
    /// What its members are made from.
    pub source: Source,
}

/// What a sample's members are made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Source {
    /// An NPZ and the tables.
    Npz(Box<Study>),
    /// Members of a shard on disk.
    Shard(Box<Stored>),
}

/// An NPZ and what the tables say of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Study {
    /// The volume's array.
    pub array: npz::Array,
    /// From the metadata table.
    pub meta: Meta,
    /// What becomes of its values and shape.
    pub recipe: Recipe,
    /// Findings, a newline, impressions.
    pub text: String,
    /// One value a class.
    pub labels: Vec<f32>,
}

/// Members of a shard on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// Where the volume's member is.
    pub volume: VolumeMember,
    /// The kind of that volume.
    pub kind: Kind,
    /// The bytes of the other three members, as a plain shard has them.
    pub small: [Vec<u8>; 3],
    /// Bytes of the NPZ that they were made from.
    pub npz_size: u64,
    /// CRC-32 of its array.
    pub npz_crc: u32,
}

impl Sample {
    /// The NPZ and the tables, where it is made from them.
    pub fn study(&self) -> Option<&Study> {
        match &self.source {
            Source::Npz(study) => Some(study),
            Source::Shard(_) => None,
        }
    }

    /// What must not change of the file that the volume is read from.
    pub fn file_id(&self) -> &FileId {
        match &self.source {
            Source::Npz(study) => &study.array.file_id,
            Source::Shard(stored) => &stored.volume.file_id,
        }
    }

    /// The kind of its volume.
    pub fn kind(&self) -> Kind {
        match &self.source {
            Source::Npz(study) => study.recipe.kind(),
            Source::Shard(stored) => stored.kind,
        }
    }

    /// Bytes of the NPZ and CRC-32 of its array.
    pub fn npz_size_and_crc(&self) -> (u64, u32) {
        match &self.source {
            Source::Npz(study) => (study.array.file_id.size, study.array.member.crc),
            Source::Shard(stored) => (stored.npz_size, stored.npz_crc),
        }
    }

    /// What is said of it once it is left out.
    pub fn left_out(&self, reason: String) -> LeftOut {
        let path = self.path.to_string_lossy().into_owned();
        LeftOut { slot: self.slot, study_id: self.study_id.clone(), path, reason }
    }
}

/// A volume that all tables know and that is not in the data set; its slot stays empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its position.
    pub slot: u32,
    /// The file's stem.
    pub study_id: String,
    /// The NPZ, relative to the data folder.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// The ordered data set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dataset {
    /// The data folder.
    pub root: PathBuf,
    /// The samples, by ascending slot.
    pub samples: Vec<Sample>,
    /// Positions in all: samples and left-out ones.
    pub slots: u32,
    /// Those left out.
    pub left_out: Vec<LeftOut>,
    /// Volumes that some table does not know: the study id and the tables. They take no slot.
    pub unmatched: Vec<(String, String)>,
    /// What the selection came to, where there was one.
    pub selected: Option<Selected>,
    /// Rows of the tables that have no volume.
    pub rows_without_volume: usize,
    /// The label table's class columns.
    pub label_names: Vec<String>,
    /// What the user should know and is no error.
    pub warnings: Vec<String>,
    /// What all this was found in.
    pub inputs: Inputs,
}

impl Dataset {
    /// Reads tables and headers.
    ///
    /// # Errors
    /// Whatever makes the data set unusable as a whole: no volume, an unusable table, two volumes of one study,
    /// an I/O error, or (if strict) a malformed volume.
    pub fn scan(config: &Config) -> Result<Self> {
        let joined = join::join(config)?;
        // Absolute, because a daemon leaves the folder that it was started in.
        let root = std::path::absolute(&config.data_folder)
            .map_err(|error| Error::io(&config.data_folder, "resolve the path", error))?;
        let findings = inspect::all(config, &root, &joined.matched)?;
        let mut dataset = Self {
            root,
            samples: Vec::with_capacity(findings.len()),
            slots: u32::try_from(joined.matched.len())
                .map_err(|_| Error::Refused("more than 4 billion volumes".into()))?,
            left_out: Vec::new(),
            unmatched: joined.unmatched,
            selected: joined.selected,
            rows_without_volume: joined.rows_without_volume,
            label_names: joined.label_names,
            warnings: joined.warnings,
            inputs: joined.inputs,
        };
        for ((slot, matched), finding) in (0..).zip(joined.matched).zip(findings) {
            let join::Matched { study_id, path, row: join::Row { meta, text, labels }, excluded } = matched;
            let excluded = excluded.is_some();
            let file_id = *finding.file_id();
            match recipe(config, finding, meta) {
                Ok((array, meta, recipe)) => {
                    let source = Source::Npz(Box::new(Study { array, meta, recipe, text, labels }));
                    dataset.samples.push(Sample { slot, study_id, path, source });
                }
                Err(reason) if config.strict && !excluded => {
                    let path = config.data_folder.join(path);
                    return Err(Error::Malformed { path, reason: format!("{reason} (fatal because of --strict)") });
                }
                Err(reason) => {
                    let path = path.to_string_lossy().into_owned();
                    dataset.left_out.push(LeftOut { slot, study_id, path, reason });
                    dataset.inputs.left_out.push(file_id);
                }
            }
        }
        if dataset.samples.is_empty() {
            return Err(dataset.nothing_left(config));
        }
        Ok(dataset)
    }

    fn nothing_left(&self, config: &Config) -> Error {
        let example = match (self.left_out.first(), self.unmatched.first()) {
            (Some(left_out), _) => format!("{}: {}", left_out.study_id, left_out.reason),
            (_, Some((study, tables))) => format!("'{study}.nii.gz' is not in {tables}"),
            _ => "there is none".into(),
        };
        Error::Refused(format!(
            "no usable volume in {}: {} not in all three tables, {} left out (for example, {example})",
            config.data_folder.display(),
            self.unmatched.len(),
            self.left_out.len()
        ))
    }
}

/// What the volume is made from, or why it is left out.
fn recipe(
    config: &Config,
    finding: Finding,
    meta: Result<Meta, String>,
) -> std::result::Result<(npz::Array, Meta, Recipe), String> {
    match (finding, meta) {
        (Finding::Volume(array), Ok(meta)) => {
            let recipe = Recipe::new(&config.kind, &array, meta.geometry())?;
            Ok((array, meta, recipe))
        }
        (Finding::Excluded(_, reason) | Finding::Malformed(_, reason), _) | (_, Err(reason)) => Err(reason),
    }
}

/// The study id in a volume's path: the stem of its file name. `None` if that is not UTF-8, which no table can name.
fn study_id(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str()
}
