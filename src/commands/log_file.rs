//! The log file of a mount: its path, and how it is opened. Study ids are patient data, so the user alone may read it.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use sha2::{Digest, Sha256};

use crate::base::beneath::{Folder, is_link};
use crate::base::user_folders;
use crate::error::{Error, Result};

/// Permissions of a log.
const FOR_USER: u32 = 0o600;
/// Characters of a mountpoint that the name of its log has at most; a file name may have 255 bytes.
const NAME: usize = 60;
/// Logs of one name that are tried, for mounts at one path in several namespaces or on several hosts of one home.
const ATTEMPTS: u32 = 1000;
/// The time between two attempts to lock a log, and their number: a mount that has just ended may still hold it.
const PAUSE: Duration = Duration::from_millis(20);
/// See [`PAUSE`].
const LOCK_ATTEMPTS: u32 = 100;
/// What is tried, in messages.
const DOING: &str = "open the log file (--log-file chooses another)";

/// The log file of a mount: the path that the user gave, made absolute, or a file `NAME.log` in the user's state folder
/// that no other mount has open.
pub(super) fn path(given: Option<&Path>, name: &str) -> PathBuf {
    if let Some(path) = given {
        return std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    }
    let path = user_folders::state();
    let numbered = |n: u32| if n == 1 { format!("{name}.log") } else { format!("{name}-{n}.log") };
    let free = Folder::private(&path, false).ok().and_then(|folder| {
        let is_free = |name: &String| match folder.open(name, OFlags::RDONLY, 0) {
            Ok(log) => flock(&log, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK),
            Err(_) => true, // whoever opens it to write says why it cannot be used
        };
        (1..=ATTEMPTS).map(numbered).find(is_free)
    });
    path.join(free.unwrap_or_else(|| numbered(1)))
}

/// The name of the log of a mount, without a suffix: the mountpoint, and a digest of it where another mountpoint would
/// read the same.
pub(super) fn name(mountpoint: &Path) -> String {
    let text = mountpoint.to_string_lossy();
    let text = text.trim_matches('/');
    let readable: String = text
        .chars()
        .take(NAME)
        .map(|c| {
            if c == '/' {
                '-'
            } else if c.is_control() {
                '_'
            } else {
                c
            }
        })
        .collect();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.' || c == '_';
    if text.len() <= NAME && text.chars().all(is_plain) {
        return readable;
    }
    let digest = format!("{:x}", Sha256::digest(mountpoint.as_os_str().as_bytes()));
    format!("{readable}-{}", &digest[..16])
}

/// Opens a log file for appending, and locks it for this mount.
///
/// # Errors
/// [`Error::Io`] if the file or its folder cannot be created or belongs to another user, [`Error::Refused`] if another
/// mount logs there.
pub(super) fn open(path: &Path) -> Result<File> {
    let failed = |error| Error::io(path, DOING, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_default = folder == user_folders::state();
    let log = match path.file_name().filter(|_| is_default) {
        Some(name) => open_own(folder, name)?,
        None => {
            if !folder.exists() {
                let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
                created.map_err(|error| in_folder(folder, error))?;
            }
            open_given(path).map_err(failed)?
        }
    };
    let metadata = log.metadata().map_err(failed)?;
    if metadata.is_file() {
        if metadata.uid() != geteuid().as_raw() {
            return Err(failed(io::Error::other("it belongs to another user, who could read it")));
        }
        if metadata.mode() & 0o077 != 0 {
            log.set_permissions(Permissions::from_mode(metadata.mode() & 0o700)).map_err(failed)?;
        }
        lock(&log, path)?;
    }
    Ok(log)
}

/// Opens a log in the user's state folder, where others may have put something.
fn open_own(folder: &Path, name: &OsStr) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    let opened = Folder::private(folder, true).map_err(|error| in_folder(folder, error))?;
    opened.open(name, flags, FOR_USER).map_err(|error| Error::io(&folder.join(name), DOING, error))
}

/// Opens a log that the user has named, which may be a device. A link is followed if it is the user's or the system's.
fn open_given(path: &Path) -> io::Result<File> {
    let owner = |path: &Path| std::fs::symlink_metadata(path).map(|link| link.uid());
    if is_link(path) && !matches!(owner(path)?, 0) && owner(path)? != geteuid().as_raw() {
        return Err(io::Error::other("it is another user's symbolic link"));
    }
    // A pipe without a reader is refused, not waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let log = OpenOptions::new().append(true).create(true).mode(FOR_USER).custom_flags(flags).open(path)?;
    fcntl_setfl(&log, fcntl_getfl(&log)? - OFlags::NONBLOCK)?;
    Ok(log)
}

/// Locks a log until the mount ends: lines of two mounts in one file cannot be told apart.
fn lock(log: &File, path: &Path) -> Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        // Where the file system has no locks, the log is used without one.
        if flock(log, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::Refused(format!(
        "{}: another mount logs into this file; give each mount a log of its own (--log-file)",
        path.display()
    )))
}

fn in_folder(folder: &Path, error: io::Error) -> Error {
    Error::io(folder, "open the log's folder (--log-file chooses another place)", error)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn no_two_mountpoints_have_one_log() {
        let bytes = |text: &[u8]| PathBuf::from(OsString::from_vec(text.to_vec()));
        let mut paths: Vec<PathBuf> =
            ["/a/b", "/a-b", "/a/b-", "/a//-b", "/a-/b", "/a/b\n", "/a/b_", "/é"].map(Into::into).into();
        paths.extend([bytes(b"/\xff"), bytes(b"/\xfe"), bytes("/\u{fffd}".as_bytes())]);
        paths.extend(["x".repeat(NAME), "x".repeat(NAME + 1), "x/".repeat(2000)].map(PathBuf::from));
        let names: HashSet<String> = paths.iter().map(|path| name(path)).collect();
        assert_eq!(names.len(), paths.len(), "{names:?}");
        assert!(names.contains("a-b") && names.iter().all(|name| name.len() < 200), "{names:?}");
        let is_plain = |name: &String| !name.contains(|c: char| c == '/' || c.is_control());
        assert!(names.iter().all(is_plain), "{names:?}");
    }
}
