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
mod unmount;
mod value_check;
mod verify;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::error::Error;
use shared::FAILED;

/// The exit code of usage errors, as the parser of the command line has it.
const USAGE: u8 = 2;

/// Runs a command, prints its error, and returns the exit code.
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
