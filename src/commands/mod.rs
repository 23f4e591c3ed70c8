//! The commands: each wires the library together and speaks to the user.

mod daemon;
mod materialize;
mod mount;
mod plan;
mod unmount;

use std::process::ExitCode;

use crate::cli::{Cli, Command, DatasetArgs};
use crate::error::Result;
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
