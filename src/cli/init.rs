//! The command line of `init`.

use std::path::PathBuf;

use clap::Args;

use super::headings::OUTPUT;

const ABOUT: &str = "\
Volumes are found at any depth, tables below FOLDER and beside it by what their columns hold, not by their names. What \
is guessed stands in the file with its reason; what cannot be decided stands there as a comment to fill in. Nothing but \
the file is written, and no file is overwritten.

Exit codes:
  0    the file is written
  1    it is not, and why: there is one, there is no volume, or you said no
  2    wrong usage
  130  interrupted (Ctrl-C): nothing is written";

/// `init`.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub struct InitArgs {
    /// Folder of the volumes, or one above it
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// File to write [default: ctwds.toml here, where commands find it]
    #[arg(long, value_name = "TOML", help_heading = OUTPUT)]
    pub output: Option<PathBuf>,
    /// Write the file without asking
    #[arg(long, help_heading = OUTPUT)]
    pub yes: bool,
    /// Print what was found as JSON, in place of the file's text
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
}
