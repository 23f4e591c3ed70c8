//! How the commands that look at shards show their progress, and the exit code of what they found.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::base::lock::lock;
use crate::verify::{Progress, Verdict};

/// Lines of progress where there is no terminal.
const EVERY: Duration = Duration::from_secs(30);

/// The exit code of a verdict, as `verify --help` lists them.
pub(super) fn exit_code(verdict: Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Fine => 0,
        Verdict::Damaged => 3,
        Verdict::Incomplete => 4,
        Verdict::Unchecked => 5,
    })
}

/// A bar on a terminal, a line now and then elsewhere.
pub(super) struct Bar {
    pub(super) bar: ProgressBar,
    said: Mutex<Instant>,
}

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::no_length();
        let template = "{wide_bar} {percent}% {eta} left: {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, said: Mutex::new(Instant::now()) }
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_message(what.to_owned());
    }

    fn advance(&self, count: u64) {
        self.bar.inc(count);
        if !self.bar.is_hidden() {
            return;
        }
        let mut said = lock(&self.said);
        if said.elapsed() >= EVERY {
            *said = Instant::now();
            let share = 100 * self.bar.position() / self.bar.length().unwrap_or(0).max(1);
            eprintln!("{}: {share} %", self.bar.message());
        }
    }
}
