//! A file that is being written: past the page cache where the file system allows it, and whole or not there at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::error::{Error, Result};

/// Unfinished files end like this, so that a glob of `*.tar` does not see them.
pub(super) const PARTIAL: &str = ".partial";
/// Bytes of a write. Large and page-aligned, as `O_DIRECT` wants them: through the page cache, writing was measured at
/// half the speed, because it copies every byte into fresh pages.
const BLOCK: usize = 4 << 20;
/// What offsets and lengths of direct writes must be multiples of on every common device.
const ALIGNMENT: usize = 4096;

/// A file under a temporary name. Dropped before [`Partial::publish`], it is removed.
pub(super) struct Partial<'a> {
    folder: &'a Path,
    path: PathBuf,
    name: String,
    file: File,
    block: MmapMut,
    filled: usize,
    len: u64,
    published: bool,
}

impl<'a> Partial<'a> {
    pub(super) fn create(folder: &'a Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}{PARTIAL}"));
        let open = |flags| OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(&path);
        let file = open(libc::O_DIRECT)
            .or_else(|error| if error.raw_os_error() == Some(libc::EINVAL) { open(0) } else { Err(error) })
            .map_err(|error| Error::io(&path, "create the file", error))?;
        let block = MmapMut::map_anon(BLOCK).map_err(|error| Error::io(&path, "get memory to write", error))?;
        Ok(Self { folder, path, name: name.into(), file, block, filled: 0, len: 0, published: false })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.block[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            self.len += now.len() as u64;
            bytes = later;
            if self.filled == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes out what is gathered, rounded up with zeros that [`Self::publish`] cuts off again.
    fn flush(&mut self) -> Result<()> {
        let rounded = self.filled.next_multiple_of(ALIGNMENT);
        self.block[self.filled..rounded].fill(0);
        self.filled = 0;
        let result = match self.file.write_all(&self.block[..rounded]) {
            // Some file systems accept the flag and refuse the first write.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.give_up_direct() => {
                self.file.write_all(&self.block[..rounded])
            }
            result => result,
        };
        result.map_err(|error| self.failed("write", error))
    }

    fn give_up_direct(&self) -> bool {
        let Ok(flags) = fcntl_getfl(&self.file) else { return false };
        flags.contains(OFlags::DIRECT) && fcntl_setfl(&self.file, flags - OFlags::DIRECT).is_ok()
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> Error {
        let doing = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "write (there is no room left: finished shards are kept; make room and run the same command again)"
            }
            _ => doing,
        };
        Error::io(&self.path, doing, error)
    }

    /// Makes the content durable, then the final name.
    pub(super) fn publish(mut self) -> Result<()> {
        self.flush()?;
        let target = self.folder.join(&self.name);
        let durable = self.file.set_len(self.len).and_then(|()| self.file.sync_all());
        durable.map_err(|error| self.failed("make the file durable", error))?;
        fs::rename(&self.path, &target).map_err(|error| Error::io(&target, "publish the file", error))?;
        self.published = true;
        sync_folder(self.folder)
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::io(folder, "make the folder's entries durable", error))
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path); // the next run removes what remains
        }
    }
}
