//! The progress bars: of the commands that read whole volumes or shards (`verify`, `reclaim`, `plan --estimate`), and
//! of the look at a data set that comes before the work of most commands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, WeakProgressBar};

use super::events::Events;
use super::terminal::{loudness, tell};
use crate::base::lock::lock;
use crate::dataset::{ScanObserver, ScanProgress};
use crate::verify;

/// The shortest time between two lines of progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// The most times a second that a display is drawn.
const REDRAWS: u8 = 10;

/// How long a scan goes on without a display.
const SHORT: Duration = Duration::from_secs(1);

/// The display of files of a known number, on 80 columns.
const COUNTED: &str = "{human_pos}/{human_len} {msg}, {per_sec}, {eta} left {wide_bar}";

/// The display of files that are being found.
const UNCOUNTED: &str = "{human_pos} {msg}, {per_sec}";

/// The bars that may be seen.
static BARS: Mutex<Vec<WeakProgressBar>> = Mutex::new(Vec::new());

/// A progress bar on a terminal; elsewhere a line on stderr every 30 seconds.
pub(super) struct Bar {
    bar: ProgressBar,
    last_line: Mutex<Instant>,
    events: Events,
}

impl Bar {
    /// A bar that shows nothing until [`Bar::begin`]; with events for programs if `has_events`.
    pub(super) fn new(has_events: bool) -> Self {
        let bar = styled("{wide_bar} {percent}% {eta} left: {msg}");
        Self { bar, last_line: Mutex::new(Instant::now()), events: Events::new(has_events) }
    }

    /// Starts again at 0 of `total` bytes or voxels; `what` names the work, such as "shards".
    pub(super) fn begin(&self, what: &str, total: u64) {
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_message(what.to_owned());
        self.events.begin(what, total);
    }

    /// Adds `count` bytes or voxels that are done.
    pub(super) fn advance(&self, count: u64) {
        self.bar.inc(count);
        self.events.progress(self.bar.position(), self.bar.length().unwrap_or(0));
        if !self.bar.is_hidden() {
            return;
        }
        let mut last_line = lock(&self.last_line);
        if last_line.elapsed() >= LINE_INTERVAL {
            *last_line = Instant::now();
            let share = 100 * self.bar.position() / self.bar.length().unwrap_or(0).max(1);
            tell(format_args!("{}: {share} %", self.bar.message()));
        }
    }

    /// Removes the bar from the terminal, before the report is printed.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// The display of a scan on a terminal, which begins when the scan has taken a second; elsewhere there is none. It is
/// taken away when it is dropped.
pub(super) struct ScanDisplay(Arc<ScanBar>);

impl ScanDisplay {
    /// A display that shows nothing yet.
    pub(super) fn new() -> Self {
        let bar = styled(COUNTED);
        let is_hidden = bar.is_hidden();
        bar.set_draw_target(ProgressDrawTarget::hidden());
        Self(Arc::new(ScanBar { bar, begun: Instant::now(), is_shown: AtomicBool::new(is_hidden) }))
    }

    /// What a scan reports to.
    pub(super) fn progress(&self) -> ScanProgress {
        ScanProgress::to(self.0.clone())
    }
}

impl Drop for ScanDisplay {
    fn drop(&mut self) {
        self.0.bar.finish_and_clear();
    }
}

/// The bar of a scan.
struct ScanBar {
    bar: ProgressBar,
    begun: Instant,
    /// Whether the bar is drawn, or never will be as there is no terminal.
    is_shown: AtomicBool,
}

impl ScanObserver for ScanBar {
    fn begin(&self, what: &'static str, count: Option<usize>) {
        self.bar.reset();
        self.bar.set_style(style(if count.is_some() { COUNTED } else { UNCOUNTED }));
        self.bar.set_message(what);
        match count {
            Some(count) => self.bar.set_length(count as u64),
            None => self.bar.unset_length(),
        }
    }

    fn seen(&self, count: usize) {
        self.bar.inc(count as u64);
        if self.begun.elapsed() >= SHORT && !self.is_shown.swap(true, Ordering::Relaxed) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS));
        }
    }

    fn end(&self) {
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
    let bar = ProgressBar::no_length().with_style(style(template));
    if loudness().is_quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    lock(&BARS).push(bar.downgrade());
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Removes all bars from the terminal, before a last message.
pub(super) fn clear_all() {
    lock(&BARS).iter().filter_map(WeakProgressBar::upgrade).for_each(|bar| bar.finish_and_clear());
}
