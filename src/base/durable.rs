//! Files that are written durably: past the page cache where the file system allows it, and whole or not there at all.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};

use super::beneath::{self, Folder};
use super::partial_name::Writer;
use crate::error::{Error, Result};

/// Offsets and lengths of direct writes are multiples of this many bytes; that is enough for every common device.
const ALIGNMENT: usize = 4096;
/// Names that are tried for an unfinished file: a process may write several of one output name, one after the other.
const ATTEMPTS: u32 = 16;

/// What is tried when the names in a folder are made durable, for messages.
const DURABLE_ENTRIES: &str = "make the folder's entries durable";

/// Permissions of a file, of which the user's umask takes some away.
const FOR_ALL: u32 = 0o666;
/// Permissions of a file that the user alone may read.
const FOR_USER: u32 = 0o600;

/// A file under a temporary name. It is removed if it is dropped before [`PartialFile::publish`].
pub struct PartialFile {
    folder: Folder,
    folder_path: PathBuf,
    /// The temporary name.
    partial: String,
    name: String,
    file: File,
    len: u64,
    published: bool,
}

impl PartialFile {
    /// Creates the file `name` of `folder` under a temporary name that no other process uses. With a name like
    /// `below/file` it is a file of the folder `below` in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created, or `below` is a symbolic link.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        Self::create_for(folder, name, FOR_ALL)
    }

    fn create_for(folder: &Path, name: &str, mode: u32) -> Result<Self> {
        let (below, name) = name.rsplit_once('/').map_or((None, name), |(below, name)| (Some(below), name));
        let folder_path = below.map_or_else(|| folder.to_owned(), |below| folder.join(below));
        let opened = Folder::named(folder).and_then(|folder| match below {
            Some(below) => folder.create_folder(below, beneath::FOR_ALL),
            None => Ok(folder),
        });
        let folder = opened.map_err(|error| Error::io(&folder_path.join(name), "create the file", error))?;
        let writer = Writer::this_process();
        let mut attempt = 0;
        let (partial, file) = loop {
            let partial = writer.name(name, attempt);
            match folder.open(&partial, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode) {
                Ok(file) => break (partial, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(Error::io(&folder_path.join(partial), "create the file", error)),
            }
        };
        // The lock tells processes in other containers that the file is being written. What cannot be locked or written
        // in direct mode is written all the same.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        let _ = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::DIRECT));
        Ok(Self { folder, folder_path, partial, name: name.into(), file, len: 0, published: false })
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
        let mut at = self.len;
        let mut rest = &block[..rounded];
        while !rest.is_empty() {
            match self.file.write_at(rest, at) {
                Ok(0) => return Err(self.failed("write", io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    rest = &rest[written..];
                    at += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some file systems accept the flag and refuse a write: the first one, or the rest of one that they cut
                // short. What they have written before stays as it is.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.leave_direct_mode() => {}
                Err(error) => return Err(self.failed("write", error)),
            }
        }
        self.len += len as u64;
        Ok(())
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
        Error::io(&self.folder_path.join(&self.partial), doing, error)
    }

    /// Number of bytes written so far, without rounding.
    pub fn bytes_written(&self) -> u64 {
        self.len
    }

    /// Makes the content durable, gives the file its final name, and makes that durable.
    ///
    /// # Errors
    /// [`Error::Io`] if one of these steps fails; the final name then has the whole file or what it had before.
    /// [`Error::Refused`] if another process has changed or replaced the file; the final name then has what it had
    /// before, or the file that the other process has published.
    pub fn publish(mut self) -> Result<()> {
        let target = self.folder_path.join(&self.name);
        let found = self.file.metadata().map_err(|error| self.failed("look at the file", error))?.len();
        if found != self.len.next_multiple_of(ALIGNMENT as u64) || !self.is_at(&self.partial)? {
            return Err(interfered(&self.folder_path.join(&self.partial)));
        }
        let durable = self.file.set_len(self.len).and_then(|()| self.file.sync_all());
        durable.map_err(|error| self.failed("make the file durable", error))?;
        let renamed = self.folder.rename(&self.partial, &self.name);
        renamed.map_err(|error| Error::io(&target, "publish the file", error))?;
        self.published = true;
        let synced = self.folder.sync();
        synced.map_err(|error| Error::io(&self.folder_path, DURABLE_ENTRIES, error))?;
        if self.is_at(&self.name)? { Ok(()) } else { Err(interfered(&target)) }
    }

    /// Whether the folder's entry is the very file that is written here.
    fn is_at(&self, name: &str) -> Result<bool> {
        let failed = |error| Error::io(&self.folder_path.join(name), "look at the file that was written", error);
        let written = self.file.metadata().map_err(failed)?;
        match self.folder.state(name) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (written.dev(), written.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

fn interfered(path: &Path) -> Error {
    Error::Refused(format!(
        "{}: another process has removed, changed or replaced this file while it was written; end the other run (if no \
         lock keeps it out, the file system lacks flock) and run the same command again, materialize with --recheck",
        path.display()
    ))
}

/// Writes a whole small file, atomically and durably; `name` is as for [`PartialFile::create`].
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, or there is no memory.
pub fn publish(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    write_whole(PartialFile::create(folder, name)?, content)
}

/// Writes a whole small file, atomically and durably, readable for the user only: study ids are patient data.
///
/// # Errors
/// As [`publish`].
pub fn publish_private(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    write_whole(PartialFile::create_for(folder, name, FOR_USER)?, content)
}

fn write_whole(mut partial: PartialFile, content: &[u8]) -> Result<()> {
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
    let synced = Folder::named(folder).and_then(|folder| folder.sync());
    synced.map_err(|error| Error::io(folder, DURABLE_ENTRIES, error))
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = self.folder.remove(&self.partial); // the next run removes what remains
        }
    }
}
