//! The commands: each wires the library together and speaks to the user.

mod bench;
mod daemon;
mod materialize;
mod mount;
mod plan;
mod unmount;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cli::{Cli, Command, DatasetArgs};
use crate::error::{Error, Result};
use crate::plan::Plan;

/// Exit code of everything that failed; usage errors exit with 2.
pub const FAILED: u8 = 1;

/// Runs a command and reports its error.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Plan(args) => plan::run(&args),
        Command::Mount(args) => mount::run(&args),
        Command::Materialize(args) => materialize::run(&args),
        Command::Unmount(args) => unmount::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ctwds-fs: error: {error}");
        ExitCode::from(FAILED)
    })
}

/// Scans and lays out, and prints what the user should know.
fn make_plan(args: &DatasetArgs) -> Result<Plan> {
    let (config, options) = args.resolve();
    let plan = Plan::of(&config, options)?;
    for warning in &plan.dataset.warnings {
        eprintln!("ctwds-fs: warning: {warning}");
    }
    Ok(plan)
}

/// A flag that the first of these signals sets; a second one ends the process as usual.
fn stop_on_signals(signals: &[i32]) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signals {
        signal_hook::flag::register_conditional_default(*signal, stop.clone())
            .and_then(|_| signal_hook::flag::register(*signal, stop.clone()))
            .map_err(|error| Error::Refused(format!("cannot handle signals: {error}")))?;
    }
    Ok(stop)
}

/// One line about those left out, for commands whose subject is something else.
fn warn_left_out(plan: &Plan) {
    let dataset = &plan.dataset;
    if let Some(first) = dataset.left_out.first() {
        eprintln!(
            "ctwds-fs: warning: {} of {} volumes are left out (for example {}: {}); `ctwds-fs plan` lists them",
            dataset.left_out.len(),
            dataset.slots,
            first.study_id,
            first.reason
        );
    }
}
