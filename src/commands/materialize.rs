//! `ctwds-fs materialize`: the shards on disk, with progress.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{FAILED, make_plan, warn_left_out};
use crate::cli::{MaterializeArgs, default_cache_size};
use crate::error::Result;
use crate::materialize::{Observer, materialize};
use crate::parallel::available_cores;
use crate::shard::{Serving, ShardSet};

pub(super) fn run(args: &MaterializeArgs) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Off); // each failure is listed once, at the end
    let plan = make_plan(&args.dataset, args.source.shards.as_deref())?;
    warn_left_out(&plan);
    let workers = args.num_workers.map_or_else(available_cores, usize::from);
    let read_ahead = 1;
    let serving = Serving { cache_bytes: default_cache_size(), threads: workers, read_ahead, read_once: true };
    let set = ShardSet::new(plan, serving)?;
    let stop = super::stop_on_signals(&[SIGINT, SIGTERM])?; // between two blocks
    let progress = Progress::new();
    let outcome = materialize(&set, &args.output_dir, workers, args.compress, &stop, &progress);
    progress.bar.finish_and_clear();
    let outcome = outcome?;
    let out = args.output_dir.display();
    let (written, kept) = (outcome.written, outcome.kept);
    println!("{out}: {written} shards written, {kept} kept from an earlier run");
    if outcome.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("ctwds-fs: error: {} shards could not be made, and manifest.json is not written:", outcome.failed.len());
    for (shard, error) in &outcome.failed {
        eprintln!("  {shard}: {error}");
    }
    eprintln!("Mend or move these volumes, then run the same command again: the finished shards are kept.");
    Ok(ExitCode::from(FAILED))
}

/// A bar on a terminal, a line a shard elsewhere.
struct Progress {
    bar: ProgressBar,
    started: Instant,
    shards: AtomicUsize,
    done: AtomicUsize,
    total: AtomicU64,
    written: AtomicU64,
    print: Mutex<()>,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::no_length();
        let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let [total, written] = [(); 2].map(|()| AtomicU64::new(0));
        let [shards, done] = [(); 2].map(|()| AtomicUsize::new(0));
        Self { bar, started: Instant::now(), shards, done, total, written, print: Mutex::new(()) }
    }
}

impl Observer for Progress {
    fn begin(&self, shards: usize, kept: usize, bytes: u64) {
        self.bar.set_length(bytes);
        self.bar.set_message(format!("(0/{shards} shards)"));
        self.shards.store(shards, Ordering::Relaxed);
        self.total.store(bytes, Ordering::Relaxed);
        if kept > 0 {
            eprintln!("continuing: {kept} shards are finished, {shards} are to be made ({})", ByteSize(bytes));
        }
    }

    fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    fn finished(&self, name: &str, bytes: u64) {
        let (done, shards) = (self.done.fetch_add(1, Ordering::Relaxed) + 1, self.shards.load(Ordering::Relaxed));
        self.bar.set_message(format!("({done}/{shards} shards)"));
        if self.bar.is_hidden() {
            let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
            let written = self.written.load(Ordering::Relaxed);
            let rate = written as f64 / seconds;
            let left = self.total.load(Ordering::Relaxed).saturating_sub(written) as f64 / rate.max(1.0);
            let _line = self.print.lock().unwrap_or_else(|poison| poison.into_inner());
            eprintln!("{name} {} ({done}/{shards} shards, {:.0} MB/s, {left:.0} s left)", ByteSize(bytes), rate / 1e6);
        }
    }
}
