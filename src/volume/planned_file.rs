//! A file that volumes are read from: it must still be in the state that was planned with.

use std::fs::File;
use std::path::Path;

use crate::base::file_id::FileId;
use crate::error::{Error, Result};

/// A file, and the state that it must be in.
pub(super) struct PlannedFile<'a> {
    /// The path of the file.
    pub(super) path: &'a Path,
    /// The state of the file when the plan was made.
    pub(super) file_id: &'a FileId,
    /// The attempt to open the file, as a verb phrase for messages.
    pub(super) opening: &'static str,
    /// The attempt to `stat` the file, as a verb phrase for messages.
    pub(super) stating: &'static str,
}

impl PlannedFile<'_> {
    /// Opens the file.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file is gone or not in the planned state, [`Error::Io`] if it cannot be opened.
    pub(super) fn open(&self) -> Result<File> {
        let file = File::open(self.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.changed("it is gone".into()),
            _ => Error::io(self.path, self.opening, error),
        })?;
        self.check_unchanged(&file)?;
        // Doubles the kernel's read-ahead; advice only, so a file system that has none is fine.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(file)
    }

    /// Checks that the open file is still in the planned state.
    ///
    /// # Errors
    /// [`Error::Changed`] if it is not, [`Error::Io`] if `stat` failed.
    pub(super) fn check_unchanged(&self, file: &File) -> Result<()> {
        let metadata = file.metadata().map_err(|error| Error::io(self.path, self.stating, error))?;
        self.file_id.difference(&FileId::of(&metadata)).map_or(Ok(()), |detail| Err(self.changed(detail)))
    }

    fn changed(&self, detail: String) -> Error {
        Error::Changed { path: self.path.to_owned(), detail }
    }
}
