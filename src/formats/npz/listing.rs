//! All arrays of an NPZ or NPY file, for whoever looks before a volume is chosen.

use std::path::Path;

use super::directory::{self, WindowedFile};
use super::{ArrayHeader, Unread, read_header, whole_file};
use crate::base::file_id::FileId;
use crate::base::files;
use crate::error::{Error, Result};

/// An array of an NPZ file, or that of an NPY file.
#[derive(Clone, Debug)]
pub struct NamedArray {
    /// The array's name: that of the zip member, without `.npy`; empty for an NPY file.
    pub name: String,
    /// The array's dtype, order and shape.
    pub header: ArrayHeader,
}

/// Lists the arrays of an NPZ or NPY file whose headers can be read, in the order of the file. Reads headers only.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is no such file.
pub fn arrays(path: &Path) -> Result<Vec<NamedArray>> {
    let failed = |error| Error::io(path, "open the file", error);
    let file = files::open(path).map_err(failed)?;
    let (windows, FileId { size, .. }) = WindowedFile::open(path, &file)?;
    if path.extension().is_some_and(|suffix| suffix == "npy") {
        let member = whole_file(size);
        let header = read_header(path, &windows, &member).map_err(|unread| unread.of(path, &member))?;
        return Ok(vec![NamedArray { name: member.name, header }]);
    }
    let mut arrays = Vec::new();
    for listed in directory::members(path, &windows)? {
        let Ok(member) = &listed.member else { continue };
        match read_header(path, &windows, member) {
            Ok(header) => arrays.push(NamedArray { name: listed.name, header }),
            Err(Unread::File(error @ Error::Io { .. })) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(arrays)
}
