//! Plans in the user's cache folder, so that a second start reads no table, lists no folder and opens no volume: it
//! only asks whether any of the inputs has changed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::content::MeasuredSample;
use super::digest_text::DigestText;
use super::digests::{FieldHasher, options_text};
use super::values::ValueGroup;
use super::{Options, Plan};
use crate::base::user_cache;
use crate::dataset::{Config, Dataset, ExtraChoice, ExtraPlace, Selection};
use crate::error::{Error, Result};
use crate::storage::is_address;
use crate::volume::KindOptions;

/// The number of plans that are kept, one for each choice of inputs and options. A plan of 47,149 volumes takes some
/// 72 MB with reports of CT-RATE's length.
const KEPT: usize = 8;
/// The begin of a plan file's name.
const PREFIX: &str = "plan-";

/// The content of a plan file: what laying out a plan needs.
#[derive(Serialize, Deserialize)]
struct CachedPlan {
    dataset: Dataset,
    measured: Vec<MeasuredSample>,
    digest: String,
    values: Vec<ValueGroup>,
}

impl Plan {
    /// The plan of a data set: from the user's cache folder if no input has changed since it was written there, else a
    /// new one, which is written there. Without [`Config::scan_cache`] always a new one. `look` says what the values of
    /// a new plan's volumes show.
    ///
    /// # Errors
    /// As [`Dataset::scan`] and [`Plan::new`], and the errors of `look`.
    pub fn load_or_make(
        config: &Config,
        options: Options,
        look: impl FnOnce(&Dataset) -> Result<Vec<ValueGroup>>,
    ) -> Result<Self> {
        let file = config.scan_cache.as_deref().map(|folder| file(folder, config, options)).transpose()?;
        let cached = file.as_deref().filter(|_| !config.rescan).and_then(user_cache::load::<CachedPlan>);
        if let Some(mut cached) = cached
            && cached.dataset.is_current(config)
        {
            cached.dataset.store = config.store.clone();
            return Ok(cached.lay_out(options));
        }
        let settled = user_cache::settled_before();
        let dataset = Dataset::scan(config)?;
        let (measured, digest) = Self::measure(&dataset, options)?;
        let values = look(&dataset)?;
        let made = CachedPlan { dataset, measured, digest, values };
        if let Some(file) = file.filter(|_| made.dataset.can_be_saved(config, settled))
            && user_cache::store(&file, &made)
        {
            remove_old(file.parent().unwrap_or(Path::new(".")));
        }
        Ok(made.lay_out(options))
    }
}

impl CachedPlan {
    fn lay_out(self, options: Options) -> Plan {
        let Self { dataset, measured, digest, values } = self;
        Plan { values: Some(values), ..Plan::lay_out(dataset, options, measured, digest) }
    }
}

/// The path of the plan file for a choice of inputs and options.
fn file(folder: &Path, config: &Config, options: Options) -> Result<PathBuf> {
    let key = key(config, options)?;
    Ok(folder.join(format!("{PREFIX}{key}.bin")))
}

/// SHA-256, in hexadecimal, of all that a plan is asked for with. Paths count as absolute ones. The file that is named
/// by it counts only for the program that wrote it ([`user_cache`]), so that a later version may hash other fields.
fn key(config: &Config, options: Options) -> Result<String> {
    // Every field is named, so that one which is added cannot be forgotten here.
    let Config {
        data_folder,
        reports_files,
        meta_files,
        labels_files,
        columns,
        missing_label,
        spacing_from,
        array,
        files,
        extras,
        extra_pad,
        volumes,
        selection: Selection { condition, studies },
        limit,
        strict,
        missing_text,
        missing_meta,
        kind:
            KindOptions {
                kind,
                dialect,
                axes,
                spacing_axes,
                rescale,
                resample,
                spacing,
                shape,
                hu_range,
                pad_value,
                format,
            },
        exclude,
        // These change no plan. What a bucket holds depends on the service as well, and its list tells.
        store: _,
        scan_cache: _,
        rescan: _,
        threads: _,
        progress: _,
    } = config;
    let mut fields = FieldHasher::new();
    fields.add(absolute(data_folder)?.as_os_str().as_bytes());
    for paths in [reports_files, meta_files, labels_files] {
        let paths = paths.iter().map(|path| absolute(path)).collect::<Result<Vec<_>>>()?;
        add_list(&mut fields, &paths.iter().map(|path| path.as_os_str().as_bytes()).collect::<Vec<_>>());
    }
    for path in [exclude, studies] {
        let path = path.as_deref().map(absolute).transpose()?;
        add_list(&mut fields, path.as_deref().map(|path| path.as_os_str().as_bytes()).as_slice());
    }
    let volumes = volumes.as_ref().map(|volumes| volumes.iter().map(|path| path.as_os_str().as_bytes()));
    fields.add(&[u8::from(volumes.is_some())]);
    add_list(&mut fields, &volumes.into_iter().flatten().collect::<Vec<_>>());
    let condition = condition.as_ref().map(ToString::to_string);
    add_list(&mut fields, condition.as_deref().map(str::as_bytes).as_slice());
    add_list(&mut fields, limit.map(|limit| (limit as u64).to_le_bytes()).as_slice());
    fields.add(missing_text.as_bytes());
    fields.add(format!("{array:?} {files:?} {columns:?} {dialect:?} {axes:?} {spacing_axes:?} {rescale:?}").as_bytes());
    fields.add(format!("{spacing_from:?} {}", format.digest_text()).as_bytes());
    fields.add(&[u8::from(*strict), *missing_meta as u8, *missing_label as u8, *kind as u8, *resample as u8]);
    add_extras(&mut fields, extras)?;
    for number in spacing.iter().chain(hu_range).chain([pad_value, extra_pad]) {
        fields.add(&number.to_bits().to_le_bytes());
    }
    shape.iter().for_each(|size| fields.add(&size.to_le_bytes()));
    fields.add(options_text(options).as_bytes());
    Ok(fields.finish_hex())
}

fn add_extras(fields: &mut FieldHasher, extras: &[ExtraChoice]) -> Result<()> {
    for ExtraChoice { name, place } in extras {
        fields.add(name.as_bytes());
        let folder = match place {
            ExtraPlace::Array(_) => PathBuf::new(),
            ExtraPlace::Files { folder, .. } => absolute(folder)?,
        };
        fields.add(folder.as_os_str().as_bytes());
        fields.add(format!("{place:?}").as_bytes());
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    if is_address(path) {
        return Ok(path.to_owned());
    }
    std::path::absolute(path).map_err(|error| Error::io(path, "resolve the path", error))
}

/// Adds a list of any length: the number of its elements, then these. An optional value is a list of none or one.
fn add_list(fields: &mut FieldHasher, list: &[impl AsRef<[u8]>]) {
    fields.add(&(list.len() as u64).to_le_bytes());
    list.iter().for_each(|element| fields.add(element.as_ref()));
}

/// Removes all but the latest plan files; a file that cannot be removed stays.
fn remove_old(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut plans: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    plans.sort_by(|a, b| b.cmp(a));
    for (_, path) in plans.iter().skip(KEPT) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dataset::{Columns, FileChoice, MissingLabel, MissingMeta, ScanProgress, Source, SpacingFrom};
    use crate::formats::npz::ArrayChoice;
    use crate::plan::members::Profile;
    use crate::volume::{Axes, Dialect, Kind, Overflow, Resample, Rescale, VoxelFormat};

    const OPTIONS: Options =
        Options { samples_per_shard: 100, format: Profile::Ctclip, overflow: Overflow::Error, labels_empty: false };

    fn config() -> Config {
        Config {
            store: crate::storage::local(),
            data_folder: "/data".into(),
            reports_files: vec!["/reports.csv".into()],
            meta_files: vec!["/meta.csv".into()],
            labels_files: vec!["/labels.csv".into()],
            columns: Columns::default(),
            missing_label: MissingLabel::Error,
            spacing_from: None,
            array: ArrayChoice::default(),
            files: FileChoice::default(),
            extras: Vec::new(),
            extra_pad: 0.0,
            volumes: None,
            selection: Selection::default(),
            limit: None,
            strict: false,
            missing_text: String::new(),
            missing_meta: MissingMeta::Exclude,
            kind: KindOptions::default(),
            exclude: None,
            scan_cache: None,
            rescan: false,
            threads: 1,
            progress: ScanProgress::default(),
        }
    }

    /// Changes of which each makes another plan; the first is none.
    const CHANGES: [fn(&mut Config); 52] = [
        |_| (),
        |config| config.data_folder = "/data2".into(),
        |config| config.reports_files = vec!["/reports2.csv".into()],
        |config| config.meta_files = vec!["/meta2.csv".into()],
        |config| config.labels_files = vec!["/labels2.csv".into()],
        |config| config.labels_files.push("/labels2.csv".into()),
        |config| config.reports_files.clear(),
        |config| config.labels_files.clear(),
        |config| config.array.name = Some(String::new()),
        |config| config.array.name = Some("data".into()),
        |config| config.array.channel = Some("1".parse().unwrap()),
        |config| config.array.channel = Some("last:1".parse().unwrap()),
        |config| config.array.spacing = Some("spacing".into()),
        |config| config.spacing_from = Some(SpacingFrom::Table),
        |config| config.spacing_from = Some(SpacingFrom::Header),
        |config| config.kind.axes = Some(Axes::Dhw),
        |config| config.kind.spacing_axes = Some(Axes::Dhw),
        |config| config.files.source = Source::Npy,
        |config| config.files.patterns = vec!["a/*".parse().unwrap(), "b".parse().unwrap()],
        |config| config.files.patterns = vec!["a/*".parse().unwrap()],
        |config| config.array.orientation = Some("RAS".parse().unwrap()),
        |config| config.extras = vec!["mask=gts".parse().unwrap()],
        |config| config.extras = vec!["mask=masks/*.npz".parse().unwrap()],
        |config| config.extras = vec!["mask=masks/*.npz:gts".parse().unwrap()],
        |config| config.extra_pad = 1.0,
        |config| config.volumes = Some(vec![]),
        |config| config.volumes = Some(vec!["a".into(), "b".into()]),
        |config| config.volumes = Some(vec!["ab".into()]),
        |config| config.selection.condition = Some("a == 1".parse().unwrap()),
        |config| config.selection.studies = Some("/list".into()),
        |config| config.exclude = Some("/list".into()),
        |config| config.limit = Some(0),
        |config| config.strict = true,
        |config| config.missing_text = "none".into(),
        |config| config.missing_meta = MissingMeta::Nan,
        |config| config.kind.kind = Kind::Rescaled,
        |config| config.kind.dialect = Some(Dialect::Native),
        |config| config.columns.ids = vec!["id".into()],
        |config| config.columns.classes = vec!["a..b".into()],
        |config| config.columns.extra = vec!["a..b".into()],
        |config| config.missing_label = MissingLabel::Zero,
        |config| config.kind.rescale = Rescale::Table,
        |config| config.kind.rescale = Rescale::Values(0.0, 0.0),
        |config| config.kind.resample = Resample::Never,
        |config| config.kind.spacing[2] = 1.0,
        |config| config.kind.shape[0] = 512,
        |config| config.kind.hu_range[0] = -1024.0,
        |config| config.kind.pad_value = 0.0,
        |config| config.kind.format = VoxelFormat::Float32,
        |config| config.kind.format = VoxelFormat::Int16,
        |config| config.kind.format = VoxelFormat::Uint8 { window: [0.0, 1.0] },
        |config| config.kind.format = VoxelFormat::Uint8 { window: [0.0, 2.0] },
    ];

    #[test]
    fn whatever_changes_a_plan_changes_its_file() {
        let changed = |change: &fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            key(&config, OPTIONS).unwrap()
        };
        let mut keys: BTreeSet<String> = CHANGES.iter().map(changed).collect();
        for options in [
            Options { samples_per_shard: 10, ..OPTIONS },
            Options { format: Profile::Npy, ..OPTIONS },
            Options { overflow: Overflow::Inf, ..OPTIONS },
            Options { labels_empty: true, ..OPTIONS },
        ] {
            keys.insert(key(&config(), options).unwrap());
        }
        assert_eq!(keys.len(), CHANGES.len() + 4);
    }

    #[test]
    fn what_changes_no_plan_changes_no_file() {
        let config = config();
        let here = std::env::current_dir().unwrap();
        let other = Config { scan_cache: Some("/cache".into()), rescan: true, threads: 8, ..config.clone() };
        assert_eq!(key(&other, OPTIONS).unwrap(), key(&config, OPTIONS).unwrap());
        let relative = Config { data_folder: "data".into(), ..config.clone() };
        let absolute = Config { data_folder: here.join("data"), ..config };
        assert_eq!(key(&relative, OPTIONS).unwrap(), key(&absolute, OPTIONS).unwrap());
    }
}
