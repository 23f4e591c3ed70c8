//! The command line of `manifest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::dataset::DatasetArgs;

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
        /// The output folder
        dir: PathBuf,
    },
    /// Make manifest.json and the record again from the shards and the data set
    Rebuild {
        /// The output folder
        dir: PathBuf,
        /// The data set.
        #[command(flatten)]
        dataset: Box<DatasetArgs>,
    },
}
