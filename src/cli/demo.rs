//! The command line of `demo`.

use std::path::PathBuf;

use clap::Args;

use super::headings::OUTPUT;

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the data set is written: a folder that is empty or not there
    #[arg(value_name = "DIR", default_value = "ctwds-demo")]
    pub folder: PathBuf,
    /// Print what was made and read as JSON; what the commands say goes to standard error
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
}
