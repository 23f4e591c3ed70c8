//! `ctwds-fs cache`: what is in a disk cache, and its removal.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use bytesize::ByteSize;
use serde_json::json;

use super::shared;
use super::terminal::print;
use crate::base::num::counted;
use crate::cache::disk::{self, Cleared, Contents, Kept};
use crate::cli::{CacheArgs, CacheCommand};
use crate::error::{Result, shown};

pub(super) fn run(args: &CacheArgs) -> Result<ExitCode> {
    match &args.command {
        CacheCommand::Ls { dir, json } => {
            let contents = disk::contents(dir)?;
            print(if *json { listed(&contents)? } else { described(&contents) }, "print what is in the disk cache")?;
        }
        CacheCommand::Clear { dir, json } => {
            let cleared = disk::clear(dir)?;
            let said = if *json { shared::json(&cleared)? + "\n" } else { removed(dir, &cleared) };
            print(said, "print what was removed")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The contents for programs.
fn listed(contents: &Contents) -> Result<String> {
    let volume = |(name, kept): &(String, Kept)| json!({ "file": name, "bytes": kept.bytes, "seconds_since_use": seconds_since(kept.used_ns) });
    let listed = shared::json(&json!({
        "folder": contents.folder.to_string_lossy(),
        "bytes": bytes(contents),
        "volumes": contents.volumes.iter().map(volume).collect::<Vec<_>>(),
        "unfinished": contents.unfinished,
        "foreign": contents.foreign,
    }))?;
    Ok(listed + "\n")
}

/// The contents for people. The names of files say nothing to them: which study it is stands in no file of the cache.
fn described(contents: &Contents) -> String {
    let used = |at: Option<&(String, Kept)>| at.map_or(0, |(_, kept)| seconds_since(kept.used_ns));
    let mut text = format!(
        "{}: {}, {}\n",
        shown(&contents.folder),
        counted(contents.volumes.len() as u64, "volume", "volumes"),
        ByteSize(bytes(contents))
    );
    if !contents.volumes.is_empty() {
        let (last, first) = (used(contents.volumes.first()), used(contents.volumes.last()));
        text.push_str(&format!("last used {} ago, the least recently used one {} ago\n", ago(last), ago(first)));
    }
    for (count, what) in [
        (contents.unfinished, "left unfinished by a process that has ended; the next mount removes it"),
        (contents.foreign, "not of the cache, and never touched by it"),
    ] {
        if count > 0 {
            text.push_str(&format!("{}: {what}\n", counted(count as u64, "file", "files")));
        }
    }
    text
}

/// What was removed, for people.
fn removed(dir: &Path, cleared: &Cleared) -> String {
    let Cleared { volumes, bytes, unfinished, foreign } = cleared;
    let mut text = format!("{}: removed {}, {}", shown(dir), counted(*volumes, "volume", "volumes"), ByteSize(*bytes));
    if *unfinished > 0 {
        text.push_str(&format!(", and {}", counted(*unfinished, "unfinished file", "unfinished files")));
    }
    if *foreign > 0 {
        text.push_str(&format!("; {} not of the cache left in place", counted(*foreign, "file", "files")));
    }
    text + "\n"
}

fn bytes(contents: &Contents) -> u64 {
    contents.volumes.iter().map(|(_, kept)| kept.bytes).sum()
}

/// The seconds since a time in nanoseconds since 1970.
fn seconds_since(time_ns: i128) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let passed = i128::try_from(now).unwrap_or(i128::MAX) - time_ns;
    u64::try_from(passed / 1_000_000_000).unwrap_or(0)
}

/// A time span in the largest unit of which there are two or more.
fn ago(seconds: u64) -> String {
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    let unit = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    unit.map_or_else(|| counted(seconds, "second", "seconds"), |(length, name)| format!("{} {name}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_that_fits() {
        let cases =
            [(0, "0 seconds"), (1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (7199, "119 minutes")];
        for (seconds, text) in cases.into_iter().chain([(7200, "2 hours"), (500_000, "5 days")]) {
            assert_eq!(ago(seconds), text);
        }
    }
}
