//! The processes that matter to a mount: its daemon, and those that have files open in it.
//!
//! Only links and texts of `/proc` are read, never a path in a mount, whose daemon may not answer.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The name of a daemon's process, as `/proc/PID/comm` has it.
pub const PROGRAM: &str = "ctwds-fs";

/// Gives this process the name by which daemons are known, also where the program's file has another one.
pub fn name_daemon() {
    let name = CString::new(PROGRAM).unwrap_or_default();
    let _ = rustix::thread::set_name(&name); // a daemon of another name serves as well; `unmount --force` spares it
}

/// Between two looks at a process whose end is awaited.
const PAUSE: Duration = Duration::from_millis(2);

/// A process that keeps a mount busy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BusyProcess {
    /// The process id.
    pub pid: u32,
    /// The name, as `/proc/PID/comm` has it.
    pub name: String,
    /// A file that the process has open or mapped, or its working folder or root.
    pub path: PathBuf,
}

/// The processes that keep something below `path` busy, with one path each, as far as this user may see them.
pub fn busy_below(path: &Path) -> Vec<BusyProcess> {
    all().into_iter().filter_map(|pid| busy_process(pid, path)).collect()
}

/// The process ids of all processes, in ascending order.
pub fn all() -> BTreeSet<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
    processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The name of a process, as `/proc/PID/comm` has it; empty if the process is gone.
pub fn name(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

fn busy_process(pid: u32, below: &Path) -> Option<BusyProcess> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let link = |name: &str| fs::read_link(process.join(name)).ok();
    let open = || fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let linked = ["cwd", "root"].into_iter().filter_map(link);
    let opened = open().filter_map(|entry| fs::read_link(entry.path()).ok());
    let path = linked.chain(opened).chain(mapped(&process)).find(|path| path.starts_with(below))?;
    Some(BusyProcess { pid, name: name(pid), path })
}

/// Files that are mapped into the memory of a process, whose descriptors may be closed by now.
fn mapped(process: &Path) -> Vec<PathBuf> {
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    let paths =
        maps.split(|byte| *byte == b'\n').filter_map(|line| line.get(line.iter().position(|byte| *byte == b'/')?..));
    paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
}

/// Whether a process runs: it is there, and does not only wait to be reaped.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        // The name in front may have any bytes, parentheses too.
        let state = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
        !state.trim_ascii_start().starts_with(b"Z")
    })
}

/// Whether a process runs and is the daemon of a mount with this device number ("major:minor"): the kernel may have
/// given its number to another program, or to the daemon of another mount.
pub fn is_daemon(pid: u32, device: &str) -> bool {
    name(pid) == PROGRAM && may_serve(pid, device)
}

/// Whether a process runs and, as far as this user may see, serves a mount with this device number ("major:minor"),
/// whatever its name is.
pub fn may_serve(pid: u32, device: &str) -> bool {
    is_running(pid) && serves(pid, device) != Some(false)
}

/// Whether a process has the FUSE connection of a device open; `None` if this user or this kernel does not tell.
fn serves(pid: u32, device: &str) -> Option<bool> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let is_fuse = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|opened| opened.ends_with("fuse"));
    let connections = fs::read_dir(process.join("fd")).ok()?.flatten().filter(is_fuse).map(|entry| {
        let info = fs::read_to_string(process.join("fdinfo").join(entry.file_name())).ok()?;
        Some(info.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?.trim().to_owned())
    });
    // The major number of file systems without a disk is 0.
    let wanted = device.strip_prefix("0:")?;
    let found: Option<Vec<String>> = connections.collect();
    Some(found?.iter().any(|connection| connection == wanted))
}

/// Kills a daemon that does not end; false if the process is not the daemon of a mount with this device number, or if
/// this user may not kill it.
pub fn kill_daemon(pid: u32, device: &str) -> bool {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| is_daemon(pid, device));
    process.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

/// Waits until a process has ended; false if it still runs after `limit`.
pub fn wait_for_exit(pid: u32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while is_running(pid) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_process() {
        let folder = tempfile::tempdir().unwrap();
        let below = fs::canonicalize(folder.path()).unwrap();
        let us = || busy_below(&below).into_iter().find(|process| process.pid == std::process::id());
        assert_eq!(us(), None);
        let path = below.join("file");
        let file = fs::File::create(&path).unwrap();
        assert_eq!(us().map(|process| process.path), Some(path));
        drop(file);
        assert_eq!(us(), None);
    }
}
