//! `ctwds-fs unmount`: back to the NPZ files.

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::UnmountArgs;
use crate::error::{Error, Result};
use crate::fs::mounts;

/// The daemon's threads end when the kernel closes the session; a decode under way may take a moment.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(args: &UnmountArgs) -> Result<ExitCode> {
    let path = mounts::resolve_links(&args.mountpoint);
    let not_ours = |what: &str| Err(Error::Refused(format!("{}: {what}", args.mountpoint.display())));
    let Some(mounted) = mounts::at(&path)? else { return not_ours("nothing is mounted here") };
    let Some(pid) = mounted.daemon() else { return not_ours("this is not a mount of ctwds-fs; use umount") };
    let is_dead = mounts::is_dead(&path);
    mounts::end(&path, is_dead).map_err(|error| match error.kind() {
        std::io::ErrorKind::ResourceBusy => Error::Refused(format!(
            "{}: files are open in the mount, or a process stands in it; end the training that reads it, then unmount again",
            args.mountpoint.display()
        )),
        _ => Error::io(&path, "unmount", error),
    })?;
    if !is_dead && !mounts::wait_for_exit(pid, PATIENCE) {
        eprintln!("ctwds-fs: warning: unmounted, but process {pid} has not ended yet (a source that does not answer?)");
    }
    println!("unmounted {}", path.display());
    Ok(ExitCode::SUCCESS)
}
