//! The commands: each wires the library together and speaks to the user.

mod bench;
mod daemon;
mod estimate;
mod manifest;
mod materialize;
mod mount;
mod plan;
mod progress;
mod reclaim;
mod run;
mod sources;
mod status;
mod unmount;
mod value_check;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cli::{Cli, Command, DatasetArgs};
use crate::error::{Error, Result};
use crate::fs::mounts::{self, Mounted};
use crate::output::archive;
use crate::plan::Plan;

/// Exit code of everything that failed, besides usage errors.
pub const FAILED: u8 = 1;
/// Exit code of usage errors, as the parser of the command line has it.
const USAGE: u8 = 2;

/// Threads that look into shards: opening a file on a network waits for the server.
const SCANNERS: usize = 32;

/// Runs a command and reports its error.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Plan(args) => plan::run(&args),
        Command::Mount(args) => mount::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Materialize(args) => materialize::run(&args),
        Command::Manifest(args) => manifest::run(&args),
        Command::Unmount(args) => unmount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Reclaim(args) => reclaim::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ctwds-fs: error: {error}");
        ExitCode::from(if matches!(error, Error::Usage(_)) { USAGE } else { FAILED })
    })
}

/// Scans and lays out, and prints what the user should know. Refuses volumes whose values contradict their recipe.
fn make_plan(args: &DatasetArgs, shards: Option<&Path>) -> Result<Plan> {
    let plan = show_plan(args, shards)?;
    match value_check::find(&plan, &args.kind())? {
        Some(doubt) => Err(Error::Refused(doubt)),
        None => Ok(plan),
    }
}

/// The same without the refusal.
fn show_plan(args: &DatasetArgs, shards: Option<&Path>) -> Result<Plan> {
    if let Some(folder) = shards {
        return archive::plan(folder, SCANNERS);
    }
    let (config, options) = args.resolve()?;
    let plan = Plan::load_or_make(&config, options)?;
    for warning in &plan.dataset.warnings {
        eprintln!("ctwds-fs: warning: {warning}");
    }
    Ok(plan)
}

/// The mount of ours at a path that the user gave, and its daemon. Asks the mount table, never the path itself: what is
/// mounted there may not answer.
fn our_mount(given: &Path) -> Result<(PathBuf, Mounted, u32)> {
    let path = mounts::resolve_links(given);
    let not_ours = |what: &str| Error::Refused(format!("{}: {what}", given.display()));
    let mounted = mounts::at(&path)?.ok_or_else(|| not_ours("nothing is mounted here"))?;
    let pid = mounted.daemon().ok_or_else(|| not_ours("this is not a mount of ctwds-fs; use umount"))?;
    Ok((path, mounted, pid))
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
