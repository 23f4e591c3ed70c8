//! The choice of the array that is the volume, among those of an NPZ file.

use std::path::Path;

use super::directory::{Listed, WindowedFile};
use super::npy::HeaderError;
use super::orientation::Orientation;
use super::part::{self, Channel};
use super::{ArrayHeader, Unread, ZipMember, read_header};
use crate::error::{Error, Result};

/// The names that the known NPZ dialects give to the volume, in the order of preference.
const KNOWN_NAMES: [&str; 3] = ["data", "volume", "arr_0"];

/// What the user says of the arrays in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArrayChoice {
    /// The name of the array to take instead of the usual ones.
    pub name: Option<String>,
    /// The channel to take of arrays that have several.
    pub channel: Option<Channel>,
    /// The name of the array with the spacing, if it is not in the metadata table.
    pub spacing: Option<String>,
    /// The directions that the axes of NIfTI volumes are to lead to.
    pub orientation: Option<Orientation>,
}

/// The array of this name. NumPy would read the last of several, a zip tool the first: neither is a safe guess.
pub(super) fn named<'a>(path: &Path, listed: &'a [Listed], name: &str) -> Result<Option<&'a ZipMember>> {
    let mut found = listed.iter().filter(|listed| listed.name == name);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(Error::malformed(path, twice(name))),
        (Some(Listed { member: Err(reason), .. }), _) => Err(Error::malformed(path, reason)),
        (Some(Listed { member: Ok(member), .. }), _) => Ok(Some(member)),
        (None, _) => Ok(None),
    }
}

fn twice(name: &str) -> String {
    format!("the zip directory lists array '{name}' more than once; write the file again with one of them")
}

/// The array that is the volume, with its header: the one that `choice` names, else the first of the known names, else
/// the only one of three dimensions.
///
/// # Errors
/// [`Error::Io`] if reading failed, [`Error::Malformed`] if there is no such array, or it cannot be read.
pub(super) fn volume(
    path: &Path,
    windows: &WindowedFile<'_>,
    listed: &[Listed],
    choice: &ArrayChoice,
) -> Result<(ZipMember, ArrayHeader)> {
    let wanted = match &choice.name {
        Some(name) => Some(named(path, listed, name)?.ok_or_else(|| {
            let names = names(listed);
            Error::malformed(
                path,
                format!("there is no array '{name}' (arrays found: {names}); --array chooses another"),
            )
        })?),
        None => {
            // The first one that is there decides; one behind it may be unreadable.
            let known = KNOWN_NAMES.iter().find_map(|name| named(path, listed, name).transpose());
            known.transpose()?
        }
    };
    match wanted {
        Some(member) => {
            let header = read_header(path, windows, member).map_err(|unread| unread.of(path, member))?;
            Ok((member.clone(), header))
        }
        None => only_volume(path, windows, listed, choice),
    }
}

/// The names of the arrays, for messages.
pub(super) fn names(listed: &[Listed]) -> String {
    listed
        .iter()
        .filter(|listed| listed.is_npy)
        .map(|listed| format!("'{}'", listed.name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// An array that may be the volume.
struct Candidate<'a> {
    member: &'a ZipMember,
    header: Result<ArrayHeader, HeaderError>,
    /// Whether it is an array of numbers that has three dimensions.
    fits: bool,
}

/// The only array of numbers that has three dimensions once axes of length 1 are taken away; where there is none, the
/// only one of more than two dimensions, whose fault is the message.
fn only_volume(
    path: &Path,
    windows: &WindowedFile<'_>,
    listed: &[Listed],
    choice: &ArrayChoice,
) -> Result<(ZipMember, ArrayHeader)> {
    let mut found = Vec::new();
    for Listed { is_npy, member, .. } in listed {
        let member = match member {
            Ok(member) => member,
            Err(reason) if *is_npy => return Err(Error::malformed(path, reason)), // it may be the volume
            Err(_) => continue,
        };
        // What has no readable header (a note, say) is no candidate; it does not spoil the others.
        let header = match read_header(path, windows, member) {
            Ok(header) => Ok(header),
            Err(Unread::Header(error)) => Err(error),
            Err(Unread::File(Error::Malformed { .. })) => continue,
            Err(Unread::File(error)) => return Err(error),
        };
        let (shape, is_number) = match &header {
            Ok(header) => (&header.shape, true),
            Err(HeaderError::Dtype { shape, is_number, .. }) => (shape, *is_number),
            Err(_) => continue,
        };
        if shape.len() >= 3 {
            let fits = is_number && part::of_shape(shape, false, choice.channel).is_ok();
            found.push(Candidate { member, header, fits });
        }
    }
    if found.iter().any(|candidate| candidate.fits) {
        found.retain(|candidate| candidate.fits);
    }
    match <[_; 1]>::try_from(found) {
        Ok([Candidate { member, header: Ok(header), .. }]) => Ok((member.clone(), header)),
        Ok([Candidate { member, header: Err(error), .. }]) => Err(Unread::Header(error).of(path, member)),
        Err(several) => Err(Error::malformed(path, undecided(&several, listed))),
    }
}

/// Why none of these is taken, which are none or several.
fn undecided(several: &[Candidate<'_>], listed: &[Listed]) -> String {
    let Some(first) = several.first() else {
        let names = names(listed);
        let found = if names.is_empty() { "it holds no array".into() } else { format!("arrays found: {names}") };
        return format!("no array 'data', 'volume' or 'arr_0' and none of three dimensions ({found})");
    };
    if several.iter().all(|candidate| candidate.member.name == first.member.name) {
        return twice(&first.member.name);
    }
    let shown = several.iter().map(|Candidate { member, header, .. }| match header {
        Ok(ArrayHeader { shape, .. }) | Err(HeaderError::Dtype { shape, .. }) => format!("'{}' {shape:?}", member.name),
        Err(_) => format!("'{}'", member.name),
    });
    format!("several arrays could be the volume ({}); choose one with --array", shown.collect::<Vec<_>>().join(", "))
}
