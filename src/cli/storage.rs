//! The flags of finished shards, and of the object storage in which they may lie.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::dataset::ALL;
use super::headings::INPUT;
use crate::storage::StorageOptions;

/// Finished shards in place of a data set.
#[derive(Clone, Debug, Args)]
pub struct ShardsArgs {
    /// Folder of finished shards, plain or compressed, or its address (s3://bucket/prefix, https://…): they take the
    /// place of the volumes and the tables
    #[arg(long, value_name = "DIR", conflicts_with_all = ALL, help_heading = INPUT)]
    pub shards: Option<PathBuf>,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// How object storage is asked; credentials come from the environment alone, because others see a command line.
#[derive(Clone, Debug, Args)]
pub struct StorageArgs {
    /// Address of the S3 service, such as `https://s3.example.org` [default: AWS_ENDPOINT_URL, or Amazon's]
    #[arg(long, value_name = "URL", help_heading = INPUT)]
    pub endpoint_url: Option<String>,
    /// Ask without credentials: a public bucket
    #[arg(long, help_heading = INPUT)]
    pub no_sign_request: bool,
    /// Seconds for which a request to object storage is tried again before it fails
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400), help_heading = INPUT)]
    pub storage_timeout: u32,
}

impl StorageArgs {
    /// The options.
    pub fn options(&self) -> StorageOptions {
        StorageOptions {
            endpoint_url: self.endpoint_url.clone(),
            no_sign_request: self.no_sign_request,
            timeout: Duration::from_secs(self.storage_timeout.into()),
        }
    }
}
