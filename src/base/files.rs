//! What commands ask of files, with errors that name the file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The size of a file in bytes; `None` if there is none.
pub fn size(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "look at the file", error)),
    }
}

/// Removes a file, which another process may have done already.
pub fn remove(path: &Path, doing: &'static str) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, doing, error)),
        _ => Ok(()),
    }
}

/// The paths of a folder's entries, in no order.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(folder, "list the folder", error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

/// The last component of a path, for messages and for names that this program gave itself.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
