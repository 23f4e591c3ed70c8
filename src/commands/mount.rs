//! `ctwds-fs mount`: serves in the foreground, or starts a daemon and waits until it is ready.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::daemon::{self, Start};
use super::interrupt::{self, stop_on_signals};
use super::log_file;
use super::plans::make_plan;
use super::shared::{self, warn_left_out};
use super::status;
use super::terminal::{loudness, print, say};
use crate::base::limits::check_address_space_for;
use crate::base::num::counted;
use crate::cache::disk::{DiskCache, Forbidden, Request};
use crate::cli::{self, MountArgs};
use crate::error::{Error, Result, shown};
use crate::fs::mount;
use crate::fs::mount_table::{self, Unmount};
use crate::fs::processes;
use crate::fs::tree::Tree;
use crate::plan::Plan;
use crate::shard::{Serving, ShardSet};
use crate::storage::is_address;

/// The warning of `--allow-other`: reports are patient data.
const OTHERS: &str = "--allow-other: every user of this machine can read the mount, reports and study ids included";

/// How long a daemon is waited for whose mount nobody was told of.
const ENDING: Duration = Duration::from_secs(2);

/// What is kept of a mount that was interrupted.
const NOT_MOUNTED: &str = "nothing is mounted; run the same command again";

/// The number of shuffled views if the user gave none. A view that nobody reads costs nothing.
const EPOCHS: u32 = 10;

pub(super) fn run(args: &MountArgs) -> Result<ExitCode> {
    if args.end_with_parent {
        daemon::end_with_parent();
        return serve(args, Lifetime::OfCaller);
    }
    if args.foreground || args.daemon {
        return serve(args, Lifetime::UntilUnmounted);
    }
    let stop = stop_on_signals()?; // which ends the daemon that is started
    let mountpoint = mount_table::resolve_links(&args.mountpoint()?);
    let log_file = log_file::path(args.log_file.as_deref(), &log_file::name(&mountpoint));
    let mut daemon = match daemon::start(&[], args.log_file.is_none().then_some(&*log_file), &stop, Signal::TERM)? {
        Start::Ready(daemon) => daemon,
        Start::Failed { pid, end } => {
            clear(&mountpoint, pid);
            return end;
        }
    };
    let made = Made { mountpoint: mountpoint.clone(), log_file, pid: daemon.id() };
    let (is_json, has_others) = (args.json, args.allow_other);
    // In a thread: a daemon that does not answer, or a reader that does not read, is not waited for after Ctrl-C.
    let told = interrupt::unless_stopped(&stop, move || made.tell(is_json, has_others));
    let told = told.and_then(|told| told.unwrap_or(Err(Error::Interrupted(NOT_MOUNTED))));
    if told.is_err() {
        // Whoever gets another exit code than 0 does not look for a mount to end.
        let _ = end(&mountpoint, &mut daemon, ENDING);
    }
    told.map(|()| ExitCode::SUCCESS)
}

/// A mount that has just been made.
struct Made {
    mountpoint: PathBuf,
    log_file: PathBuf,
    /// The process id of its daemon.
    pid: u32,
}

impl Made {
    /// Says where the mount is and what it shows. An exit code of 0 promises that the first shard can be opened.
    ///
    /// # Errors
    /// The shard cannot be opened, the mount does not answer, or this cannot be printed.
    fn tell(&self, is_json: bool, has_others: bool) -> Result<()> {
        let (mountpoint, point, log) = (&*self.mountpoint, self.mountpoint.display(), self.log_file.display());
        let first = mountpoint.join(Plan::shard_name(0));
        File::open(&first).map_err(|error| Error::io(&first, "open the first shard of the new mount", error))?;
        let about = status::read_all(mountpoint, self.pid)?;
        let mount = &about["mount"];
        let what = if is_json {
            let pattern = shared::shard_braces(mountpoint, mount["shards"].as_u64().unwrap_or(0));
            shared::json(&json!({ "mountpoint": point.to_string(), "pattern": pattern, "mount": mount }))? + "\n"
        } else {
            let shown = what_is_shown(mountpoint, mount);
            let others = if has_others { format!("{OTHERS}\n") } else { String::new() };
            format!("mounted {point} (log: {log})\n{shown}{others}to end it: ctwds-fs unmount {point}\n")
        };
        print(what, "print where the mount is, which is ended again")
    }
}

/// What a mount shows, by its status file, and the pattern of its shards, as readers of WebDataset take it.
fn what_is_shown(mountpoint: &Path, about: &Value) -> String {
    let number = |name: &str| about[name].as_u64().unwrap_or(0);
    let name = |name: &str| about[name].as_str().unwrap_or_default();
    let shards = number("shards");
    let mut text = format!(
        "{} in {}, {}, {} volumes as {}\nto read it: {}\n",
        counted(number("samples"), "sample", "samples"),
        counted(shards, "shard", "shards"),
        ByteSize(number("shard_bytes")),
        name("kind"),
        name("dtype"),
        shared::shard_pattern(mountpoint, shards),
    );
    if let Some(folder) = about["disk_cache"]["folder"].as_str() {
        let limit = ByteSize(about["disk_cache"]["limit"].as_u64().unwrap_or(0));
        text.push_str(&format!("volumes are kept in {folder}, up to {limit}\n"));
    }
    if number("epochs") > 0 {
        let first = shared::shard_pattern(&mountpoint.join("epochs").join("000000"), shards);
        text.push_str(&format!("shuffled:   {first} for epoch 0, of {}\n", number("epochs")));
    }
    text
}

/// Ends the mount that a daemon may have left which could not be ready: with as many threads as it may have, it cannot
/// start the helper that ends an ordinary user's mount.
pub(super) fn clear(mountpoint: &Path, pid: u32) {
    let left = mount_table::at(mountpoint).ok().flatten().filter(|entry| entry.daemon() == Some(pid));
    if let Some(Err(error)) = left.map(|entry| mount_table::unmount(&entry, Unmount::Detach)) {
        let point = shown(mountpoint);
        say(format_args!(
            "ctwds-fs: warning: {point}: a dead mount is left ({error}); `ctwds-fs unmount {point}` clears it"
        ));
    }
}

/// Ends the mount of a daemon that this process has started, and the daemon. It is killed if it goes on for longer than
/// `patience`, if its mount cannot be ended, or if that is not seen, as something else was mounted there: then the
/// kernel ends the mount with it. The daemon's exit status, or `None` if it was killed.
///
/// # Errors
/// The operating system's, if the daemon is no child any more.
pub(super) fn end(mountpoint: &Path, daemon: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = daemon.id();
    let own = mount_table::at(mountpoint).ok().flatten().filter(|entry| entry.daemon() == Some(pid));
    let ended = match own.as_ref().map(mount_table::unmount_or_detach) {
        Some(Ok(())) => daemon::wait(daemon, patience)?,
        _ => None,
    };
    if ended.is_none() {
        daemon.kill()?;
        daemon::wait(daemon, patience)?; // one that waits for a dead file server ends when that answers
        // A helper ends an ordinary user's mount. Under `ulimit -u` there may be room for it without the daemon.
        clear(mountpoint, pid);
    }
    Ok(ended)
}

/// The party that decides when a mount ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// The user: the mount outlives the command that made it.
    UntilUnmounted,
    /// The caller, who has made the process end with another one.
    OfCaller,
}

/// Mounts, and serves until the mount has ended.
///
/// # Errors
/// The plan, the mount or the log cannot be made.
pub(super) fn serve(args: &MountArgs, lifetime: Lifetime) -> Result<ExitCode> {
    processes::name_daemon();
    if args.daemon {
        daemon::close_inherited();
        if lifetime == Lifetime::UntilUnmounted {
            daemon::end_with_parent();
        }
    }
    let is_quiet = loudness().is_quiet && !args.daemon; // a daemon's log is a file
    daemon::log_to_terminal(if is_quiet { log::LevelFilter::Warn } else { log::LevelFilter::Info });
    let stored = args.source.shards.as_deref();
    let data_folder =
        stored.map_or_else(|| Ok(args.dataset.input_paths()?.data_folder), |stored| Ok(stored.to_owned()))?;
    let on_disk = Some(&*data_folder).filter(|folder| !is_address(folder));
    let mountpoint = mount::check_mountpoint(&args.mountpoint()?, on_disk)?;
    let log = args.log_file.as_deref().map(log_file::open).transpose()?;
    let cache_size = cli::cache_size(args.cache_size)?;
    check_address_space_for(cache_size)?;
    let mut forbidden = vec![("the mountpoint", &*mountpoint)];
    forbidden.extend(on_disk.map(|folder| ("the data folder", folder)));
    let disk_cache = open_disk_cache(args, &forbidden, cache_size)?;
    let mut plan = make_plan(&args.dataset, Some(&args.source))?;
    let threads = args.threads.map_or_else(|| Serving::usual_threads(&plan), usize::from);
    warn_left_out(&plan);
    if let Some(seed) = args.shuffle_seed {
        plan = plan.with_epochs(seed, args.epochs.unwrap_or(EPOCHS))?;
    }
    let about = about(&plan, args.log_file.as_deref(), disk_cache.as_deref());
    let (samples, shards) = (plan.dataset.samples.len(), plan.shards.len());
    let page_cache = args.page_cache.is_on(plan.shard_bytes());
    let read_ahead = args.read_ahead.map_or_else(|| Serving::usual_read_ahead(threads), usize::from);
    let serving = Serving { cache_bytes: cache_size, threads, read_ahead, read_once: page_cache };
    // Stored shards that are plain are files already.
    let is_plain = stored.is_some() && plan.is_stored_plain() && !plan.dataset.store.is_remote(&plan.dataset.root);
    let set = ShardSet::new(plan, serving)?;
    set.check_memory("--cache-size")?;
    if let Some(cache) = &disk_cache {
        set.use_disk_cache(cache.clone())?;
    }
    let mut tree = Tree::new(set, about, page_cache);
    if let Some(folder) = args.materialized.as_deref().or(stored.filter(|_| is_plain)) {
        tree.use_materialized(folder)?;
    }
    interrupt::finish(); // from here on, a signal ends the mount
    mount::serve(tree, &mountpoint, args.allow_other, || {
        if interrupt::has_come() {
            return Err(Error::Interrupted(NOT_MOUNTED));
        }
        if let Some(log) = log {
            log_to(log, args.daemon, lifetime)?;
        }
        log::info!(
            "{}: {} in {}, {} of memory for volumes, {}, page cache {}",
            mountpoint.display(),
            counted(samples, "sample", "samples"),
            counted(shards, "shard", "shards"),
            ByteSize(cache_size),
            counted(threads, "decoder", "decoders"),
            if page_cache { "on" } else { "off" }
        );
        if args.allow_other {
            log::warn!("{OTHERS}");
        }
        Ok(())
    })?;
    if let Some(cache) = disk_cache {
        cache.close(); // readers may have been faster than the disk
    }
    Ok(ExitCode::SUCCESS)
}

/// Says everything in the log from here on; a daemon leaves its terminal and, if its mount outlives them, its parent.
///
/// # Errors
/// [`Error::System`] if the operating system refuses it.
fn log_to(log: File, is_daemon: bool, lifetime: Lifetime) -> Result<()> {
    if is_daemon {
        if lifetime == Lifetime::UntilUnmounted {
            daemon::outlive_parent()?;
        }
        return daemon::detach(log);
    }
    rustix::stdio::dup2_stderr(&log).map_err(|error| Error::system("redirect standard error to the log", error))
}

/// Opens the disk cache, if the user wants one, and says what is to be known of it. `cache_size` is the memory for
/// volumes: half of it may wait to be written.
///
/// # Errors
/// The folder cannot be a cache's, or cannot be made or read.
fn open_disk_cache(args: &MountArgs, forbidden: &[Forbidden<'_>], cache_size: u64) -> Result<Option<Arc<DiskCache>>> {
    let limit = cli::disk_cache_size(args.disk_cache_size)?;
    let Some(folder) = &args.disk_cache else { return Ok(None) };
    let is_packed = args.disk_cache_compress;
    let cache = DiskCache::open(Request { folder, limit, waiting: cache_size / 2, is_packed, forbidden })?;
    if let Some(lack) = cache.lack_of_room() {
        say(format_args!("ctwds-fs: warning: {lack}"));
    }
    Ok(Some(Arc::new(cache)))
}

/// The content of the status file `mount.json`.
fn about(plan: &Plan, log_file: Option<&Path>, disk_cache: Option<&DiskCache>) -> Vec<u8> {
    let of_cache = |cache: &DiskCache| json!({ "folder": cache.folder().to_string_lossy(), "limit": cache.limit() });
    let about = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "plan_digest": plan.digest,
        "samples": plan.dataset.samples.len(),
        "samples_left_out": plan.dataset.left_out.len(),
        "shards": plan.shards.len(),
        "shard_bytes": plan.shard_bytes(),
        "kind": plan.kind(),
        "dtype": plan.voxel_format().name(),
        "shuffle_seed": plan.shuffle_seed(),
        "epochs": plan.epochs(),
        "data_folder": plan.dataset.root.to_string_lossy(),
        "log_file": log_file.map(Path::to_string_lossy),
        "disk_cache": disk_cache.map(of_cache),
    });
    format!("{about:#}\n").into_bytes()
}
