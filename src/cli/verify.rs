//! The command line of `verify`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::dataset::{ALL, DatasetArgs};
use super::dataset_flags;
use super::headings::{INPUT, OUTPUT, PERFORMANCE, SELECTION};
use super::storage::StorageArgs;
use crate::error::Result;

const EXIT_CODES: &str = "\
Exit codes:
  0    everything that was looked at is right
  1    verify failed (the folder or the data set cannot be used)
  2    wrong usage
  3    damaged: a shard is not what it should be (--sources: a volume)
  4    incomplete: shards or samples are missing, left out, or not finished
  5    could not check: what was read is sound, but something was not compared
  130  interrupted (Ctrl-C): nothing was changed, and no result is kept
The first of 3, 4 and 5 that applies counts; all findings are listed.";

/// Arguments of `ctwds-fs verify`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct VerifyArgs {
    /// Folder of shards: a mount, what materialize wrote (or its address, s3://bucket/prefix), or what the original
    /// converter wrote. With a data set (its flags, or a ctwds.toml that is found), every voxel is compared with its
    /// file, and the rest with the tables
    #[arg(
        long,
        alias = "webdataset-dir",
        value_name = "DIR",
        required_unless_present = "sources",
        conflicts_with = "sources", help_heading = INPUT)]
    pub shards: Option<PathBuf>,
    /// Read the shards and compare them with their manifest alone, not with their sources: quick, and enough to know
    /// that a copy of a finished folder is whole
    #[arg(
        long,
        conflicts_with_all = ALL,
        conflicts_with_all = ["sources", "num_samples", "check_precision", "exclude", "rescan", "config", "split"])]
    pub integrity: bool,
    /// Compare only N samples with their sources, chosen at random [default: all]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..), help_heading = SELECTION)]
    pub num_samples: Option<usize>,
    /// Chooses the samples: the same seed, the same samples
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = SELECTION)]
    pub seed: u64,
    /// Say how far the voxels are from the sources' values, in which samples most, and count NaN and infinity
    #[arg(long)]
    pub check_precision: bool,
    /// Also measure how fast the first samples are read from the source files, through a mount, and from these shards
    #[arg(long)]
    pub benchmark: bool,
    /// Python with NumPy, for the NPZ row of --benchmark
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub python: PathBuf,
    /// Read every volume of the data set instead, and list those that cannot be read
    #[arg(long)]
    pub sources: bool,
    /// The list that --sources writes, for --exclude [default: quarantine.csv]
    #[arg(long, value_name = "CSV", requires = "sources", conflicts_with = "shards", help_heading = OUTPUT)]
    pub quarantine: Option<PathBuf>,
    /// Threads [default: the cores that the process may use; for sources in object storage at least 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = PERFORMANCE)]
    pub num_workers: Option<u16>,
    /// Print JSON: an object a line while it works, and the last is the report
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The data set that the shards were made from, with the options that they were made with
    #[command(flatten)]
    pub dataset: DatasetArgs,
}

impl VerifyArgs {
    /// The flags of the data set; none if the user gave none of them, or asked for the integrity alone.
    ///
    /// # Errors
    /// Flags of the data set were given, but not its folder.
    pub fn dataset(&self) -> Result<Option<&DatasetArgs>> {
        if self.integrity || !self.sources && dataset_flags(super::arguments(), &[]).is_empty() {
            return Ok(None);
        }
        self.dataset.input_paths()?;
        Ok(Some(&self.dataset))
    }
}
