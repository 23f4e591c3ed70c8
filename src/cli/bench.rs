//! The command line of `bench`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::dataset::DatasetArgs;
use super::headings::{OUTPUT, PERFORMANCE, SELECTION};
use super::mount::PageCache;
use super::storage::StorageArgs;

/// `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Volumes to measure: the first N
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one(), help_heading = SELECTION)]
    pub samples: usize,
    /// Numbers of readers (DataLoader workers) [default: 1,2,4]
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_values_t = [1, 2, 4],
        hide_default_value = true,
        value_parser = at_least_one()
    )]
    pub readers: Vec<usize>,
    /// Numbers of volumes that the mount makes ready ahead of each reader [default: 0, 1, the mount's default, its
    /// double]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub read_ahead: Vec<usize>,
    /// Runs of each combination
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    pub runs: usize,
    /// Leave files in the kernel's page cache between runs
    #[arg(long)]
    pub warm: bool,
    /// Python with NumPy, for the NPZ row
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub python: PathBuf,
    /// Folder for a mountpoint and the shards of the measured samples [default: the system's temporary folder]
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub work_dir: Option<PathBuf>,
    /// As for mount
    #[arg(long, value_name = "BYTES", help_heading = PERFORMANCE)]
    pub cache_size: Option<ByteSize>,
    /// Decoder threads [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = PERFORMANCE)]
    pub threads: Option<u16>,
    /// As for mount
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", help_heading = PERFORMANCE)]
    pub page_cache: PageCache,
    /// Print JSON: an object a line for each step, and the last has the raw measurements
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
