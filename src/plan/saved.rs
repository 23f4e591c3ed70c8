//! Plans that earlier runs made, so that a second start reads no table, lists no folder and opens no volume: it only
//! asks whether any of them has changed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Measured, Options, Plan};
use crate::base::user_cache;
use crate::dataset::{Config, Dataset, Selection};
use crate::error::{Error, Result};

/// Saved plans that are kept, one for each choice of inputs and options; 47,149 volumes take some 72 MB with reports of
/// CT-RATE's length.
const KEPT: usize = 8;
/// How their names begin.
const PREFIX: &str = "plan-";

#[derive(Serialize, Deserialize)]
struct Saved {
    dataset: Dataset,
    measured: Vec<Measured>,
    digest: String,
}

impl Plan {
    /// The plan of a data set: a saved one if nothing has changed since, else a new one, which is saved.
    ///
    /// # Errors
    /// As [`Dataset::scan`] and [`Plan::new`].
    pub fn load_or_make(config: &Config, options: Options) -> Result<Self> {
        let file = config.scan_cache.as_deref().map(|folder| file(folder, config, options)).transpose()?;
        let saved = file.as_deref().filter(|_| !config.rescan).and_then(user_cache::load::<Saved>);
        if let Some(Saved { dataset, measured, digest }) = saved
            && dataset.is_current(config)
        {
            return Ok(Self::lay_out(dataset, options, measured, digest));
        }
        let settled = user_cache::settled_before();
        let dataset = Dataset::scan(config)?;
        let (measured, digest) = Self::measure(&dataset, options)?;
        let saved = Saved { dataset, measured, digest };
        if let Some(file) = file.filter(|_| saved.dataset.can_be_saved(settled)) {
            user_cache::store(&file, &saved);
            remove_old(file.parent().unwrap_or(Path::new(".")));
        }
        Ok(Self::lay_out(saved.dataset, options, saved.measured, saved.digest))
    }
}

/// The file for a plan: named by everything that is asked for.
fn file(folder: &Path, config: &Config, options: Options) -> Result<PathBuf> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| Error::io(path, "resolve the path", error));
    let asked = Config {
        data_folder: absolute(&config.data_folder)?,
        reports_file: absolute(&config.reports_file)?,
        meta_file: absolute(&config.meta_file)?,
        labels_file: absolute(&config.labels_file)?,
        exclude: config.exclude.as_deref().map(absolute).transpose()?,
        selection: Selection {
            studies: config.selection.studies.as_deref().map(absolute).transpose()?,
            ..config.selection.clone()
        },
        scan_cache: None,
        rescan: false,
        threads: 0,
        ..config.clone()
    };
    let digest = Sha256::digest(format!("{asked:?} {options:?}"));
    Ok(folder.join(format!("{PREFIX}{digest:x}.bin")))
}

/// Removes all but the latest; what cannot be removed stays.
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
