//! The removal journal, open for writing: each line is durable before the step that follows it.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::base::beneath;
use crate::error::{Error, Result};
use crate::output::journal::{STATUS_DIR, append};
use crate::output::part_lock::lock_part;
use crate::output::partition::Part;
use crate::output::removals::{self, RemovalLine};

/// Permissions of the removal journal, of which the user's umask takes some away.
const FILE: u32 = 0o666;

/// The removal journal of a folder of shards. No other run that writes to the folder can have it open at the same time.
pub(super) struct RemovalJournal {
    path: PathBuf,
    file: File,
    _lock: File,
}

impl RemovalJournal {
    /// Locks the folder, and opens or creates its removal journal.
    ///
    /// # Errors
    /// [`Error::Refused`] if another run is at work on the folder; [`Error::Io`] if the journal cannot be opened.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let lock = lock_part(folder, Part::WHOLE)?;
        let path = removals::path(folder);
        let failed = |error| Error::io(&path, "open the journal of removed source files", error);
        let status = beneath::folder(folder, Path::new(STATUS_DIR)).map_err(failed)?;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        let file = status.open(removals::NAME, flags, FILE).map_err(failed)?;
        status.sync().map_err(failed)?;
        Ok(Self { path, file, _lock: lock })
    }

    /// Adds a line, which is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Io`] if the line cannot be written.
    pub(super) fn add(&mut self, line: RemovalLine) -> Result<()> {
        append(&mut self.file, &[line]).map_err(|error| {
            Error::io(&self.path, "note the removal of a source file (nothing more is removed)", error)
        })
    }
}
