//! The command line of `plan --estimate`.

use clap::Args;

/// Whether and how the room that shards take is estimated.
#[derive(Clone, Debug, Args)]
pub struct EstimateArgs {
    /// Make and compress some volumes, of each kind and with each codec, and say what the shards of all would take.
    /// With
    /// --json the estimate is printed in place of the plan
    #[arg(long, conflicts_with = "shards", help_heading = "Estimate")]
    pub estimate: bool,
    /// Volumes that are taken [default: 8]
    #[arg(long, value_name = "N", requires = "estimate", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Estimate")]
    pub estimate_samples: Option<u32>,
    /// Which volumes are taken: the same ones with the same seed [default: 0]
    #[arg(long, value_name = "S", requires = "estimate", help_heading = "Estimate")]
    pub estimate_seed: Option<u64>,
}
