//! What a command of long work tells programs while it works (`--json`): an object a line on standard output, of which
//! the last is the report.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::shared;
use super::terminal::stream;
use crate::base::lock::lock;
use crate::error::Result;

/// The shortest time between two events that only say how far the work is.
const INTERVAL: Duration = Duration::from_secs(1);

/// The events of a command, which are printed if the user asked for them.
pub(super) struct Events {
    is_asked: bool,
    step: Mutex<Step>,
}

/// The step of the work that has begun.
struct Step {
    what: String,
    /// When something was printed last that says how far the step is.
    printed: Instant,
}

/// The last event: the report's fields beside the event's name.
#[derive(Serialize)]
struct End<'a, R> {
    event: &'static str,
    #[serde(flatten)]
    report: &'a R,
}

impl Events {
    /// Events that are printed if `is_asked`.
    pub(super) fn new(is_asked: bool) -> Self {
        Self { is_asked, step: Mutex::new(Step { what: String::new(), printed: Instant::now() }) }
    }

    /// Prints an event, as far as that can be written: the last one is an error if not.
    pub(super) fn send(&self, event: &Value) {
        if self.is_asked
            && let Ok(line) = shared::json_line(event)
        {
            let _ = stream(line.as_bytes(), "print an event");
        }
    }

    /// Prints that a step begins, and that nothing of its `total` bytes, voxels or volumes is done.
    pub(super) fn begin(&self, what: &str, total: u64) {
        *lock(&self.step) = Step { what: what.to_owned(), printed: Instant::now() };
        self.send(&json!({ "event": "begin", "what": what, "total": total }));
    }

    /// Prints how far the step is that has begun, unless that was printed a moment ago.
    pub(super) fn progress(&self, done: u64, total: u64) {
        if !self.is_asked {
            return;
        }
        let mut step = lock(&self.step);
        if step.printed.elapsed() >= INTERVAL {
            step.printed = Instant::now();
            self.send(&json!({ "event": "progress", "what": step.what, "done": done, "total": total }));
        }
    }
}

/// The last event of a command, as a line: the fields of its report, which is a map or a struct.
///
/// # Errors
/// As [`shared::json`].
pub(super) fn end(report: &impl Serialize) -> Result<String> {
    shared::json_line(&End { event: "end", report })
}
