//! A lock on the journal of a part, so that one run at a time writes the part. The kernel releases it when the process
//! ends, in whatever way that happens.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::output::journal::{self, STATUS_DIR};
use crate::output::partition::Part;

/// Locks a part of an output folder, and creates the folder if it is not there. The lock is held as long as the
/// returned journal is open. Two runs whose parts overlap never both get their locks: each has its own when it tries
/// the other's.
///
/// # Errors
/// [`Error::Refused`] while another run could write a shard of the part; [`Error::Io`] if the journal cannot be opened
/// or locked.
pub fn lock_part(folder: &Path, part: Part) -> Result<File> {
    let status = folder.join(STATUS_DIR);
    fs::create_dir_all(&status).map_err(|error| Error::io(&status, "create the output folder", error))?;
    let path = journal::path(folder, part);
    let journal = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)
        .map_err(|error| Error::io(&path, "open the record of finished shards", error))?;
    try_lock(folder, &path, &journal, FlockOperation::NonBlockingLockExclusive)?;
    for (other, path) in journal::paths(folder)? {
        if other != part && other.overlaps(part) {
            let journal = File::open(&path).map_err(|error| Error::io(&path, "open another part's record", error))?;
            try_lock(folder, &path, &journal, FlockOperation::NonBlockingLockShared)?;
        }
    }
    Ok(journal)
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
