//! Shards to disk: a temporary name, fsync, rename; a durable record of what is finished; the manifest last.
//!
//! A final name never holds a partial file, and a run that was stopped goes on where it was. Bytes come from
//! [`ShardSet`] alone.

mod compress;
mod folder;
mod index_files;
mod job;
mod merge;
mod output;
mod pair;
mod rebuild;
mod stream;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::parallel::try_map;
use crate::dataset::quarantine::{self, Quarantined};
use crate::error::{Error, Result};
use crate::formats::codec::Codec;
use crate::output::journal::{FinishedShard, SkippedSample};
use crate::output::manifest::{self, Manifest};
use crate::output::partition::Part;
use crate::output::reclaimed;
use crate::plan::{Plan, ShardId};
use crate::shard::ShardSet;
use folder::Folder;
use job::{Failure, Job};

pub(crate) use job::sha256_of;
pub use merge::{Incomplete, merge};
pub use rebuild::rebuild;

/// What becomes of a shard with a sample that cannot be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// It is not written, and the run fails when all others are.
    #[default]
    Fail,
    /// It is written with that sample's slot empty, as if the sample were excluded, and the manifest says so.
    Skip,
}

/// What to write, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The output folder.
    pub out: &'a Path,
    /// Shards written at a time.
    pub workers: usize,
    /// How the volumes are compressed, if they are; each worker then keeps the compressed member that it is at in memory.
    pub codec: Option<Codec>,
    /// The shards that this run is about.
    pub part: Part,
    /// What bad samples lead to.
    pub on_error: OnError,
    /// Whether finished shards are read again and compared with their record.
    pub recheck: bool,
}

/// What a run reports while it goes on.
pub trait Observer: Sync {
    /// So many finished shards are about to be read again.
    fn recheck(&self, shards: usize, bytes: u64);
    /// So many bytes were read again.
    fn read(&self, bytes: u64);
    /// A finished shard is not what was recorded of it, and will be made again.
    fn differs(&self, name: &str, why: &str);
    /// There are `bytes` to write in `shards` shards; `kept` shards were finished by an earlier run.
    fn begin(&self, shards: usize, kept: usize, bytes: u64);
    /// Some shards are made once more, without samples that failed: so many more bytes.
    fn more(&self, bytes: u64);
    /// So many bytes were written.
    fn wrote(&self, bytes: u64);
    /// A shard is finished.
    fn finished(&self, name: &str, bytes: u64);
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Shards that this run wrote.
    pub written: usize,
    /// Shards that an earlier run had finished.
    pub kept: usize,
    /// Why shards could not be made, by their names; one may have several reasons.
    pub failed: Vec<(String, Error)>,
    /// The samples that finished shards are without, each with its shard.
    pub skipped: Vec<(String, SkippedSample)>,
    /// The list of samples that cannot be made, if there are any.
    pub quarantine: Option<String>,
    /// Whether this was a part, and every part has its manifest now.
    pub may_merge: bool,
}

/// Writes the shards of a part of `set` and their manifest.
///
/// A shard whose volume cannot be read is left out and listed; the others are written, and the manifest is not.
/// With [`OnError::Skip`], one whose volume is damaged is written without that sample. Storage that fails is no reason
/// to skip: what is made must not depend on the weather.
///
/// A folder is of this plan if at least one of its finished shards is: those that are not (a table's row or a volume has
/// changed, or samples are excluded) are made again, the others are kept. Shards which the plan does not have are not
/// removed; the folder is refused. So is one in which a volume would be lost whose NPZ was reclaimed. So is one with a shard that no run is known to have written, unless it is, to the
/// byte, the one that is made.
///
/// # Errors
/// [`Error::Refused`] if the folder belongs to another plan, is in use, has no room, or `stop` was set;
/// [`Error::Io`] if it cannot be written. FinishedShard shards stay, and the same call continues.
pub fn materialize(
    set: ShardSet,
    request: &Request<'_>,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let plan = set.shared_plan();
    let folder = Folder::open(request.out, request.part, request.codec, &plan)?;
    let before = folder.quarantined()?;
    let mut finished = folder.finished(&plan, request.on_error)?;
    if request.recheck {
        drop_what_differs(&folder, &mut finished, request.workers, stop, observer)?;
    }
    let all = 0..ShardId::try_from(plan.shards.len()).unwrap_or(ShardId::MAX);
    let missing: Vec<ShardId> = all.filter(|id| request.part.has(*id) && !finished.contains_key(id)).collect();
    let kept = finished.len();
    let needed = missing.iter().map(|id| plan.shards[*id as usize].layout.len()).sum();
    let manifest_len = Manifest::new(&plan, request.part, |_| None).render().len() + 64 * (kept + missing.len());
    // What compressed shards take is known when they are made.
    folder.check_space(if request.codec.is_none() { needed } else { 0 } + manifest_len as u64)?;
    reclaimed::refuse_to_lose(request.out, &plan, &missing)?;
    let run = if missing.is_empty() { 0 } else { folder.begin(&plan, &missing)? };
    observer.begin(missing.len(), kept, needed);

    let none = BTreeMap::new();
    let job = Job::new((&set, &plan), &none, (&folder, run, request.codec), (stop, observer));
    let (made, mut failed) = job.run(&missing, request.workers)?;
    finished.extend(made);
    check_stop(stop)?;
    let bad = bad_samples(&plan, &failed);
    if request.on_error == OnError::Skip {
        let skipped = skippable(&bad, &failed);
        if !skipped.is_empty() {
            let shards: Vec<ShardId> = shards_of(&plan, &skipped).into_iter().collect();
            let set = set.with_plan(without(&plan, &skipped).into_owned())?;
            observer.more(shards.iter().filter_map(|id| set.len(*id)).sum());
            let job = Job::new((&set, &plan), &skipped, (&folder, run, request.codec), (stop, observer));
            let (made, failed_again) = job.run(&shards, request.workers)?;
            finished.extend(made);
            failed.retain(|failure| !shards.contains(&failure.shard));
            failed.extend(failed_again);
            check_stop(stop)?;
        }
    }
    let written = finished.len() - kept;
    let outcome = finish(&folder, &plan, request, (before, bad), finished, failed)?;
    Ok(Outcome { written, kept, ..outcome })
}

/// Writes down how it ended: the list of bad samples, and the manifest if no shard failed.
fn finish(
    folder: &Folder,
    plan: &Plan,
    request: &Request<'_>,
    (before, bad): (Vec<Quarantined>, BTreeMap<usize, SkippedSample>),
    finished: BTreeMap<ShardId, FinishedShard>,
    failed: Vec<Failure>,
) -> Result<Outcome> {
    let part = request.part;
    let mut left_out = left_out_of(plan, &finished);
    let skipped =
        left_out.iter().map(|(index, skipped)| (Plan::shard_name(plan.shard_of(*index)), skipped.clone())).collect();
    let failed: Vec<_> = failed.into_iter().map(|failure| (Plan::shard_name(failure.shard), failure.error)).collect();
    if failed.is_empty() {
        let made = without(plan, &left_out);
        let manifest = match request.codec {
            None => {
                index_files::write(folder.path(), &made, part)?;
                Manifest::new(&made, part, |id| finished.get(&id).map(|found| found.sha256.clone()))
            }
            // The readers of indexes cannot decompress a member.
            Some(codec) => Manifest::compressed(&made, part, codec, |id| finished.get(&id)),
        };
        folder.publish(&part.file_name(manifest::FILE), &manifest.render())?;
    }
    left_out.extend(bad);
    let rows = bad_rows(plan, &before, &left_out);
    if rows != before {
        folder.quarantine(&rows)?;
    }
    let quarantine = (!rows.is_empty()).then(|| part.file_name(quarantine::FILE));
    let may_merge = part != Part::WHOLE && merge::all_parts(folder.path(), part)?;
    Ok(Outcome { failed, skipped, quarantine, may_merge, ..Outcome::default() })
}

/// Hashes finished shards again; those that are not what was recorded are finished no longer.
fn drop_what_differs(
    folder: &Folder,
    finished: &mut BTreeMap<ShardId, FinishedShard>,
    workers: usize,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<()> {
    observer.recheck(finished.len(), finished.values().map(|found| found.size).sum());
    let all: Vec<(ShardId, &FinishedShard)> = finished.iter().map(|(id, found)| (*id, found)).collect();
    let check = |(id, found): &(ShardId, &FinishedShard)| {
        let why = match job::sha256(&folder.path().join(&found.name), stop) {
            Ok(sha256) if sha256 == found.sha256 => None,
            Ok(_) => Some("its bytes are not those that were recorded".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why.filter(|_| !stop.load(Ordering::Relaxed)) {
            observer.differs(&found.name, &why);
            return Ok::<_, Error>(Some(*id));
        }
        observer.read(found.size);
        Ok(None)
    };
    let differing = try_map(&all, workers, check)?;
    check_stop(stop)?;
    differing.into_iter().flatten().for_each(|id| drop(finished.remove(&id)));
    Ok(())
}

fn check_stop(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Refused("interrupted; finished shards are kept, run the same command to continue".into()));
    }
    Ok(())
}

/// The samples whose content is why they failed.
fn bad_samples(plan: &Plan, failed: &[Failure]) -> BTreeMap<usize, SkippedSample> {
    let bad = |failure: &Failure| match (failure.sample, &failure.error) {
        (Some(index), Error::Malformed { reason, .. }) => {
            let sample = &plan.dataset.samples[index];
            let (study_id, source) = (sample.study_id.clone(), sample.file_id());
            Some((index, SkippedSample::new(study_id, reason.clone(), source)))
        }
        _ => None,
    };
    failed.iter().filter_map(bad).collect()
}

/// Those of them whose shards have no other reason to fail.
fn skippable(bad: &BTreeMap<usize, SkippedSample>, failed: &[Failure]) -> BTreeMap<usize, SkippedSample> {
    let is_bad = |failure: &Failure| failure.sample.is_some_and(|index| bad.contains_key(&index));
    let spoilt: BTreeSet<ShardId> = failed.iter().filter(|failure| !is_bad(failure)).map(|one| one.shard).collect();
    let can_be = failed.iter().filter(|failure| !spoilt.contains(&failure.shard));
    can_be.filter_map(|failure| bad.get_key_value(&failure.sample?)).map(|(index, one)| (*index, one.clone())).collect()
}

fn shards_of(plan: &Plan, samples: &BTreeMap<usize, SkippedSample>) -> BTreeSet<ShardId> {
    samples.keys().map(|index| plan.shard_of(*index)).collect()
}

/// The plan without samples, for the reasons that they have.
fn without<'a>(plan: &'a Plan, samples: &BTreeMap<usize, SkippedSample>) -> Cow<'a, Plan> {
    let reasons = samples.iter().map(|(index, skipped)| (*index, skipped.reason.clone()));
    if samples.is_empty() { Cow::Borrowed(plan) } else { Cow::Owned(plan.without(&reasons.collect())) }
}

/// The plan's samples that finished shards are without.
fn left_out_of(plan: &Plan, finished: &BTreeMap<ShardId, FinishedShard>) -> BTreeMap<usize, SkippedSample> {
    let mut left_out = BTreeMap::new();
    for (id, found) in finished {
        for index in plan.shards[*id as usize].samples.clone() {
            let study_id = &plan.dataset.samples[index].study_id;
            if let Some(skipped) = found.left_out.iter().find(|skipped| skipped.study_id == *study_id) {
                left_out.insert(index, skipped.clone());
            }
        }
    }
    left_out
}

/// The list of samples that cannot be made. What stood there before stays for those that the plan leaves out: they were
/// not tried, and the list may be what excludes them.
fn bad_rows(plan: &Plan, before: &[Quarantined], bad: &BTreeMap<usize, SkippedSample>) -> Vec<Quarantined> {
    let is_out = |row: &&Quarantined| plan.dataset.left_out.iter().any(|left_out| left_out.study_id == row.study_id);
    let mut rows: Vec<Quarantined> = before.iter().filter(is_out).cloned().collect();
    rows.extend(bad.iter().map(|(index, skipped)| Quarantined {
        study_id: skipped.study_id.clone(),
        path: plan.dataset.samples[*index].path.to_string_lossy().into_owned(),
        reason: skipped.reason.clone(),
    }));
    rows.sort();
    rows
}
