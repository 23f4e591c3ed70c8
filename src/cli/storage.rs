//! The flags of object storage.

use std::time::Duration;

use clap::Args;

use super::headings::INPUT;
use crate::storage::StorageOptions;

/// How object storage is asked; credentials come from the environment alone, because others see a command line.
#[derive(Clone, Debug, Args)]
pub struct StorageArgs {
    /// Address of the S3 service, such as https://s3.example.org [default: AWS_ENDPOINT_URL, or Amazon's]
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
