//! Measures the user's own data on the user's own machine: NPZ by NumPy, the mount, and shards on disk, by readers and
//! by read-ahead. Runs are interleaved, so that what changes on the machine meanwhile changes for all alike.

mod readers;
mod report;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

pub use report::{Report, Row};

use crate::error::{Error, Result};

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `np.load` of the NPZ files, one process a reader.
    Npz,
    /// A fresh mount with so many volumes read ahead of each reader; nothing is decoded yet.
    Mount {
        /// `--read-ahead`.
        read_ahead: usize,
    },
    /// The shards as files.
    Files,
    /// The shards that the user has already, mounted or as files.
    Given,
}

/// What to measure.
#[derive(Debug)]
pub struct Config {
    /// Numbers of readers: DataLoader workers.
    pub readers: Vec<usize>,
    /// Numbers of volumes that the mount fills ahead of each.
    pub read_ahead: Vec<usize>,
    /// Runs of each combination.
    pub runs: usize,
    /// Whether the files may come out of the kernel's page cache.
    pub warm: bool,
    /// The Python with NumPy.
    pub python: PathBuf,
    /// The array that Python is to read.
    pub array: Option<String>,
}

/// The data that is measured.
#[derive(Debug, Serialize)]
pub struct Data {
    /// The NPZ files.
    #[serde(skip)]
    pub volumes: Vec<PathBuf>,
    /// Samples, one a volume.
    pub samples: usize,
    /// Samples of the whole data set.
    pub samples_in_all: usize,
    /// Voxels of all measured volumes.
    pub voxels: u64,
    /// Bytes of their NPZ files.
    pub npz_bytes: u64,
    /// Bytes of their shards.
    pub shard_bytes: u64,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The file.
    pub path: PathBuf,
    /// Its bytes, as far as there are any.
    pub range: Range<u64>,
}

impl From<PathBuf> for Piece {
    /// All of a file.
    fn from(path: PathBuf) -> Self {
        Self { path, range: 0..u64::MAX }
    }
}

/// How the shards come into being; ended by dropping what it returns.
pub trait Shards {
    /// Something that holds a mount.
    type Mount;

    /// Mounts with this read-ahead; the shards' paths.
    ///
    /// # Errors
    /// The mount failed.
    fn mount(&self, read_ahead: usize) -> Result<(Self::Mount, Vec<PathBuf>)>;

    /// The samples in shards that are there already; then none are written to files.
    fn given(&self) -> Option<Vec<Piece>> {
        None
    }

    /// Writes the shards to files; their paths.
    ///
    /// # Errors
    /// Materialising failed.
    fn materialize(&self) -> Result<Vec<PathBuf>>;
}

/// Measures; `progress` is told what begins, and of how many steps it is which.
///
/// # Errors
/// Something could not be read or made, or `stop` was set. Without Python and NumPy the NPZ row is missing, and the
/// report says why.
pub fn run<S: Shards>(
    config: &Config,
    data: Data,
    shards: &S,
    stop: &AtomicBool,
    progress: impl Fn(usize, usize, &str),
) -> Result<Report> {
    let no_npz = match data.volumes.is_empty() {
        true => Some("no NPZ files were named".into()),
        false => readers::check_python(&config.python).err(),
    };
    let given = shards.given();
    let mut rows: Vec<Row> = Vec::new();
    for source in sources(config, no_npz.is_none(), given.is_some()) {
        rows.extend(config.readers.iter().map(|&readers| Row { source: source.clone(), readers, seconds: Vec::new() }));
    }
    let steps = rows.len() * config.runs + 1;
    let (files, materialize_seconds) = match given {
        Some(pieces) => (pieces, None),
        None => {
            progress(0, steps, "materialize");
            let begin = Instant::now();
            let files = shards.materialize()?;
            (files.into_iter().map(Piece::from).collect(), Some(begin.elapsed().as_secs_f64()))
        }
    };
    let bench = Bench { config, data: &data, shards, files: &files, stop };
    for run in 0..config.runs {
        for at in 0..rows.len() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Refused("interrupted".into()));
            }
            progress(1 + run * rows.len() + at, steps, &rows[at].name());
            let elapsed = bench.measure(&rows[at])?;
            rows[at].seconds.push(elapsed.as_secs_f64());
        }
    }
    Ok(Report { data, warm: config.warm, materialize_seconds, no_npz, rows })
}

fn sources(config: &Config, npz: bool, given: bool) -> Vec<Source> {
    let mounts = config.read_ahead.iter().map(|&read_ahead| Source::Mount { read_ahead });
    let files = if given { Source::Given } else { Source::Files };
    npz.then_some(Source::Npz).into_iter().chain(mounts).chain([files]).collect()
}

struct Bench<'a, S> {
    config: &'a Config,
    data: &'a Data,
    shards: &'a S,
    files: &'a [Piece],
    stop: &'a AtomicBool,
}

impl<S: Shards> Bench<'_, S> {
    fn measure(&self, row: &Row) -> Result<Duration> {
        if !self.config.warm {
            readers::forget(self.data.volumes.iter().chain(self.files.iter().map(|piece| &piece.path)))?;
        }
        match row.source {
            Source::Npz => {
                let (python, array): (&Path, _) = (&self.config.python, self.config.array.as_deref());
                let shares = readers::deal(&self.data.volumes, row.readers);
                readers::read_npz(python, array, &shares, self.data.voxels, self.stop)
            }
            Source::Mount { read_ahead } => {
                let (_mount, shards) = self.shards.mount(read_ahead)?;
                let shards: Vec<Piece> = shards.into_iter().map(Piece::from).collect();
                readers::read_files(&readers::deal(&shards, row.readers), self.stop)
            }
            Source::Files | Source::Given => readers::read_files(&readers::deal(self.files, row.readers), self.stop),
        }
    }
}
