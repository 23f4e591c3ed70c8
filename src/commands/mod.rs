//! The commands: each calls the library and speaks to the user.

mod bench;
mod cat;
mod classes;
mod columns;
mod daemon;
mod demo;
mod estimate;
mod init;
mod log_file;
mod manifest;
mod materialize;
mod mount;
mod plan;
mod plans;
mod progress;
mod reclaim;
mod run;
mod shared;
mod sources;
mod split;
mod status;
mod terminal;
mod unmount;
mod value_check;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGABRT, SIGXFSZ};

use crate::base::limits;
use crate::base::signals::is_ignored;
use crate::cli::{self, Cli, Command};
use crate::error::{Error, Result};
pub use plans::plan_of;
use shared::FAILED;
use terminal::say;

/// The exit code of usage errors, as the parser of the command line has it.
const USAGE: u8 = 2;

/// Parses the arguments of the process, runs their command, prints its error, and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    prepare().and_then(|()| run_arguments(args)).unwrap_or_else(|error| {
        say(format_args!("ctwds-fs: error: {error}"));
        ExitCode::from(if matches!(error, Error::Usage(_)) { USAGE } else { FAILED })
    })
}

/// Parses the arguments, with those that the environment and the file of the data set add, and runs their command.
fn run_arguments(args: impl IntoIterator<Item = OsString>) -> Result<ExitCode> {
    // Without a current folder there is no file in it.
    let here = std::env::current_dir().unwrap_or_default();
    let completed = cli::complete(args, |name| std::env::var_os(name), &here)?;
    cli::keep_arguments(&completed);
    let parsed = match cli::parse(completed.args) {
        Ok(cli) => return run_command(cli),
        Err(parsed) => parsed,
    };
    terminal::show_parsed(&parsed)?;
    if !parsed.use_stderr() {
        return Ok(ExitCode::SUCCESS);
    }
    if !completed.added.is_empty() {
        let added: Vec<_> = completed.added.iter().map(|added| added.to_string_lossy()).collect();
        say(format_args!("ctwds-fs: of {} or CTWDS_ variables: {}", cli::DATASET_FILE, added.join(" ")));
    }
    Ok(ExitCode::from(USAGE))
}

/// Makes the limits of this process end a command with a message, not with a signal.
///
/// # Errors
/// The limits leave too little to work with, or signals cannot be handled.
fn prepare() -> Result<()> {
    limits::check_address_space()?;
    limits::share_one_heap();
    let failed = |error| Error::system("handle signals", error);
    // A file that may not grow (`ulimit -f`) is then an error of the write. A handler, unlike ignoring the signal, is
    // not inherited by the command of `run`.
    if !is_ignored(SIGXFSZ) {
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    }
    // The standard library says how much memory it did not get, and aborts.
    signal_hook::flag::register_conditional_shutdown(SIGABRT, FAILED.into(), Arc::new(AtomicBool::new(true)))
        .map_err(failed)?;
    Ok(())
}

fn run_command(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Mount(args) => mount::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Materialize(args) => materialize::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Manifest(args) => manifest::run(&args),
        Command::Unmount(args) => unmount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Reclaim(args) => reclaim::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}
