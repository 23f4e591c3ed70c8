//! Measures the user's own data on the user's own machine: NPZ by NumPy, the mount, and shards on disk, by readers and
//! by read-ahead. The runs of all combinations are interleaved, so that a change of the machine's load affects all
//! alike.

mod readers;
mod report;
mod workload;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use report::{BenchReport, Row};
pub use workload::{Config, FileRange, NOTHING_KEPT, ShardProvider, Target, Workload};

use crate::error::{Error, Result};

/// Measures all combinations. Each step calls `progress` with its number, the number of all steps, and its name.
///
/// # Errors
/// Something could not be read or made, or `stop` was set. Without Python and NumPy the NPZ row is missing, and the
/// report says why.
pub fn run<S: ShardProvider>(
    config: &Config,
    workload: Workload,
    shards: &S,
    stop: &AtomicBool,
    progress: impl Fn(usize, usize, &str),
) -> Result<BenchReport> {
    let no_npz = match workload.volumes.is_empty() {
        true => Some("no NPZ files on a disk were named".into()),
        false if workload.volumes.iter().any(|path| is_nifti(path)) => Some("some are NIfTI files".into()),
        false => readers::check_python(&config.python).err(),
    };
    let given = shards.given();
    let mut rows: Vec<Row> = Vec::new();
    for target in targets(config, no_npz.is_none(), given.is_some()) {
        rows.extend(config.readers.iter().map(|&readers| Row { target: target.clone(), readers, seconds: Vec::new() }));
    }
    let steps = rows.len() * config.runs + 1;
    let (files, materialize_seconds) = match given {
        Some(ranges) => (ranges, None),
        None => {
            progress(0, steps, "materialize");
            let begin = Instant::now();
            let files = shards.materialize()?;
            (files.into_iter().map(FileRange::from).collect(), Some(begin.elapsed().as_secs_f64()))
        }
    };
    let bench = Bench { config, workload: &workload, shards, files: &files, stop };
    for run in 0..config.runs {
        for index in 0..rows.len() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted(NOTHING_KEPT));
            }
            progress(1 + run * rows.len() + index, steps, &rows[index].name());
            let elapsed = bench.measure(&rows[index])?;
            rows[index].seconds.push(elapsed.as_secs_f64());
        }
    }
    Ok(BenchReport { workload, warm: config.warm, materialize_seconds, no_npz, rows })
}

/// Whether a file is one of NIfTI's by its name, which NumPy does not read.
fn is_nifti(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "nii" || suffix == "gz")
}

/// The targets that are measured: NPZ files if they can be, mounts, and the shards that were given or are written.
fn targets(config: &Config, npz: bool, given: bool) -> Vec<Target> {
    let mounts = config.read_ahead.iter().map(|&read_ahead| Target::Mount { read_ahead });
    let files = if given { Target::Given } else { Target::Files };
    npz.then_some(Target::Npz).into_iter().chain(mounts).chain([files]).collect()
}

/// The values that every run needs.
struct Bench<'a, S> {
    config: &'a Config,
    workload: &'a Workload,
    shards: &'a S,
    files: &'a [FileRange],
    stop: &'a AtomicBool,
}

impl<S: ShardProvider> Bench<'_, S> {
    /// The time of one run of a row, until its last reader is done.
    fn measure(&self, row: &Row) -> Result<Duration> {
        if !self.config.warm {
            readers::drop_cached(self.workload.volumes.iter().chain(self.files.iter().map(|file| &file.path)))?;
        }
        match row.target {
            Target::Npz => {
                let (python, array): (&Path, _) = (&self.config.python, self.config.array.as_deref());
                let shares = readers::distribute(&self.workload.volumes, row.readers);
                readers::read_npz(python, self.config.dtype, array, &shares, self.workload.voxels, self.stop)
            }
            Target::Mount { read_ahead } => {
                let (_mount, shards) = self.shards.mount(read_ahead)?;
                let shards: Vec<FileRange> = shards.into_iter().map(FileRange::from).collect();
                readers::read_files(&readers::distribute(&shards, row.readers), self.stop)
            }
            Target::Files | Target::Given => {
                readers::read_files(&readers::distribute(self.files, row.readers), self.stop)
            }
        }
    }
}
