//! The life of a mount: checks before it, the session, readiness, signals, and the end.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::fuse::{Adapter, BLOCK_SIZE, Event};
use super::mount_table::{self, MountEntry, Unmount};
use super::processes::PROGRAM;
use super::tree::Tree;
use crate::base::limits::{is_no_descriptor, not_started};
use crate::base::parallel;
use crate::error::{Error, Result, shown};

/// How long readers may finish what they read after a signal has ended the mount.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time between two looks whether files are open in a mount that lives on elsewhere.
const LOOK: Duration = Duration::from_millis(100);

/// The time between two looks at the folder of materialised shards. An open that comes sooner uses a new file as well,
/// but through the daemon; only after the look does the kernel read the file by itself.
const WATCH: Duration = Duration::from_secs(1);

/// The number of threads that translate requests. None of them ever waits for a decode, and more were not faster.
const SESSION_THREADS: usize = 2;
/// What fuser names these threads, before their numbers.
const FUSER: &str = "fuser-";
/// How long fuser may take to start them; it takes microseconds.
const THREADS_START: Duration = Duration::from_secs(1);

/// Checks that `path` can become a mountpoint for volumes in `data_folder`, and returns the path without links.
///
/// # Errors
/// [`Error::Refused`] with the remedy if the folder is missing, is not a folder, is not empty, is mounted already, or
/// overlaps the data; [`Error::Io`] if a path cannot be looked at.
pub fn check_mountpoint(path: &Path, data_folder: Option<&Path>) -> Result<PathBuf> {
    let refuse = |reason: String| Err(Error::Refused(format!("mountpoint {}: {reason}", path.display())));
    let resolved = mount_table::resolve_links(path);
    if let Some(entry) = mount_table::at(&resolved)? {
        match entry.daemon() {
            // A daemon that was killed leaves a mount that answers nothing but ENOTCONN.
            Some(pid) if mount_table::is_dead(&entry) => {
                log::warn!("{}: clearing the mount that process {pid} left behind", resolved.display());
                mount_table::unmount(&entry, Unmount::Detach)
                    .map_err(|error| Error::io(&resolved, "clear the dead mount", error))?;
            }
            Some(pid) => return refuse(format!("a ctwds-fs mount is already here (process {pid}); unmount it first")),
            None => {
                return refuse(format!("{} is already mounted here; choose another folder", shown(&entry.source)));
            }
        }
    }
    let resolved = match fs::canonicalize(path) {
        Ok(resolved) => resolved,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return refuse("the folder does not exist; create it with mkdir -p".into());
        }
        Err(error) => return Err(Error::io(path, "open the mountpoint", error)),
    };
    if !resolved.is_dir() {
        return refuse("not a folder".into());
    }
    if let Some(folder) = data_folder {
        let data = fs::canonicalize(folder).map_err(|error| Error::io(folder, "open the data folder", error))?;
        if data.starts_with(&resolved) {
            return refuse(format!("it would hide the data folder {}; choose a folder outside", data.display()));
        }
        if resolved.starts_with(&data) {
            return refuse(format!("it lies inside the data folder {}; choose a folder outside", data.display()));
        }
    }
    let mut entries = fs::read_dir(&resolved).map_err(|error| Error::io(&resolved, "list the mountpoint", error))?;
    if entries.next().is_some() {
        return refuse("the folder is not empty; choose an empty one".into());
    }
    Ok(resolved)
}

/// Mounts `tree` at `path`, calls `ready`, and serves until the mount is ended: from outside, or by SIGHUP, SIGINT or
/// SIGTERM if the caller does not block them.
///
/// # Errors
/// [`Error::Io`] if the mount is refused or its session fails, [`Error::System`] if signals cannot be waited
/// for, or the error of `ready`; the mount is then ended.
pub fn serve(tree: Tree, path: &Path, allow_other: bool, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let failed = |error| mount_error(path, allow_other, Path::new(DEVICE).exists(), error);
    let (events, inbox) = mpsc::channel();
    // This is done before the mount: a signal that comes while it is made must not leave it behind.
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|error| Error::system("wait for signals", error))?;
    let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let tree = Arc::new(tree);
    let (watched, served_tree) = (Arc::downgrade(&tree), tree.clone());
    let adapter = Adapter { tree, passthrough: Arc::default(), owner, events: events.clone() };
    let session = Session::new(adapter, path, &config(allow_other)).and_then(Session::spawn);
    let session = session.and_then(wait_for_threads).map_err(failed)?;
    let own = OwnMount::find(path)?; // while fuser still ends the mount if that fails
    let notifier = session.notifier();
    let served = keep_from_unmounting(session)?;
    own.widen_read_ahead();
    let forward = move || {
        for signal in signals.forever() {
            let _ = events.send(Event::Signal(signal));
        }
    };
    let started = parallel::spawn("signals", forward)
        .and_then(|_| parallel::spawn("watch", move || watch(&watched, &notifier)))
        .map_err(failed);
    if let Err(error) = started.and_then(|_| ready()) {
        own.detach();
        return Err(error);
    }
    match inbox.recv() {
        Ok(Event::Signal(signal)) => {
            log::info!("signal {signal}: unmounting {}", path.display());
            own.end_gently(&inbox, &served_tree);
        }
        Ok(Event::Ended) | Err(_) => log::info!("{} was unmounted", path.display()),
    }
    // The kernel has ended the session; joining reports how.
    let result = served.join().unwrap_or_else(|_| Err(io::Error::other("the session panicked")));
    own.detach(); // a connection that was aborted leaves its mount
    result.map_err(|error| Error::io(path, "serve the mount", error))
}

/// The thread of a session, without fuser's way to end the mount: when a session is dropped, fuser unmounts whatever is
/// at the path. Where a copy of the mount lived on in another mount namespace, that may be the next mount by then.
///
/// # Errors
/// [`Error::System`] if the operating system gives no thread; the mount is then ended.
fn keep_from_unmounting(mut session: BackgroundSession) -> Result<JoinHandle<io::Result<()>>> {
    let nothing = parallel::spawn("nothing", || Ok(()));
    let nothing = nothing.map_err(|error| not_started("start a thread of the mount", error))?;
    let served = std::mem::replace(&mut session.guard, nothing);
    std::mem::forget(session); // its descriptor of /dev/fuse is closed with the process
    Ok(served)
}

/// Waits until fuser's threads that read requests are there. They are started by a thread of fuser's, which says
/// nothing before the mount has ended: if one of two cannot be started, the other serves a mount whose end nobody
/// notices.
///
/// # Errors
/// The reason why the session has ended already: mostly that the operating system gives no thread. The mount is then
/// ended.
fn wait_for_threads(session: BackgroundSession) -> io::Result<BackgroundSession> {
    let deadline = Instant::now() + THREADS_START;
    while Instant::now() < deadline && !session.guard.is_finished() && !has_threads() {
        std::thread::sleep(Duration::from_millis(1));
    }
    if !session.guard.is_finished() {
        return Ok(session);
    }
    let ended = || io::Error::new(ErrorKind::ConnectionAborted, "it was ended from outside as soon as it was made");
    Err(session.join().err().unwrap_or_else(ended))
}

/// Whether all threads that read requests are there.
fn has_threads() -> bool {
    let name = |number| format!("{FUSER}{number}\n");
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names: Vec<String> = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect();
    (0..SESSION_THREADS).all(|number| names.contains(&name(number)))
}

/// Makes the kernel look names up again that lead to other inodes, because their shards have become files. This runs in
/// a thread of its own, because the kernel may wait for requests before it takes the message, and because the folder's
/// server may be dead.
fn watch(tree: &Weak<Tree>, notifier: &Notifier) {
    while let Some(tree) = tree.upgrade() {
        for name in tree.renew_inodes() {
            // The call fails if the kernel does not know the name; then there is nothing to look up again.
            let _ = notifier.inval_entry(INodeNo::ROOT, name.as_ref());
        }
        drop(tree);
        std::thread::sleep(WATCH);
    }
}

fn config(allow_other: bool) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::FSName(format!("{}{}", mount_table::SOURCE, std::process::id())),
        MountOption::Subtype(PROGRAM.into()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        MountOption::NoExec,
    ];
    config.acl = if allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(SESSION_THREADS);
    config
}

/// The device by which a mount is made.
const DEVICE: &str = "/dev/fuse";

/// What `fusermount3` says where a container or a cluster allows no mount at all: there is no device, it may not be
/// opened, or the kernel refuses.
const NO_MOUNTS: [&str; 3] =
    ["fuse device not found", "failed to open /dev/fuse", "mount failed: Operation not permitted"];

/// The error of a mount that was refused. What `fusermount3` says stands for itself, but for what goes without a mount.
fn mount_error(path: &Path, allow_other: bool, has_device: bool, error: io::Error) -> Error {
    let text = error.to_string();
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory) {
        return not_started(format!("mount at {}", path.display()), error);
    }
    let doing = match error.kind() {
        _ if allow_other && text.contains("user_allow_other") => {
            "mount here with --allow-other (root has to write user_allow_other into /etc/fuse.conf)"
        }
        ErrorKind::NotConnected | ErrorKind::ConnectionAborted => "mount here",
        _ if is_no_descriptor(&error) => "mount here",
        _ if !has_device || NO_MOUNTS.iter().any(|said| text.contains(said)) => {
            "mount here (is the fuse module loaded by modprobe fuse, and may this user open /dev/fuse? Where nothing can \
             be mounted: `ctwds-fs cat` for readers of a pipe, `ctwds-fs materialize`, or the Python package ctwds)"
        }
        _ if text.contains("fusermount") => "mount here",
        ErrorKind::PermissionDenied => {
            "mount here (may this user open /dev/fuse? Else: `ctwds-fs cat` for readers of a pipe, `ctwds-fs \
             materialize`, or the Python package ctwds)"
        }
        _ => "mount here (without root, fusermount3 must be installed, which is in Debian's package fuse3)",
    };
    Error::io(path, doing, error)
}

/// The mount that this process serves, in this process's mount namespace.
struct OwnMount {
    /// The line of the mount table; `None` if somebody unmounted it as soon as it was made.
    entry: Option<MountEntry>,
}

impl OwnMount {
    /// The mount at `path`, if this process made it.
    ///
    /// # Errors
    /// [`Error::Io`] if the mount table cannot be read.
    fn find(path: &Path) -> Result<Self> {
        let entry = mount_table::at(path)?;
        Ok(Self { entry: entry.filter(|entry| entry.daemon() == Some(std::process::id())) })
    }

    /// Sets the kernel's read-ahead to 1 MiB instead of 128 KiB, which costs a third of the speed. Only root may do so.
    fn widen_read_ahead(&self) {
        let Some(entry) = &self.entry else { return };
        let setting = format!("/sys/class/bdi/{}/read_ahead_kb", entry.device);
        if let Err(error) = fs::write(&setting, (BLOCK_SIZE / 1024).to_string()) {
            log::debug!("{setting}: {error}; reads stay at the kernel's read-ahead");
        }
    }

    fn unmount(&self, how: Unmount) -> io::Result<()> {
        self.entry.as_ref().map_or_else(|| Err(ErrorKind::NotFound.into()), |entry| mount_table::unmount(entry, how))
    }

    /// Whether it is mounted anywhere, also where that is not seen from here.
    fn is_alive(&self) -> bool {
        self.entry.as_ref().is_some_and(MountEntry::is_alive)
    }

    /// Detaches the mount if it is still there.
    fn detach(&self) {
        match self.unmount(Unmount::Detach) {
            Err(error) if error.kind() != ErrorKind::NotFound => log::error!("the mount cannot be detached: {error}"),
            _ => {}
        }
    }

    /// Ends the mount, and waits until its readers have closed their files; those that take longer than [`PATIENCE`]
    /// get errors. Where the mount lives on in another place or namespace and nobody has a file open in it, the process
    /// ends at once.
    fn end_gently(&self, inbox: &mpsc::Receiver<Event>, tree: &Tree) {
        match self.unmount(Unmount::IfIdle) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                log::warn!("it is mounted elsewhere only: open files may be read for {} s more", PATIENCE.as_secs());
            }
            Err(error) => {
                log::warn!("{error}; detaching, open files may be read for {} s more", PATIENCE.as_secs());
                self.detach();
            }
        }
        let deadline = Instant::now() + PATIENCE; // further signals do not put it off
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(LOOK.min(left)) {
                Ok(Event::Signal(_)) => continue,
                Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if !tree.has_open_files() && self.is_alive() => {
                    log::warn!("the mount lives on elsewhere, where nobody has a file open; ending it there, too");
                }
                Err(RecvTimeoutError::Timeout) if left <= LOOK => {
                    log::warn!("files are still open; ending anyway, their readers get errors");
                }
                Err(RecvTimeoutError::Timeout) => continue,
            }
            // Ends the connection, because it closes /dev/fuse; there is nothing to save.
            std::process::exit(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error as IoError;

    use super::*;

    #[test]
    fn a_refused_mount_names_what_was_asked_for() {
        let message =
            |allow_other, has_device, error| mount_error(Path::new("/mnt"), allow_other, has_device, error).to_string();
        let conf = "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf";
        let refused = message(true, true, IoError::new(ErrorKind::PermissionDenied, conf));
        assert!(refused.contains("with --allow-other (root has to write user_allow_other"), "{refused}");
        for allow_other in [false, true] {
            let closed = message(allow_other, true, IoError::from(ErrorKind::PermissionDenied));
            assert!(closed.contains("/dev/fuse") && !closed.contains("allow"), "{closed}");
            let missing = message(allow_other, false, IoError::from(ErrorKind::NotFound));
            assert!(missing.contains("modprobe fuse") && !missing.contains("allow"), "{missing}");
            let helper =
                NO_MOUNTS.map(|said| message(allow_other, true, IoError::other(format!("fusermount3: {said}"))));
            for message in [closed, missing].iter().chain(&helper) {
                let ways = ["ctwds-fs cat", "ctwds-fs materialize", "the Python package ctwds"];
                assert!(ways.iter().all(|way| message.contains(way)), "{message}");
            }
            let said = "fusermount3: user has no write access to mountpoint /mnt";
            let said = message(allow_other, true, IoError::other(said));
            assert_eq!(said, "/mnt: cannot mount here: fusermount3: user has no write access to mountpoint /mnt");
        }
    }
}
