//! `ctwds-fs unmount`: back to the NPZ files.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::UnmountArgs;
use crate::error::{Error, Result};
use crate::fs::{holders, mounts};

/// The daemon's threads end when the kernel closes the session; a decode under way may take a moment.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same where readers were given errors: a process that is still there is killed, then waited for as long again.
const FORCED: Duration = Duration::from_secs(5);
/// Holders that are named.
const NAMED: usize = 10;

pub(super) fn run(args: &UnmountArgs) -> Result<ExitCode> {
    let (path, mounted, pid) = super::our_mount(&args.mountpoint)?;
    let is_dead = mounts::is_dead(&mounted);
    if args.force {
        mounts::abort(&mounted).map_err(|error| Error::io(&path, "abort the connection", error))?;
    }
    // An aborted connection may be gone from the table by now.
    let gone = args.force && mounts::at(&path)?.is_none_or(|mounted| mounted.daemon() != Some(pid));
    if !gone {
        mounts::end(&path, is_dead || args.lazy || args.force).map_err(|error| match error.kind() {
            std::io::ErrorKind::ResourceBusy => Error::Refused(busy(&path)),
            _ => Error::io(&path, "unmount", error),
        })?;
    }
    if args.lazy && mounts::is_running(pid) {
        println!("detached {}: process {pid} serves what is open, and ends with the last of it", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let patience = if args.force { FORCED } else { PATIENCE };
    if !is_dead && !mounts::wait_for_exit(pid, patience) {
        let killed = args.force && mounts::kill(pid) && mounts::wait_for_exit(pid, FORCED);
        let state = if killed { "did not end and was killed" } else { "has not ended yet" };
        eprintln!(
            "ctwds-fs: warning: unmounted, but process {pid} {state} (stopped, or a source that does not answer?)"
        );
    }
    println!("unmounted {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Says who is in the way.
fn busy(path: &Path) -> String {
    let holders = holders::of(path);
    let mut text = format!("{}: files are open in the mount, or a process stands in it", path.display());
    for holder in holders.iter().take(NAMED) {
        text.push_str(&format!("\n  {} (process {}): {}", holder.name, holder.pid, holder.path.display()));
    }
    if holders.len() > NAMED {
        text.push_str(&format!("\n  … and {} more", holders.len() - NAMED));
    }
    if holders.is_empty() {
        text.push_str(" (of another user, or in a container: not to be seen from here)");
    }
    text + "\nEnd them and unmount again; or --lazy lets them finish, and --force gives them errors"
}
