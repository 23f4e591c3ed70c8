//! A file that is being written: past the page cache where the file system allows it, and whole or not there at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::error::{Error, Result};

/// Unfinished files end like this, so that a glob of `*.tar` does not see them.
pub const PARTIAL: &str = ".partial";
/// What offsets and lengths of direct writes must be multiples of on every common device.
const ALIGNMENT: usize = 4096;

/// A file under a temporary name. Dropped before [`Partial::publish`], it is removed.
pub struct Partial<'a> {
    folder: &'a Path,
    path: PathBuf,
    name: String,
    file: File,
    len: u64,
    published: bool,
}

impl<'a> Partial<'a> {
    /// Begins the file `name` of `folder` under its temporary name, which replaces one that a killed process left.
    pub fn create(folder: &'a Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}{PARTIAL}"));
        let open = |flags| OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(&path);
        let file = open(libc::O_DIRECT)
            .or_else(|error| if error.raw_os_error() == Some(libc::EINVAL) { open(0) } else { Err(error) })
            .map_err(|error| Error::io(&path, "create the file", error))?;
        Ok(Self { folder, path, name: name.into(), file, len: 0, published: false })
    }

    /// Appends the first `len` bytes of `block`, which is page-aligned, and rounds them up with zeros that
    /// [`Self::publish`] cuts off again: only the last block may have a length that is no multiple of 4096.
    pub fn write(&mut self, block: &mut MmapMut, len: usize) -> Result<()> {
        debug_assert!(self.len.is_multiple_of(ALIGNMENT as u64), "only the last block is cut off");
        let rounded = len.next_multiple_of(ALIGNMENT);
        block[len..rounded].fill(0);
        let result = match self.file.write_all(&block[..rounded]) {
            // Some file systems accept the flag and refuse the first write.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.give_up_direct() => {
                self.file.write_all(&block[..rounded])
            }
            result => result,
        };
        self.len += len as u64;
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

    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Makes the content durable, then the final name.
    pub fn publish(mut self) -> Result<()> {
        let target = self.folder.join(&self.name);
        let durable = self.file.set_len(self.len).and_then(|()| self.file.sync_all());
        durable.map_err(|error| self.failed("make the file durable", error))?;
        fs::rename(&self.path, &target).map_err(|error| Error::io(&target, "publish the file", error))?;
        self.published = true;
        sync_folder(self.folder)
    }
}

/// Writes a whole small file, atomically and durably.
pub fn publish(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let mut partial = Partial::create(folder, name)?;
    let mut block = MmapMut::map_anon(content.len().max(1).next_multiple_of(ALIGNMENT))
        .map_err(|error| Error::system("get memory to write a file", error))?;
    block[..content.len()].copy_from_slice(content);
    partial.write(&mut block, content.len())?;
    partial.publish()
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
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
