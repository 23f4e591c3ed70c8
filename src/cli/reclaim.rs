//! The command line of `reclaim`.

use std::path::PathBuf;

use clap::Args;

use super::dataset::DatasetArgs;
use super::headings::{INPUT, OUTPUT, PERFORMANCE};

const ABOUT: &str = "\
Each source file (NPZ, NPY or NIfTI) is decoded again and compared with what the shards hold. The shard is made durable and its SHA-256 is \
checked. Only if all source files of a shard are right, they are removed, one by one; a journal in DIR/.ctwds lists them. \
It can be stopped and run again. What the dtype and the kind of volume lost is lost for good then.

Exit codes:
  0    all source files that shards hold are (without --delete: can be) removed
  1    some were kept, with the reasons
  2    wrong usage
  130  interrupted (Ctrl-C): what is removed is in finished shards; run it again";

/// `reclaim`.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub struct ReclaimArgs {
    /// Folder of finished shards, plain or compressed, made from this data set
    #[arg(long, value_name = "DIR", help_heading = INPUT)]
    pub shards: PathBuf,
    /// Remove the source files. It cannot be undone
    #[arg(long)]
    pub delete: bool,
    /// Do not ask before
    #[arg(long, requires = "delete")]
    pub yes: bool,
    /// Shards looked at at a time, and decoder threads [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = PERFORMANCE)]
    pub num_workers: Option<u16>,
    /// Print JSON: an object a line while it works, and the last is the report
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// The data set, with the options that the shards were made with.
    #[command(flatten)]
    pub dataset: DatasetArgs,
}
