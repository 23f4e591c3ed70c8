//! The mountpoint of `run`: a folder that is made if it is missing, and removed at the end.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};
use crate::fs::mount_table;

/// The time between two attempts to make a folder that another run is removing, which takes that run microseconds.
const PAUSE: Duration = Duration::from_millis(10);
/// The number of attempts before the folder is given up.
const ATTEMPTS: u32 = 100;

/// A mountpoint in use, which is removed when it is dropped if this run made it. Several runs may use the same folder,
/// each with a mount of its own there. When a folder is removed, the kernel ends the mounts of all namespaces at it. So
/// each run holds a shared lock of the folder, and removes it only with an exclusive one.
pub(super) struct Mountpoint {
    /// The folders that this run made, parents first.
    created: Vec<PathBuf>,
    /// The folder with a shared lock.
    locked: Option<File>,
}

impl Mountpoint {
    /// Makes `path` and its parents if they are missing, and locks the folder.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be made, [`Error::Refused`] if another program has locked it; folders that were
    /// made are removed.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| Error::io(path, "resolve the path", error))?;
        let mut mountpoint = Self { created: Vec::new(), locked: None };
        // A mount that is there already may never answer. The checks before the new mount deal with it.
        if mount_table::at(&path)?.is_some() {
            return Ok(mountpoint);
        }
        for _ in 0..ATTEMPTS {
            mountpoint.create_missing(&path)?;
            // A folder that cannot be opened or locked, as on some networks, is used all the same, and not removed.
            // What is no folder is refused by the checks before the mount: the open of a pipe would wait for a writer.
            let folder = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&path);
            let Ok(folder) = folder else { return Ok(mountpoint.kept()) };
            match flock(&folder, FlockOperation::NonBlockingLockShared) {
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(_) => return Ok(mountpoint.kept()),
                Ok(()) if is_at(&folder, &path) => {
                    mountpoint.locked = Some(folder);
                    return Ok(mountpoint);
                }
                Ok(()) => {} // removed between the two calls
            }
            std::thread::sleep(PAUSE);
        }
        Err(Error::Refused(format!("--at {}: another program has locked this folder; choose another", path.display())))
    }

    /// The mountpoint without what is to be removed at the end.
    fn kept(mut self) -> Self {
        self.created.clear();
        self
    }

    fn create_missing(&mut self, path: &Path) -> Result<()> {
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

/// Whether an open folder is still the one at `path`.
fn is_at(folder: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    folder.metadata().map(id).ok().is_some_and(|held| fs::metadata(path).map(id).is_ok_and(|there| there == held))
}

impl Drop for Mountpoint {
    fn drop(&mut self) {
        let is_unused = |folder: &File| flock(folder, FlockOperation::NonBlockingLockExclusive).is_ok();
        if self.locked.as_ref().is_some_and(|folder| !is_unused(folder)) {
            return; // another run has its mount there
        }
        // The kernel does not remove a folder that is not empty, or that still has a mount.
        for folder in self.created.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}
