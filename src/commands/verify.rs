//! `ctwds-fs verify`: shards in themselves, against the manifest and against their sources.

use std::io::Write;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use super::{make_plan, sources};
use crate::cli::VerifyArgs;
use crate::error::{Error, Result};
use crate::parallel::available_cores;
use crate::verify::{self, Config, Progress, Report, Verdict};

pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Warn);
    let dataset = args.dataset()?;
    let workers = args.num_workers.map_or_else(available_cores, usize::from);
    let Some(folder) = &args.webdataset_dir else {
        return sources::run(args, workers);
    };
    let plan = dataset.map(|dataset| make_plan(dataset, None)).transpose()?;
    let config = Config { folder, plan: plan.as_ref(), count: args.num_samples, seed: args.seed, workers };
    let bar = Bar::new();
    let report = verify::run(&config, &bar);
    bar.0.finish_and_clear();
    let mut report = report?;
    if args.check_precision && plan.is_none() {
        report.unchecked("--check-precision", "the precision is measured against the NPZ files, which were not named");
    }
    print(args, &report)?;
    Ok(exit_code(report.verdict))
}

pub(super) fn exit_code(verdict: Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Fine => 0,
        Verdict::Damaged => 3,
        Verdict::Incomplete => 4,
        Verdict::Unchecked => 5,
    })
}

fn print(args: &VerifyArgs, report: &Report) -> Result<()> {
    let text = if args.json {
        let json = serde_json::to_string_pretty(report).map_err(|error| Error::Internal(error.to_string()))?;
        format!("{json}\n")
    } else {
        report.text(args.check_precision)
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads may stop early (`| head`).
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("stdout".as_ref(), "print the report", error))
        }
        _ => Ok(()),
    }
}

/// A bar on a terminal, nothing elsewhere.
pub(super) struct Bar(pub(super) ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::no_length();
        let template = "{wide_bar} {percent}% {eta} left: {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        self.0.reset();
        self.0.set_length(total);
        self.0.set_message(what.to_owned());
    }

    fn advance(&self, count: u64) {
        self.0.inc(count);
    }
}
