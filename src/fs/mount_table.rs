//! The kernel's table of mounts: mounts are found and ended by path, without touching what is mounted there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::mount::UnmountFlags;

use super::processes;
use crate::error::{Error, Result};

/// The prefix of the source of this program's mounts in the mount table; the daemon's process id follows.
pub const SOURCE: &str = "ctwds-fs:";

/// How long an answer of a mount is awaited; a healthy daemon answers in microseconds.
pub const ANSWER: Duration = Duration::from_secs(5);

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The mountpoint.
    pub path: PathBuf,
    /// The source: of this program's mounts [`SOURCE`] and a process id.
    pub source: String,
    /// The device as "major:minor".
    pub device: String,
}

impl MountEntry {
    /// The process id of the daemon behind the mount, if it is a mount of this program.
    pub fn daemon(&self) -> Option<u32> {
        self.source.strip_prefix(SOURCE)?.parse().ok()
    }
}

/// The topmost mount exactly at `path`, which should be absolute and free of links.
///
/// # Errors
/// [`Error::Io`] if the mount table cannot be read.
pub fn at(path: &Path) -> Result<Option<MountEntry>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(|error| Error::io(table, "read the mount table", error))?;
    Ok(text.lines().filter_map(parse).rfind(|entry| entry.path == path))
}

/// Parses a line `36 35 98:0 /root /mnt options [tags] - type source superoptions`.
fn parse(line: &str) -> Option<MountEntry> {
    let (mount, source) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(2);
    let device = fields.next()?.to_owned();
    let path = PathBuf::from(unescape(fields.nth(1)?));
    Some(MountEntry { path, source: unescape(source.split(' ').nth(1)?), device })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// An absolute path without links in its parents. The last component is not touched: a dead mount would not answer.
///
/// # Errors
/// [`Error::Io`] if the parent folder does not exist.
pub fn resolve_parents(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| Error::io(path, "resolve the path", error))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else { return Ok(absolute) };
    let parent = fs::canonicalize(parent).map_err(|error| Error::io(path, "resolve the path", error))?;
    Ok(parent.join(name))
}

/// An absolute path without links, whose last component may be a symbolic link to the mountpoint. The path itself is
/// touched only if nothing is mounted there.
pub fn resolve_links(path: &Path) -> PathBuf {
    // A path that stands in the table as it was given is not touched at all.
    if let Ok(absolute) = std::path::absolute(path)
        && at(&absolute).is_ok_and(|entry| entry.is_some())
    {
        return absolute;
    }
    let unresolved = resolve_parents(path);
    match &unresolved {
        Ok(plain) if at(plain).is_ok_and(|entry| entry.is_some()) => plain.clone(),
        _ => fs::canonicalize(path).or(unresolved).unwrap_or_else(|_| path.to_owned()),
    }
}

/// The way to end a mount that may have open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// The unmount is refused while files are open.
    IfIdle,
    /// The mount is detached at once, and ends when its last file is closed.
    Detach,
}

/// Ends the mount at `path`.
///
/// # Errors
/// [`std::io::ErrorKind::ResourceBusy`] while files are open in a mount that is not detached; otherwise what the kernel
/// or `fusermount3` says.
pub fn unmount(path: &Path, how: Unmount) -> std::io::Result<()> {
    let flags = match how {
        Unmount::IfIdle => UnmountFlags::empty(),
        Unmount::Detach => UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(path, flags) {
        Err(rustix::io::Errno::PERM) => unmount_as_user(path, how),
        result => Ok(result?),
    }
}

/// Ends the mount at `path`, or detaches it if files are open in it.
///
/// # Errors
/// The mount could not be detached either; see [`unmount`].
pub fn unmount_or_detach(path: &Path) -> std::io::Result<()> {
    unmount(path, Unmount::IfIdle).or_else(|_| unmount(path, Unmount::Detach))
}

/// Ends a mount by the set-user-id helper, which does it for the mount's owner without the right to unmount.
fn unmount_as_user(path: &Path, how: Unmount) -> std::io::Result<()> {
    let mut helper = Command::new("fusermount3");
    helper.arg("-u").args((how == Unmount::Detach).then_some("-z")).arg("--").arg(path);
    let output = helper
        .output()
        .map_err(|error| std::io::Error::new(error.kind(), format!("fusermount3: {error} (install fuse3)")))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if message.contains("busy") { std::io::ErrorKind::ResourceBusy } else { std::io::ErrorKind::Other };
    Err(std::io::Error::new(kind, message))
}

/// Ends the FUSE connection of a mount of this program: whoever waits for an answer gets an error, also while the
/// daemon is stuck in the kernel.
///
/// # Errors
/// The operating system's reason why the last of three ways was refused.
pub fn abort(entry: &MountEntry) -> std::io::Result<()> {
    let minor = entry.device.split_once(':').map_or("", |(_, minor)| minor);
    if fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1").is_ok() {
        return Ok(()); // the mount's owner may, where that file system is mounted
    }
    if rustix::mount::unmount(&entry.path, UnmountFlags::FORCE).is_ok() {
        return Ok(()); // root may
    }
    // Without its last reader, /dev/fuse is closed, unless a thread of the daemon cannot be ended.
    let pid = entry.daemon().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let pid = pid.ok_or(std::io::ErrorKind::NotFound)?;
    match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => Ok(result?),
    }
}

/// Whether the daemon of a mount of this program is gone, so that the kernel answers ENOTCONN. The mount is asked only
/// if no such process can be seen (it may be that of another container), and not for long: a thread of a killed daemon
/// that is stuck in the kernel keeps the connection open, and nobody serves it.
pub fn is_dead(entry: &MountEntry) -> bool {
    let path = entry.path.clone();
    let not_connected = move || {
        fs::symlink_metadata(path).is_err_and(|error: std::io::Error| error.raw_os_error() == Some(libc::ENOTCONN))
    };
    !entry.daemon().is_some_and(processes::is_daemon) && within(ANSWER, not_connected).unwrap_or(false)
}

/// Runs `ask`, which may never return, in a thread, and returns its answer; `None` if there is none after `limit`.
pub fn within<T: Send + 'static>(limit: Duration, ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || drop(sender.send(ask())));
    receiver.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table() {
        let line = r"141 28 0:48 / /mnt/a\040b ro,nosuid shared:7 - fuse.ctwds-fs ctwds-fs:4711 ro,user_id=0";
        let entry = parse(line).unwrap();
        assert_eq!((entry.path.to_str(), entry.daemon(), &*entry.device), (Some("/mnt/a b"), Some(4711), "0:48"));
        assert_eq!(at(Path::new("/proc")).unwrap().map(|entry| entry.daemon()), Some(None));
        assert_eq!(at(Path::new("/proc/no-mount")).unwrap(), None);
    }

    #[test]
    fn a_source_names_the_program_and_its_process() {
        assert_eq!(SOURCE.strip_suffix(':'), Some(processes::PROGRAM));
    }
}
