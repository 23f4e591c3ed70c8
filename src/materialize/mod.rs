//! Writing shards to a disk or a bucket: each under a temporary name, made durable, and renamed, or in an upload that
//! nobody sees before its end; a durable journal says which are finished; the manifest is written last.
//!
//! A final name never holds a partial file, and a run that was stopped goes on where it was. Bytes come from
//! [`ShardSet`] alone.
//!
//! # The way of a shard's bytes
//!
//! ```text
//! pass ─► maker ─► plain or compress ─► fill ─► hash_pair ─► writer ─► folder
//! ```
//!
//! `pass` gives the shards to workers. Each has a `maker`, which fills blocks (`fill`, `blocks`); `hash_pair` computes
//! the SHA-256 and sends the blocks to a `writer`, a thread of its own for each shard, which writes the file and the
//! journal.

mod bad_samples;
mod blocks;
mod compress;
mod control;
mod fill;
mod folder;
mod hash_pair;
mod index_files;
mod leftovers;
mod maker;
mod merge;
mod new_shard;
mod pass;
mod plain;
mod rebuild;
mod request;
mod target;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use crate::base::parallel::try_map;
use crate::dataset::quarantine::{self, Quarantined};
use crate::error::{Error, Result};
use crate::output::journal::FinishedShard;
use crate::output::manifest::{self, Manifest};
use crate::output::partition::Part;
use crate::output::removals;
use crate::plan::{Plan, ShardId};
use crate::shard::ShardSet;
use bad_samples::BadSamples;
use control::{Control, INTERRUPTED};
use folder::OutputFolder;
use pass::{Pass, PassResult};
use target::Target;

pub use control::{Observer, Silent};
pub use merge::merge;
pub use rebuild::rebuild;
pub use request::{ManifestOutcome, OnError, Outcome, Request};

/// Writes the shards of a part of `set` and their manifest. `stop` ends the run early; `observer` gets its progress.
///
/// A shard whose volume cannot be read is left out and listed; the others are written, and the manifest is not. With
/// [`OnError::Skip`], a shard whose volume is damaged is written without that sample. Storage that fails is no reason
/// to skip: the content of a shard depends on the content of its sources only.
///
/// A folder is of this plan if at least one of its finished shards is. Shards that are not of the plan (a table's row
/// or a volume has changed, or samples are excluded) are made again, the others are kept. The folder is refused if
///
/// - it holds shards that the plan does not have: these are never removed;
/// - a volume would be lost whose NPZ was reclaimed;
/// - it holds a shard that no run is known to have written, unless it is, to the byte, the one that is made.
///
/// # Errors
/// [`Error::Refused`] if the folder belongs to another plan, is in use, has no room, or `stop` was set;
/// [`Error::Io`] if it cannot be written. Finished shards stay, and the same call continues.
pub fn materialize(
    set: ShardSet,
    request: &Request<'_>,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let control = Control { stop, observer };
    make_all(set, request, control).map_err(|error| match error {
        // A request to a bucket that nobody waits for any more.
        Error::Io { .. } if control.is_stopped() => Error::Interrupted(INTERRUPTED),
        error => error,
    })
}

fn make_all(set: ShardSet, request: &Request<'_>, control: Control<'_>) -> Result<Outcome> {
    let Control { observer, .. } = control;
    let plan = set.shared_plan();
    let folder = OutputFolder::open(request.out, request.part, request.codec, &plan, request.clean)?;
    let conversion = Conversion { plan: &plan, folder: &folder, request, control };
    let listed = folder.quarantined()?;
    let mut finished = folder.finished(&plan, request.on_error)?;
    if request.recheck {
        conversion.drop_what_differs(&mut finished)?;
    }
    let missing: Vec<ShardId> =
        plan.shard_ids().filter(|id| request.part.has(*id) && !finished.contains_key(id)).collect();
    let kept = finished.len();
    let needed = missing.iter().map(|id| plan.shards[*id as usize].layout.len()).sum();
    let manifest_len = Manifest::new(&plan, request.part, |_| None).render().len() + 64 * (kept + missing.len());
    // The size of compressed shards is known only when they are made.
    folder.check_space(if request.codec.is_none() { needed } else { 0 } + manifest_len as u64)?;
    removals::refuse_to_lose(request.out, &plan, &missing)?;
    let (number, mut remarks) = if missing.is_empty() { (0, Vec::new()) } else { folder.begin(&plan, &missing)? };
    observer.begin(missing.len(), kept, needed);

    let mut result = conversion.make(&set, number, &BTreeMap::new(), &missing)?;
    let bad = bad_samples::of_failures(&plan, &result.failed);
    if request.on_error == OnError::Skip {
        conversion.make_without(set, number, &bad, &mut result)?;
    }
    result.finished.append(&mut finished);
    let written = result.finished.len() - kept;
    let mut outcome = conversion.finish(result, bad, &listed)?;
    remarks.append(&mut outcome.remarks);
    Ok(Outcome { written, kept, remarks, ..outcome })
}

/// What one run works on.
struct Conversion<'a> {
    /// The plan that was asked for.
    plan: &'a Plan,
    folder: &'a OutputFolder,
    request: &'a Request<'a>,
    control: Control<'a>,
}

impl Conversion<'_> {
    /// Makes shards of `set`, which is without the samples `skipped`; `number` is that of the run in the journal.
    fn make(&self, set: &ShardSet, number: u64, skipped: &BadSamples, shards: &[ShardId]) -> Result<PassResult> {
        let target = Target { run: number, set, asked: self.plan, skipped };
        let pass = Pass { target: &target, folder: self.folder, control: self.control };
        let result = pass.run(shards, self.request.workers)?;
        self.control.check_stop()?;
        Ok(result)
    }

    /// Makes shards once more, without the samples that were found bad in the first pass, whose `result` is completed.
    fn make_without(&self, set: ShardSet, number: u64, bad: &BadSamples, result: &mut PassResult) -> Result<()> {
        let skipped = bad_samples::skippable(bad, &result.failed);
        if skipped.is_empty() {
            return Ok(());
        }
        let shards: Vec<ShardId> = bad_samples::shards_of(self.plan, &skipped).into_iter().collect();
        let set = set.with_plan(bad_samples::without(self.plan, &skipped).into_owned())?;
        self.control.observer.more(shards.iter().filter_map(|id| set.len(*id)).sum());
        let again = self.make(&set, number, &skipped, &shards)?;
        result.finished.extend(again.finished);
        result.failed.retain(|failure| !shards.contains(&failure.shard));
        result.failed.extend(again.failed);
        Ok(())
    }

    /// Hashes finished shards again. Those that are not what was recorded are removed from `finished`.
    fn drop_what_differs(&self, finished: &mut BTreeMap<ShardId, FinishedShard>) -> Result<()> {
        let Control { stop, observer } = self.control;
        observer.recheck(finished.len(), finished.values().map(|found| found.size).sum());
        let all: Vec<(ShardId, &FinishedShard)> = finished.iter().map(|(id, found)| (*id, found)).collect();
        let check = |(id, found): &(ShardId, &FinishedShard)| {
            let why = match self.folder.place().sha256(&found.name, found.size, stop) {
                Ok(sha256) if sha256 == found.sha256 => None,
                Ok(_) => Some("its bytes are not those that were recorded".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why.filter(|_| !self.control.is_stopped()) {
                observer.differs(&found.name, &why);
                return Ok::<_, Error>(Some(*id));
            }
            observer.read(found.size);
            Ok(None)
        };
        let differing = try_map(&all, self.request.workers, check)?;
        self.control.check_stop()?;
        differing.into_iter().flatten().for_each(|id| drop(finished.remove(&id)));
        Ok(())
    }

    /// Writes the manifest if no shard failed, and the list of bad samples, whose rows were `listed` before.
    fn finish(&self, result: PassResult, bad: BadSamples, listed: &[Quarantined]) -> Result<Outcome> {
        let (plan, folder, part) = (self.plan, self.folder, self.request.part);
        let PassResult { finished, failed } = result;
        let mut left_out = bad_samples::left_out_of(plan, &finished);
        let shard_name = |index: &usize| Plan::shard_name(plan.shard_of(*index));
        let skipped = left_out.iter().map(|(index, skipped)| (shard_name(index), skipped.clone())).collect();
        let failed: Vec<_> =
            failed.into_iter().map(|failure| (Plan::shard_name(failure.shard), failure.error)).collect();
        let mut remarks: Vec<String> = folder.remarks_on_leftovers();
        if failed.is_empty() {
            let made = bad_samples::without(plan, &left_out);
            let manifest = match folder.codec() {
                None => {
                    remarks.extend(index_files::write(folder.place(), &made, part)?);
                    Manifest::new(&made, part, |id| finished.get(&id).map(|found| found.sha256.clone()))
                }
                Some(codec) => {
                    let manifest = Manifest::compressed(&made, part, codec, |id| finished.get(&id));
                    if part == Part::WHOLE {
                        remarks.extend(index_files::write_common(folder.place(), &manifest.listed(), true)?);
                    }
                    manifest
                }
            };
            folder.publish(&part.file_name(manifest::FILE), &manifest.render())?;
        }
        left_out.extend(bad);
        let rows = bad_samples::rows(plan, listed, &left_out);
        if rows != listed {
            folder.quarantine(&rows)?;
        }
        let quarantine = (!rows.is_empty()).then(|| part.file_name(quarantine::FILE));
        let may_merge = part != Part::WHOLE && merge::all_parts(folder.place(), part)?;
        Ok(Outcome { failed, skipped, quarantine, may_merge, remarks, ..Outcome::default() })
    }
}
