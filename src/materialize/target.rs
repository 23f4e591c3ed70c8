//! The shards that a run makes: their plan, and the plan that was asked for.

use super::bad_samples::BadSamples;
use crate::output::journal::FinishedShard;
use crate::output::source_times;
use crate::plan::{Plan, ShardId};
use crate::shard::ShardSet;

/// The shards that a run makes.
pub(super) struct Target<'a> {
    /// Number of the run in the journal.
    pub(super) run: u64,
    /// The shards. Their plan may be without some samples of the plan that was asked for.
    pub(super) set: &'a ShardSet,
    /// The plan that was asked for.
    pub(super) asked: &'a Plan,
    /// The samples that `set` is without.
    pub(super) skipped: &'a BadSamples,
}

impl Target<'_> {
    /// What the journal is to say of a finished shard whose file has `size` bytes and this SHA-256 (in hexadecimal).
    pub(super) fn finished(&self, id: ShardId, size: u64, sha256: String) -> FinishedShard {
        let digest = |plan: &Plan| plan.shard_digest(id).unwrap_or_default().to_owned();
        let samples = self.asked.shards[id as usize].samples.clone();
        FinishedShard {
            run: self.run,
            name: Plan::shard_name(id),
            size,
            sha256,
            made_of: digest(self.set.plan()),
            planned: digest(self.asked),
            source_times: source_times::of_shard(self.asked, id),
            left_out: self.skipped.range(samples).map(|(_, skipped)| skipped.clone()).collect(),
        }
    }
}
