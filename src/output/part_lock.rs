//! A lock on the journal of a part, so that one run at a time writes the part. The kernel releases it when the process
//! ends, in whatever way that happens.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::base::beneath::{self, Folder};
use crate::error::{Error, Result};
use crate::output::indexes::ENERGON_FOLDER;
use crate::output::journal::{self, STATUS_DIR};
use crate::output::partition::Part;

/// Permissions of a journal, of which the user's umask takes some away.
const FILE: u32 = 0o666;

/// Locks a part of an output folder, and creates the folder if it is not there. The lock is held as long as the
/// returned journal is open. Two runs whose parts overlap never both get their locks: each has its own when it tries
/// the other's.
///
/// # Errors
/// [`Error::Refused`] while another run could write a shard of the part; [`Error::Io`] if the journal cannot be opened
/// or locked.
pub fn lock_part(folder: &Path, part: Part) -> Result<File> {
    let status_path = folder.join(STATUS_DIR);
    let status = open(folder).map_err(|(path, error)| {
        Error::io(&path, "create the output folder (choose one where you may write)", error)
    })?;
    let path = status_path.join(journal::name(part));
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
    let journal = status
        .open(journal::name(part), flags, FILE)
        .map_err(|error| Error::io(&path, "open the record of finished shards", error))?;
    try_lock(folder, &path, &journal, FlockOperation::NonBlockingLockExclusive)?;
    for (other, path) in journal::paths(folder)? {
        if other != part && other.overlaps(part) {
            let journal = status
                .open(journal::name(other), OFlags::RDONLY, 0)
                .map_err(|error| Error::io(&path, "open another part's record", error))?;
            try_lock(folder, &path, &journal, FlockOperation::NonBlockingLockShared)?;
        }
    }
    Ok(journal)
}

/// Creates an output folder and the folder of its journals, and opens the latter. Others may write to an output folder:
/// where one of these folders, or that of an index, is a link, this refuses to go on.
fn open(folder: &Path) -> std::result::Result<Folder, (PathBuf, io::Error)> {
    let root = fs::create_dir_all(folder).and_then(|()| Folder::named(folder));
    let root = root.map_err(|error| (folder.to_owned(), error))?;
    match root.folder(ENERGON_FOLDER) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err((folder.join(ENERGON_FOLDER), error)),
        _ => {}
    }
    root.create_folder(STATUS_DIR, beneath::FOR_ALL).map_err(|error| (folder.join(STATUS_DIR), error))
}

/// The error of a run whose part another one has taken over, in a bucket.
pub(super) fn taken_over(folder: &Path, by: Option<String>) -> Error {
    let by = by.map_or_else(String::new, |by| format!(" ({by})"));
    Error::Refused(format!(
        "{}: another materialize has taken over these shards{by}, as the one that begins last does; finished shards are \
         kept. Wait for its end, or run another part of the same --partition",
        folder.display()
    ))
}

fn try_lock(folder: &Path, path: &Path, journal: &File, how: FlockOperation) -> Result<()> {
    match flock(journal, how) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(Error::Refused(format!(
            "{}: another materialize, or a reclaim, is at work on these shards (it holds {}); wait for its end, or run \
             another part of the same --partition",
            folder.display(),
            path.display()
        ))),
        Err(error) => Err(Error::io(
            path,
            "lock the record of finished shards (the file system must support flock)",
            error.into(),
        )),
    }
}
