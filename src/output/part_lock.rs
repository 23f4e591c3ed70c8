//! One run a part: a lock on the part's journal, which dies with its owner, however that ends.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::output::journal::{self, STATUS_DIR};
use crate::output::partition::Part;

/// Locks a part of a folder, which is made if it is not there. Refused while a run goes on that could write one of its
/// shards: of two that begin at once, each holds its own lock when it looks for the other's.
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
            let theirs = File::open(&path).map_err(|error| Error::io(&path, "open another part's record", error))?;
            try_lock(folder, &path, &theirs, FlockOperation::NonBlockingLockShared)?;
        }
    }
    Ok(journal)
}

fn try_lock(folder: &Path, path: &Path, journal: &File, how: FlockOperation) -> Result<()> {
    match flock(journal, how) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(Error::Refused(format!(
            "{}: another materialize, or a reclaim, is at work on these shards (it holds {}); wait for its end, or run another part \
             of the same --partition",
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
