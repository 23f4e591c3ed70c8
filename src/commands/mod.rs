//! The commands: each calls the library and speaks to the user.

mod bench;
mod classes;
mod daemon;
mod estimate;
mod log_file;
mod manifest;
mod materialize;
mod mount;
mod plan;
mod progress;
mod reclaim;
mod run;
mod shared;
mod sources;
mod status;
mod terminal;
mod unmount;
mod value_check;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::{self, Cli, Command};
use crate::error::{Error, Result};
use shared::FAILED;
use terminal::say;

/// The exit code of usage errors, as the parser of the command line has it.
const USAGE: u8 = 2;

/// Parses the arguments of the process, runs their command, prints its error, and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let completed = match completed(args) {
        Ok(completed) => completed,
        Err(error) => return show(&error),
    };
    cli::keep_arguments(&completed);
    match cli::parse(completed.args) {
        Ok(cli) => run_command(cli).unwrap_or_else(|error| show(&error)),
        Err(parsed) => {
            let code = terminal::show_parsed(&parsed);
            if parsed.use_stderr() && !completed.added.is_empty() {
                let added: Vec<_> = completed.added.iter().map(|added| added.to_string_lossy()).collect();
                say(format_args!("ctwds-fs: of {} or CTWDS_ variables: {}", cli::DATASET_FILE, added.join(" ")));
            }
            code
        }
    }
}

/// The arguments of the process, with those that its environment and the file of the data set add.
fn completed(args: impl IntoIterator<Item = OsString>) -> Result<cli::Completed> {
    // Without a current folder there is no file in it.
    let here = std::env::current_dir().unwrap_or_default();
    cli::complete(args, |name| std::env::var_os(name), &here)
}

/// Prints an error, and returns its exit code.
fn show(error: &Error) -> ExitCode {
    say(format_args!("ctwds-fs: error: {error}"));
    ExitCode::from(if matches!(error, Error::Usage(_)) { USAGE } else { FAILED })
}

fn run_command(cli: Cli) -> Result<ExitCode> {
    match cli.command {
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
    }
}
