//! The data folder: the folder that holds the volumes, and which of the files in it are volumes.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names;
use super::{Guess, Value};
use crate::base::num::counted;
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
    let mut volumes = match (Parts::of(&folder, &files), repeated(&files)) {
        (Some(parts), _) => of_parts(folder, files, &parts, notes),
        (None, 0) => of_folder(folder, files, notes, ""),
        (None, twice) => {
            let reason = format!(
                "{twice} names of files are there more than once below this folder, and a study has one volume: name \
                 the folder with the images"
            );
            Volumes { files, keys: vec![Guess::open("data_folder", Value::Path(folder), reason)] }
        }
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

/// Folders that differ by what their files are: one name is that of the images, the others are names of masks.
struct Parts {
    /// The number of folders above them, from the data folder on.
    level: usize,
    /// The name of the folders with the images.
    images: String,
}

impl Parts {
    /// The uppermost such folders; `None` if there are none, or other names beside them.
    fn of(folder: &Path, files: &[PathBuf]) -> Option<Self> {
        (0..LEVELS).find_map(|level| {
            let names = files.iter().map(|file| name_at(folder, file, level)).collect::<Option<BTreeSet<&str>>>()?;
            let (masks, images): (Vec<&str>, Vec<&str>) =
                names.into_iter().partition(|name| names::is_one(name, names::MASK));
            match images[..] {
                [images] if !masks.is_empty() => Some(Self { level, images: images.to_owned() }),
                _ => None,
            }
        })
    }

    /// The pattern of the images, from the data folder on.
    fn pattern(&self, folder: &Path, images: &[PathBuf]) -> String {
        let level = |file: &PathBuf| file.strip_prefix(folder).unwrap_or(file).components().count();
        let levels: BTreeSet<usize> = images.iter().map(level).collect();
        let between = match levels.first() {
            Some(all) if levels.len() == 1 => "*/".repeat(all.saturating_sub(self.level + 2)),
            _ => "**/".to_owned(),
        };
        let have = |suffix: &&str| images.iter().all(|file| file.as_os_str().as_bytes().ends_with(suffix.as_bytes()));
        let suffix = [".npz", ".npy", ".nii.gz", ".nii"].into_iter().find(have).unwrap_or_default();
        let escaped = glob::Pattern::escape(&self.images);
        format!("{}{escaped}/{between}*{suffix}", "*/".repeat(self.level))
    }
}

/// The name of the folder of a file at a level below another folder; `None` if the file lies above it.
fn name_at<'a>(folder: &Path, file: &'a Path, level: usize) -> Option<&'a str> {
    let below = file.strip_prefix(folder).unwrap_or(file).parent()?;
    below.components().nth(level)?.as_os_str().to_str()
}

/// The volumes in the folders with images: that folder, or a pattern where there are several.
fn of_parts(folder: PathBuf, files: Vec<PathBuf>, parts: &Parts, notes: &mut Vec<String>) -> Volumes {
    let is_image = |file: &PathBuf| name_at(&folder, file, parts.level) == Some(&*parts.images);
    let (images, masks): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(is_image);
    let names: BTreeSet<&str> = masks.iter().filter_map(|mask| name_at(&folder, mask, parts.level)).collect();
    let list = names.into_iter().collect::<Vec<_>>().join(", ");
    let formats = formats(&masks);
    let shown_folder = folder.display();
    notes.push(format!("{shown_folder}: {formats} in folders that by their name ({list}) hold masks"));
    if parts.level == 0 {
        let folder = common_folder(&images).unwrap_or(folder);
        return of_folder(folder, images, notes, "; the folders beside it hold masks, by their names");
    }
    let pattern = Value::Text(parts.pattern(&folder, &images));
    let reason = format!(
        "the volumes lie in folders '{}'; the folders beside these hold masks, by their names ({list})",
        parts.images
    );
    let count = images.len();
    let of_folder = format!("{count} volumes lie below this folder, in several");
    let keys =
        vec![Guess::found("data_folder", Value::Path(folder), of_folder), Guess::found("pattern", pattern, reason)];
    Volumes { files: images, keys }
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
        let (folder, formats) = (folder.display(), formats(&others));
        notes.push(format!("{folder}: ignored, because at another depth than most: {formats}"));
    }
    let (formats, depth) = (formats(&files), "*/".repeat(chosen - 1));
    let reason = format!("{formats} ({depth}*) in this folder{why}");
    Volumes { files, keys: vec![Guess::found("data_folder", Value::Path(folder), reason)] }
}

/// The number and the formats of files, in words.
fn formats(files: &[PathBuf]) -> String {
    let has = |wanted: Source| files.iter().any(|file| source_of(file) == wanted);
    let all = [Source::Npz, Source::Npy, Source::Nifti].into_iter().filter(|source| has(*source));
    let formats = all.map(Source::format).collect::<Vec<_>>().join(" and ");
    counted(files.len(), &format!("{formats} file"), &format!("{formats} files"))
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
