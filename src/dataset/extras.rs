//! Extras: arrays beside the volumes, such as masks, of which each sample has one as well (`--also`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::files::{FileChoice, FilePattern, Source};
use super::found::FoundObjects;
use super::ids::bare;
use super::inspect::{self, Look, Wanted};
use super::matched::Matched;
use super::scan::find_volumes;
use super::scan_cache::Finding;
use super::{Config, Inputs};
use crate::base::file_id::FileId;
use crate::error::{Error, Result, shown};
use crate::formats::npz::{Array, ArrayChoice};
use crate::volume::Recipe;

/// Names that readers give a meaning of their own, or that fixed members have.
const RESERVED: [&str; 12] =
    ["volume", "labels", "meta", "report", "bin", "json", "txt", "npy", "key", "url", "index", "sample"];
/// The most bytes of a name: with a key, a suffix and that of a compressed member it stays within the 100 of a header.
const LONGEST: usize = 48;

/// The end of a pattern for files of every format.
const ANY_FORMAT: &str = ".*";

/// What the user asks for: a name, and where the arrays are. As text it is the value of `--also`: `NAME=ARRAY`,
/// `NAME=FOLDER/*.npz` or `NAME=FOLDER/*.npz:ARRAY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraChoice {
    /// The name; that of the member is `.NAME.npy`.
    pub name: String,
    /// Where the arrays are.
    pub place: ExtraPlace,
}

/// Where the arrays of an extra are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraPlace {
    /// In the files of the volumes: the array of this name.
    Array(String),
    /// In files of their own.
    Files {
        /// The folder that the pattern starts at.
        folder: PathBuf,
        /// The pattern of the files; in its last part one `*` stands for the study's id.
        pattern: FilePattern,
        /// The array; by default the one that would be the volume.
        array: Option<String>,
    },
}

impl FromStr for ExtraChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "expected NAME=ARRAY, NAME=FOLDER/*.npz or NAME=FOLDER/*.npz:ARRAY";
        let (name, place) = text.split_once('=').ok_or(wrong)?;
        check_name(name)?;
        let is_path = |text: &str| text.contains(['/', '*']) || Source::Auto.is_volume(text.as_ref());
        let (files, array) = match place.rsplit_once(':') {
            Some((files, array)) if is_path(files) && !array.is_empty() && !array.contains('/') => (files, Some(array)),
            _ => (place, None),
        };
        if files.is_empty() {
            return Err(wrong.into());
        }
        let place = if is_path(files) {
            files_of(files, array.map(str::to_owned))?
        } else {
            ExtraPlace::Array(files.to_owned())
        };
        Ok(Self { name: name.to_owned(), place })
    }
}

/// Checks the name of an extra: readers split member names at dots, and WebDataset lowers capitals.
///
/// # Errors
/// What is wrong with it.
fn check_name(name: &str) -> Result<(), String> {
    if RESERVED.contains(&name) {
        return Err(format!(
            "the name '{name}' is that of another member, or readers give it a meaning; choose another"
        ));
    }
    let is_plain = name.len() <= LONGEST
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain {
        return Ok(());
    }
    Err(format!(
        "the name '{}' must begin with a letter, and have small letters, digits and _ alone ({LONGEST} at most)",
        shown(name)
    ))
}

/// Splits a pattern with a folder in front of it: at the last part before the first with a sign for others.
fn files_of(text: &str, array: Option<String>) -> Result<ExtraPlace, String> {
    let is_literal = |part: &&str| !part.contains(['*', '?', '[']);
    let parts: Vec<&str> = text.split('/').collect();
    let folders = parts[..parts.len() - 1].iter().take_while(|part| is_literal(part)).count();
    let folder = match parts[..folders].join("/") {
        none if folders == 0 => none + ".",
        root if root.is_empty() => "/".to_owned(),
        folder => folder,
    };
    let last = parts.last().copied().unwrap_or_default();
    if last.strip_suffix(ANY_FORMAT).unwrap_or(last).matches('*').count() != 1 || last.contains(['?', '[']) {
        return Err(format!("in the file name '{}', one * must stand for the study's id: FOLDER/*.npz", shown(last)));
    }
    let pattern = parts[folders..].join("/").parse()?;
    Ok(ExtraPlace::Files { folder: folder.into(), pattern, array })
}

/// An extra of a data set, as its plan keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Extra {
    /// The name.
    pub name: String,
    /// The folder that the paths of the arrays' files start at.
    pub root: PathBuf,
}

impl Extra {
    /// The file that a finding is of, for [`Inputs::others`].
    pub(super) fn input(&self, finding: &ExtraFinding) -> Option<(PathBuf, FileId)> {
        let (path, finding) = finding.as_ref().ok()?;
        Some((self.root.join(path), *finding.file_id()))
    }
}

/// What was found of an extra of one study: the file, relative to [`Extra::root`], and what is in it; or why there is
/// none.
pub(super) type ExtraFinding = std::result::Result<(PathBuf, Finding), String>;

/// The identities of objects in the list of a bucket, by their paths; none of a folder on a disk.
pub(super) type Objects = HashMap<PathBuf, FileId>;

/// The folder of the volumes, and its objects.
pub(super) type Folder<'a> = (&'a Path, &'a Objects);

/// What was found of all extras of one study.
pub(super) type Beside<'a> = Vec<(&'a Extra, ExtraFinding)>;

/// The array of an extra that one sample has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExtraArray {
    /// The file, relative to [`Extra::root`].
    pub path: PathBuf,
    /// The array in the file.
    pub array: Array,
    /// The steps from the array to the member, which lie on the voxels of the volume.
    pub recipe: Recipe,
}

/// What was found of one extra: for each matched volume, the file and what is in it, or why there is none.
pub(super) struct FoundExtra {
    /// The extra.
    pub(super) extra: Extra,
    /// The findings, in the order of the volumes.
    pub(super) findings: Vec<ExtraFinding>,
}

/// What was found of all extras, sample by sample.
pub(super) struct BySample(Vec<(Extra, std::vec::IntoIter<ExtraFinding>)>);

impl BySample {
    /// The findings of all extras, each in the order of the volumes.
    pub(super) fn new(found: Vec<FoundExtra>) -> Self {
        Self(found.into_iter().map(|found| (found.extra, found.findings.into_iter())).collect())
    }

    /// The extras.
    pub(super) fn extras(&self) -> Vec<Extra> {
        self.0.iter().map(|(extra, _)| extra.clone()).collect()
    }

    /// What was found of the next sample's extras, and the files that were looked into.
    pub(super) fn next_sample(&mut self) -> (Beside<'_>, Vec<(PathBuf, FileId)>) {
        let beside = self.0.iter_mut().map(|(extra, findings)| (&*extra, findings.next()));
        let beside: Vec<_> = beside.filter_map(|(extra, finding)| Some((extra, finding?))).collect();
        let files = beside.iter().filter_map(|(extra, finding)| extra.input(finding)).collect();
        (beside, files)
    }
}

/// Looks for the extras of all matched volumes; `volumes` are the findings of these. Notes the folders that it lists in
/// `inputs`.
///
/// # Errors
/// [`Error::Refused`] if no file matches a pattern, or two files have one id; [`Error::Io`] if something cannot be
/// read.
pub(super) fn all(
    config: &Config,
    folder: Folder<'_>,
    matched: &[Matched],
    volumes: &[Finding],
    inputs: &mut Inputs,
) -> Result<Vec<FoundExtra>> {
    config.extras.iter().map(|choice| one(config, choice, folder, matched, volumes, inputs)).collect()
}

fn one(
    config: &Config,
    choice: &ExtraChoice,
    (root, objects): Folder<'_>,
    matched: &[Matched],
    volumes: &[Finding],
    inputs: &mut Inputs,
) -> Result<FoundExtra> {
    let ExtraChoice { name, place } = choice;
    let (folder, array, files, objects) = match place {
        ExtraPlace::Array(array) => {
            let files = matched.iter().map(|matched| Some(matched.path.clone())).collect();
            (root.to_owned(), Some(array), files, Cow::Borrowed(objects))
        }
        ExtraPlace::Files { folder, pattern, array } => {
            let folder = super::absolute(config, folder)?;
            let (mut by_id, objects) = files_by_id(config, name, &folder, pattern, inputs)?;
            let files = matched.iter().map(|matched| by_id.remove(&matched.study_id)).collect::<Vec<_>>();
            (folder, array.as_ref(), files, Cow::Owned(objects))
        }
    };
    let orientation = config.array.orientation; // turned as the volumes are
    let choice = ArrayChoice { name: array.cloned(), channel: None, spacing: None, orientation };
    // A volume that is left out needs no extra.
    let unwanted = |finding: &Finding| !matches!(finding, Finding::Volume(_));
    let wanted: Vec<Wanted<'_>> = files
        .iter()
        .zip(volumes)
        .filter_map(|(file, volume)| {
            let path = file.as_deref().filter(|_| !unwanted(volume))?;
            Some(Wanted { path, excluded: None })
        })
        .collect();
    let look = Look { folder: &folder, root: &folder, choice: &choice, objects: &objects, is_part: true };
    let mut found = inspect::all(config, &look, &wanted)?.into_iter();
    drop(wanted);
    let findings = files.into_iter().zip(volumes).map(|(file, volume)| match file {
        _ if unwanted(volume) => Err(String::new()),
        None => Err(format!("there is no file for it ({})", pattern_of(place))),
        Some(path) => found.next().map(|finding| (path, finding)).ok_or_else(String::new),
    });
    Ok(FoundExtra { findings: findings.collect(), extra: Extra { name: name.clone(), root: folder } })
}

/// The pattern of an extra's files, for messages.
fn pattern_of(place: &ExtraPlace) -> String {
    match place {
        ExtraPlace::Array(array) => format!("array '{array}'"),
        ExtraPlace::Files { folder, pattern, .. } => format!("{}/{pattern}", folder.display()),
    }
}

/// The files that match a pattern, by the ids of their studies, and the identities of what a bucket lists.
fn files_by_id(
    config: &Config,
    name: &str,
    folder: &Path,
    pattern: &FilePattern,
    inputs: &mut Inputs,
) -> Result<(HashMap<String, PathBuf>, Objects)> {
    let refused = |what: String| Error::Refused(format!("--also {name}=…: {what}"));
    if !config.store.is_remote(folder) && !folder.is_dir() {
        let hint = "a relative path starts at the current folder, in ctwds.toml at the folder of that file";
        return Err(refused(format!("{}: no such folder ({hint})", folder.display())));
    }
    let files = FileChoice { source: Source::Auto, patterns: vec![pattern.clone()] };
    let found =
        find_volumes((&*config.store, folder), &files, config.threads, &config.progress).map_err(
            |error| match error {
                Error::Refused(what) => refused(what.replace("--pattern", "the pattern")),
                error => error,
            },
        )?;
    inputs.folders.extend(found.folders.into_iter().map(|(path, state)| (folder.join(path), state)));
    inputs.certain &= found.certain;
    let objects = found.objects.map(|FoundObjects { listing, states }| {
        inputs.listings.push(listing);
        states
    });
    let mut by_id: HashMap<String, PathBuf> = HashMap::with_capacity(found.files.len());
    for path in found.files {
        let Some(id) = id_of(&path, pattern) else { continue };
        if let Some(earlier) = by_id.insert(id.clone(), path.clone()) {
            let (id, earlier, path) = (shown(&id), shown(&earlier), shown(&path));
            return Err(refused(format!(
                "two files are of study '{id}': {earlier} and {path}; name one by the pattern"
            )));
        }
    }
    Ok((by_id, objects.unwrap_or_default()))
}

/// The study of a file: what the `*` in the last part of the pattern stands for, without a suffix. `None` for a name
/// that is not UTF-8.
fn id_of(path: &Path, pattern: &FilePattern) -> Option<String> {
    let pattern = pattern.to_string();
    let last = pattern.rsplit('/').next().unwrap_or_default();
    let (before, behind) = last.split_once('*')?;
    let name = path.file_name()?.to_str()?;
    if behind.contains('.') && !behind.ends_with(ANY_FORMAT) {
        return Some(name.strip_prefix(before)?.strip_suffix(behind)?.to_owned());
    }
    let behind = behind.strip_suffix(ANY_FORMAT).unwrap_or(behind);
    Some(bare(name).strip_prefix(before)?.strip_suffix(behind)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(text: &str) -> Result<ExtraChoice, String> {
        text.parse()
    }

    #[test]
    fn a_choice_names_an_array_or_files() {
        assert_eq!(choice("mask=gts").unwrap().place, ExtraPlace::Array("gts".into()));
        for (text, folder, pattern, array) in [
            ("m=masks/*.npz", "masks", "*.npz", None),
            ("m=masks/*.npz:seg", "masks", "*.npz", Some("seg")),
            ("m=/a/b/**/*_seg.npy", "/a/b", "**/*_seg.npy", None),
            ("m=*.npz", ".", "*.npz", None),
            ("m=a/[xy]/*.npz", "a", "[xy]/*.npz", None),
            ("m=/*.npz", "/", "*.npz", None),
            ("m=a/*_seg.*:x", "a", "*_seg.*", Some("x")),
        ] {
            let (folder, pattern) = (PathBuf::from(folder), pattern.parse().unwrap());
            let expected = ExtraPlace::Files { folder, pattern, array: array.map(str::to_owned) };
            assert_eq!(choice(text).unwrap().place, expected, "{text}");
        }
    }

    #[test]
    fn names_of_other_members_and_patterns_without_an_id_are_refused() {
        for text in [
            "mask",
            "=a",
            "Mask=a",
            "a.b=c",
            "volume=a",
            "json=a",
            "1=a",
            "m=",
            "m=a/seg.npz",
            "m=a/?*.npz",
            "m=a/*_*.npz",
        ] {
            assert!(choice(text).is_err(), "{text}");
        }
        assert!(choice("m=a/**/seg.npz").unwrap_err().contains("stand for the study's id"));
    }

    #[test]
    fn the_id_is_what_the_star_stands_for() {
        let id = |path: &str, pattern: &str| id_of(Path::new(path), &pattern.parse().unwrap());
        assert_eq!(id("x/v_1_seg.npz", "**/*_seg.npz").as_deref(), Some("v_1"));
        assert_eq!(id("mask-v.2.npz", "mask-*.npz").as_deref(), Some("v.2"));
        assert_eq!(id("v_1.npz", "*").as_deref(), Some("v_1"));
        assert_eq!(id("v.1_seg.npy", "*_seg.*").as_deref(), Some("v.1"));
        assert_eq!(id("v_1.npz", "a*"), None);
    }
}
