//! The command line of `report`.

use std::path::PathBuf;

use clap::Args;

use super::dataset::DatasetArgs;
use super::headings::{OUTPUT, PERFORMANCE};
use super::storage::ShardsArgs;

/// `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The page to write; one that is there is replaced
    #[arg(short, long, value_name = "HTML", default_value = "report.html")]
    pub output: PathBuf,
    /// Volumes whose values are counted, chosen by --seed; eight of them are shown
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..), help_heading = OUTPUT)]
    pub samples: u32,
    /// Seed by which the volumes are chosen
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = OUTPUT)]
    pub seed: u64,
    /// Put the texts of the volumes that are shown on the page
    #[arg(long, help_heading = OUTPUT)]
    pub with_reports: bool,
    /// What `verify --json` printed, or its last line: its verdict stands on the page
    #[arg(long, value_name = "JSON", help_heading = OUTPUT)]
    pub verified: Option<PathBuf>,
    /// What `bench --json` printed, or its last line: its rates stand on the page
    #[arg(long, value_name = "JSON", help_heading = OUTPUT)]
    pub benched: Option<PathBuf>,
    /// Print what the page says as JSON: one object
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// Threads, which each take the memory of one volume [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = PERFORMANCE)]
    pub threads: Option<u16>,
    /// A folder of shards, in place of the data set.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
}
