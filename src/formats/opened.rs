//! The state of a file whose headers are read.

use std::path::Path;

use crate::base::file_id::FileId;
use crate::error::{Error, Result};
use crate::storage::Stored;

/// The state of an open file; `None` for an object of which nothing was read so far: its first answer tells.
///
/// # Errors
/// [`Error::Malformed`] for a folder or a pipe, [`Error::Io`] if the operating system cannot tell.
pub(super) fn state(path: &Path, file: &dyn Stored) -> Result<Option<FileId>> {
    let failed = |error| Error::io(path, "stat the file", error);
    if !file.is_regular().map_err(failed)? {
        return Err(Error::malformed(path, "not a regular file"));
    }
    file.identity().map_err(failed)
}

/// The state of an open file or object of which bytes were read.
///
/// # Errors
/// [`Error::Io`] if the operating system cannot tell.
pub(super) fn state_when_read(path: &Path, file: &dyn Stored) -> Result<FileId> {
    let state = file.identity().map_err(|error| Error::io(path, "stat the file", error))?;
    state.ok_or_else(|| Error::Internal("an object that was read has no identity".into()))
}
