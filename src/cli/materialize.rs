//! The command line of `materialize`.

use std::path::PathBuf;

use clap::Args;

use super::dataset::DatasetArgs;
use super::headings::{OUTPUT, PERFORMANCE};
use super::storage::ShardsArgs;
use crate::formats::codec::Codec;
use crate::materialize::OnError;
use crate::output::partition::Partition;

/// `materialize`.
#[derive(Debug, Args)]
pub struct MaterializeArgs {
    /// Folder for the shards, or its address (s3://bucket/prefix)
    #[arg(long, value_name = "DIR")]
    pub output_dir: PathBuf,
    /// Compress the volumes without loss: zstd, or zstd:LEVEL with a level from 1 to 19. `mount --shards` shows such
    /// shards as plain ones
    #[arg(long, value_name = "CODEC", help_heading = OUTPUT)]
    pub compress: Option<Codec>,
    /// Shards written at a time, and decoder threads [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = PERFORMANCE)]
    pub num_workers: Option<u16>,
    /// Only part I of N (from 0 on): the shards whose number % N = I; auto/N takes I from the job array of Slurm,
    /// Kubernetes, PBS, LSF or Grid Engine. `ctwds-fs manifest merge` joins the parts' manifests
    #[arg(long, value_name = "I/N", help_heading = OUTPUT)]
    pub partition: Option<Partition>,
    /// A shard with a sample that cannot be made: not written, or written with that sample's slot empty
    #[arg(long, value_enum, default_value_t, value_name = "WHAT", help_heading = OUTPUT)]
    pub on_error: OnError,
    /// Read finished shards again, and make those again that are not what was recorded
    #[arg(long, help_heading = OUTPUT)]
    pub recheck: bool,
    /// Print JSON: an object a line for the begin, each finished shard, and the end
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// Remove the unfinished files of runs on other hosts as well: give it only when none of these runs goes on
    #[arg(long, help_heading = OUTPUT)]
    pub clean: bool,
    /// A folder of shards, in place of the data set.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
}
