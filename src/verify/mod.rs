//! Checks whether a folder of shards, mounted or on disk, is what it should be.
//!
//! The code is apart from the code that makes shards, so that one sees the faults of the other: the `tar` crate reads
//! them, the `zip` crate, `flate2` and header readers of its own read the sources, and every voxel is computed anew,
//! one at a time, from the definition of its kind. Only what should be made (the values of the tables, the recipe of
//! each volume) is taken from the plan. The folder may also come from the original converter, whose manifest has six
//! numbers and no digest.
//!
//! Imports go one way: `unread`, `silence`, `finding` and `progress` are below everything, the readers of formats
//! (`dtype`, `payload`, `packed`, `npy_header`, `source_file`, `nifti`, `source`, `manifest`, `listing`) are below the
//! checks (`walk`, `folder`, `values`, `affine`, `compare`), and `report` is above all of them.

mod affine;
mod compare;
mod dtype;
mod expected;
mod extras;
mod finding;
mod folder;
mod hashing_reader;
mod listing;
mod manifest;
mod nifti;
mod npy_header;
mod packed;
mod payload;
mod pending;
mod progress;
mod report;
mod silence;
mod source;
mod source_file;
mod unread;
mod values;
mod walk;
mod walked;

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};

pub use finding::{Finding, Verdict};
pub use progress::Progress;
pub use report::{Information, Integrity, Precision, Report, SampleLocation, SourceCheck, WorstSample};
pub use silence::Silence;
pub use source::{SourceVolume, readable};

use crate::base::memory;
use crate::base::num::counted;
use crate::base::parallel::try_map;
use crate::dataset::{self, Study};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::storage::{Store, bytes_ahead};
use crate::volume::Kind;
use compare::{Compared, Comparison};
use walked::{SampleRules, WalkedSample, WalkedShard};

/// Samples with the least precision that a report names.
const WORST: usize = 10;
/// Columns that a text is made of where a manifest does not say it: findings and impressions.
const TEXT_COLUMNS: usize = 2;

/// Settings of a run: the folder to check, and the sources to compare it with.
#[derive(Debug)]
pub struct Config<'a> {
    /// Store in which the folder lies.
    pub store: &'a dyn Store,
    /// Folder of the shards.
    pub folder: &'a Path,
    /// Plan that the shards should follow; with it, samples are compared with their NPZ files and tables.
    pub plan: Option<&'a Plan>,
    /// Number of samples to compare, chosen at random; none to compare all.
    pub count: Option<usize>,
    /// Seed of the choice: the same seed chooses the same samples.
    pub seed: u64,
    /// Number of threads.
    pub workers: usize,
}

/// The position of a sample: index of the walk, and index within its samples. The order is that of the shards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SampleIndex {
    walk: usize,
    sample: usize,
}

/// Reads all shards of a folder and, if there is a plan, compares samples with their sources.
///
/// # Errors
/// The folder cannot be listed or has no shard, or the plan is of another kind of volume. Faults of the shards are no
/// errors: the report has them.
pub fn run(config: &Config<'_>, progress: &dyn Progress) -> Result<Report> {
    let (manifest, mut findings) = manifest::read(config.store, config.folder);
    let files = listing::shard_files(config.store, config.folder, &mut findings)?;
    let rules = rules(manifest.as_ref(), config.plan);
    progress.begin("shards", files.iter().map(|file| file.len).sum());
    let mut walks =
        try_map(&files, config.workers, |file| Ok::<_, Error>(walk::walk(config.store, file, &rules, progress)))?;
    folder::check(manifest.as_ref(), &mut walks, &mut findings);
    let mut report = Report::new(config.folder, manifest.as_ref(), &walks);
    if let Some(plan) = config.plan {
        refuse_other_volumes(plan, &walks)?;
        refuse_other_tables(plan, manifest.as_ref())?;
        refuse_other_extras(plan, manifest.as_ref())?;
        manifest.iter().for_each(|manifest| values::check(manifest, plan, &mut findings));
        report.information.npz_bytes = npz_bytes(plan, &walks);
        report.source = Some(compare_all(config, plan, &walks, progress, &mut findings)?);
    } else if report.integrity.digests < walks.len() {
        let count = walks.len() - report.integrity.digests;
        findings.push(Finding::new(
            Verdict::Unchecked,
            config.folder.display(),
            format!(
                "the voxels of {} were compared with nothing, because the manifest has no digest of them; --data-folder and \
                 the tables, without --integrity, compare them with the source files",
                counted(count, "shard", "shards")
            ),
        ));
    }
    findings.extend(walks.iter_mut().flat_map(|walk| std::mem::take(&mut walk.findings)));
    report.finish(findings);
    Ok(report)
}

/// What samples should have: as the manifest says, else by the plan.
fn rules(manifest: Option<&manifest::Manifest>, plan: Option<&Plan>) -> SampleRules {
    let Some(manifest) = manifest else {
        return SampleRules {
            has_labels: plan.map(|plan| !plan.dataset.label_names.is_empty() || plan.options.labels_empty),
            extras: plan.map(|plan| plan.dataset.extras.iter().map(|extra| extra.name.clone()).collect()),
            text_columns: plan.map(|plan| plan.dataset.text_columns),
            is_shuffled: false,
        };
    };
    SampleRules {
        has_labels: Some(manifest.has_labels()),
        extras: Some(manifest.extras().map(str::to_owned).collect()),
        text_columns: Some(manifest.text_columns.unwrap_or(TEXT_COLUMNS)),
        is_shuffled: manifest.shuffle.is_some(),
    }
}

/// Bytes of the NPZ files of all samples in the shards; none unless the plan has every one of them.
fn npz_bytes(plan: &Plan, walks: &[WalkedShard]) -> Option<u64> {
    let by_study = by_study(plan);
    let samples = walks.iter().flat_map(|walk| &walk.samples);
    samples.map(|sample| Some(by_study.get(&*sample.study_id)?.file_id().size)).sum()
}

/// Samples of a plan by their study id.
fn by_study(plan: &Plan) -> HashMap<&str, &dataset::Sample> {
    plan.dataset.samples.iter().map(|sample| (&*sample.study_id, sample)).collect()
}

/// Refuses a plan of another kind of volume, or of another dtype, than the shards hold: every voxel would differ, and
/// nothing be learnt.
fn refuse_other_volumes(plan: &Plan, walks: &[WalkedShard]) -> Result<()> {
    let name = match plan.kind() {
        Kind::Stored => "stored",
        Kind::Rescaled => "rescaled",
        Kind::Preprocessed => "preprocessed",
    };
    let asked = plan.voxel_format().name();
    let is_made_so = walks.iter().flat_map(|walk| &walk.samples).any(|sample| sample.dtype.name() == asked);
    match walks.iter().flat_map(|walk| &walk.samples).next() {
        Some(sample) if sample.kind != name => Err(Error::Refused(format!(
            "the shards hold volumes of the kind {0}, and the flags ask for {name}: add --volume {0}, and the options \
             that the shards were made with",
            sample.kind
        ))),
        Some(sample) if !is_made_so => Err(Error::Refused(format!(
            "the shards hold voxels of {0}, and the flags ask for {asked}: add --output-dtype {0}, and the options that \
             the shards were made with",
            sample.dtype.name()
        ))),
        _ => Ok(()),
    }
}

/// Refuses a plan without the tables that the shards were made with: every text or label would differ.
fn refuse_other_tables(plan: &Plan, manifest: Option<&manifest::Manifest>) -> Result<()> {
    let Some(manifest) = manifest.filter(|manifest| manifest.shards.is_some()) else { return Ok(()) };
    let (columns, asked) = (manifest.text_columns.unwrap_or(TEXT_COLUMNS), plan.dataset.text_columns);
    if columns != asked {
        return Err(Error::Refused(format!(
            "each text of the shards is made of {columns} columns, and of {asked} by the flags: --reports-file and \
             --text-columns must be those that the shards were made with"
        )));
    }
    let asked: Vec<&str> = plan.dataset.extra_columns.iter().map(|column| &*column.name).collect();
    if manifest.extra_columns != asked {
        let list = |names: &[&str]| if names.is_empty() { "no column".to_owned() } else { names.join(", ") };
        let found = list(&manifest.extra_columns.iter().map(|name| &**name).collect::<Vec<_>>());
        return Err(Error::Refused(format!(
            "the JSON of each sample of the shards has the values of {found} behind its own fields, and of {} by the \
             flags: --extra-columns must be those that the shards were made with",
            list(&asked)
        )));
    }
    let (classes, asked) = (manifest.label_names.as_ref().map_or(0, Vec::len), plan.dataset.label_names.len());
    if (classes == 0) != (asked == 0) {
        return Err(Error::Refused(format!(
            "each sample of the shards has {classes} classes, and {asked} by the flags: --labels-file must be that \
             which the shards were made with"
        )));
    }
    Ok(())
}

/// Refuses a plan with other arrays beside the volumes than the shards have: no sample could be compared as a whole.
fn refuse_other_extras(plan: &Plan, manifest: Option<&manifest::Manifest>) -> Result<()> {
    let Some(manifest) = manifest.filter(|manifest| manifest.shards.is_some()) else { return Ok(()) };
    let found: Vec<&str> = manifest.extras().collect();
    let asked: Vec<&str> = plan.dataset.extras.iter().map(|extra| &*extra.name).collect();
    if found == asked {
        return Ok(());
    }
    let list = |names: &[&str]| if names.is_empty() { "no array".into() } else { names.join(", ") };
    Err(Error::Refused(format!(
        "beside its volume, each sample of the shards has {}, and {} by the flags: --also must be as the shards were \
         made with",
        list(&found),
        list(&asked)
    )))
}

/// Compares the chosen samples with their sources. Samples that cannot be compared, and what is wrong with the others,
/// are added to `findings`.
fn compare_all(
    config: &Config<'_>,
    plan: &Plan,
    walks: &[WalkedShard],
    progress: &dyn Progress,
    findings: &mut Vec<Finding>,
) -> Result<SourceCheck> {
    let by_study = by_study(plan);
    let all: Vec<SampleIndex> = walks
        .iter()
        .enumerate()
        .flat_map(|(walk, shard)| (0..shard.samples.len()).map(move |sample| SampleIndex { walk, sample }))
        .collect();
    let (count, sample) = (all.len(), |index: SampleIndex| &walks[index.walk].samples[index.sample]);
    folder::check_complete(plan, all.iter().map(|index| sample(*index)), walks, findings);
    let mut comparisons = Vec::new();
    for index in choose(all, config, |index| sample(*index)) {
        let (sample, shard) = (sample(index), &*walks[index.walk].path);
        match by_study.get(&*sample.study_id).and_then(|source| Some((source, source.study()?))) {
            Some((source, study)) => {
                let (store, npz) = (config.store, &*source.path);
                comparisons.push(Comparison { store, sample, shard, npz, study });
            }
            None => findings.push(Finding::new(
                Verdict::Unchecked,
                &sample.key,
                format!(
                    "the study '{}' is not in the data set that the flags name, so it cannot be compared",
                    sample.study_id
                ),
            )),
        }
    }
    let voxels = comparisons.iter().map(|comparison| comparison.sample.voxels()).sum();
    progress.begin("voxels against their sources", voxels);
    let workers = workers_that_fit(config, plan, comparisons.iter().map(|comparison| comparison.study));
    let silence = Silence::new(workers);
    let compared: Vec<Option<Compared>> = try_map(&comparisons, workers, |comparison| {
        let compared = (!silence.is_long()).then(|| compare::compare(plan, comparison, progress));
        compared.iter().for_each(|compared| silence.count(compared.is_late));
        Ok::<_, Error>(compared)
    })?;
    let skipped = compared.iter().filter(|compared| compared.is_none()).count();
    let mut compared: Vec<Compared> = compared.into_iter().flatten().collect();
    compared.iter_mut().for_each(|compared| findings.append(&mut compared.findings));
    if skipped > 0 {
        let what = format!(
            "{} not compared, because the storage had stopped to answer: verify again when it does",
            counted(skipped, "further sample was", "further samples were")
        );
        findings.push(Finding::new(Verdict::Unchecked, plan.dataset.root.display(), what));
    }
    let differences = compared.iter().filter_map(|Compared { difference, .. }| difference.as_ref());
    Ok(SourceCheck::new(count, plan.voxel_format().name(), differences, WORST))
}

/// Chooses as many samples as were asked for, at random: those whose keys, hashed together with the seed, come first.
/// The chosen ones are in the order of the shards.
fn choose<'a>(
    mut all: Vec<SampleIndex>,
    config: &Config<'_>,
    sample: impl Fn(&SampleIndex) -> &'a WalkedSample,
) -> Vec<SampleIndex> {
    if let Some(count) = config.count.filter(|count| *count < all.len()) {
        all.sort_by_cached_key(|index| Sha256::digest(format!("{} {}", config.seed, sample(index).key)));
        all.truncate(count);
        all.sort_unstable();
    }
    all
}

/// Lowers the number of threads so that as many of the largest sources fit half of the available memory: each thread
/// has a whole source in memory, and of a source or shard in a bucket what is asked for ahead.
fn workers_that_fit<'a>(config: &Config<'_>, plan: &Plan, sources: impl Iterator<Item = &'a Study>) -> usize {
    let bytes = |study: &Study| study.array.header.payload_len().unwrap_or(u64::MAX);
    let is_remote = plan.dataset.store.is_remote(&plan.dataset.root) || config.store.is_remote(config.folder);
    let ahead = if is_remote { bytes_ahead(&(0..u64::MAX)) } else { 0 };
    let largest = sources.map(bytes).max().unwrap_or(1).max(1).saturating_add(ahead);
    let fitting = usize::try_from(memory::available() / 2 / largest).unwrap_or(config.workers);
    config.workers.min(fitting).max(1)
}
