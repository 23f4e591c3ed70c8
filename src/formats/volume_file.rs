//! Files that hold volumes, of all formats, by the suffixes of their names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::nifti;
use super::npz::{self, Array, ArrayChoice, NamedArray};
use crate::base::files;
use crate::error::{Error, Result};
use crate::storage::Stored;

/// The format of a file that holds volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An NPZ file.
    Npz,
    /// An NPY file.
    Npy,
    /// A NIfTI file.
    Nifti,
    /// A NIfTI file that is packed by gzip.
    NiftiGz,
}

/// All suffixes, each with its format. No suffix ends with another.
const SUFFIXES: [(&str, Format); 4] =
    [(".npz", Format::Npz), (".npy", Format::Npy), (".nii", Format::Nifti), (".nii.gz", Format::NiftiGz)];

impl Format {
    /// The format of a file of this name; `None` if the name is that of no volume.
    pub fn of(name: &OsStr) -> Option<Self> {
        split(name).map(|(_, format)| format)
    }

    /// Whether the format is one of NIfTI's.
    pub fn is_nifti(self) -> bool {
        matches!(self, Self::Nifti | Self::NiftiGz)
    }
}

/// The name of a volume's file without its suffix, and its format; `None` if the name is that of no volume.
pub fn split(name: &OsStr) -> Option<(&OsStr, Format)> {
    let ending = |(suffix, format): &(&str, Format)| {
        name.as_bytes().strip_suffix(suffix.as_bytes()).map(|stem| (OsStr::from_bytes(stem), *format))
    };
    SUFFIXES.iter().find_map(ending)
}

/// The format of a file; what has no known suffix counts as NPZ.
fn format(path: &Path) -> Format {
    path.file_name().and_then(Format::of).unwrap_or(Format::Npz)
}

/// Opens a file and finds its volume, as [`npz::inspect`] does.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect(path: &Path, choice: &ArrayChoice) -> Result<Array> {
    let file = files::open_now(path).map_err(|error| Error::io(path, "open the file", error))?;
    inspect_file(path, &file, choice)
}

/// Finds the volume of an open file or object; messages call the file `path`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect_file(path: &Path, file: &dyn Stored, choice: &ArrayChoice) -> Result<Array> {
    match format(path) {
        Format::Npz | Format::Npy if choice.orientation.is_some() => Err(Error::malformed(
            path,
            "--orientation: only a NIfTI file says where its axes lead in the body; an array does not",
        )),
        Format::Npz | Format::Npy => npz::inspect_file(path, file, choice),
        Format::Nifti => nifti::inspect_file(path, file, false, choice),
        Format::NiftiGz => nifti::inspect_file(path, file, true, choice),
    }
}

/// Lists the arrays of a file whose headers can be read, in the order of the file. Reads headers only.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is no such file.
pub fn arrays(path: &Path) -> Result<Vec<NamedArray>> {
    if !format(path).is_nifti() {
        return npz::arrays(path);
    }
    let Array { member, header, .. } = inspect(path, &ArrayChoice::default())?;
    Ok(vec![NamedArray { name: member.name, header }])
}
