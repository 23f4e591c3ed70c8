//! The arguments of `materialize`.

use std::path::PathBuf;

use clap::Args;

use super::DatasetArgs;
use crate::materialize::OnError;
use crate::part::Partition;

/// `materialize`.
#[derive(Debug, Args)]
pub struct MaterializeArgs {
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Folder for the shards; created if missing
    #[arg(long, value_name = "DIR")]
    pub output_dir: PathBuf,
    /// Shards written at a time, and decoder threads [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub num_workers: Option<u16>,
    /// Only part I of N (from 0 on): the shards whose number % N = I; auto/N takes I from a Slurm array's or a Kubernetes
    /// indexed job's environment. `ctwds-fs manifest merge` joins the parts' manifests
    #[arg(long, value_name = "I/N")]
    pub partition: Option<Partition>,
    /// A shard with a sample that cannot be made: not written, or written with that sample's slot empty
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub on_error: OnError,
    /// Read finished shards again, and make those again that are not what was recorded
    #[arg(long)]
    pub recheck: bool,
}
