//! The command line of `cat`.

use clap::Args;

use super::dataset::DatasetArgs;
use super::storage::ShardsArgs;

/// `cat`.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// The shard: shard-000012.tar, or its number, with or without zeros before it
    #[arg(value_name = "SHARD")]
    pub shard: String,
    /// A folder of shards, in place of the data set.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
}
