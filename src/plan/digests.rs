//! The digests of shards, from those of their samples.

use super::{Fields, Options, Plan, ShardId};
use sha2::{Digest, Sha256};

/// SHA-256 of all that determines a sample's members and key.
pub type SampleDigest = [u8; 32];

impl Plan {
    /// The digest of a sample, given as an index into the data set's.
    pub fn sample_digest(&self, sample: usize) -> &SampleDigest {
        &self.measured[sample].digest
    }

    /// What [`Plan::shard_digest`] is for a shard of samples with these digests, made with this plan's options.
    pub fn shard_digest_of_samples<'a>(
        &self,
        number: ShardId,
        samples: impl Iterator<Item = &'a SampleDigest>,
    ) -> String {
        shard_digest(self.options, number, samples)
    }
}

/// Hashes what determines a shard's bytes.
pub(super) fn shard_digest<'a>(
    options: Options,
    number: ShardId,
    samples: impl Iterator<Item = &'a SampleDigest>,
) -> String {
    let mut fields = Fields(Sha256::new());
    fields.add(b"ctwds-fs shard 1");
    let Options { samples_per_shard, format, overflow } = options;
    fields.add(format!("{format:?} {overflow:?} {samples_per_shard} {number}").as_bytes());
    samples.for_each(|digest| fields.add(digest));
    format!("{:x}", fields.0.finalize())
}
