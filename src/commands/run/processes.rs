//! The processes that the command of `run` has started, directly or not: all that are in the mount namespace, whoever
//! their parents are by now. A process that has moved to another namespace, as containers do, is not found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use rustix::process::set_parent_process_death_signal;

use super::namespace;
use crate::base::limits::not_started;
use crate::base::parallel::spawn;
use crate::commands::shared::FAILED;
use crate::error::{Error, Result};

/// The time between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(20);
/// How long killed processes are waited for; one that takes longer is held by the kernel.
const KILLED: Duration = Duration::from_secs(5);

/// All processes of a mount namespace that was made for a command, besides this one.
pub(super) struct NamespaceProcesses {
    /// The kernel's name of the namespace.
    namespace: PathBuf,
}

impl NamespaceProcesses {
    /// The processes in the namespace of this process, which has left the namespace `left` before.
    ///
    /// # Errors
    /// [`Error::Refused`] if this process is still in `left`, which has the processes of all users.
    pub(super) fn in_own_namespace(left: &Path) -> Result<Self> {
        let namespace = namespace::current()?;
        if namespace == left {
            return Err(Error::Refused("this process has no mount namespace of its own".into()));
        }
        Ok(Self { namespace })
    }

    /// Sends SIGTERM to the processes, and SIGKILL to those that still run after `patience`.
    pub(super) fn end(&self, patience: Duration) {
        let begun = Instant::now();
        if !patience.is_zero() {
            signal(&self.others(), Signal::SIGTERM);
        }
        // The processes are listed again and again: one that is killed may just have started another.
        while begun.elapsed() < patience + KILLED {
            let running = self.others();
            if running.is_empty() {
                return;
            }
            if begun.elapsed() >= patience {
                signal(&running, Signal::SIGKILL);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The processes that still run; an ended process has no namespace.
    fn others(&self) -> Vec<Pid> {
        let is_inside = |pid: &Pid| fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|its| its == self.namespace);
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
        pids.filter(|pid| *pid != Pid::this() && is_inside(pid)).collect()
    }
}

fn signal(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill(*pid, signal); // fails for a process that has just ended
    }
}

/// Makes the kernel kill this process, which becomes the command, when its parent is gone.
///
/// # Errors
/// [`Error::Refused`] if the parent is gone already.
pub(super) fn die_with(parent: u32) -> Result<()> {
    send_at_end_of(parent, rustix::process::Signal::KILL)
}

/// Makes this process, which serves the mount and has no threads yet, end all processes of the namespace and then
/// itself when its parent is gone. The `ignored` signals, which the end of a job sends to all of its processes, do not
/// end it: processes that read the mount may need it to the last. `left` is the namespace that the parent has left.
///
/// # Errors
/// [`Error::Refused`] if the parent is gone already, or if this process is in the namespace `left`.
pub(super) fn end_all_with(parent: u32, left: &Path, ignored: SigSet) -> Result<()> {
    let all = NamespaceProcesses::in_own_namespace(left)?;
    ignored.thread_block().map_err(|error| Error::system("block signals", error))?;
    send_at_end_of(parent, rustix::process::Signal::TERM)?; // one of the ignored
    let watch = move || {
        while is_parent(parent) && ignored.wait().is_ok() {}
        log::warn!("process {parent}, which this mount was made for, is gone: ending what it has started");
        all.end(Duration::ZERO);
        std::process::exit(FAILED.into());
    };
    spawn("parent", watch).map_err(|error| not_started("start a thread that watches the command", error))?;
    Ok(())
}

/// Makes the kernel send `signal` to this process when its `parent` is gone.
fn send_at_end_of(parent: u32, signal: rustix::process::Signal) -> Result<()> {
    set_parent_process_death_signal(Some(signal))
        .map_err(|error| Error::system("end this process with its parent", error))?;
    // The parent may have been gone before the call.
    if is_parent(parent) { Ok(()) } else { Err(Error::Refused("the process that started this one is gone".into())) }
}

fn is_parent(pid: u32) -> bool {
    std::os::unix::process::parent_id() == pid
}
