//! Files that are written durably: past the page cache where the file system allows it, and whole or not there at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::error::{Error, Result};

/// End of an unfinished file's name, so that a glob of `*.tar` does not see it.
pub const PARTIAL_SUFFIX: &str = ".partial";
/// Offsets and lengths of direct writes are multiples of this many bytes; that is enough for every common device.
const ALIGNMENT: usize = 4096;

/// A file under a temporary name. It is removed if it is dropped before [`PartialFile::publish`].
pub struct PartialFile<'a> {
    folder: &'a Path,
    path: PathBuf,
    name: String,
    file: File,
    len: u64,
    published: bool,
}

impl<'a> PartialFile<'a> {
    /// Creates the file `name` of `folder` under its temporary name. A file that a killed process left there is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created.
    pub fn create(folder: &'a Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}{PARTIAL_SUFFIX}"));
        let open = |flags| OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(&path);
        let file = open(libc::O_DIRECT)
            .or_else(|error| if error.raw_os_error() == Some(libc::EINVAL) { open(0) } else { Err(error) })
            .map_err(|error| Error::io(&path, "create the file", error))?;
        Ok(Self { folder, path, name: name.into(), file, len: 0, published: false })
    }

    /// Appends the first `len` bytes of `block`, which is page-aligned because it is a memory map. The bytes are
    /// rounded up with zeros that [`Self::publish`] cuts off again, so only the last block may have a length that is no
    /// multiple of 4096.
    ///
    /// # Errors
    /// [`Error::Io`] if the bytes cannot be written.
    pub fn write(&mut self, block: &mut MmapMut, len: usize) -> Result<()> {
        debug_assert!(self.len.is_multiple_of(ALIGNMENT as u64), "only the last block is cut off");
        let rounded = len.next_multiple_of(ALIGNMENT);
        block[len..rounded].fill(0);
        let result = match self.file.write_all(&block[..rounded]) {
            // Some file systems accept the flag and refuse the first write.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.leave_direct_mode() => {
                self.file.write_all(&block[..rounded])
            }
            result => result,
        };
        self.len += len as u64;
        result.map_err(|error| self.failed("write", error))
    }

    /// Goes on through the page cache. False if the file was not in direct mode, or stays in it.
    fn leave_direct_mode(&self) -> bool {
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

    /// Number of bytes written so far, without rounding.
    pub fn bytes_written(&self) -> u64 {
        self.len
    }

    /// Makes the content durable, gives the file its final name, and makes that durable.
    ///
    /// # Errors
    /// [`Error::Io`] if one of these steps fails; the final name then has the whole file or what it had before.
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
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, or there is no memory.
pub fn publish(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let mut partial = PartialFile::create(folder, name)?;
    let mut block = MmapMut::map_anon(content.len().max(1).next_multiple_of(ALIGNMENT))
        .map_err(|error| Error::system("get memory to write a file", error))?;
    block[..content.len()].copy_from_slice(content);
    partial.write(&mut block, content.len())?;
    partial.publish()
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be opened or synchronised.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::io(folder, "make the folder's entries durable", error))
}

impl Drop for PartialFile<'_> {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path); // the next run removes what remains
        }
    }
}
