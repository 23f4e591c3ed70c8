//! `ctwds-fs bench`: measures how fast the user's own data is read by NumPy, through a mount, and from files.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use super::daemon::{self, Start};
use super::events::{self, Events};
use super::interrupt::stop_on_signals;
use super::mount;
use super::plans::make_plan;
use super::progress::styled;
use super::terminal::{print, say};
use crate::base::parallel::available_cores;
use crate::base::partial_name::{PartialName, Writer};
use crate::bench::{self, BenchReport, Config, FileRange, NOTHING_KEPT, ShardProvider, Workload};
use crate::cli::{self, BenchArgs, DatasetArgs, ShardsArgs, default_cache_size};
use crate::dataset::Sample;
use crate::error::{Error, Result, reason, shown};
use crate::fs::mount_table;
use crate::materialize::{OnError, Request, Silent, materialize};
use crate::output::partition::Part;
use crate::output::place::Place;
use crate::plan::Plan;
use crate::shard::{Serving, ShardSet};

/// How the names of folders begin in which this command works.
const WORK: &str = "ctwds-fs-bench";

/// How long the daemon may take to end after the unmount.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(args: &BenchArgs) -> Result<ExitCode> {
    daemon::log_to_terminal(log::LevelFilter::Warn);
    let report = measure(args, |_| Ok(None))?;
    print(if args.json { events::end(&report)? } else { report.text() }, "print the measurements")?;
    Ok(ExitCode::SUCCESS)
}

/// Measures the first samples of the data set; `given` finds them in shards that exist already, if there are any.
///
/// # Errors
/// The plan, a mount or shards cannot be made, something cannot be read, or the user interrupted it.
pub(super) fn measure(
    args: &BenchArgs,
    given: impl FnOnce(&Plan) -> Result<Option<Vec<FileRange>>>,
) -> Result<BenchReport> {
    let source = ShardsArgs::none(&args.storage);
    let whole = make_plan(&args.dataset, Some(&source))?;
    let threads = args.threads.map_or_else(available_cores, usize::from);
    let part = DatasetArgs {
        limit: Some(args.samples.min(whole.dataset.slots as usize)),
        test_mode: false,
        samples_per_shard: samples_per_shard(args),
        ..args.dataset.clone()
    };
    let plan = make_plan(&part, Some(&source))?;
    let workload = workload(&plan, &whole);
    let given = given(&plan)?;
    let stop = stop_on_signals()?; // before there is something to remove
    let work = args.work_dir.clone().unwrap_or_else(std::env::temp_dir);
    WorkFolder::remove_left(&work);
    let folder = WorkFolder::make(&work);
    let folder = folder.map_err(|error| Error::io(&work, "create a folder to work in (--work-dir)", error))?;
    let page_cache = args.page_cache.is_on(whole.shard_bytes());
    // Shards that exist already are measured also if nothing can be mounted.
    let can_mount = given.is_none() || Path::new("/dev/fuse").exists();
    let provider = OwnShards { args, part, page_cache, threads, plan, folder, given, stop: stop.clone() };
    let usual = Serving::usual_read_ahead(threads);
    let config = Config {
        readers: args.readers.clone(),
        read_ahead: match &args.read_ahead[..] {
            _ if !can_mount => Vec::new(),
            [] => vec![0, 1, usual, 2 * usual],
            asked => asked.to_vec(),
        },
        runs: args.runs,
        warm: args.warm,
        python: args.python.clone(),
        dtype: args.dataset.output_dtype.name(),
        array: args.dataset.array.clone(),
    };
    with_progress(&config, workload, &provider, &stop, args.json)
}

/// Measures, and shows a progress bar of the steps; with events for programs if `has_events`.
///
/// # Errors
/// The errors of [`bench::run`].
pub(super) fn with_progress<S: ShardProvider>(
    config: &Config,
    workload: Workload,
    shards: &S,
    stop: &AtomicBool,
    has_events: bool,
) -> Result<BenchReport> {
    let (bar, events) = (styled("{wide_bar} {pos}/{len} {msg}"), Events::new(has_events));
    let report = bench::run(config, workload, shards, stop, |step, steps, what| {
        bar.set_length(steps as u64);
        bar.set_position(step as u64);
        bar.set_message(what.to_owned());
        events.send(&json!({ "event": "step", "what": what, "done": step, "of": steps }));
    });
    bar.finish_and_clear();
    report
}

/// The samples in a shard that give as many shards as the largest number of readers, so that each reader has one.
fn samples_per_shard(args: &BenchArgs) -> u32 {
    let most = args.readers.iter().max().copied().unwrap_or(1).max(1);
    u32::try_from(args.samples.div_ceil(most)).unwrap_or(1).max(1)
}

/// The samples of `plan`, which is a part of the `whole` data set.
fn workload(plan: &Plan, whole: &Plan) -> Workload {
    let samples = &plan.dataset.samples;
    let volumes = samples.iter().map(|sample| plan.dataset.root.join(&sample.path));
    Workload {
        volumes: volumes.filter(|path| !plan.dataset.store.is_remote(path)).collect(), // NumPy reads files alone
        samples: samples.len(),
        samples_in_all: whole.dataset.samples.len(),
        voxels: samples
            .iter()
            .filter_map(Sample::study)
            .map(|study| study.array.header.shape.iter().product::<u64>())
            .sum(),
        npz_bytes: samples.iter().map(|sample| sample.npz_size_and_crc().0).sum(),
        shard_bytes: plan.shard_bytes(),
    }
}

/// Makes shards as a user would: by this program.
struct OwnShards<'a> {
    args: &'a BenchArgs,
    part: DatasetArgs,
    page_cache: bool,
    threads: usize,
    plan: Plan,
    folder: WorkFolder,
    given: Option<Vec<FileRange>>,
    stop: Arc<AtomicBool>,
}

/// A folder to work in, which is removed with all in it when dropped; and the lock that says that it is in use.
struct WorkFolder {
    path: PathBuf,
    _lock: File,
}

impl WorkFolder {
    /// Makes one in `work`, whose name says which process works in it.
    ///
    /// # Errors
    /// The operating system's reason.
    fn make(work: &Path) -> io::Result<Self> {
        let writer = Writer::this_process();
        for attempt in 0..=u32::MAX {
            let path = work.join(writer.name(WORK, attempt));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    let lock = made.and_then(|()| File::open(&path))?;
                    // Where locks are not known, the process in the name tells.
                    let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
                    return Ok(Self { path, _lock: lock });
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes the folders in `work` of runs that were killed.
    fn remove_left(work: &Path) {
        for entry in fs::read_dir(work).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let is_own = |found: fs::Metadata| found.is_dir() && found.uid() == rustix::process::getuid().as_raw();
            let name = name.to_str().and_then(PartialName::parse).filter(|name| name.output == WORK);
            if name.is_some_and(|name| name.is_left(&path)) && entry.metadata().is_ok_and(is_own) {
                let _ = remove(&path); // its mount may be about to end: then the next run removes it
            }
        }
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            let folder = shown(&self.path);
            say(format_args!("ctwds-fs: warning: {folder}: cannot be removed: {}; remove it by rm -r", reason(&error)));
        }
    }
}

/// Removes a folder and all in it. The standard library has as many folders open as lie in each other, and under
/// `ulimit -n` there may be one descriptor.
fn remove(folder: &Path) -> io::Result<()> {
    let paths: io::Result<Vec<PathBuf>> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    for path in paths? {
        if fs::symlink_metadata(&path)?.is_dir() { remove(&path)? } else { fs::remove_file(&path)? }
    }
    fs::remove_dir(folder)
}

/// A mount that is ended when dropped, and by the kernel if this process is killed.
struct MountGuard {
    mountpoint: PathBuf,
    daemon: Child,
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        let _ = mount::end(&self.mountpoint, &mut self.daemon, PATIENCE); // one that still runs ends with this process
    }
}

impl OwnShards<'_> {
    /// The paths of the shards in a folder.
    fn shards(&self, folder: &Path) -> Vec<PathBuf> {
        (0..).zip(&self.plan.shards).map(|(id, _)| folder.join(Plan::shard_name(id))).collect()
    }
}

impl ShardProvider for OwnShards<'_> {
    type MountGuard = MountGuard;

    fn mount(&self, read_ahead: usize) -> Result<(Self::MountGuard, Vec<PathBuf>)> {
        let mountpoint = mount_table::resolve_links(&self.folder.path.join("mount"));
        fs::create_dir_all(&mountpoint).map_err(|error| Error::io(&mountpoint, "create the mountpoint", error))?;
        let mut flags = cli::dataset_flags(cli::arguments(), &["limit", "test_mode", "samples_per_shard"]);
        flags.extend(cli::storage_flags(cli::arguments()));
        let mut set = |flag: &str, value: &dyn std::fmt::Display| flags.push(format!("--{flag}={value}").into());
        set("limit", &self.part.limit.unwrap_or_default());
        set("samples-per-shard", &self.part.samples_per_shard);
        set("read-ahead", &read_ahead);
        set("threads", &self.threads);
        if let Some(cache) = self.args.cache_size {
            set("cache-size", &cli::cache_size(Some(cache))?);
        }
        set("page-cache", if self.page_cache { &"on" } else { &"off" });
        let log = self.folder.path.join("mount.log");
        let failed = |error| Error::io(&self.folder.path, "write down what the mount says", error);
        let mut said = tempfile::tempfile_in(&self.folder.path).map_err(failed)?;
        flags.extend(["--log-file".into(), log.into(), mountpoint.clone().into()]);
        let daemon = match daemon::start_own(flags, said.try_clone().map_err(failed)?, &self.stop)? {
            Start::Ready(daemon) => daemon,
            Start::Failed { pid, end } => {
                mount::clear(&mountpoint, pid);
                end?;
                let mut reason = Vec::new();
                said.rewind().and_then(|()| said.read_to_end(&mut reason)).map_err(failed)?;
                return Err(Error::Refused(format!("the mount failed: {}", String::from_utf8_lossy(&reason).trim())));
            }
        };
        let shards = self.shards(&mountpoint);
        Ok((MountGuard { mountpoint, daemon }, shards))
    }

    fn given(&self) -> Option<Vec<FileRange>> {
        self.given.clone()
    }

    fn materialize(&self) -> Result<Vec<PathBuf>> {
        let out = self.folder.path.join("files");
        let read_ahead = Serving::usual_read_ahead(self.threads);
        let serving = Serving { cache_bytes: default_cache_size(), threads: self.threads, read_ahead, read_once: true };
        let set = ShardSet::new(self.plan.clone(), serving)?;
        let (part, on_error, recheck) = (Part::WHOLE, OnError::Fail, false);
        let place = Place::on_disk(&out);
        let request =
            Request { out: &place, workers: self.threads, codec: None, part, on_error, recheck, clean: false };
        let outcome = materialize(set, &request, &self.stop, &Silent).map_err(|error| match error {
            Error::Interrupted(_) => Error::Interrupted(NOTHING_KEPT), // this folder is removed
            error => error,
        })?;
        match outcome.failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(self.shards(&out)),
        }
    }
}
