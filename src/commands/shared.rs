//! Functions that several commands need: this program's mounts, output and exit codes.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::terminal::say;
use crate::base::num::counted;
use crate::error::{Error, Result, is_hidden, shown};
use crate::fs::mount_table::{self, MountEntry};
use crate::plan::Plan;

/// The exit code of every failure besides usage errors.
pub(super) const FAILED: u8 = 1;

/// Lists longer than this are cut in the text for people; `--json` has all.
pub(super) const LISTED: usize = 20;

/// Prints one line about the volumes that are left out, for commands whose subject is something else.
pub(super) fn warn_left_out(plan: &Plan) {
    let dataset = &plan.dataset;
    if let Some(first) = dataset.left_out.first() {
        say(format_args!(
            "ctwds-fs: warning: left out: {} of {} (for example {}: {}); `ctwds-fs plan` lists them",
            dataset.left_out.len(),
            counted(dataset.slots, "volume", "volumes"),
            shown(&first.study_id),
            shown(&first.reason)
        ));
    }
}

/// A mount of this program.
pub(super) struct OwnMount {
    /// The mountpoint, absolute and without links.
    pub(super) path: PathBuf,
    /// The line of the mount table.
    pub(super) entry: MountEntry,
    /// The process id of the daemon.
    pub(super) pid: u32,
}

impl OwnMount {
    /// Finds the mount at a path that the user gave. Only the mount table is asked, never the path itself, because what
    /// is mounted there may not answer.
    ///
    /// # Errors
    /// [`Error::Refused`] if nothing is mounted there, or a mount of another program.
    pub(super) fn at(given: &Path) -> Result<Self> {
        let path = mount_table::resolve_links(given);
        let refused = |what: &str| Error::Refused(format!("{}: {what}", given.display()));
        let entry = mount_table::at(&path)?.ok_or_else(|| refused("nothing is mounted here"))?;
        let pid = entry.daemon().ok_or_else(|| refused("this is not a mount of ctwds-fs; use umount"))?;
        Ok(Self { path, entry, pid })
    }
}

/// The pattern of the shards of a folder in quotes, to be pasted into a shell or a program: see [`shard_braces`].
pub(super) fn shard_pattern(folder: &Path, shards: u64) -> String {
    format!("'{}'", shard_braces(folder, shards).replace('\'', r"'\''"))
}

/// The pattern of the shards of a folder for who expands braces: from the first shard to the last of `shards`.
pub(super) fn shard_braces(folder: &Path, shards: u64) -> String {
    let (first, last) = (Plan::shard_name(0), Plan::shard_name(u32::try_from(shards.saturating_sub(1)).unwrap_or(0)));
    let number = |name: &str| name.trim_start_matches("shard-").trim_end_matches(".tar").to_owned();
    let names = if shards > 1 { format!("shard-{{{}..{}}}.tar", number(&first), number(&last)) } else { first };
    folder.join(names).to_string_lossy().into_owned()
}

/// A report as indented JSON, without a line end. What a terminal would obey is escaped as JSON does it.
///
/// # Errors
/// [`Error::Internal`] if the report cannot be written as JSON.
pub(super) fn json(report: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(report).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(escaped(text))
}

/// An object as JSON on one line, with the line's end.
///
/// # Errors
/// As [`json`].
pub(super) fn json_line(event: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(event).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(escaped(text) + "\n")
}

/// JSON in which what a terminal would obey is escaped.
fn escaped(text: String) -> String {
    if !text.contains(|c| is_hidden(c) && c != '\n') {
        return text;
    }
    // Outside of strings there are only line ends; the others are below U+10000.
    let escaped = |c: char| if is_hidden(c) && c != '\n' { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// The first lines of a list, indented, each on one line whatever names it has, and a last line that says how many more
/// there are.
pub(super) fn cut(lines: impl ExactSizeIterator<Item = String>) -> String {
    let more = lines.len().saturating_sub(LISTED);
    let mut text: String = lines.take(LISTED).map(|line| format!("  {}\n", shown(&line))).collect();
    if more > 0 {
        text.push_str(&format!("  … and {more} more (--json lists all)\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_can_be_pasted() {
        let pattern = |folder, shards| shard_pattern(Path::new(folder), shards);
        assert_eq!(pattern("/mnt/shards", 472), "'/mnt/shards/shard-{000000..000471}.tar'");
        assert_eq!(pattern("/mnt/a b", 1), "'/mnt/a b/shard-000000.tar'");
        assert_eq!(pattern("/mnt/it's", 2), r"'/mnt/it'\''s/shard-{000000..000001}.tar'");
    }
}
