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
    /// Or shards.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    /// And what the shards would take.
    #[command(flatten)]
    pub estimate: EstimateArgs,
}
