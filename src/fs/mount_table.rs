//! The kernel's table of mounts: mounts are found and ended by path, without touching what is mounted there.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::mount::UnmountFlags;

use super::processes;
use crate::base::limits::not_started;
use crate::base::mounts::{self, MountLine, OWN_TABLE};
use crate::base::parallel;
use crate::error::{Error, Result};

/// The prefix of the source of this program's mounts in the mount table; the daemon's process id follows.
pub const SOURCE: &str = "ctwds-fs:";

/// How long an answer of a mount is awaited; a healthy daemon answers in microseconds.
pub const ANSWER: Duration = Duration::from_secs(5);

/// One line of the mount table. The kernel writes it in bytes: folders and sources need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The kernel's number of the mount, which no other mount has while it is there. The next mount gets it, and the
    /// device, as soon as this one is gone.
    pub id: u64,
    /// The mountpoint.
    pub path: PathBuf,
    /// The source: of this program's mounts [`SOURCE`] and a process id.
    pub source: OsString,
    /// The device as "major:minor": the same for all mounts of one file system, in every mount namespace.
    pub device: String,
}

impl MountEntry {
    /// The process id of the daemon behind the mount, if it is a mount of this program.
    pub fn daemon(&self) -> Option<u32> {
        self.source.to_str()?.strip_prefix(SOURCE)?.parse().ok()
    }

    /// Whether another line is about the same mount, which may have been moved. The source tells it from a later mount
    /// that was given the number and the device of one that is gone.
    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.is_of_same_file_system(other)
    }

    /// Whether another line is about a mount of the same file system, also in another namespace.
    fn is_of_same_file_system(&self, other: &Self) -> bool {
        (&self.device, &self.source) == (&other.device, &other.source)
    }

    /// Whether the file system of a mount of this program is alive: mounted somewhere, also in a mount namespace that
    /// is not seen from here, or detached with files open. False where the kernel does not tell, and where it has given
    /// the device to another file system.
    pub fn is_alive(&self) -> bool {
        Path::new("/sys/class/bdi").join(&self.device).exists()
            && self.daemon().is_some_and(|pid| processes::may_serve(pid, &self.device))
            && !self.has_lost_its_device()
    }

    /// Whether a mount of another source has the device, as far as the tables of the processes that this user may see
    /// tell: the file systems of a device are one.
    fn has_lost_its_device(&self) -> bool {
        let is_other = |entry: &MountEntry| entry.device == self.device && entry.source != self.source;
        let own = read(Path::new(OWN_TABLE)).unwrap_or_default();
        own.iter().any(is_other) || other_tables().any(|(_, entries)| entries.iter().any(is_other))
    }
}

/// The topmost mount exactly at `path`, which should be absolute and free of links.
///
/// # Errors
/// [`Error::Io`] if the mount table cannot be read.
pub fn at(path: &Path) -> Result<Option<MountEntry>> {
    let table = Path::new(OWN_TABLE);
    let entries = read(table).map_err(|error| Error::io(table, "read the mount table", error))?;
    Ok(entries.into_iter().rfind(|entry| entry.path == path))
}

/// The mounts of this program that a user has made, as far as this process sees them; of several over each other at one
/// folder, the topmost.
///
/// # Errors
/// [`Error::Io`] if the mount table cannot be read.
pub fn of_user(user: u32) -> Result<Vec<MountEntry>> {
    let table = Path::new(OWN_TABLE);
    let lines = mounts::read(table).map_err(|error| Error::io(table, "read the mount table", error))?;
    let option = format!("user_id={user}");
    let mut found: Vec<MountEntry> = Vec::new();
    for line in lines {
        let is_of_user = line.options.split(|byte| *byte == b',').any(|found| found == option.as_bytes());
        let entry = entry(line);
        found.retain(|below| below.path != entry.path);
        if is_of_user && entry.daemon().is_some() {
            found.push(entry);
        }
    }
    Ok(found)
}

/// The mounts of a table such as `/proc/self/mountinfo`, those of one folder from the lowest on.
fn read(table: &Path) -> std::io::Result<Vec<MountEntry>> {
    Ok(mounts::read(table)?.into_iter().map(entry).collect())
}

fn entry(MountLine { id, path, source, device, .. }: MountLine) -> MountEntry {
    MountEntry { id, path, source, device }
}

/// The folders of this mount namespace in which the file system of `mount` is mounted, as by `mount --bind`.
pub fn folders(mount: &MountEntry) -> Vec<PathBuf> {
    let entries = read(Path::new(OWN_TABLE)).unwrap_or_default().into_iter();
    entries.filter(|entry| entry.is_of_same_file_system(mount)).map(|entry| entry.path).collect()
}

/// A mount namespace in which a file system is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherNamespace {
    /// One of its processes: the one of the lowest number that this user may see.
    pub pid: u32,
    /// The name of that process.
    pub name: String,
}

/// Mount namespaces besides that of this process in which the file system of `mount` is mounted, as far as this user
/// may see them.
pub fn other_namespaces(mount: &MountEntry) -> Vec<OtherNamespace> {
    let is_of_device = |entry: &MountEntry| entry.is_of_same_file_system(mount);
    let tables = other_tables().filter(|(_, entries)| entries.iter().any(is_of_device));
    tables.map(|(pid, _)| OtherNamespace { pid, name: processes::name(pid) }).collect()
}

/// The mount tables of the namespaces besides that of this process, as far as this user may see them, each with one of
/// its processes.
fn other_tables() -> impl Iterator<Item = (u32, Vec<MountEntry>)> {
    let namespace = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    let mut seen: HashSet<PathBuf> = namespace(Path::new("/proc/self")).into_iter().collect();
    processes::all().into_iter().filter_map(move |pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        // All processes of a namespace have the same table.
        let is_new = namespace(&process).is_some_and(|namespace| seen.insert(namespace));
        is_new.then(|| read(&process.join("mountinfo")).ok().map(|entries| (pid, entries))).flatten()
    })
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

/// Ends this very mount, wherever it is now, and never another one that has taken its place.
///
/// # Errors
/// [`std::io::ErrorKind::NotFound`] if the mount is no longer seen from here, or if another one lies over it;
/// [`std::io::ErrorKind::ResourceBusy`] while files are open in a mount that is not detached; otherwise what the kernel
/// or `fusermount3` says.
pub fn unmount(mount: &MountEntry, how: Unmount) -> std::io::Result<()> {
    let entries = read(Path::new(OWN_TABLE))?;
    // The kernel ends mounts by path alone. Folders above may have been renamed since the mount was found.
    let path = entries.iter().find(|entry| entry.is_same(mount)).map(|entry| entry.path.as_path());
    let topmost = entries.iter().rfind(|entry| Some(entry.path.as_path()) == path);
    let Some(path) = topmost.filter(|entry| entry.is_same(mount)).and(path) else {
        let reason = if path.is_some() { "another mount lies over this one" } else { "this mount is no longer here" };
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, reason));
    };
    let flags = match how {
        Unmount::IfIdle => UnmountFlags::NOFOLLOW,
        Unmount::Detach => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(path, flags) {
        Err(rustix::io::Errno::PERM) => unmount_as_user(path, how),
        result => Ok(result?),
    }
}

/// Ends this very mount, or detaches it if files are open in it.
///
/// # Errors
/// The mount could not be detached either; see [`unmount`].
pub fn unmount_or_detach(mount: &MountEntry) -> std::io::Result<()> {
    unmount(mount, Unmount::IfIdle).or_else(|_| unmount(mount, Unmount::Detach))
}

/// Ends a mount by the set-user-id helper, which does it for the mount's owner without the right to unmount.
fn unmount_as_user(path: &Path, how: Unmount) -> std::io::Result<()> {
    let mut helper = Command::new("fusermount3");
    helper.arg("-u").args((how == Unmount::Detach).then_some("-z")).arg("--").arg(path);
    let output = helper.output().map_err(|error| {
        let kind = error.kind();
        let reason = match kind {
            std::io::ErrorKind::NotFound => format!("fusermount3: {error} (install fuse3)"),
            _ => not_started("start fusermount3", error).to_string(),
        };
        std::io::Error::new(kind, reason)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let mut message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("/etc/mtab") {
        message.push_str(" (it is missing, as in a bare chroot: as root, ln -s /proc/self/mounts /etc/mtab)");
    }
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
    if rustix::mount::unmount(&entry.path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW).is_ok() {
        return Ok(()); // root may
    }
    // Without its last reader, /dev/fuse is closed, unless a thread of the daemon cannot be ended.
    let pid = entry.daemon().filter(|pid| processes::is_daemon(*pid, &entry.device));
    if pid.is_some_and(|pid| !processes::kill_daemon(pid, &entry.device) && processes::is_daemon(pid, &entry.device)) {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// Whether the daemon of a mount of this program is gone, so that the kernel answers ENOTCONN. The mount is asked only
/// if no such process can be seen (it may be that of another container), and not for long: a thread of a killed daemon
/// that is stuck in the kernel keeps the connection open, and nobody serves it.
pub fn is_dead(entry: &MountEntry) -> bool {
    let path = entry.path.clone();
    // The kernel keeps names, attributes and lists of files, and answers from what it keeps whether the daemon is there
    // or not. It keeps no answer to this question.
    let not_connected = move || rustix::fs::statvfs(path).is_err_and(|error| error == rustix::io::Errno::NOTCONN);
    // A container that is started again gives its processes the numbers that they had.
    !entry.daemon().is_some_and(|pid| processes::is_daemon(pid, &entry.device))
        && within(ANSWER, not_connected).ok().flatten().unwrap_or(false)
}

/// Runs `ask`, which may never return, in a thread, and returns its answer; `None` if there is none after `limit`.
///
/// # Errors
/// [`Error::System`] if the operating system gives no thread.
pub fn within<T: Send + 'static>(limit: Duration, ask: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>> {
    Ok(asked(ask)?.recv_timeout(limit).ok())
}

/// Runs `ask`, which may never return, in a thread that sends its answer.
///
/// # Errors
/// [`Error::System`] if the operating system gives no thread.
pub fn asked<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Result<Receiver<T>> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    parallel::spawn("ask", move || drop(sender.send(ask())))
        .map_err(|error| not_started("start a thread that asks the mount", error))?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_of_a_folder() {
        assert_eq!(at(Path::new("/proc")).unwrap().map(|entry| entry.daemon()), Some(None));
        assert_eq!(at(Path::new("/proc/no-mount")).unwrap(), None);
        let (id, path, device) = (1, "/mnt".into(), "0:48".into());
        let daemon = |source: &str| {
            let (path, device) = (PathBuf::clone(&path), String::clone(&device));
            MountEntry { id, path, source: source.into(), device }.daemon()
        };
        assert_eq!(["ctwds-fs:4711", "ctwds-fs:x", "tmpfs"].map(daemon), [Some(4711), None, None]);
    }

    #[test]
    fn a_source_names_the_program_and_its_process() {
        assert_eq!(SOURCE.strip_suffix(':'), Some(processes::PROGRAM));
    }
}
