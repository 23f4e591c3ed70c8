//! `ctwds-fs status`: shows the state of a mount, from the files in its folder `.ctwds/`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::shared::{self, OwnMount};
use super::terminal::{is_seen, say, stream};
use crate::base::memory;
use crate::base::num::counted;
use crate::cli::StatusArgs;
use crate::error::{Error, Result, shown, shown_lines};
use crate::fs::mount_table;
use crate::fs::tree::STATUS_FILES;
use crate::output::journal::STATUS_DIR;

/// The time between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(2);

/// What makes a terminal begin again at its top, without the lines of before.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

pub(super) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let mut looks = Looks::default();
    if !args.watch {
        print_once(args, &mut looks, false)?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let begun = Instant::now();
        if !print_once(args, &mut looks, true)? {
            return Ok(ExitCode::SUCCESS); // who reads has had enough
        }
        std::thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
        // The mount was there a moment ago: its end is what was waited for.
        if let Some(path) = &args.mountpoint
            && mount_table::at(&mount_table::resolve_links(path))?.is_none()
        {
            say(format_args!("{}: the mount has ended", shown(path)));
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Prints the state of the mount, or of all mounts of this user; false if the reader has stopped.
///
/// # Errors
/// There is no such mount, or it does not answer; the mount table cannot be read; the state cannot be printed.
fn print_once(args: &StatusArgs, looks: &mut Looks, is_watched: bool) -> Result<bool> {
    let status = match &args.mountpoint {
        Some(path) => of_mount(OwnMount::at(path)?, looks)?,
        None => Value::Array(all(looks)?),
    };
    let text = match (args.json, is_watched) {
        (true, true) => shared::json_line(&status)?,
        (true, false) => shared::json(&status)? + "\n",
        (false, _) => shown_lines(&status.as_array().map_or_else(|| describe(&status), |all| list(all))).into_owned(),
    };
    let clear = if is_watched && !args.json && is_seen() { CLEAR } else { "" };
    stream(format!("{clear}{text}").as_bytes(), "print the status")
}

/// The state of a mount.
///
/// # Errors
/// The mount's process is gone or does not answer, or a status file cannot be read.
fn of_mount(OwnMount { path, entry, pid }: OwnMount, looks: &mut Looks) -> Result<Value> {
    let gone = || {
        let kills = match memory::kills() {
            Some(kills) if kills > 0 => format!(" (the kernel has killed {kills} processes here for lack of memory)"),
            _ => String::new(),
        };
        Error::Refused(format!(
            "{}: the mount's process {pid} is gone{kills}, and whoever reads there gets errors; \
             `ctwds-fs unmount {}` clears it, and `ctwds-fs mount` mounts again",
            path.display(),
            path.display()
        ))
    };
    if !looks.is_open(&path, pid) && mount_table::is_dead(&entry) {
        return Err(gone());
    }
    match looks.read(&path, pid) {
        // The daemon has died since the check.
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOTCONN) => Err(gone()),
        other => other,
    }
}

/// The states of all mounts of this user; of one that does not answer, why.
///
/// # Errors
/// The mount table cannot be read.
fn all(looks: &mut Looks) -> Result<Vec<Value>> {
    let mounts = mount_table::of_user(rustix::process::getuid().as_raw())?.into_iter();
    let own = mounts.filter_map(|entry| Some(OwnMount { path: entry.path.clone(), pid: entry.daemon()?, entry }));
    let mut state = |mount: OwnMount| {
        let path = mount.path.to_string_lossy().into_owned();
        of_mount(mount, looks).unwrap_or_else(|error| json!({ "mountpoint": path, "error": error.to_string() }))
    };
    Ok(own.map(&mut state).collect())
}

/// The list of all mounts, for people.
fn list(mounts: &[Value]) -> String {
    if mounts.is_empty() {
        return "no mount of this user\n".into();
    }
    let mut text = String::new();
    for status in mounts {
        let number = |section: &str, name: &str| status[section][name].as_u64().unwrap_or(0);
        let name = |name: &str| status["mount"][name].as_str().unwrap_or_default();
        if let Some(error) = status["error"].as_str() {
            text.push_str(&format!("{}\n", shown(error)));
            continue;
        }
        let errors = status["errors"].as_array().map_or(0, |errors| errors.len() as u64);
        text.push_str(&format!(
            "{}\n  {} in {}, {}, {} volumes as {}; process {}\n  {} open, {} decoded, {} read, {}\n",
            shown(status["mountpoint"].as_str().unwrap_or_default()),
            counted(number("mount", "samples"), "sample", "samples"),
            counted(number("mount", "shards"), "shard", "shards"),
            ByteSize(number("mount", "shard_bytes")),
            name("kind"),
            name("dtype"),
            number("mount", "pid"),
            counted(number("stats", "open_files"), "file", "files"),
            counted(number("stats", "volumes_decoded"), "volume", "volumes"),
            ByteSize(number("stats", "bytes_served")),
            counted(errors, "error", "errors"),
        ));
    }
    text
}

/// Reads the status files of the mount at `path`, whose daemon is the process `pid`, as one JSON object.
///
/// # Errors
/// [`Error::Refused`] if the daemon does not answer, [`Error::Io`] if a status file cannot be read.
pub(super) fn read_all(path: &Path, pid: u32) -> Result<Value> {
    Looks::default().read(path, pid)
}

/// The content of a mount's status files.
type Answer = [Result<Value>; STATUS_FILES.len()];

/// The looks at mounts that have not answered, by mountpoint and process: the next look waits for the answer of the
/// last one, so that a mount that is asked again and again has one thread.
#[derive(Default)]
struct Looks(HashMap<(PathBuf, u32), Receiver<Answer>>);

impl Looks {
    /// Whether a look at the mount has not been answered.
    fn is_open(&self, path: &Path, pid: u32) -> bool {
        self.0.contains_key(&(path.to_owned(), pid))
    }

    /// Reads the status files as [`read_all`] does.
    ///
    /// # Errors
    /// As [`read_all`].
    fn read(&mut self, path: &Path, pid: u32) -> Result<Value> {
        let (key, asked) = ((path.to_owned(), pid), path.to_owned());
        let receiver = match self.0.remove(&key) {
            Some(receiver) => receiver,
            None => mount_table::asked(move || STATUS_FILES.map(|name| read(&asked, name)))?,
        };
        let Ok([mount, stats, errors]) = receiver.recv_timeout(mount_table::ANSWER) else {
            self.0.insert(key, receiver);
            return Err(Error::Refused(format!(
                "{}: process {pid} has not answered for {} s; is it stopped (kill -CONT {pid})? `ctwds-fs unmount \
                 --force {}` ends it",
                path.display(),
                mount_table::ANSWER.as_secs(),
                path.display()
            )));
        };
        Ok(json!({ "mountpoint": path.to_string_lossy(), "mount": mount?, "stats": stats?, "errors": errors? }))
    }
}

fn read(mount: &Path, name: &str) -> Result<Value> {
    let path = mount.join(STATUS_DIR).join(name);
    let content = fs::read(&path).map_err(|error| Error::io(&path, "read the status", error))?;
    serde_json::from_slice(&content).map_err(|error| Error::Internal(format!("{}: {error}", path.display())))
}

fn describe(status: &Value) -> String {
    let number = |section: &str, name: &str| status[section][name].as_u64().unwrap_or(0);
    let (mount, stats) = (|name| number("mount", name), |name| number("stats", name));
    let text = |section: &str, name: &str| status[section][name].as_str().unwrap_or("none").to_owned();
    let bytes = |name| ByteSize(stats(name));
    let mut lines = vec![
        format!("Mount        {} (process {})", status["mountpoint"].as_str().unwrap_or_default(), mount("pid")),
        format!("Data set     {}", text("mount", "data_folder")),
        format!(
            "Shards       {} with {}, {}; {} in use",
            mount("shards"),
            counted(mount("samples"), "sample", "samples"),
            ByteSize(mount("shard_bytes")),
            counted(stats("materialized_shards"), "materialised one", "materialised ones")
        ),
        match status["mount"]["shuffle_seed"].as_u64() {
            Some(seed) => {
                format!("Epochs       {}, seed {seed}", counted(mount("epochs"), "shuffled view", "shuffled views"))
            }
            None => "Epochs       none shuffled (--shuffle-seed)".to_owned(),
        },
        format!("Plan digest  {}", text("mount", "plan_digest")),
        format!("Log          {}", text("mount", "log_file")),
        format!(
            "Memory       {} of {} for {} (at most {} so far)",
            bytes("cache_bytes"),
            bytes("cache_limit"),
            counted(stats("volumes_cached"), "volume", "volumes"),
            bytes("cache_peak_bytes")
        ),
        format!(
            "Decoded      {}{}, {} copied from materialised shards; {} ahead of their reader, {} failed, {} given up",
            counted(stats("volumes_decoded"), "volume", "volumes"),
            match stats("decoder_threads") {
                0 => String::new(), // the mount is of an older version
                threads => format!(" by {}", counted(threads, "thread", "threads")),
            },
            stats("volumes_copied"),
            stats("read_ahead_hits"),
            stats("volumes_failed"),
            stats("volumes_cancelled")
        ),
        described_disk_cache(&status["stats"]["disk_cache"]),
        format!(
            "Reads        {} served; {} found their voxels ready, {} waited, {} headers only; \
             {} open, {} under way",
            bytes("bytes_served"),
            stats("cache_hits"),
            stats("cache_waits"),
            stats("peeks"),
            counted(stats("open_files"), "file", "files"),
            counted(stats("waiting_reads"), "read", "reads")
        ),
    ];
    let errors = status["errors"].as_array().map_or(&[][..], Vec::as_slice);
    lines.push(format!("Errors       {}", if errors.is_empty() { "none".into() } else { errors.len().to_string() }));
    lines.extend(errors.iter().map(|error| format!("  {}", describe_error(error))));
    lines.join("\n") + "\n"
}

/// The line about the disk cache, by its part of the counters.
fn described_disk_cache(cache: &Value) -> String {
    let Some(folder) = cache["folder"].as_str() else { return "Disk cache   none (--disk-cache)".to_owned() };
    let number = |name: &str| cache[name].as_u64().unwrap_or(0);
    format!(
        "Disk cache   {} of {} for {} in {}; {} came from there, {} did not, {} kept, {} skipped, {} removed, {}",
        ByteSize(number("bytes")),
        ByteSize(number("limit")),
        counted(number("volumes"), "volume", "volumes"),
        shown(folder),
        number("hits"),
        number("misses"),
        number("kept"),
        number("skipped"),
        number("removed"),
        counted(number("errors"), "error", "errors")
    )
}

/// One error of the status: the study or the shard that could not be read, and why.
pub(super) fn describe_error(error: &Value) -> String {
    let field = |name: &str| error[name].as_str();
    let what = field("study_id").or(field("shard")).unwrap_or_default();
    format!("{}: {}", shown(what), shown(field("error").unwrap_or_default()))
}
