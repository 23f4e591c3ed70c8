//! What the command of `run` has started, and what that has started: every process in the mount namespace, whoever its
//! parent is by now. Only one that has left for another namespace, as containers do, is not found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use rustix::process::set_parent_process_death_signal;

use super::namespace;
use crate::commands::FAILED;
use crate::error::{Error, Result};

/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(20);
/// What has not ended so long after it was killed is held by the kernel.
const KILLED: Duration = Duration::from_secs(5);

/// The other processes of a mount namespace that was made for a command.
pub(super) struct Started {
    namespace: PathBuf,
}

impl Started {
    /// Those in this process's namespace.
    ///
    /// # Errors
    /// It is the one that was `left` for a new one: everybody's processes are in it.
    pub(super) fn outside_of(left: &Path) -> Result<Self> {
        let namespace = namespace::current()?;
        if namespace == left {
            return Err(Error::Refused("this process has no mount namespace of its own".into()));
        }
        Ok(Self { namespace })
    }

    /// Asks them to end, and kills those that are there after `patience`.
    pub(super) fn end(&self, patience: Duration) {
        let begun = Instant::now();
        if !patience.is_zero() {
            signal(&self.others(), Signal::SIGTERM);
        }
        // Again and again: what is killed may just have started another one.
        while begun.elapsed() < patience + KILLED {
            let left = self.others();
            if left.is_empty() {
                return;
            }
            if begun.elapsed() >= patience {
                signal(&left, Signal::SIGKILL);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Those that still run; an ended process has no namespace.
    fn others(&self) -> Vec<Pid> {
        let is_in_it = |pid: &Pid| fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|its| its == self.namespace);
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
        pids.filter(|pid| *pid != Pid::this() && is_in_it(pid)).collect()
    }
}

fn signal(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill(*pid, signal); // one that has just ended needs none
    }
}

/// Called in the command's process: makes the kernel kill it when its parent is gone.
///
/// # Errors
/// The parent is gone.
pub(super) fn die_with(parent: u32) -> Result<()> {
    tie_to(parent, rustix::process::Signal::KILL)
}

/// Called in the mount's process before it has threads: it ends when its parent is gone, and everything else in the
/// namespace before it. `ignored` signals, which a job's end sends to all of its processes, do not end it: those that
/// read the mount may need it to the last.
///
/// # Errors
/// The parent is gone, or there is no namespace of our own.
pub(super) fn end_all_with(parent: u32, left: &Path, ignored: SigSet) -> Result<()> {
    let all = Started::outside_of(left)?;
    ignored.thread_block().map_err(|error| Error::system("block signals", error))?;
    tie_to(parent, rustix::process::Signal::TERM)?; // one of the ignored
    std::thread::spawn(move || {
        while is_parent(parent) && ignored.wait().is_ok() {}
        log::warn!("process {parent}, which this mount was made for, is gone: ending what it has started");
        all.end(Duration::ZERO);
        std::process::exit(FAILED.into());
    });
    Ok(())
}

fn tie_to(parent: u32, signal: rustix::process::Signal) -> Result<()> {
    set_parent_process_death_signal(Some(signal))
        .map_err(|error| Error::system("end this process with its parent", error))?;
    // It may have been gone before.
    if is_parent(parent) { Ok(()) } else { Err(Error::Refused("the process that started this one is gone".into())) }
}

fn is_parent(pid: u32) -> bool {
    std::os::unix::process::parent_id() == pid
}
