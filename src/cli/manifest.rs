//! The command line of `manifest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::dataset::DatasetArgs;
use super::headings::OUTPUT;
use super::storage::StorageArgs;

/// `manifest`.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    /// The command.
    #[command(subcommand)]
    pub command: ManifestCommand,
}

/// The commands of `manifest`.
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Join the manifests of all parts of `materialize --partition`; or list what is missing
    Merge {
        /// The output folder, or its address (s3://bucket/prefix)
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Print what was written, or what is missing, as JSON
        #[arg(long, help_heading = OUTPUT)]
        json: bool,
        /// Object storage.
        #[command(flatten)]
        storage: StorageArgs,
    },
    /// Make manifest.json and the record again from the shards and the data set
    Rebuild {
        /// The output folder
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON: an object a line while shards are read, and the last says what was written, or what is wrong
        #[arg(long, help_heading = OUTPUT)]
        json: bool,
        /// The data set.
        #[command(flatten)]
        dataset: Box<DatasetArgs>,
    },
}
