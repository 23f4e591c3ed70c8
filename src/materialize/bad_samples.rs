//! Samples that cannot be made: which ones a shard failed for, which can be skipped, and the list of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::dataset::quarantine::Quarantined;
use crate::error::Error;
use crate::output::journal::{FinishedShard, SkippedSample};
use crate::plan::{Plan, ShardId};

/// Samples with the reasons why they could not be made, by their index in the plan that was asked for.
pub(super) type BadSamples = BTreeMap<usize, SkippedSample>;

/// A shard that could not be made, and why.
#[derive(Clone, Debug)]
pub(super) struct ShardFailure {
    /// The shard.
    pub(super) shard: ShardId,
    /// Index of the sample at fault among the samples of the plan; `None` if it is not a sample's fault.
    pub(super) sample: Option<usize>,
    /// What went wrong.
    pub(super) error: Error,
}

/// The samples whose content is why they failed.
pub(super) fn of_failures(plan: &Plan, failed: &[ShardFailure]) -> BadSamples {
    let bad = |failure: &ShardFailure| match (failure.sample, &failure.error) {
        (Some(index), Error::Malformed { reason, .. }) => {
            let sample = &plan.dataset.samples[index];
            let (study_id, source) = (sample.study_id.clone(), sample.file_id());
            Some((index, SkippedSample::new(study_id, reason.clone(), source)))
        }
        _ => None,
    };
    failed.iter().filter_map(bad).collect()
}

/// The bad samples whose shards have no other reason to fail.
pub(super) fn skippable(bad: &BadSamples, failed: &[ShardFailure]) -> BadSamples {
    let is_bad = |failure: &ShardFailure| failure.sample.is_some_and(|index| bad.contains_key(&index));
    let has_other: BTreeSet<ShardId> = failed.iter().filter(|failure| !is_bad(failure)).map(|one| one.shard).collect();
    let can_be = failed.iter().filter(|failure| !has_other.contains(&failure.shard));
    can_be.filter_map(|failure| bad.get_key_value(&failure.sample?)).map(|(index, one)| (*index, one.clone())).collect()
}

/// The shards that hold the samples.
pub(super) fn shards_of(plan: &Plan, samples: &BadSamples) -> BTreeSet<ShardId> {
    samples.keys().map(|index| plan.shard_of(*index)).collect()
}

/// The plan without these samples, which it then lists as left out with their reasons.
pub(super) fn without<'a>(plan: &'a Plan, samples: &BadSamples) -> Cow<'a, Plan> {
    let reasons = samples.iter().map(|(index, skipped)| (*index, skipped.reason.clone()));
    if samples.is_empty() { Cow::Borrowed(plan) } else { Cow::Owned(plan.without(&reasons.collect())) }
}

/// The plan's samples that finished shards are without.
pub(super) fn left_out_of(plan: &Plan, finished: &BTreeMap<ShardId, FinishedShard>) -> BadSamples {
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

/// The rows of the list of samples that cannot be made. Of the rows `before`, those of samples that the plan leaves out
/// stay: these samples were not tried, and the list may be what excludes them.
pub(super) fn rows(plan: &Plan, before: &[Quarantined], bad: &BadSamples) -> Vec<Quarantined> {
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
