//! The `ctwds-fs` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ctwds_fs::commands::run(std::env::args_os())
}
