//! `ctwds-fs materialize`: writes the shards to a disk or a bucket, and shows the progress.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytesize::ByteSize;
use indicatif::ProgressBar;
use serde_json::json;

use super::events::{self, Events};
use super::interrupt::stop_on_signals;
use super::plans::make_plan;
use super::progress::styled;
use super::shared::{FAILED, warn_left_out};
use super::terminal::{print, say, tell};
use crate::base::lock::lock;
use crate::base::num::{counted, rate};
use crate::base::parallel::available_cores;
use crate::cli::{MaterializeArgs, default_cache_size};
use crate::error::{Error, Result, shown};
use crate::materialize::{Observer, Outcome, Request, materialize};
use crate::output::partition::Part;
use crate::output::place::Place;
use crate::shard::{Serving, ShardSet};
use crate::storage::StorageOptions;

pub(super) fn run(args: &MaterializeArgs) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Off); // each failure is listed once, at the end
    let part = part_of(args)?;
    let plan = make_plan(&args.dataset, Some(&args.source))?;
    warn_left_out(&plan);
    let workers = args.num_workers.map_or_else(available_cores, usize::from);
    let read_ahead = match args.compress {
        None => 0,    // each worker's decoder has enough to do with its shard
        Some(_) => 2, // others pack what was made: 6 % faster than with 1 on deflated volumes
    };
    let serving = Serving { cache_bytes: default_cache_size(), threads: workers, read_ahead, read_once: true };
    let set = ShardSet::new(plan, serving)?;
    let stop = stop_on_signals()?; // between two blocks
    let progress = ShardBar::new(args.json);
    let (on_error, recheck, clean) = (args.on_error, args.recheck, args.clean);
    let storage = StorageOptions { stop: Some(stop.clone()), ..args.source.storage.options() };
    let place = Place::of(&args.output_dir, &storage)?;
    let request = Request { out: &place, workers, codec: args.compress, part, on_error, recheck, clean };
    let outcome = materialize(set, &request, &stop, &progress);
    progress.clear();
    let outcome = outcome?;
    let text = match args.json {
        true => progress.end(&args.output_dir, &outcome)?,
        false => describe(&args.output_dir, part, &outcome) + &progress.summary(args.compress.is_some()),
    };
    let printed = print(text, "print what was written");
    let is_complete = report(&args.output_dir, part, &outcome);
    printed?;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The part that this run makes. Where the environment says which, so does a line: a wrong array is seen in its log.
fn part_of(args: &MaterializeArgs) -> Result<Part> {
    let Some(partition) = args.partition else { return Ok(Part::WHOLE) };
    let (part, variable) = partition.resolve(|name| std::env::var(name).ok())?;
    if let Some(variable) = variable {
        tell(format_args!("Part {} of the parts 0 to {}, by {variable}", part.index(), part.of() - 1));
    }
    Ok(part)
}

/// What was done, in words.
fn describe(out: &Path, part: Part, outcome: &Outcome) -> String {
    let (out, written, kept) = (out.display(), outcome.written, outcome.kept);
    let what = if part == Part::WHOLE { String::new() } else { format!(" (part {}/{})", part.index(), part.of()) };
    let written = counted(written, "shard", "shards");
    let mut text = format!("{out}: {written} written, {kept} kept from an earlier run{what}\n");
    if outcome.failed.is_empty() && outcome.may_merge {
        text.push_str(&format!("all parts are finished; to join their manifests: ctwds-fs manifest merge {out}\n"));
    }
    text
}

/// Says what could not be done. False if shards could not be made.
fn report(out: &Path, part: Part, outcome: &Outcome) -> bool {
    if !outcome.skipped.is_empty() {
        let count = outcome.skipped.len();
        let count = counted(count, "sample", "samples");
        say(format_args!("ctwds-fs: warning: {count} could not be made, and left empty slots:"));
        for (shard, skipped) in &outcome.skipped {
            say(format_args!("  {shard}: {}: {}", shown(&skipped.study_id), shown(&skipped.reason)));
        }
    }
    if let Some(name) = &outcome.quarantine {
        say(format_args!("The samples that cannot be made are listed in {}", out.join(name).display()));
    }
    outcome.remarks.iter().for_each(|remark| say(format_args!("ctwds-fs: note: {}", shown(remark))));
    if outcome.failed.is_empty() {
        return true;
    }
    let shards: BTreeSet<&String> = outcome.failed.iter().map(|(shard, _)| shard).collect();
    let manifest = part.file_name(crate::output::manifest::FILE);
    let count = shards.len();
    let count = counted(count, "shard", "shards");
    say(format_args!("ctwds-fs: error: {count} could not be made, and {manifest} is not written:"));
    for (shard, error) in &outcome.failed {
        say(format_args!("  {shard}: {error}"));
    }
    say(if outcome.failed.iter().any(|(_, error)| matches!(error, Error::Malformed { .. })) {
        "Mend or move these volumes, then run the same command again: the finished shards are kept. \
         --on-error skip leaves damaged ones out."
    } else {
        "Nothing shows that these volumes are damaged: when the reason is gone, run the same command again; the \
         finished shards are kept."
    });
    false
}

/// A progress bar of bytes on a terminal; elsewhere a line on stderr for each finished shard.
pub(super) struct ShardBar {
    bar: ProgressBar,
    /// When the first shard was begun.
    begun: Mutex<Instant>,
    /// Shards to make.
    shards: AtomicUsize,
    /// Shards that are made.
    done: AtomicUsize,
    /// Bytes to write.
    total: AtomicU64,
    /// Bytes of plain shards that are made.
    written: AtomicU64,
    /// Bytes of finished files.
    stored: AtomicU64,
    events: Events,
}

impl ShardBar {
    /// A bar that shows nothing until a shard is read or begun; with events if `has_events`.
    pub(super) fn new(has_events: bool) -> Self {
        let bar = styled("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left {msg}");
        let [total, written, stored] = [(); 3].map(|()| AtomicU64::new(0));
        let [shards, done] = [(); 2].map(|()| AtomicUsize::new(0));
        Self {
            bar,
            begun: Mutex::new(Instant::now()),
            shards,
            done,
            total,
            written,
            stored,
            events: Events::new(has_events),
        }
    }

    /// Removes the bar from the terminal, before the report is printed.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// The last event of a run.
    fn end(&self, out: &Path, outcome: &Outcome) -> Result<String> {
        let failed = outcome.failed.iter().map(|(shard, error)| json!({ "shard": shard, "error": error.to_string() }));
        let skipped = outcome
            .skipped
            .iter()
            .map(|(shard, skipped)| json!({ "shard": shard, "study_id": skipped.study_id, "reason": skipped.reason }));
        events::end(&json!({
            "output_dir": out.to_string_lossy(),
            "written": outcome.written,
            "kept": outcome.kept,
            "bytes": self.stored.load(Ordering::Relaxed),
            "plain_bytes": self.written.load(Ordering::Relaxed),
            "seconds": lock(&self.begun).elapsed().as_secs_f64(),
            "failed": failed.collect::<Vec<_>>(),
            "skipped": skipped.collect::<Vec<_>>(),
            "may_merge": outcome.may_merge,
        }))
    }

    /// What was written, how fast, and how far it was compressed, as a line; nothing if nothing was written.
    fn summary(&self, is_compressed: bool) -> String {
        let [made, stored] = [&self.written, &self.stored].map(|bytes| bytes.load(Ordering::Relaxed));
        if self.done.load(Ordering::Relaxed) == 0 {
            return String::new();
        }
        let seconds = lock(&self.begun).elapsed().as_secs_f64();
        let rate = rate(made, seconds);
        let compressed = if is_compressed {
            let percent = 100.0 * stored as f64 / made.max(1) as f64;
            format!(", compressed from {} to {percent:.1} %", ByteSize(made))
        } else {
            String::new()
        };
        format!("{} in {seconds:.1} s, {rate}{compressed}\n", ByteSize(stored))
    }

    fn print_line(&self, line: &str) {
        self.bar.suspend(|| tell(line));
    }
}

impl Observer for ShardBar {
    fn recheck(&self, shards: usize, bytes: u64) {
        self.bar.set_length(bytes);
        let what = counted(shards, "finished shard", "finished shards");
        self.bar.set_message(format!("(reading {what})"));
        if shards > 0 {
            self.events.begin("finished shards", bytes);
        }
        if shards > 0 && self.bar.is_hidden() {
            tell(format_args!("reading {what} ({})", ByteSize(bytes)));
        }
    }

    fn read(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.events.progress(self.bar.position(), self.bar.length().unwrap_or(0));
    }

    fn differs(&self, name: &str, why: &str) {
        self.print_line(&format!("{name}: {why}; it is made again"));
    }

    fn more(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc_length(bytes);
    }

    fn begin(&self, shards: usize, kept: usize, bytes: u64) {
        self.bar.reset();
        self.bar.set_length(bytes);
        self.bar.set_message(format!("(0/{})", counted(shards, "shard", "shards")));
        *lock(&self.begun) = Instant::now();
        self.shards.store(shards, Ordering::Relaxed);
        self.total.store(bytes, Ordering::Relaxed);
        self.events.send(&json!({ "event": "begin", "shards": shards, "kept": kept, "bytes": bytes }));
        if kept > 0 {
            self.print_line(&format!(
                "continuing: {kept} of {} finished, {shards} to be made ({})",
                counted(kept + shards, "shard", "shards"),
                ByteSize(bytes)
            ));
        }
    }

    fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    fn finished(&self, name: &str, bytes: u64) {
        let (done, shards) = (self.done.fetch_add(1, Ordering::Relaxed) + 1, self.shards.load(Ordering::Relaxed));
        self.stored.fetch_add(bytes, Ordering::Relaxed);
        let all = counted(shards, "shard", "shards");
        self.bar.set_message(format!("({done}/{all})"));
        self.events.send(&json!({ "event": "shard", "name": name, "bytes": bytes, "done": done, "of": shards }));
        if self.bar.is_hidden() {
            let begun = *lock(&self.begun);
            let seconds = begun.elapsed().as_secs_f64().max(1e-3);
            let written = self.written.load(Ordering::Relaxed);
            let to_write = self.total.load(Ordering::Relaxed).saturating_sub(written) as f64;
            let (size, left) = (ByteSize(bytes), to_write / (written as f64 / seconds).max(1.0));
            tell(format_args!("{name} {size} ({done}/{all}, {}, {left:.0} s left)", rate(written, seconds)));
        }
    }
}
