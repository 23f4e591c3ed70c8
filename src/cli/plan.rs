//! The command line of `plan`.

use clap::Args;

use super::dataset::{DatasetArgs, ShardsArgs};
use super::estimate::EstimateArgs;

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// A folder of shards, in place of the data set.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    /// Options of the estimate of the room that shards would take.
    #[command(flatten)]
    pub estimate: EstimateArgs,
}
