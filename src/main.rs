//! The `ctwds-fs` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ctwds_fs::commands::run(ctwds_fs::cli::parse(std::env::args_os()))
}
