//! Whether a folder of shards, mounted or on disk, is what it should be.
//!
//! Written to share no code with what makes shards: the `tar` crate walks them, the `zip` and `ndarray-npy` crates read
//! the sources, and every voxel is computed anew, one by one, from the definition of its kind. Only what is to be made
//! (the tables, the recipe of each volume) is taken from the plan. The folder may also be one of the original converter,
//! whose manifest has six numbers and no digest.

mod compare;
mod expected;
mod finding;
mod folder;
mod hashing_reader;
mod listing;
mod manifest;
mod packed;
mod payload;
mod progress;
mod report;
mod source;
mod walk;
mod walked;

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};

pub use finding::{Finding, Verdict};
pub use progress::Progress;
pub use report::{Information, Integrity, Place, Precision, Report, SourceCheck, Worst};
pub use source::readable;

use crate::base::parallel::try_map;
use crate::dataset::{self, Study};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::volume::Kind;
use compare::Compared;
use walked::Walk;

/// Volumes that are named where many differ least from perfect.
const WORST: usize = 10;

/// What to look at.
#[derive(Debug)]
pub struct Config<'a> {
    /// Where the shards are.
    pub folder: &'a Path,
    /// What they were made from, to compare them with it.
    pub plan: Option<&'a Plan>,
    /// Volumes to compare, chosen at random; all where there is no number.
    pub count: Option<usize>,
    /// Chooses them: the same seed, the same volumes.
    pub seed: u64,
    /// Threads.
    pub workers: usize,
}

/// A sample of the folder: which shard, and which of the shard's.
type At = (usize, usize);

/// Looks at all shards and compares samples with their sources.
///
/// # Errors
/// The folder cannot be listed, or the plan is of another kind of volume. What is wrong with the shards is in the
/// report.
pub fn run(config: &Config<'_>, progress: &dyn Progress) -> Result<Report> {
    let (manifest, mut findings) = manifest::read(config.folder)?;
    let files = listing::shards(config.folder, &mut findings)?;
    let is_shuffled = manifest.as_ref().is_some_and(|manifest| manifest.shuffle.is_some());
    progress.begin("shards", files.iter().map(|file| file.len).sum());
    let mut walks = try_map(&files, config.workers, |file| Ok::<_, Error>(walk::walk(file, is_shuffled, progress)))?;
    folder::check(manifest.as_ref(), &mut walks, &mut findings);
    let mut report = Report::new(config.folder, manifest.as_ref(), &walks);
    if let Some(plan) = config.plan {
        refuse_other_kind(plan, &walks)?;
        report.information.npz_bytes = npz_bytes(plan, &walks);
        report.source = Some(compare_all(config, plan, &walks, progress, &mut findings)?);
    } else if report.integrity.digests < walks.len() {
        let count = walks.len() - report.integrity.digests;
        findings.push(Finding::new(
            Verdict::Unchecked,
            config.folder.display(),
            format!(
                "the voxels of {count} shards were compared with nothing, because the manifest has no digest of them; \
                 --data-folder and the three tables compare them with the NPZ files"
            ),
        ));
    }
    findings.extend(walks.iter_mut().flat_map(|walk| std::mem::take(&mut walk.findings)));
    report.finish(findings);
    Ok(report)
}

/// All bytes of the NPZ files of these shards' samples, if all are known.
fn npz_bytes(plan: &Plan, walks: &[Walk]) -> Option<u64> {
    let by_study = by_study(plan);
    let samples = walks.iter().flat_map(|walk| &walk.samples);
    samples.map(|sample| Some(by_study.get(&*sample.study_id)?.file_id().size)).sum()
}

fn by_study(plan: &Plan) -> HashMap<&str, &dataset::Sample> {
    plan.dataset.samples.iter().map(|sample| (&*sample.study_id, sample)).collect()
}

/// With the wrong kind, every voxel would differ, and nothing be learnt.
fn refuse_other_kind(plan: &Plan, walks: &[Walk]) -> Result<()> {
    let name = match plan.kind() {
        Kind::Stored => "stored",
        Kind::Rescaled => "rescaled",
        Kind::Preprocessed => "preprocessed",
    };
    match walks.iter().flat_map(|walk| &walk.samples).next() {
        Some(sample) if sample.kind != name => Err(Error::Refused(format!(
            "the shards hold volumes of the kind {0}, and the flags ask for {name}: add --volume {0}, and the options \
             that the shards were made with",
            sample.kind
        ))),
        _ => Ok(()),
    }
}

fn compare_all(
    config: &Config<'_>,
    plan: &Plan,
    walks: &[Walk],
    progress: &dyn Progress,
    findings: &mut Vec<Finding>,
) -> Result<SourceCheck> {
    let by_study = by_study(plan);
    let all: Vec<At> =
        walks.iter().enumerate().flat_map(|(at, walk)| (0..walk.samples.len()).map(move |n| (at, n))).collect();
    let sample = |&(shard, n): &At| &walks[shard].samples[n];
    folder::check_complete(plan, all.iter().map(sample), walks, findings);
    let mut pairs = Vec::new();
    for place in choose(all.clone(), config, |place| &sample(place).key) {
        match by_study.get(&*sample(&place).study_id).and_then(|source| Some((&*source.path, source.study()?))) {
            Some(source) => pairs.push((place, source)),
            None => findings.push(Finding::new(
                Verdict::Unchecked,
                &sample(&place).key,
                format!(
                    "the study '{}' is not in the data set that the flags name, so it cannot be compared",
                    sample(&place).study_id
                ),
            )),
        }
    }
    progress.begin("voxels against their sources", pairs.iter().map(|(place, _)| voxels(sample(place).shape)).sum());
    let workers = workers_that_fit(config.workers, pairs.iter().map(|(_, (_, study))| *study));
    let mut compared = try_map(&pairs, workers, |(place, source)| {
        Ok::<_, Error>(compare::compare(plan, *source, sample(place), &walks[place.0].path, progress))
    })?;
    compared.iter_mut().for_each(|compared| findings.append(&mut compared.findings));
    Ok(SourceCheck::new(all.len(), compared.iter().filter_map(|Compared { result, .. }| result.as_ref()), WORST))
}

fn voxels(shape: [u64; 3]) -> u64 {
    shape.iter().product()
}

/// So many as asked for, at random: those whose keys hash lowest together with the seed. In the shards' order.
fn choose<'a>(mut all: Vec<At>, config: &Config<'_>, key: impl Fn(&At) -> &'a String) -> Vec<At> {
    if let Some(count) = config.count.filter(|count| *count < all.len()) {
        all.sort_by_cached_key(|place| Sha256::digest(format!("{} {}", config.seed, key(place))));
        all.truncate(count);
        all.sort_unstable();
    }
    all
}

/// A source is in memory as a whole: no more of the largest at a time than fit half of it.
fn workers_that_fit<'a>(workers: usize, sources: impl Iterator<Item = &'a Study>) -> usize {
    let bytes = |study: &Study| study.array.header.payload_len().unwrap_or(u64::MAX);
    let largest = sources.map(bytes).max().unwrap_or(1).max(1);
    workers.min(usize::try_from(crate::base::memory::available() / 2 / largest).unwrap_or(workers)).max(1)
}
