//! The progress bar of the commands that read whole volumes or shards: `verify`, `reclaim` and `plan --estimate`.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::terminal::say;
use crate::base::lock::lock;
use crate::verify;

/// The shortest time between two lines of progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// A progress bar on a terminal; elsewhere a line on stderr every 30 seconds.
pub(super) struct Bar {
    bar: ProgressBar,
    last_line: Mutex<Instant>,
}

impl Bar {
    /// A bar that shows nothing until [`Bar::begin`].
    pub(super) fn new() -> Self {
        Self { bar: styled("{wide_bar} {percent}% {eta} left: {msg}"), last_line: Mutex::new(Instant::now()) }
    }

    /// Starts again at 0 of `total` bytes or voxels; `what` names the work, such as "shards".
    pub(super) fn begin(&self, what: &str, total: u64) {
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_message(what.to_owned());
    }

    /// Adds `count` bytes or voxels that are done.
    pub(super) fn advance(&self, count: u64) {
        self.bar.inc(count);
        if !self.bar.is_hidden() {
            return;
        }
        let mut last_line = lock(&self.last_line);
        if last_line.elapsed() >= LINE_INTERVAL {
            *last_line = Instant::now();
            let share = 100 * self.bar.position() / self.bar.length().unwrap_or(0).max(1);
            say(format_args!("{}: {share} %", self.bar.message()));
        }
    }

    /// Removes the bar from the terminal, before the report is printed.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl verify::Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        Self::begin(self, what, total);
    }

    fn advance(&self, count: u64) {
        Self::advance(self, count);
    }
}

/// A bar of indicatif with a template of the program's own, and indicatif's default style if it refuses the template.
pub(super) fn styled(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style)
}
