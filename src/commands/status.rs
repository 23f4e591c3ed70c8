//! `ctwds-fs status`: shows the state of a mount, from the files in its folder `.ctwds/`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::shared::{self, OwnMount};
use super::terminal::print;
use crate::base::memory;
use crate::base::num::counted;
use crate::cli::StatusArgs;
use crate::error::{Error, Result, shown};
use crate::fs::mount_table;
use crate::fs::tree::STATUS_FILES;
use crate::output::journal::STATUS_DIR;

pub(super) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let OwnMount { path, entry, pid } = OwnMount::at(&args.mountpoint)?;
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
    if mount_table::is_dead(&entry) {
        return Err(gone());
    }
    let status = match read_all(&path, pid) {
        // The daemon has died since the check.
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOTCONN) => return Err(gone()),
        other => other?,
    };
    print(if args.json { shared::json(&status)? + "\n" } else { describe(&status) }, "print the status")?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the status files of the mount at `path`, whose daemon is the process `pid`, as one JSON object.
///
/// # Errors
/// [`Error::Refused`] if the daemon does not answer, [`Error::Io`] if a status file cannot be read.
pub(super) fn read_all(path: &Path, pid: u32) -> Result<Value> {
    let asked = path.to_owned();
    let answer = mount_table::within(mount_table::ANSWER, move || STATUS_FILES.map(|name| read(&asked, name)))?;
    let [mount, stats, errors] = answer.ok_or_else(|| {
        Error::Refused(format!(
            "{}: process {pid} has not answered for {} s; is it stopped (kill -CONT {pid})? `ctwds-fs unmount --force {}` \
             ends it",
            path.display(),
            mount_table::ANSWER.as_secs(),
            path.display()
        ))
    })?;
    Ok(json!({ "mountpoint": path.to_string_lossy(), "mount": mount?, "stats": stats?, "errors": errors? }))
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
            "Decoded      {}, {} copied from materialised shards; {} ahead of their reader, {} failed, {} given up",
            counted(stats("volumes_decoded"), "volume", "volumes"),
            stats("volumes_copied"),
            stats("read_ahead_hits"),
            stats("volumes_failed"),
            stats("volumes_cancelled")
        ),
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

/// One error of the status: the study or the shard that could not be read, and why.
pub(super) fn describe_error(error: &Value) -> String {
    let field = |name: &str| error[name].as_str();
    let what = field("study_id").or(field("shard")).unwrap_or_default();
    format!("{}: {}", shown(what), shown(field("error").unwrap_or_default()))
}
