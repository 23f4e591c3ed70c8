//! The NPZ files that shards name: which are there, which were removed, and in which slots they stand.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::remove::is_inside;
use crate::dataset::{Config, Dataset, Sample};
use crate::error::{Error, Result};
use crate::output::manifest;
use crate::plan::{Options, Plan, SampleDigest};

/// What became of the NPZ of a sample.
pub(super) enum NpzState {
    /// The file is there; index of its sample in the plan of the NPZ files.
    Here(usize),
    /// An earlier run removed the file; what the sample adds to the digest of its shard.
    Removed(SampleDigest),
    /// The sample cannot be made from this data set, and why.
    Unknown(String),
}

/// Refuses options with which all shards would be different ones.
///
/// # Errors
/// [`Error::Refused`]; the message has the option that the shards were made with.
pub(super) fn refuse_other_options(folder: &Path, shards: &Plan, config: &Config, options: Options) -> Result<()> {
    let made = &shards.options;
    let what = if made.samples_per_shard != options.samples_per_shard {
        format!("--samples-per-shard {}", made.samples_per_shard)
    } else if made.format != options.format {
        format!("--format {}", value(made.format))
    } else if shards.kind() != config.kind.kind {
        format!("--volume {}", value(shards.kind()))
    } else {
        return Ok(());
    };
    let folder = folder.display();
    Err(Error::Refused(format!("{folder}: these shards were made with {what}; give the flags of materialize")))
}

/// A choice as the command line spells it.
fn value(choice: impl clap::ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The NPZ files of the shards' samples that are there, by their paths relative to `root`.
///
/// # Errors
/// [`Error::Malformed`] if a path leads out of the data folder; [`Error::Io`] if the file system cannot tell.
pub(super) fn present(root: &Path, shards: &Plan) -> Result<Vec<PathBuf>> {
    let mut present = Vec::new();
    for sample in &shards.dataset.samples {
        if !is_inside(&sample.path) {
            let reason = format!("its source {:?} is not below a data folder", sample.path);
            return Err(Error::malformed(&shards.dataset.root.join(manifest::NAME), reason));
        }
        if is_there(&root.join(&sample.path))? {
            present.push(sample.path.clone());
        }
    }
    Ok(present)
}

fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path, "look at the file", error)),
    }
}

/// The data set with its samples in the slots that the shards give them.
pub(super) fn in_slots_of(shards: &Plan, mut dataset: Dataset) -> Dataset {
    let slots: HashMap<&str, u32> =
        shards.dataset.samples.iter().map(|sample| (sample.study_id.as_str(), sample.slot)).collect();
    dataset.samples.retain_mut(|sample| match slots.get(sample.study_id.as_str()) {
        Some(slot) => {
            sample.slot = *slot;
            true
        }
        None => false,
    });
    dataset.samples.sort_by_key(|sample| sample.slot);
    dataset.slots = shards.dataset.slots;
    dataset
}

/// What became of the NPZ of each of the shards' samples, in their order. `npz` is the plan of the NPZ files that are
/// there, `removed` has the files that the removal journal names, by study.
///
/// # Errors
/// [`Error::Io`] if the file system cannot tell whether a file is there.
pub(super) fn states(
    root: &Path,
    shards: &Plan,
    npz: Option<&Plan>,
    removed: &HashMap<String, SampleDigest>,
) -> Result<Vec<NpzState>> {
    let mut here: HashMap<&str, usize> = HashMap::new();
    let mut reasons: HashMap<&str, String> = HashMap::new();
    if let Some(dataset) = npz.map(|plan| &plan.dataset) {
        here.extend(dataset.samples.iter().enumerate().map(|(index, sample)| (sample.study_id.as_str(), index)));
        reasons.extend(dataset.left_out.iter().map(|out| (out.study_id.as_str(), out.reason.clone())));
        let unmatched = dataset.unmatched.iter();
        reasons.extend(unmatched.map(|(study, tables)| (study.as_str(), format!("it is not in the {tables} table"))));
    }
    let state = |sample: &Sample| {
        let study = sample.study_id.as_str();
        let path = root.join(&sample.path);
        Ok(match (here.get(study), removed.get(study)) {
            (Some(index), _) => NpzState::Here(*index),
            (None, Some(digest)) if !is_there(&path)? => NpzState::Removed(*digest),
            _ => NpzState::Unknown(reasons.get(study).cloned().unwrap_or_else(|| {
                format!("{} is gone, and the journal of reclaim does not say that it was removed", path.display())
            })),
        })
    };
    shards.dataset.samples.iter().map(state).collect()
}
