//! The command line of `reclaim`.

use std::path::PathBuf;

use clap::Args;

use super::dataset::DatasetArgs;

const ABOUT: &str = "\
Each NPZ file is decoded again and compared with what the shards hold. The shard is made durable and its SHA-256 is \
checked. Only if all NPZ files of a shard are right, they are removed, one by one; a journal in DIR/.ctwds lists them. \
It can be stopped and run again. What the dtype and the kind of volume lost is lost for good then.

Exit codes:
  0  all NPZ files that the shards hold are removed (without --delete: can be removed)
  1  some were kept, with the reasons; or it was interrupted
  2  wrong usage";

/// `reclaim`.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub struct ReclaimArgs {
    /// The data set, with the options that the shards were made with.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Folder of finished shards, plain or compressed, made from this data set
    #[arg(long, value_name = "DIR")]
    pub shards: PathBuf,
    /// Remove the NPZ files. It cannot be undone
    #[arg(long)]
    pub delete: bool,
    /// Do not ask before
    #[arg(long, requires = "delete")]
    pub yes: bool,
    /// Shards looked at at a time, and decoder threads [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub num_workers: Option<u16>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}
