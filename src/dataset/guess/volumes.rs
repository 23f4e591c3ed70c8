//! The data folder: the folder that holds the volumes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::names;
use super::{Guess, Value};
use crate::dataset::ids::study_id;
use crate::error::{Error, Result};

/// The levels of folders that a scan reads.
const LEVELS: usize = 3;

/// The volumes of the data set.
#[derive(Debug)]
pub(super) struct Volumes {
    /// The volumes that a scan of the data folder takes, by their paths.
    pub(super) files: Vec<PathBuf>,
    /// The keys of the data folder.
    pub(super) keys: Vec<Guess>,
}

impl Volumes {
    /// The ids of the volumes.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|file| study_id(file))
    }
}

/// Chooses the data folder among the folders that hold volumes.
///
/// # Errors
/// [`Error::Refused`] if there is no volume.
pub(super) fn choose(root: &Path, volumes: &[PathBuf], notes: &mut Vec<String>) -> Result<Volumes> {
    let Some(folder) = common_folder(volumes) else {
        return Err(Error::Refused(format!(
            "{}: there is no NPZ file in it or below it; name the folder that holds the volumes",
            root.display()
        )));
    };
    let twice = repeated(volumes);
    if twice == 0 {
        return Ok(of_folder(folder, volumes, notes, ""));
    }
    // The folders in the data folder, each with its volumes: images beside masks, say.
    let mut parts: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
    for volume in volumes {
        let below = volume.strip_prefix(&folder).unwrap_or(volume);
        let first = below.components().next().map_or_else(|| folder.clone(), |first| folder.join(first));
        match parts.last_mut() {
            Some((part, files)) if *part == first => files.push(volume.clone()),
            _ => parts.push((first, vec![volume.clone()])),
        }
    }
    let is_mask =
        |part: &Path| part.file_name().is_some_and(|name| names::is_one(&name.to_string_lossy(), names::MASK));
    let (masks, images): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(part, _)| is_mask(part));
    if let ([(image, files)], false) = (&images[..], masks.is_empty()) {
        for (mask, files) in &masks {
            notes.push(format!("{}: {} NPZ files that by the folder's name are masks", mask.display(), files.len()));
        }
        let folder = common_folder(files).unwrap_or_else(|| image.clone());
        return Ok(of_folder(folder, files, notes, "; the folders beside it hold masks, by their names"));
    }
    let reason = format!(
        "{twice} names of NPZ files are there more than once below this folder, and a study has one volume: name the \
         folder with the images"
    );
    let keys = vec![Guess::open("data_folder", Value::Path(folder.clone()), reason)];
    Ok(Volumes { files: volumes.to_vec(), keys })
}

/// The volumes of a data folder: those of the level that has the most.
fn of_folder(folder: PathBuf, volumes: &[PathBuf], notes: &mut Vec<String>, why: &str) -> Volumes {
    let level = |file: &PathBuf| file.strip_prefix(&folder).unwrap_or(file).components().count();
    let at = |wanted: usize| volumes.iter().filter(|file| level(file) == wanted).count();
    let chosen = (1..=LEVELS).max_by_key(|level| at(*level)).unwrap_or(1); // the last of equals, as a scan does it
    let files: Vec<PathBuf> = volumes.iter().filter(|file| level(file) == chosen).cloned().collect();
    let (count, others) = (files.len(), volumes.len() - files.len());
    if count == 0 {
        let reason =
            format!("{others} NPZ files lie more than {LEVELS} levels below this folder: name a folder nearer to them");
        let keys = vec![Guess::open("data_folder", Value::Path(folder.clone()), reason)];
        return Volumes { files: volumes.to_vec(), keys };
    }
    if others > 0 {
        notes.push(format!("{}: {others} NPZ files lie at another depth than most and are ignored", folder.display()));
    }
    let depth = "*/".repeat(chosen - 1);
    let reason = format!("{count} NPZ files ({depth}*.npz) lie in this folder{why}");
    let keys = vec![Guess::found("data_folder", Value::Path(folder.clone()), reason)];
    Volumes { files, keys }
}

/// The deepest folder that holds all of the files.
fn common_folder(files: &[PathBuf]) -> Option<PathBuf> {
    let mut folder = files.first()?.parent()?.to_owned();
    while !files.iter().all(|file| file.starts_with(&folder)) {
        folder = folder.parent()?.to_owned();
    }
    Some(folder)
}

/// The number of study ids that more than one volume has.
fn repeated(volumes: &[PathBuf]) -> usize {
    let mut seen = HashMap::new();
    volumes.iter().filter_map(|file| study_id(file)).for_each(|id| *seen.entry(id).or_insert(0) += 1);
    seen.values().filter(|count| **count > 1).count()
}
