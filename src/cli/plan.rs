//! The command line of `plan`.

use std::path::PathBuf;

use clap::Args;
use regex::Regex;

use super::dataset::DatasetArgs;
use super::estimate::EstimateArgs;
use super::headings::OUTPUT;
use super::storage::ShardsArgs;
use crate::error::{Error, Result};
use crate::plan::split::SplitBy;

/// The patient in an id of CT-RATE, `train_123_a_1`: patient, scan, reconstruction.
const GROUP_BY: &str = "^((?:train|valid)_[0-9]+)_[a-z]+_[0-9]+$";

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Print the plan as JSON
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// Options of the estimate of the room that shards would take.
    #[command(flatten)]
    pub estimate: EstimateArgs,
    /// Options of the lists of studies for training, validation and test.
    #[command(flatten)]
    pub split: SplitArgs,
    /// A folder of shards, in place of the data set.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
}

/// Whether and how lists of studies are written for training, validation and test.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Splits")]
pub struct SplitArgs {
    /// Write a list of studies for each split, NAME.csv, which --studies takes: by chance with these shares
    /// (train:0.9,val:0.1), or by a column of a table (its name). Studies of one group are never parted
    #[arg(long, value_name = "NAME:SHARE,…|COLUMN")]
    pub split_by: Option<SplitBy>,
    /// Which studies belong together: a regular expression of the id, whose first parenthesis is the patient [default:
    /// that of CT-RATE's ids, train_123_a_1, patient train_123]
    #[arg(long, value_name = "REGEX")]
    pub group_by: Option<String>,
    /// Another seed gives other splits by chance; the same one always gives the same [default: 0]
    #[arg(long, value_name = "S", requires = "split_by")]
    pub seed: Option<u64>,
    /// Folder for the lists [default: the current folder]
    #[arg(long, value_name = "DIR", requires = "split_by")]
    pub split_dir: Option<PathBuf>,
}

impl SplitArgs {
    /// The expression that finds a study's group in its id.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is none.
    pub fn pattern(&self) -> Result<Regex> {
        let text = self.group_by.as_deref().unwrap_or(GROUP_BY);
        Regex::new(text).map_err(|error| Error::Usage(format!("--group-by: {error}")))
    }
}
