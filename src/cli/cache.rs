//! The command line of `cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::headings::OUTPUT;

/// `cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// The command.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// The commands of `cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Show what is in a disk cache
    Ls {
        /// The folder of `mount --disk-cache`
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Print it as JSON, with every volume
        #[arg(long, help_heading = OUTPUT)]
        json: bool,
    },
    /// Remove the volumes in a disk cache, and nothing else; a mount that uses it makes them anew
    Clear {
        /// The folder of `mount --disk-cache`
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Print what was removed as JSON
        #[arg(long, help_heading = OUTPUT)]
        json: bool,
    },
}
