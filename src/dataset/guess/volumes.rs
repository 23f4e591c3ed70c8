//! The data folder: the folder that holds the volumes, and which of the files in it are volumes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::names;
use super::{Guess, Value};
use crate::dataset::files::Source;
use crate::dataset::ids::study_id;
use crate::error::{Error, Result};
use crate::formats::volume_file::{self, Format};

/// The axes of a volume.
const AXES: usize = 3;
/// The levels of folders that a scan looks at first.
const FIRST_LEVELS: usize = 3;
/// The levels of folders that a scan looks at where the first ones have no volume.
const LEVELS: usize = 8;

/// The volumes of the data set.
#[derive(Debug)]
pub(super) struct Volumes {
    /// The volumes that a scan of the data folder takes, by their paths.
    pub(super) files: Vec<PathBuf>,
    /// The keys of the data folder and of the files in it.
    pub(super) keys: Vec<Guess>,
}

impl Volumes {
    /// The ids of the volumes.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|file| study_id(file))
    }
}

/// Chooses the data folder among the folders that hold volumes, and the format of the volumes.
///
/// # Errors
/// [`Error::Refused`] if there is no volume.
pub(super) fn choose(root: &Path, files: Vec<PathBuf>, notes: &mut Vec<String>) -> Result<Volumes> {
    let (files, source) = of_one_source(files);
    let Some(folder) = common_folder(&files) else {
        return Err(Error::Refused(format!(
            "{}: there is no NPZ, NPY or NIfTI file in it or below it; name the folder that holds the volumes",
            root.display()
        )));
    };
    let mut volumes = match repeated(&files) {
        0 => of_folder(folder, files, notes, ""),
        twice => of_parts(folder, files, twice, notes),
    };
    volumes.keys.extend(source);
    Ok(volumes)
}

/// The files of the format in which the volumes are, and the key that says so. A file of another format that has the
/// name of a volume would be a second volume of the study.
fn of_one_source(files: Vec<PathBuf>) -> (Vec<PathBuf>, Option<Guess>) {
    let of = |source: Source| files.iter().filter(|file| source_of(file) == source).cloned().collect::<Vec<_>>();
    let sources = [Source::Npz, Source::Npy, Source::Nifti].map(|source| (source, of(source)));
    let there: Vec<_> = sources.into_iter().filter(|(_, files)| !files.is_empty()).collect();
    if there.len() < 2 {
        return (files, None);
    }
    let is_volume = |file: &Path| {
        volume_file::arrays(file).is_ok_and(|arrays| arrays.iter().any(|array| array.header.shape.len() >= AXES))
    };
    let (volumes, others): (Vec<_>, Vec<_>) = there.iter().partition(|(_, files)| is_volume(&files[0]));
    let names = |sources: &[&(Source, Vec<PathBuf>)], word: &str| {
        sources.iter().map(|(source, _)| source.format()).collect::<Vec<_>>().join(word)
    };
    if let [(source, files)] = volumes[..] {
        let reason = format!("the {} files have no array of three axes", names(&others, " and "));
        return (files.clone(), Some(Guess::found("source", source.value(), reason)));
    }
    if repeated(&files) > there.iter().map(|(_, files)| repeated(files)).max().unwrap_or(0) {
        let (source, of_source) = &there[0];
        let all: Vec<&(Source, Vec<PathBuf>)> = there.iter().collect();
        let keys = there.iter().map(|(source, _)| format!("\"{}\"", source.key())).collect::<Vec<_>>().join(" or ");
        let reason =
            format!("there are {} files of one name, and a study has one volume: {keys}", names(&all, " and "));
        return (of_source.clone(), Some(Guess::open("source", source.value(), reason)));
    }
    (files, None)
}

/// The format of a file, as the key `source` names it.
fn source_of(file: &Path) -> Source {
    match file.file_name().and_then(Format::of) {
        Some(Format::Npy) => Source::Npy,
        Some(Format::Nifti | Format::NiftiGz) => Source::Nifti,
        Some(Format::Npz) | None => Source::Npz,
    }
}

impl Source {
    /// The value of the key `source`.
    fn key(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Npz => "npz",
            Self::Npy => "npy",
            Self::Nifti => "nifti",
        }
    }

    fn value(self) -> Value {
        Value::Text(self.key().into())
    }

    /// The name of the format.
    fn format(self) -> &'static str {
        match self {
            Self::Auto => "volume",
            Self::Npz => "NPZ",
            Self::Npy => "NPY",
            Self::Nifti => "NIfTI",
        }
    }
}

/// The volumes where several have one name: those of one folder in the data folder, if the others hold masks.
fn of_parts(folder: PathBuf, files: Vec<PathBuf>, twice: usize, notes: &mut Vec<String>) -> Volumes {
    let mut parts: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
    for file in &files {
        let below = file.strip_prefix(&folder).unwrap_or(file);
        let first = below.components().next().map_or_else(|| folder.clone(), |first| folder.join(first));
        match parts.last_mut() {
            Some((part, files)) if *part == first => files.push(file.clone()),
            _ => parts.push((first, vec![file.clone()])),
        }
    }
    let is_mask =
        |part: &Path| part.file_name().is_some_and(|name| names::is_one(&name.to_string_lossy(), names::MASK));
    let (masks, images): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(part, _)| is_mask(part));
    match <[_; 1]>::try_from(images) {
        Ok([(image, files)]) if !masks.is_empty() => {
            for (mask, files) in &masks {
                let (mask, count) = (mask.display(), files.len());
                notes.push(format!("{mask}: {count} {} that by the folder's name are masks", formats(files)));
            }
            let folder = common_folder(&files).unwrap_or(image);
            of_folder(folder, files, notes, "; the folders beside it hold masks, by their names")
        }
        _ => {
            let reason = format!(
                "{twice} names of files are there more than once below this folder, and a study has one volume: name \
                 the folder with the images"
            );
            Volumes { files, keys: vec![Guess::open("data_folder", Value::Path(folder), reason)] }
        }
    }
}

/// The volumes of a data folder: those of the level that has the most, as a scan chooses it.
fn of_folder(folder: PathBuf, files: Vec<PathBuf>, notes: &mut Vec<String>, why: &str) -> Volumes {
    let level = |file: &PathBuf| file.strip_prefix(&folder).unwrap_or(file).components().count();
    let mut counts = [0; LEVELS + 1];
    files.iter().map(level).filter(|level| *level <= LEVELS).for_each(|level| counts[level] += 1);
    let most = |levels: std::ops::RangeInclusive<usize>| {
        levels.filter(|level| counts[*level] > 0).max_by_key(|level| counts[*level]) // the last of equals
    };
    let Some(chosen) = most(1..=FIRST_LEVELS).or_else(|| most(FIRST_LEVELS + 1..=LEVELS)) else {
        let reason = format!("the files lie more than {LEVELS} levels below this folder: name a folder nearer to them");
        return Volumes { files, keys: vec![Guess::open("data_folder", Value::Path(folder), reason)] };
    };
    let (files, others): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(|file| level(file) == chosen);
    if !others.is_empty() {
        let (folder, count, formats) = (folder.display(), others.len(), formats(&others));
        notes.push(format!("{folder}: {count} {formats} lie at another depth than most and are ignored"));
    }
    let (count, formats, depth) = (files.len(), formats(&files), "*/".repeat(chosen - 1));
    let reason = format!("{count} {formats} ({depth}*) lie in this folder{why}");
    Volumes { files, keys: vec![Guess::found("data_folder", Value::Path(folder), reason)] }
}

/// The formats of files, in words.
fn formats(files: &[PathBuf]) -> String {
    let has = |wanted: Source| files.iter().any(|file| source_of(file) == wanted);
    let all = [Source::Npz, Source::Npy, Source::Nifti].into_iter().filter(|source| has(*source));
    format!("{} files", all.map(Source::format).collect::<Vec<_>>().join(" and "))
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
