//! The samples that are measured, the ways to read them, and the settings of a measurement.

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::Result;

/// What is said of measurements that were interrupted.
pub const NOTHING_KEPT: &str = "nothing is kept of the measurements, and nothing is left; run the same command again";

/// A way to read the samples, which is compared with the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// `np.load` of the NPZ files, by one process for each reader.
    Npz,
    /// A new mount, in which nothing is decoded yet.
    Mount {
        /// The value of `--read-ahead`: volumes that the mount makes ready ahead of each reader.
        read_ahead: usize,
    },
    /// The shards, written to files.
    Files,
    /// Shards that the user has already, mounted or as files.
    Given,
}

/// The combinations that are measured.
#[derive(Debug)]
pub struct Config {
    /// Numbers of readers (DataLoader workers).
    pub readers: Vec<usize>,
    /// Numbers of volumes that the mount makes ready ahead of each reader.
    pub read_ahead: Vec<usize>,
    /// Runs of each combination.
    pub runs: usize,
    /// Whether files may come out of the kernel's page cache.
    pub warm: bool,
    /// The Python program with NumPy.
    pub python: PathBuf,
    /// The dtype that Python makes of the array.
    pub dtype: &'static str,
    /// The name of the array that Python reads; `None` leaves the choice to its script.
    pub array: Option<String>,
}

/// The samples that are read.
#[derive(Debug, Serialize)]
pub struct Workload {
    /// The NPZ files.
    #[serde(skip)]
    pub volumes: Vec<PathBuf>,
    /// The number of samples, which have one volume each.
    pub samples: usize,
    /// The number of samples of the whole data set.
    pub samples_in_all: usize,
    /// The voxels of all measured volumes.
    pub voxels: u64,
    /// The bytes of the NPZ files.
    pub npz_bytes: u64,
    /// The size of the shards in bytes.
    pub shard_bytes: u64,
}

/// A range of a file that is read.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file.
    pub path: PathBuf,
    /// The bytes; a range may go beyond the end of the file.
    pub range: Range<u64>,
}

impl From<PathBuf> for FileRange {
    /// The whole file.
    fn from(path: PathBuf) -> Self {
        Self { path, range: 0..u64::MAX }
    }
}

/// Makes the shards that are read.
pub trait ShardProvider {
    /// A guard: the mount lasts until the guard is dropped.
    type MountGuard;

    /// Mounts the shards with this read-ahead, and returns their paths.
    ///
    /// # Errors
    /// The mount failed.
    fn mount(&self, read_ahead: usize) -> Result<(Self::MountGuard, Vec<PathBuf>)>;

    /// The samples in shards that exist already; if there are any, no shards are written to files.
    fn given(&self) -> Option<Vec<FileRange>> {
        None
    }

    /// Writes the shards to files, and returns their paths.
    ///
    /// # Errors
    /// The shards could not be made or written.
    fn materialize(&self) -> Result<Vec<PathBuf>>;
}
