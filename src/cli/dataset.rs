//! The arguments that name a data set and determine the bytes of its shards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};

use super::config::{Configured, Split};
use super::dataset_file::NAME;
use super::dataset_store;
use super::input_paths::InputPaths;
use super::numbers::{Triple, positive, range, whole};
use crate::base::user_folders;
use crate::dataset::{
    self, Condition, ExtraChoice, FileChoice, FilePattern, MissingLabel, MissingMeta, Names, ScanProgress, Selection,
    Source, SpacingFrom,
};
use crate::error::{Error, Result};
use crate::formats::npz::{ArrayChoice, Channel, Orientation};
use crate::plan::Options;
use crate::plan::members::Profile;
use crate::storage::StorageOptions;
use crate::volume::{
    Axes, Dialect, Kind, KindOptions, OutputDtype, Overflow, Resample, Rescale, SpacingArray, VoxelFormat,
};

/// The ids of the arguments that name a data set and say how its shards are made. They have no meaning for shards that
/// exist already.
pub(super) const ALL: [&str; 41] = [
    "data_folder",
    "reports_file",
    "meta_file",
    "labels_file",
    "id_column",
    "text_columns",
    "label_columns",
    "meta_columns",
    "extra_columns",
    "missing_label",
    "labels_empty",
    "samples_per_shard",
    "condition",
    "studies",
    "limit",
    "test_mode",
    "array",
    "channel",
    "spacing_array",
    "spacing_from",
    "also",
    "also_pad",
    "axes",
    "orientation",
    "source",
    "pattern",
    "format",
    "output_dtype",
    "window",
    "overflow",
    "missing_text",
    "missing_meta",
    "volume",
    "rescale",
    "dialect",
    "resample",
    "spacing",
    "shape",
    "hu_range",
    "pad_value",
    "strict",
];

/// The most arrays beside a volume: more than anybody has, and few enough to be numbered by a byte.
const MOST_EXTRAS: usize = 64;

/// The data set and everything that determines the shards' bytes.
#[derive(Clone, Debug, Args)]
pub struct DatasetArgs {
    /// File with these flags, and others of the commands, as keys (data_folder = "npz"); its paths start at its folder.
    /// Flags and CTWDS_* variables win over it [default: ctwds.toml in the data folder, or here, unless a flag names a
    /// table or a configuration]
    #[arg(long, value_name = "TOML")]
    pub dataset: Option<PathBuf>,
    /// Folder of the volumes, or s3://bucket/prefix: *.npz, *.npy, *.nii.gz, *.nii at the fullest depth
    #[arg(long, value_name = "DIR")]
    pub data_folder: Option<PathBuf>,
    /// Format of the files that are volumes
    #[arg(long, value_enum, default_value_t)]
    pub source: Source,
    /// Only the volumes that match a pattern, from the data folder on: 'images/*.npz' or '**/ct.npy'; may be repeated
    #[arg(long, value_name = "GLOB", action = ArgAction::Append)]
    pub pattern: Vec<FilePattern>,
    /// The training's configuration (YAML): its section `data` names the folder and the tables, and the mountpoint as
    /// the folder of its shard pattern. Flags win over it. Relative paths start at the current folder, as in the
    /// training
    #[arg(long, value_name = "YAML", requires = "split")]
    pub config: Option<PathBuf>,
    /// Which data set of the configuration
    #[arg(long, value_enum, requires = "config")]
    pub split: Option<Split>,
    /// CSV with VolumeName, Findings_EN, Impressions_EN; of several, the rows are appended [default: none, empty texts]
    #[arg(long, value_name = "CSV", action = ArgAction::Append)]
    pub reports_file: Vec<PathBuf>,
    /// CSV with VolumeName, RescaleSlope, RescaleIntercept, XYSpacing, ZSpacing; may be repeated [default: none]
    #[arg(long, value_name = "CSV", action = ArgAction::Append)]
    pub meta_file: Vec<PathBuf>,
    /// CSV with VolumeName and one column a class; may be repeated [default: none, no labels]
    #[arg(long, value_name = "CSV", action = ArgAction::Append)]
    pub labels_file: Vec<PathBuf>,
    /// The column with the ids of the volumes; of several, the first that a table has [default: VolumeName]
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    pub id_column: Vec<String>,
    /// The columns of the text, joined by newlines: findings=FINDINGS,impressions=IMPRESSIONS, or any number of names
    /// [default: Findings_EN,Impressions_EN]
    #[arg(long, value_name = "NAMES", action = ArgAction::Append)]
    pub text_columns: Vec<Names>,
    /// The columns that are classes: names, ranges (FIRST..LAST) and patterns (Nodule*) [default: all but the ids]
    #[arg(long, value_name = "NAMES", action = ArgAction::Append)]
    pub label_columns: Vec<Names>,
    /// The columns of the metadata: slope=…,intercept=…,xy=…,z=… [default: RescaleSlope, RescaleIntercept, XYSpacing,
    /// ZSpacing]
    #[arg(long, value_name = "NAMES", action = ArgAction::Append)]
    pub meta_columns: Vec<Names>,
    /// Columns of any of the tables whose values go into each sample's JSON: names, ranges and patterns, as of
    /// --label-columns [default: none]
    #[arg(long, value_name = "NAMES", action = ArgAction::Append)]
    pub extra_columns: Vec<Names>,
    /// Text in place of a missing report field ("nan" reproduces the original converter)
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub missing_text: String,
    /// Samples whose metadata is incomplete: leave out, or keep with NaN
    #[arg(long, value_enum, default_value_t)]
    pub missing_meta: MissingMeta,
    /// A label that is missing: refused, 0, NaN, or the sample is left out
    #[arg(long, value_enum, default_value_t)]
    pub missing_label: MissingLabel,
    /// The array in the NPZ files [default: data, volume, arr_0, or the only one of three dimensions]
    #[arg(long, value_name = "NAME")]
    pub array: Option<String>,
    /// The channel of arrays with four axes longer than 1: number N (from 0 on) of the first axis, or of the axis that
    /// first:N or last:N names
    #[arg(long, value_name = "N")]
    pub channel: Option<Channel>,
    /// The array of the NPZ files with the spacing of the volume's axes in mm, in their order or in another:
    /// spacing:WHD (as SimpleITK's GetSpacing) is width, height, depth. The table's spacing is not read then
    #[arg(long, value_name = "NAME[:ORDER]")]
    pub spacing_array: Option<SpacingArray>,
    /// The spacing of NIfTI volumes: of the metadata table, or of their headers [default: table, if there is one]
    #[arg(long, value_enum, value_name = "WHICH", conflicts_with = "spacing_array")]
    pub spacing_from: Option<SpacingFrom>,
    /// An array beside each volume, such as a mask, as a member .NAME.npy of its own dtype: one of the same NPZ, or of
    /// files whose * is the study's id (NAME=masks/*.npz:seg); may be repeated
    #[arg(long, value_name = "NAME=ARRAY|FILES", action = ArgAction::Append)]
    pub also: Vec<ExtraChoice>,
    /// Look into every volume again, also those that have not changed since the last time
    #[arg(long)]
    pub rescan: bool,
    /// Only volumes whose labels fulfil it: 'Lung nodule == 1 and not (Emphysema == 1 or "Hiatal hernia" > 0)'
    #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
    pub condition: Option<Condition>,
    /// Only the studies of a list: a study id a line, or a CSV with a column study_id or VolumeName
    #[arg(long, value_name = "FILE")]
    pub studies: Option<PathBuf>,
    /// CSV with study_id (such as quarantine.csv): these are left out, and their slots stay empty
    #[arg(long, value_name = "CSV")]
    pub exclude: Option<PathBuf>,
    /// Only the first N volumes that the tables know (and --where and --studies select)
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Only the first 100 of them
    #[arg(long, conflicts_with = "limit")]
    pub test_mode: bool,
    /// Stop at a volume that would be left out
    #[arg(long)]
    pub strict: bool,
    /// What the volumes hold: the array as stored, HU, or HU that are clipped, resampled, cropped and padded
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub volume: Kind,
    /// What the arrays hold [default: by name and type: data, volume (i16), arr_0 (floats)]
    #[arg(long, value_enum)]
    pub dialect: Option<Dialect>,
    /// Slope and intercept of values that are not HU yet: auto (the table's, if the values do not contradict it),
    /// table, none, or SLOPE,INTERCEPT
    #[arg(long, default_value = "auto", value_name = "WHICH", allow_hyphen_values = true)]
    pub rescale: Rescale,
    /// The order of the arrays' axes: height, width, depth; stored volumes keep it [default: HWD, of normalized arrays
    /// DHW]
    #[arg(long, value_enum, ignore_case = true, value_name = "ORDER")]
    pub axes: Option<Axes>,
    /// The directions of NIfTI volumes' axes: keep, or letters such as LPS or RAS, to which the volumes are turned; the
    /// JSON has the affine then [default: those of the file, no affine]
    #[arg(long, value_name = "WHICH")]
    pub orientation: Option<Orientation>,
    /// Preprocessed volumes that are resampled by the table's spacing: auto (those that are not yet), always, never
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub resample: Resample,
    /// Preprocessed: spacing of height, width and depth in mm
    #[arg(long, value_name = "H,W,D", default_value = "0.75,0.75,1.5", value_parser = positive, allow_hyphen_values = true)]
    pub spacing: Triple,
    /// Preprocessed: voxels of height, width and depth
    #[arg(long, value_name = "H,W,D", default_value = "480,480,240", value_parser = whole)]
    pub shape: Triple,
    /// Preprocessed: HU beyond this are clipped
    #[arg(long, value_name = "LOW,HIGH", default_value = "-1000,1000", value_parser = range, allow_hyphen_values = true)]
    pub hu_range: [f64; 2],
    /// Preprocessed: what is put around a smaller volume
    #[arg(long, value_name = "VALUE", default_value_t = -1.0, allow_hyphen_values = true)]
    pub pad_value: f64,
    /// Preprocessed: what is put around a smaller array of --also
    #[arg(long, value_name = "VALUE", default_value_t = 0.0, allow_hyphen_values = true)]
    pub also_pad: f64,
    /// The voxels' dtype; int16 and uint8 hold HU, rounded (of stored volumes: integers)
    #[arg(long, value_enum, default_value_t, value_name = "DTYPE")]
    pub output_dtype: OutputDtype,
    /// The values that become 0 and 255 with --output-dtype uint8, in HU (of stored volumes: in stored values)
    #[arg(long, value_name = "LOW,HIGH", value_parser = range, allow_hyphen_values = true)]
    pub window: Option<[f64; 2]>,
    /// Values beyond the voxels' dtype (float16: ±65504)
    #[arg(long, value_enum, default_value_t)]
    pub overflow: Overflow,
    /// Samples in a shard
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    pub samples_per_shard: u32,
    /// Members: .bin/.json/.txt/.labels, or .volume.npy/.meta.json/.report.txt/.labels.npy
    #[arg(long, value_enum, default_value_t)]
    pub format: Profile,
    /// Without --labels-file: a labels member of no class in each sample, for readers that need one
    #[arg(long)]
    pub labels_empty: bool,
}

impl DatasetArgs {
    /// The paths of the data set, of the flags or else of the configuration. No other function decides them.
    ///
    /// # Errors
    /// [`Error::Usage`] if neither a flag nor a configuration names the data folder; the errors of reading the
    /// configuration.
    pub fn input_paths(&self) -> Result<InputPaths> {
        let Self { reports_file, meta_file, labels_file, .. } = self;
        let tables = [reports_file, meta_file, labels_file].map(Clone::clone);
        match (self.data_folder.clone(), self.configured()?) {
            (data_folder, Some(configured)) => configured.input_paths(data_folder, tables),
            (Some(data_folder), None) => Ok(InputPaths::new(data_folder, tables)),
            (None, None) => Err(Error::Usage(missing_folder(self.dataset.as_deref(), Path::new(NAME).is_file()))),
        }
    }

    /// The data set's keys in the configuration; `None` if the user named no configuration.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is no YAML or has no section `data`.
    pub fn configured(&self) -> Result<Option<Configured>> {
        let named = self.config.as_deref().zip(self.split);
        named.map(|(file, split)| Configured::read(file, split)).transpose()
    }

    /// The kind of the volumes, and how their values and shapes change.
    ///
    /// # Errors
    /// [`Error::Usage`] if options of the voxels contradict each other.
    pub fn kind(&self) -> Result<KindOptions> {
        Ok(KindOptions {
            kind: self.volume,
            dialect: self.dialect,
            axes: self.axes,
            spacing_axes: self.spacing_array.as_ref().and_then(|array| array.axes),
            rescale: self.rescale,
            resample: self.resample,
            spacing: self.spacing,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked when parsed")]
            shape: self.shape.map(|n| n as u64),
            hu_range: self.hu_range,
            pad_value: self.pad_value,
            format: self.voxel_format().map_err(Error::Usage)?,
        })
    }

    /// The format of the voxels.
    ///
    /// # Errors
    /// The flags that contradict each other, and the remedy.
    fn voxel_format(&self) -> std::result::Result<VoxelFormat, String> {
        let format = VoxelFormat::new(self.output_dtype, self.window)?;
        if format.is_integer() && self.overflow == Overflow::Inf {
            let name = format.name();
            return Err(format!("--overflow inf: {name} has no infinity; choose --overflow saturate, or error"));
        }
        if self.volume.is_resampled() {
            format
                .check_padding(self.pad_value * 1000.0, self.overflow)
                .map_err(|what| format!("--pad-value {} (HU / 1000): {what}", self.pad_value))?;
        }
        Ok(format)
    }

    /// The array to take of each file.
    pub fn array_choice(&self) -> ArrayChoice {
        let spacing = self.spacing_array.as_ref().map(|array| array.name.clone());
        let (name, channel, orientation) = (self.array.clone(), self.channel, self.orientation);
        ArrayChoice { name, channel, spacing, orientation }
    }

    /// The arrays beside the volumes.
    ///
    /// # Errors
    /// [`Error::Usage`] if two have one name, or there are more than a sample can have.
    fn extras(&self) -> Result<Vec<ExtraChoice>> {
        let names: BTreeSet<&str> = self.also.iter().map(|extra| &*extra.name).collect();
        if names.len() < self.also.len() {
            return Err(Error::Usage("--also: two arrays have one name; each is a member of its own".into()));
        }
        if names.len() > MOST_EXTRAS {
            return Err(Error::Usage(format!("--also: a sample has at most {MOST_EXTRAS} arrays beside its volume")));
        }
        Ok(self.also.clone())
    }

    /// The configuration of the library's data set, and the options of the plan. `storage` says how object storage is
    /// asked; without it, all must be on a disk.
    ///
    /// # Errors
    /// The errors of [`Self::input_paths`], and of settings of object storage.
    pub fn resolve(&self, storage: Option<&StorageOptions>) -> Result<(dataset::Config, Options)> {
        let paths = self.input_paths()?;
        let store = dataset_store::store(&paths, [&self.exclude, &self.studies], &self.also, storage)?;
        let InputPaths { data_folder, reports_files, meta_files, labels_files } = paths;
        let flags = [
            (self.text_columns.is_empty(), reports_files.is_empty(), "--text-columns", "--reports-file"),
            (self.meta_columns.is_empty(), meta_files.is_empty(), "--meta-columns", "--meta-file"),
            (self.label_columns.is_empty(), labels_files.is_empty(), "--label-columns", "--labels-file"),
        ];
        if let Some((.., flag, table)) = flags.iter().find(|(is_unused, has_none, ..)| !is_unused && *has_none) {
            return Err(Error::Usage(format!("{flag} names columns of a table that is not given; add {table}")));
        }
        if self.spacing_from == Some(SpacingFrom::Table) && meta_files.is_empty() {
            return Err(Error::Usage("--spacing-from table: there is no table of metadata; add --meta-file".into()));
        }
        if !self.extra_columns.is_empty() && [&reports_files, &meta_files, &labels_files].iter().all(|f| f.is_empty()) {
            let reason = "--extra-columns names columns of the tables, and none is given; add --meta-file or another";
            return Err(Error::Usage(reason.into()));
        }
        if self.labels_empty && !labels_files.is_empty() {
            return Err(Error::Usage(
                "--labels-empty is for samples without labels; leave it out, or --labels-file".into(),
            ));
        }
        let config = dataset::Config {
            store,
            data_folder,
            reports_files,
            meta_files,
            labels_files,
            columns: self.columns()?,
            missing_label: self.missing_label,
            spacing_from: self.spacing_from,
            array: self.array_choice(),
            files: FileChoice { source: self.source, patterns: self.pattern.clone() },
            extras: self.extras()?,
            extra_pad: self.also_pad,
            volumes: None,
            selection: Selection { condition: self.condition.clone(), studies: self.studies.clone() },
            limit: if self.test_mode { Some(100) } else { self.limit },
            strict: self.strict,
            missing_text: self.missing_text.clone(),
            missing_meta: self.missing_meta,
            kind: self.kind()?,
            exclude: self.exclude.clone(),
            scan_cache: user_folders::cache(),
            rescan: self.rescan,
            // Opening a file on a network waits for the server; 32 at once took 40,000 files from 7 s to 2 s.
            threads: 32,
            progress: ScanProgress::default(),
        };
        let options = Options {
            samples_per_shard: self.samples_per_shard,
            format: self.format,
            overflow: self.overflow,
            labels_empty: self.labels_empty,
        };
        Ok((config, options))
    }
}

/// The error of a command that knows no data folder, and what to do: give the file that was named the key, name the
/// file that is here and was not taken, or have one written.
fn missing_folder(named: Option<&Path>, has_file_here: bool) -> String {
    let remedy = if let Some(file) = named {
        format!("{} has no key data_folder", file.display())
    } else if has_file_here {
        format!("{NAME} is here: name it, --dataset {NAME}, or give it the key data_folder")
    } else {
        format!("`ctwds-fs init FOLDER` writes such a file, {NAME}, which most commands find where they are run")
    };
    format!("missing: --data-folder; or --dataset FILE, or --config and --split. {remedy}")
}
