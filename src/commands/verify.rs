//! `ctwds-fs verify`: checks shards in themselves, against the manifest and against their sources.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::events;
use super::interrupt::stop_on_signals;
use super::plans::make_new_plan;
use super::progress::Bar;
use super::terminal::{print, say, tell};
use super::{bench, sources};
use crate::base::num::counted;
use crate::base::parallel::available_cores;
use crate::bench::{BenchReport, Config as BenchConfig, FileRange, ShardProvider, Workload};
use crate::cli::{BenchArgs, DatasetArgs, PageCache, VerifyArgs};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::shard::Serving;
use crate::storage;
use crate::verify::{self, Config, Report, SampleLocation, Verdict};
use crate::volume::VoxelFormat;

/// Number of samples that `--benchmark` reads unless the user names one; the default of `bench`.
const SAMPLES: usize = 16;
/// Numbers of readers of `--benchmark`; the default of `bench`.
const READERS: [usize; 3] = [1, 2, 4];
/// Runs of each combination of `--benchmark`; the default of `bench`.
const RUNS: usize = 3;

/// Runs `verify`, and returns the exit code of its verdict.
///
/// # Errors
/// The folder or the data set cannot be used, or this process lacks memory or descriptors and nothing worse was found.
pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let dataset = args.dataset()?;
    let Some(folder) = &args.shards else {
        return sources::run(args).map(exit_code);
    };
    super::daemon::log_to_terminal(log::LevelFilter::Warn);
    let storage = args.storage.options();
    let plan = dataset.map(|dataset| make_new_plan(dataset, Some(&storage))).transpose()?;
    let usual = || plan.as_ref().map_or_else(available_cores, Serving::usual_threads);
    let workers = args.num_workers.map_or_else(usual, usize::from);
    let store = storage::of(folder, &storage)?;
    let config =
        Config { store: &*store, folder, plan: plan.as_ref(), count: args.num_samples, seed: args.seed, workers };
    if let Some(plan) = plan.as_ref().filter(|_| args.num_samples.is_none() && !args.check_precision && !args.json) {
        let samples = counted(plan.dataset.samples.len(), "sample", "samples");
        tell(format_args!(
            "comparing every voxel of {samples} with the source files; --num-samples N compares N of them, --integrity none"
        ));
    }
    let bar = Bar::new(args.json);
    let report = verify::run(&config, &bar);
    bar.clear();
    let mut report = report?;
    if args.check_precision && plan.is_none() {
        report
            .unchecked("--check-precision", "the precision is measured against the source files, which were not named");
    }
    if args.num_samples.is_some() && plan.is_none() && !args.benchmark {
        say(
            "ctwds-fs: warning: all shards were looked at; --num-samples chooses what is compared with the source files, \
             which were not named",
        );
    }
    let benchmark = match args.benchmark {
        true if report.verdict == Verdict::Damaged => {
            say("ctwds-fs: warning: nothing is measured, because shards are damaged");
            None
        }
        true if report.information.codec.is_some() => {
            say("ctwds-fs: warning: nothing is measured, because readers want these shards from `mount --shards`");
            None
        }
        true => Some(benchmark(args, dataset, &report)?),
        false => None,
    };
    print(render(args, &report, benchmark.as_ref())?, "print the report")?;
    if let Some(limited) = report.limited() {
        return Err(Error::Refused(format!("not all could be checked: {}: {}", limited.place, limited.what)));
    }
    Ok(exit_code(report.verdict))
}

/// The exit code of a verdict, as `verify --help` lists them.
fn exit_code(verdict: Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Fine => 0,
        Verdict::Damaged => 3,
        Verdict::Incomplete => 4,
        Verdict::Unchecked => 5,
    })
}

/// The report and the measurements as one JSON object.
#[derive(Serialize)]
struct JsonReport<'a> {
    #[serde(flatten)]
    report: &'a Report,
    benchmark: Option<&'a BenchReport>,
}

/// The report, and the measurements if there are any, as text or JSON.
fn render(args: &VerifyArgs, report: &Report, benchmark: Option<&BenchReport>) -> Result<String> {
    if args.json {
        return events::end(&JsonReport { report, benchmark });
    }
    let measured = benchmark.map_or_else(String::new, |benchmark| format!("{}\n", benchmark.text()));
    Ok(format!("{measured}{}", report.text(args.check_precision)))
}

/// Measures how fast the first samples are read from the shards; with a data set, also from its NPZ files and through a
/// mount.
fn benchmark(args: &VerifyArgs, dataset: Option<&DatasetArgs>, report: &Report) -> Result<BenchReport> {
    let samples = args.num_samples.unwrap_or(SAMPLES);
    if let Some(dataset) = dataset {
        let args = BenchArgs {
            dataset: dataset.clone(),
            samples,
            readers: READERS.into(),
            read_ahead: Vec::new(),
            runs: RUNS,
            warm: false,
            python: args.python.clone(),
            work_dir: None,
            cache_size: None,
            threads: args.num_workers,
            page_cache: PageCache::Auto,
            json: args.json,
            storage: args.storage.clone(),
        };
        return bench::measure(&args, |plan| file_ranges(plan, &report.locations).map(Some));
    }
    let locations = &report.locations[..samples.min(report.locations.len())];
    let workload = Workload {
        volumes: Vec::new(),
        samples: locations.len(),
        samples_in_all: report.locations.len(),
        voxels: locations.iter().map(|location| location.voxels).sum(),
        npz_bytes: 0,
        shard_bytes: locations.iter().map(|location| location.range.end - location.range.start).sum(),
    };
    let config = BenchConfig {
        readers: READERS.into(),
        read_ahead: Vec::new(),
        runs: RUNS,
        warm: false,
        python: args.python.clone(),
        dtype: VoxelFormat::Float16.name(), // no NPZ is read
        array: None,
    };
    let stop = stop_on_signals()?;
    let shards = GivenShards(locations.iter().map(file_range).collect());
    bench::with_progress(&config, workload, &shards, &stop, args.json)
}

/// The part of a shard file in which a sample is.
fn file_range(location: &SampleLocation) -> FileRange {
    FileRange { path: location.shard.clone(), range: location.range.clone() }
}

/// The parts of shard files in which the samples of a plan are, so that all readers read the same samples.
///
/// # Errors
/// A sample of the plan is in no shard.
fn file_ranges(plan: &Plan, locations: &[SampleLocation]) -> Result<Vec<FileRange>> {
    let by_study: HashMap<&str, &SampleLocation> =
        locations.iter().map(|location| (&*location.study_id, location)).collect();
    let samples = plan.dataset.samples.iter();
    samples
        .map(|sample| {
            by_study.get(&*sample.study_id).map(|location| file_range(location)).ok_or_else(|| {
                let study = &sample.study_id;
                Error::Refused(format!("--benchmark reads the same samples from everywhere; '{study}' is in no shard"))
            })
        })
        .collect()
}

/// Shards that exist already, without a data set from which others could be made.
struct GivenShards(Vec<FileRange>);

impl ShardProvider for GivenShards {
    type MountGuard = Infallible;

    fn mount(&self, _: usize) -> Result<(Infallible, Vec<PathBuf>)> {
        Err(Error::Internal("there is nothing to mount".into()))
    }

    fn given(&self) -> Option<Vec<FileRange>> {
        Some(self.0.clone())
    }

    fn materialize(&self) -> Result<Vec<PathBuf>> {
        Err(Error::Internal("there is nothing to materialise".into()))
    }
}
