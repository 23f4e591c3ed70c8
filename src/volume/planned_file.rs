//! A file that volumes are read from: it must still be in the state that was planned with. Where only its ctime
//! differs, the content may be the planned one all the same (`chmod`, a snapshot of hard links): only a checksum tells.

use std::path::Path;

use crate::base::file_id::FileId;
use crate::error::{Error, Result};
use crate::storage::{Store, Stored};

/// The change of a file of which only the ctime differs, and which has no checksum to compare.
pub(super) const NO_CHECKSUM: &str =
    "its ctime differs: its content, permissions or links were changed, and it has no checksum to tell";

/// The change of a file that is not there any more.
pub(super) const GONE: &str = "it is gone";

/// The state of an open file, as far as its metadata tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// The planned state: so are the bytes.
    Planned,
    /// The ctime alone differs: what is read must not be handed on before a checksum was compared.
    CtimeDiffers,
}

/// A file, and the state that it must be in.
pub(super) struct PlannedFile<'a> {
    /// The path of the file.
    pub(super) path: &'a Path,
    /// The state of the file when the plan was made.
    pub(super) file_id: &'a FileId,
}

impl PlannedFile<'_> {
    /// Opens the file, and says in which state it is, as far as that is known: of an object, the first answer tells it.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file is gone, or if more than its ctime differs; [`Error::Io`] if it cannot be opened.
    pub(super) fn open(&self, store: &dyn Store) -> Result<(Box<dyn Stored>, FileState)> {
        let file = store.open(self.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.changed(GONE),
            // A folder that lies there now is no file that could be opened, and another thing than the planned one.
            _ => match store.identity_of(self.path).map(|found| self.compare(&found)) {
                Ok(Err(changed)) => changed,
                _ => Error::io(self.path, "open the file", error),
            },
        })?;
        let state = self.state(&*file)?;
        Ok((file, state))
    }

    /// The state of the open file. An object of which nothing was read counts as the planned one.
    ///
    /// # Errors
    /// [`Error::Changed`] if more than its ctime differs, [`Error::Io`] if `stat` failed.
    pub(super) fn state(&self, file: &dyn Stored) -> Result<FileState> {
        let found = file.identity().map_err(|error| Error::io(self.path, "stat the file", error))?;
        found.map_or(Ok(FileState::Planned), |found| self.compare(&found))
    }

    /// The state of a file that was found with this identity.
    ///
    /// # Errors
    /// [`Error::Changed`] if more than its ctime differs.
    pub(super) fn compare(&self, found: &FileId) -> Result<FileState> {
        match self.file_id.difference(found) {
            None => Ok(FileState::Planned),
            Some(_) if self.file_id.differs_in_ctime_only(found) => Ok(FileState::CtimeDiffers),
            Some(detail) => Err(self.changed(detail)),
        }
    }

    /// The error that the file changed; `detail` says how, as a phrase.
    pub(super) fn changed(&self, detail: impl Into<String>) -> Error {
        Error::Changed { path: self.path.to_owned(), detail: detail.into() }
    }
}
