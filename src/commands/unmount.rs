//! `ctwds-fs unmount`: ends a mount.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::shared::{self, OwnMount};
use super::terminal::{print, say};
use crate::cli::UnmountArgs;
use crate::error::{Error, Result, shown};
use crate::fs::mount_table::{self, MountEntry, Unmount};
use crate::fs::processes;

/// How long the daemon may take to end after the unmount: a decode that has begun may take a moment.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the daemon may take to end after a forced unmount, before and after it is killed.
const FORCED: Duration = Duration::from_secs(5);
/// How long the daemon of a mount that nobody has open takes to end at most, if no decode has begun.
const MOMENT: Duration = Duration::from_millis(300);
/// The number of processes that are named if the mount is busy.
const NAMED: usize = 10;
/// Where a mount is of which no place can be seen.
const UNSEEN: &str = "in a mount namespace that cannot be seen from here";

pub(super) fn run(args: &UnmountArgs) -> Result<ExitCode> {
    let OwnMount { path, entry, pid } = OwnMount::at(&args.mountpoint)?;
    let ended = Ended { mountpoint: path.to_string_lossy().into_owned(), pid };
    // A process whose working folder is in a mount keeps that busy: this one must not, whatever shell it comes from.
    std::env::set_current_dir("/").map_err(|error| Error::io(Path::new("/"), "change to the folder", error))?;
    let is_dead = mount_table::is_dead(&entry);
    if args.force {
        mount_table::abort(&entry).map_err(|error| Error::io(&path, "abort the connection", error))?;
    }
    // An aborted connection may be gone from the table by now.
    let gone = args.force && mount_table::at(&path)?.is_none_or(|entry| entry.daemon() != Some(pid));
    if !gone {
        let how = if is_dead || args.lazy || args.force { Unmount::Detach } else { Unmount::IfIdle };
        mount_table::unmount(&entry, how).map_err(|error| match error.kind() {
            std::io::ErrorKind::ResourceBusy => Error::Refused(busy(&path)),
            _ => Error::io(&path, "unmount", error),
        })?;
    }
    if args.lazy && processes::is_running(pid) {
        let what =
            format!("detached {}: process {pid} serves what is open, and ends with the last of it", path.display());
        return ended.print(args, "detached", &[], what);
    }
    if !args.force && !is_dead && !processes::wait_for_exit(pid, MOMENT) && entry.is_alive() {
        let places = elsewhere(&entry);
        let what = format!(
            "unmounted {} here; process {pid} serves it on until it is unmounted everywhere: it is still mounted {}",
            path.display(),
            if places.is_empty() { UNSEEN.into() } else { places.join(", ") }
        );
        return ended.print(args, "mounted elsewhere", &places, what);
    }
    let patience = if args.force { FORCED } else { PATIENCE };
    if !is_dead && !processes::wait_for_exit(pid, patience) {
        let killed = args.force && processes::kill_daemon(pid, &entry.device) && processes::wait_for_exit(pid, FORCED);
        let state = if killed { "did not end and was killed" } else { "has not ended yet" };
        say(format_args!(
            "ctwds-fs: warning: unmounted, but process {pid} {state} (stopped, or a source that does not answer?)"
        ));
        if !killed {
            return ended.print(args, "process not ended", &[], format!("unmounted {}", path.display()));
        }
    }
    ended.print(args, "unmounted", &[], format!("unmounted {}", path.display()))
}

/// The mount that was asked for.
struct Ended {
    mountpoint: String,
    pid: u32,
}

impl Ended {
    /// Prints what became of it: in words, or for programs as one of four states, with the places where it is still
    /// mounted.
    fn print(&self, args: &UnmountArgs, state: &str, elsewhere: &[String], words: String) -> Result<ExitCode> {
        let Self { mountpoint, pid } = self;
        let text = match args.json {
            true => {
                shared::json(&json!({ "mountpoint": mountpoint, "pid": pid, "state": state, "elsewhere": elsewhere }))?
            }
            false => words,
        };
        print(text + "\n", "print that the mount has ended").map(|()| ExitCode::SUCCESS)
    }
}

/// Where else a file system is mounted: other folders, and processes that see it in namespaces of their own.
fn elsewhere(mount: &MountEntry) -> Vec<String> {
    let folders = mount_table::folders(mount).into_iter().map(|folder| format!("at {}", shown(&folder)));
    let namespaces = mount_table::other_namespaces(mount).into_iter();
    let namespaces =
        namespaces.map(|seen| format!("in the mount namespace of {} (process {})", shown(&seen.name), seen.pid));
    folders.chain(namespaces).take(NAMED).collect()
}

/// The message that the mount is busy, with the processes that have files open in it.
fn busy(path: &Path) -> String {
    let (own, busy): (Vec<_>, Vec<_>) =
        processes::busy_below(path).into_iter().partition(|process| process.pid == std::process::id());
    let mut text = format!("{}: files are open in the mount, or a process stands in it", path.display());
    for process in busy.iter().take(NAMED) {
        text.push_str(&format!("\n  {} (process {}): {}", shown(&process.name), process.pid, shown(&process.path)));
    }
    if busy.len() > NAMED {
        text.push_str(&format!("\n  … and {} more", busy.len() - NAMED));
    }
    for process in &own {
        text.push_str(&format!("\n  this command's own input or output: {}", shown(&process.path)));
    }
    if busy.is_empty() && own.is_empty() {
        text.push_str(" (of another user, or in a container: not to be seen from here)");
    }
    text + "\nEnd them and unmount again; or --lazy lets them finish, and --force gives them errors"
}
