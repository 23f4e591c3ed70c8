//! Functions that several commands need: this program's mounts, signals, output and exit codes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::terminal::say;
use crate::base::num::counted;
use crate::base::signals::is_ignored;
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

/// A flag that the first signal to end sets: Ctrl-C, `kill`, or the loss of the terminal. A second one ends the process
/// as usual. A signal that this process was told to ignore stays ignored.
///
/// # Errors
/// [`Error::System`] if the signals cannot be handled.
pub(super) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal)) {
        signal_hook::flag::register_conditional_default(signal, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| Error::system("wait for signals", error))?;
    }
    Ok(stop)
}

/// A report as indented JSON, without a line end. What a terminal would obey is escaped as JSON does it.
///
/// # Errors
/// [`Error::Internal`] if the report cannot be written as JSON.
pub(super) fn json(report: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(report).map_err(|error| Error::Internal(error.to_string()))?;
    if !text.contains(|c| is_hidden(c) && c != '\n') {
        return Ok(text);
    }
    // Outside of strings there are only line ends; the others are below U+10000.
    let escaped = |c: char| if is_hidden(c) && c != '\n' { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Ok(text.chars().map(escaped).collect())
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
