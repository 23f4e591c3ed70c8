//! Small operations on files and folders, with errors that name the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The size of a file in bytes; `None` if there is no such file.
///
/// # Errors
/// [`Error::Io`] if the file system cannot tell.
pub fn size(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "look at the file", error)),
    }
}

/// Opens a file to read it, without waiting: a FIFO that lies where a file should be would wait for a writer. For who
/// looks then what kind of file it is; [`open`] is for all others.
///
/// # Errors
/// The operating system's reason.
pub fn open_now(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    match opened {
        // A file server has lent the file to somebody, and wants it back first.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => File::open(path),
        opened => opened,
    }
}

/// Opens a folder to list what is in it.
///
/// # Errors
/// The operating system's reason: `ENOTCONN` also where the folder is a mount whose process is gone, and which the
/// kernel goes on listing from what it keeps.
pub fn open_folder(path: &Path) -> io::Result<File> {
    let folder = OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits().cast_signed()).open(path)?;
    // The kernel keeps names, attributes and lists of files. It keeps no answer to this question.
    match rustix::fs::fstatvfs(&folder) {
        Err(error @ Errno::NOTCONN) => Err(error.into()),
        _ => Ok(folder),
    }
}

/// Opens a regular file to read it.
///
/// # Errors
/// The operating system's reason, or that it is something else.
pub fn open(path: &Path) -> io::Result<File> {
    let file = open_now(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Reads a regular file to its end.
///
/// # Errors
/// Those of [`open`], and that it cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.read_to_end(&mut content)?;
    Ok(content)
}

/// Removes a file, if it is there. `doing` says in the error what was tried.
///
/// # Errors
/// [`Error::Io`] if the file is there and cannot be removed.
pub fn remove(path: &Path, doing: &'static str) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, doing, error)),
        _ => Ok(()),
    }
}

/// The paths of a folder's entries, in no order.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(folder, "list the folder", error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

/// The last component of a path, for messages and for names that this program itself gave; empty if there is none.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
