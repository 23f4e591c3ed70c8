//! Which array of the files is the volume, in which order its axes are, and where its spacing stands.

use std::path::PathBuf;

use super::names;
use super::volumes::Volumes;
use super::{Guess, Value};
use crate::base::parallel::try_map;
use crate::error::{Error, Result, shown};
use crate::formats::npz::{Array, ArrayChoice, NamedArray};
use crate::formats::volume_file;
use crate::storage::Files;
use crate::volume::{Dialect, Span, span};

/// The volumes that are looked at.
const LOOKED_AT: usize = 8;
/// The axes of a volume.
const AXES: usize = 3;
/// The largest relative difference of two spacings that count as equal: that of the same number in float32.
const EQUAL: f64 = 1e-6;

/// A volume that was looked at.
pub(super) struct Seen {
    /// The file.
    pub(super) file: PathBuf,
    /// The array in it.
    pub(super) array: Array,
    /// The range of its first values.
    pub(super) span: Span,
}

/// The arrays of some of the volumes, spread over all.
pub(super) struct Looked {
    files: Vec<PathBuf>,
    /// The arrays of each file that can be read.
    listed: Vec<Vec<NamedArray>>,
}

impl Looked {
    /// Looks into some of the volumes.
    ///
    /// # Errors
    /// [`Error::Io`] if a volume cannot be read.
    pub(super) fn at(volumes: &Volumes) -> Result<Self> {
        let count = volumes.files.len().min(LOOKED_AT);
        let files: Vec<PathBuf> = (0..count).map(|n| volumes.files[n * volumes.files.len() / count].clone()).collect();
        let listed = try_map(&files, LOOKED_AT, |file| match volume_file::arrays(file) {
            Ok(arrays) => Ok(Some(arrays)),
            Err(Error::Malformed { .. }) => Ok(None),
            // A link that leads nowhere is a volume that is left out, as in a scan.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })?;
        Ok(Self { files, listed: listed.into_iter().flatten().collect() })
    }

    fn count(&self) -> String {
        format!("{} of {} files that were looked at", self.listed.len(), self.files.len())
    }

    /// Whether an array of this name is in every file besides NPY files, whose array has no name.
    fn has_in_all(&self, name: &str) -> bool {
        let is_npy = |arrays: &[NamedArray]| arrays.iter().any(|array| array.name.is_empty());
        self.listed.iter().all(|arrays| is_npy(arrays) || arrays.iter().any(|array| array.name == name))
    }

    /// The arrays of the first file that may be volumes.
    fn candidates(&self) -> Vec<&NamedArray> {
        let may_be = |array: &&NamedArray| array.header.shape.len() >= AXES && self.has_in_all(&array.name);
        // An NPY file says nothing of the names in the others.
        let named = self.listed.iter().find(|arrays| arrays.iter().any(|array| !array.name.is_empty()));
        named.or(self.listed.first()).into_iter().flatten().filter(may_be).collect()
    }

    /// The key of the array, and the choice that it makes; no choice where the user must decide.
    pub(super) fn array(&self) -> (Guess, Option<ArrayChoice>) {
        let (of, candidates) = (self.count(), self.candidates());
        let shapes = format!("in {of}: {}", list(&candidates));
        let default = self.files.iter().find_map(|file| volume_file::inspect(file, &ArrayChoice::default()).ok());
        let is_default = |array: &&&NamedArray| default.as_ref().is_some_and(|found| found.member.name == array.name);
        if let Some(array) = candidates.iter().find(is_default) {
            let name = match &default {
                Some(found) if found.nifti.is_some() => "that of a NIfTI file".into(),
                _ if array.name.is_empty() => "that of an NPY file".into(),
                _ => quoted(&array.name),
            };
            let guess = Guess::unneeded("array", format!("{name} is taken without this key, {shapes}"));
            return (guess, Some(ArrayChoice::default()));
        }
        let example = Value::Text(candidates.first().map_or_else(|| "data".into(), |array| array.name.clone()));
        match image(&candidates) {
            Some((array, why)) => {
                let choice = ArrayChoice { name: Some(array.name.clone()), ..ArrayChoice::default() };
                let name = Value::Text(array.name.clone());
                (Guess::found("array", name, format!("{why}, {shapes}")), Some(choice))
            }
            None if candidates.is_empty() => {
                let found =
                    self.listed.first().map_or_else(String::new, |first| list(&first.iter().collect::<Vec<_>>()));
                let reason = format!("no array of three axes has one name in all of {of}; the first has: {found}");
                (Guess::open("array", example, reason), None)
            }
            None => (Guess::open("array", example, format!("several may be it, {shapes}")), None),
        }
    }

    /// The key of the channel, where the arrays have more than three axes that are longer than 1.
    pub(super) fn channel(&self, choice: &ArrayChoice) -> Option<Guess> {
        let candidates = self.candidates();
        let is_it = |array: &&&NamedArray| choice.name.as_ref().is_none_or(|name| *name == array.name);
        let array = candidates.iter().find(is_it)?;
        let longer = array.header.shape.iter().filter(|n| **n > 1).count();
        let reason = format!("{} has {longer} axes longer than 1: say which channel is the volume", described(array));
        (longer > AXES).then(|| Guess::open("channel", Value::Text("first:0".into()), reason))
    }

    /// The key of arrays beside the volume, if the files have others of its shape: whether they are wanted is the
    /// user's to say.
    pub(super) fn extras(&self, choice: &ArrayChoice) -> Option<Guess> {
        let candidates = self.candidates();
        let name = self.files.iter().find_map(|file| volume_file::inspect(file, choice).ok())?.member.name;
        let shape = &candidates.iter().find(|array| array.name == name)?.header.shape;
        let others = candidates.iter().filter(|array| array.name != name && array.header.shape == *shape);
        let others: Vec<&NamedArray> = others.copied().collect();
        let also = |array: &&NamedArray| format!("{}={}", member_name(&array.name), array.name);
        let reason = || format!("beside the volume, in {}: {}", self.count(), list(&others));
        (!others.is_empty()).then(|| Guess::open("also", Value::Texts(others.iter().map(also).collect()), reason()))
    }

    /// The volumes that can be read with this choice, with the range of their first values.
    ///
    /// # Errors
    /// [`Error::Io`] if a volume cannot be read.
    pub(super) fn values(&self, choice: &ArrayChoice) -> Result<Vec<Seen>> {
        let found = try_map(&self.files, LOOKED_AT, |file| match volume_file::inspect(file, choice) {
            Ok(array) => Ok(span((&Files, file), &array)?.map(|span| Seen { file: file.clone(), array, span })),
            Err(Error::Malformed { .. } | Error::Io { .. }) => Ok(None),
            Err(error) => Err(error),
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The key of the array with the spacing, if the files have such: three numbers, by a well-known name.
    pub(super) fn spacing(&self, choice: &ArrayChoice, are_slices_first: Option<bool>) -> Option<Guess> {
        let is_spacing = |array: &&NamedArray| {
            names::is_one(&array.name, names::SPACING) && array.header.shape.iter().product::<u64>() == AXES as u64
        };
        let array = self.listed.iter().flatten().find(is_spacing).filter(|array| self.has_in_all(&array.name))?;
        let choice = ArrayChoice { spacing: Some(array.name.clone()), ..choice.clone() };
        let all: Vec<[f64; 3]> = self
            .files
            .iter()
            .filter_map(|file| volume_file::inspect(file, &choice).ok()?.spacing.map(|spacing| spacing.mm))
            .collect();
        let equal = |a: f64, b: f64| (a - b).abs() <= EQUAL * a;
        let of = format!("array '{}' of three numbers, in {}", shown(&array.name), self.count());
        // What two equal numbers and a third one show of the order: the slices' is the third.
        let slices_last = all.iter().any(|mm| equal(mm[0], mm[1]) && !equal(mm[1], mm[2]));
        let slices_first = all.iter().any(|mm| equal(mm[1], mm[2]) && !equal(mm[0], mm[1]));
        let value = |order: &str| Value::Text(format!("{}{order}", array.name));
        Some(match (slices_first, slices_last, are_slices_first) {
            (false, false, _) if !all.is_empty() && all.iter().all(|mm| equal(mm[0], mm[1])) => {
                Guess::found("spacing_array", value(""), format!("{of}, which are equal in each"))
            }
            (true, false, Some(true)) | (false, true, Some(false)) => Guess::found(
                "spacing_array",
                value(""),
                format!("{of}; the one that differs belongs to the slices' axis"),
            ),
            (false, true, Some(true)) => {
                let reason = format!("{of}; the last differs, and so is the slices', as SimpleITK's GetSpacing has it");
                Guess::found("spacing_array", value(":WHD"), reason)
            }
            _ => {
                let reason =
                    format!("{of}; they do not show which belongs to which axis: \":WHD\" is SimpleITK's order");
                Guess::open("spacing_array", value(":WHD"), reason)
            }
        })
    }
}

/// The key of the order of the axes: two equal axes are those of the slices. `None` where the array's name and type
/// say it.
pub(super) fn axes(seen: &[Seen]) -> Option<Guess> {
    let slices_first = |seen: &Seen| match seen.array.shape() {
        [depth, height, width] if height == width && depth != height => Some(true),
        [height, width, depth] if height == width && depth != height => Some(false),
        _ => None,
    };
    let shown: Vec<bool> = seen.iter().filter_map(slices_first).collect();
    let first = shown.iter().filter(|first| **first).count();
    let is_known = seen.iter().all(|seen| Dialect::of(&seen.array).is_some());
    let value = || Value::Text("DHW".into());
    match (first, shown.len() - first) {
        _ if seen.iter().all(|seen| Dialect::of(&seen.array) == Some(Dialect::Normalized)) => None,
        (0, 0) if is_known => None,
        (0, 0) => {
            let reason = "the shapes do not show which axis the slices are along: \"HWD\" (the default), \"DHW\", …";
            Some(Guess::open("axes", value(), reason))
        }
        (0, _) => Some(Guess::unneeded(
            "axes",
            "the first two axes are equal, so that slices are along the last: HWD, the default",
        )),
        (_, 0) => {
            Some(Guess::found("axes", value(), "the last two axes are equal, so that slices are along the first"))
        }
        _ => Some(Guess::open(
            "axes",
            value(),
            "slices are along the first axis in some files, and along the last in others",
        )),
    }
}

fn quoted(name: &str) -> String {
    format!("'{}'", shown(name))
}

/// A name that the member of an array may have: its own, if that is plain.
fn member_name(array: &str) -> String {
    let plain = array.to_ascii_lowercase().replace(|sign: char| !sign.is_ascii_alphanumeric(), "_");
    if plain.starts_with(|first: char| first.is_ascii_lowercase()) { plain } else { format!("mask_{plain}") }
}

fn described(array: &NamedArray) -> String {
    let shape: Vec<String> = array.header.shape.iter().map(u64::to_string).collect();
    format!("{} {} ({})", quoted(&array.name), array.header.descr(), shape.join(", "))
}

fn list(arrays: &[&NamedArray]) -> String {
    arrays.iter().map(|array| described(array)).collect::<Vec<_>>().join(", ")
}

/// The image among arrays of three axes, and why: by its name, or as the others are masks by theirs.
fn image<'a>(candidates: &[&'a NamedArray]) -> Option<(&'a NamedArray, &'static str)> {
    let is = |known: &'static [&'static str]| move |array: &&&NamedArray| names::is_one(&array.name, known);
    let images: Vec<_> = candidates.iter().filter(is(names::IMAGE)).collect();
    let others: Vec<_> = candidates.iter().filter(|array| !is(names::MASK)(array)).collect();
    match (&images[..], &others[..]) {
        ([image], _) => Some((image, "an image by its name")),
        (_, [image]) => Some((image, "the others are masks by their names")),
        _ => None,
    }
}
