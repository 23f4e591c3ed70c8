//! Shards and samples as they were found in the folder.

use std::ops::Range;
use std::path::PathBuf;

use super::finding::Finding;
use super::payload::Profile;

/// A shard as it was found.
pub(super) struct Walk {
    pub name: String,
    pub path: PathBuf,
    pub number: u64,
    pub len: u64,
    /// Of what was read, in hexadecimal.
    pub sha256: String,
    /// Samples with all members.
    pub samples: Vec<Sample>,
    /// Keys in the order found, of broken samples too.
    pub keys: Vec<String>,
    pub payload_bytes: u64,
    /// What the shard would have if its volumes were plain.
    pub plain_len: u64,
    /// Whether a volume of it is compressed, a damaged one too.
    pub has_packed: bool,
    /// Whether it was read to its end.
    pub whole: bool,
    pub findings: Vec<Finding>,
}

/// Where a member's bytes are in the shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub start: u64,
    pub len: u64,
}

/// A whole sample.
#[derive(Debug)]
pub(super) struct Sample {
    pub key: String,
    pub index: u64,
    pub study_id: String,
    pub kind: String,
    pub shape: [u64; 3],
    pub labels: usize,
    pub profile: Profile,
    /// In the profile's order; that of the volume without a header before the voxels.
    pub members: [Span; 4],
    /// The volume's member, if it is compressed; the span above is then one of what is unpacked.
    pub packed: Option<Span>,
    /// From the header of the first member to the padding of the last.
    pub place: Range<u64>,
}
