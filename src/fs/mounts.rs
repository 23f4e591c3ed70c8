//! The kernel's table of mounts: found and ended by path, without touching what is mounted there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use crate::error::{Error, Result};

/// What the mount table calls the source of our mounts, followed by the daemon's process id.
pub const SOURCE: &str = "ctwds-fs:";

/// How long a mount is waited for; a daemon that is well answers in microseconds.
pub const ANSWER: Duration = Duration::from_secs(5);

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub path: PathBuf,
    /// The source, for ours [`SOURCE`] and a process id.
    pub source: String,
    /// "major:minor" of the device.
    pub device: String,
}

impl Mounted {
    /// The daemon behind the mount, if it is ours.
    pub fn daemon(&self) -> Option<u32> {
        self.source.strip_prefix(SOURCE)?.parse().ok()
    }
}

/// The topmost mount exactly at `path`, which should be absolute and free of links.
///
/// # Errors
/// The mount table cannot be read.
pub fn at(path: &Path) -> Result<Option<Mounted>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(|error| Error::io(table, "read the mount table", error))?;
    Ok(text.lines().filter_map(parse).rfind(|mounted| mounted.path == path))
}

/// `36 35 98:0 /root /mnt options [tags] - type source superoptions`
fn parse(line: &str) -> Option<Mounted> {
    let (mount, source) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(2);
    let device = fields.next()?.to_owned();
    let path = PathBuf::from(unescape(fields.nth(1)?));
    Some(Mounted { path, source: unescape(source.split(' ').nth(1)?), device })
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
/// The parent folder does not exist.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| Error::io(path, "resolve the path", error))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else { return Ok(absolute) };
    let parent = fs::canonicalize(parent).map_err(|error| Error::io(path, "resolve the path", error))?;
    Ok(parent.join(name))
}

/// Ends the mount at `path`; `lazily` detaches it while files are still open.
///
/// # Errors
/// [`std::io::ErrorKind::ResourceBusy`] while files are open in it; whatever else the kernel or `fusermount3` says.
pub fn end(path: &Path, lazily: bool) -> std::io::Result<()> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match unmount(path, flags) {
        Err(rustix::io::Errno::PERM) => end_as_user(path, lazily),
        result => Ok(result?),
    }
}

/// Without the right to unmount, the set-user-id helper does it for the mount's owner.
fn end_as_user(path: &Path, lazily: bool) -> std::io::Result<()> {
    let mut helper = Command::new("fusermount3");
    helper.arg("-u").args(lazily.then_some("-z")).arg("--").arg(path);
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

/// Ends the connection of our mount: whoever waits for it gets an error, also while its daemon is stuck in the kernel.
///
/// # Errors
/// The last of the ways to do it was refused.
pub fn abort(mounted: &Mounted) -> std::io::Result<()> {
    let minor = mounted.device.split_once(':').map_or("", |(_, minor)| minor);
    if fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1").is_ok() {
        return Ok(()); // its owner may, where that file system is mounted
    }
    if unmount(&mounted.path, UnmountFlags::FORCE).is_ok() {
        return Ok(()); // root may
    }
    // Without its last reader, /dev/fuse is closed, unless a thread of the daemon cannot be ended.
    let pid = mounted.daemon().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let pid = pid.ok_or(std::io::ErrorKind::NotFound)?;
    match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => Ok(result?),
    }
}

/// The same for a path whose last component may be a symbolic link to the mountpoint.
pub fn resolve_links(path: &Path) -> PathBuf {
    // A path that stands in the table as it was given is not touched at all.
    if let Ok(absolute) = std::path::absolute(path)
        && at(&absolute).is_ok_and(|mounted| mounted.is_some())
    {
        return absolute;
    }
    let unresolved = resolve(path);
    match &unresolved {
        Ok(plain) if at(plain).is_ok_and(|mounted| mounted.is_some()) => plain.clone(),
        _ => fs::canonicalize(path).or(unresolved).unwrap_or_else(|_| path.to_owned()),
    }
}

/// Whether the daemon of our mount is gone, so that the kernel answers ENOTCONN. The mount is asked only if no such
/// process can be seen (it may be that of another container), and not for long: a thread of a killed daemon that is
/// stuck in the kernel keeps the connection open, and nobody serves it.
pub fn is_dead(mounted: &Mounted) -> bool {
    let path = mounted.path.clone();
    let not_connected = move || {
        fs::symlink_metadata(path).is_err_and(|error: std::io::Error| error.raw_os_error() == Some(libc::ENOTCONN))
    };
    !mounted.daemon().is_some_and(is_daemon) && within(ANSWER, not_connected).unwrap_or(false)
}

/// Runs `ask`, which may never return, for at most so long.
pub fn within<T: Send + 'static>(limit: Duration, ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || drop(sender.send(ask())));
    receiver.recv_timeout(limit).ok()
}

/// Whether a process is there and is called as ours are: a number may have gone to another one meanwhile.
fn is_daemon(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    is_running(pid) && name.is_ok_and(|name| SOURCE.strip_suffix(':') == Some(name.trim_end()))
}

/// Kills a daemon of ours that does not end; false if it is none, or may not be killed.
pub fn kill(pid: u32) -> bool {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).filter(|_| is_daemon(pid));
    process.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok())
}

/// Whether a process is there and not just waiting to be reaped.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// Waits until a process is gone; false if it is still there after `limit`.
pub fn wait_for_exit(pid: u32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while is_running(pid) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table() {
        let line = r"141 28 0:48 / /mnt/a\040b ro,nosuid shared:7 - fuse.ctwds-fs ctwds-fs:4711 ro,user_id=0";
        let mounted = parse(line).unwrap();
        assert_eq!((mounted.path.to_str(), mounted.daemon(), &*mounted.device), (Some("/mnt/a b"), Some(4711), "0:48"));
        assert_eq!(at(Path::new("/proc")).unwrap().map(|m| m.daemon()), Some(None));
        assert_eq!(at(Path::new("/proc/no-mount")).unwrap(), None);
    }
}
