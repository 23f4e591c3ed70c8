//! The command line of `demo`.

use std::path::PathBuf;

use clap::Args;

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the data set is written: a folder that is empty or not there
    #[arg(value_name = "DIR", default_value = "ctwds-demo")]
    pub folder: PathBuf,
}
