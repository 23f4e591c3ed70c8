//! All arrays of an NPZ file, for whoever looks before a volume is chosen.

use std::fs::File;
use std::path::Path;

use super::directory::{self, WindowedFile};
use super::{ArrayHeader, Unread, read_header};
use crate::error::{Error, Result};

/// An array of an NPZ file.
#[derive(Clone, Debug)]
pub struct NamedArray {
    /// The array's name: that of the zip member, without `.npy`.
    pub name: String,
    /// The array's dtype, order and shape.
    pub header: ArrayHeader,
}

/// Lists the arrays of an NPZ file whose headers can be read, in the order of the file. Reads headers only.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is no NPZ file.
pub fn arrays(path: &Path) -> Result<Vec<NamedArray>> {
    let failed = |error| Error::io(path, "open the file", error);
    let file = File::open(path).map_err(failed)?;
    let windows = WindowedFile::new(&file, file.metadata().map_err(failed)?.len());
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
