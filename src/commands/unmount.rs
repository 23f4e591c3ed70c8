//! `ctwds-fs unmount`: ends a mount.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::shared::OwnMount;
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
/// What an error of standard output says.
const DOING: &str = "print that the mount has ended";

pub(super) fn run(args: &UnmountArgs) -> Result<ExitCode> {
    let OwnMount { path, entry, pid } = OwnMount::at(&args.mountpoint)?;
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
            format!("detached {}: process {pid} serves what is open, and ends with the last of it\n", path.display());
        return print(what, DOING).map(|()| ExitCode::SUCCESS);
    }
    if !args.force && !is_dead && !processes::wait_for_exit(pid, MOMENT) && entry.is_alive() {
        let what = format!(
            "unmounted {} here; process {pid} serves it on until it is unmounted everywhere: it is still mounted {}\n",
            path.display(),
            elsewhere(&entry)
        );
        return print(what, DOING).map(|()| ExitCode::SUCCESS);
    }
    let patience = if args.force { FORCED } else { PATIENCE };
    if !is_dead && !processes::wait_for_exit(pid, patience) {
        let killed = args.force && processes::kill_daemon(pid, &entry.device) && processes::wait_for_exit(pid, FORCED);
        let state = if killed { "did not end and was killed" } else { "has not ended yet" };
        say(format_args!(
            "ctwds-fs: warning: unmounted, but process {pid} {state} (stopped, or a source that does not answer?)"
        ));
    }
    print(format!("unmounted {}\n", path.display()), DOING).map(|()| ExitCode::SUCCESS)
}

/// Where else a file system is mounted: other folders, and processes that see it in namespaces of their own.
fn elsewhere(mount: &MountEntry) -> String {
    let folders = mount_table::folders(mount).into_iter().map(|folder| format!("at {}", shown(&folder)));
    let namespaces = mount_table::other_namespaces(mount).into_iter();
    let namespaces =
        namespaces.map(|seen| format!("in the mount namespace of {} (process {})", shown(&seen.name), seen.pid));
    let places: Vec<String> = folders.chain(namespaces).take(NAMED).collect();
    if places.is_empty() { "in a mount namespace that cannot be seen from here".into() } else { places.join(", ") }
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
