//! The folder at which `run` shows the shards: made where it is missing, and removed at the end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};
use crate::fs::mounts;

/// Between two attempts at a folder that another run is just removing, which takes it microseconds.
const PAUSE: Duration = Duration::from_millis(10);
const ATTEMPTS: u32 = 100;

/// A folder in use. Several runs may have the same one, each with its own mount there. Removing a folder makes the kernel
/// end the mounts of all namespaces at it, so each run holds a shared lock, and who removes it needs it exclusively.
pub(super) struct Place {
    created: Vec<PathBuf>,
    held: Option<File>,
}

impl Place {
    /// Makes `path` and its parents where they are missing.
    ///
    /// # Errors
    /// It cannot be made; what was made of it is removed.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| Error::io(path, "resolve the path", error))?;
        let mut place = Self { created: Vec::new(), held: None };
        // What is mounted there already may never answer; the mount's own checks deal with it.
        if mounts::at(&path)?.is_some() {
            return Ok(place);
        }
        for _ in 0..ATTEMPTS {
            place.create(&path)?;
            // A folder that cannot be opened or locked, as on some networks, is used all the same, and left.
            let Ok(folder) = File::open(&path) else { return Ok(place.left()) };
            match flock(&folder, FlockOperation::NonBlockingLockShared) {
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(_) => return Ok(place.left()),
                Ok(()) if is_at(&folder, &path) => {
                    place.held = Some(folder);
                    return Ok(place);
                }
                Ok(()) => {} // removed between the two calls
            }
            std::thread::sleep(PAUSE);
        }
        Err(Error::Refused(format!("--at {}: another program has locked this folder; choose another", path.display())))
    }

    fn left(mut self) -> Self {
        self.created.clear();
        self
    }

    fn create(&mut self, path: &Path) -> Result<()> {
        let is_missing = |folder: &&Path| {
            fs::symlink_metadata(folder).is_err_and(|error: io::Error| error.kind() == io::ErrorKind::NotFound)
        };
        let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => self.created.push(folder.to_owned()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // another run was faster
                Err(error) => {
                    let doing =
                        "create the folder of --at (choose one where you may write, or create it with mkdir -p)";
                    return Err(Error::io(folder, doing, error));
                }
            }
        }
        Ok(())
    }
}

fn is_at(folder: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    folder.metadata().map(id).ok().is_some_and(|held| fs::metadata(path).map(id).is_ok_and(|there| there == held))
}

impl Drop for Place {
    fn drop(&mut self) {
        let is_free = |folder: &File| flock(folder, FlockOperation::NonBlockingLockExclusive).is_ok();
        if self.held.as_ref().is_some_and(|folder| !is_free(folder)) {
            return; // another run has its mount there
        }
        // One that is not empty, or that still has a mount, stays.
        for folder in self.created.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}
