//! Shards and samples as a walk found them in the folder.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::dtype::Dtype;
use super::finding::Finding;
use super::listing::ShardFile;
use super::packed::Filter;
use super::payload::Profile;
use crate::base::memory::zeros;
use crate::base::num::to_usize;
use crate::storage::Stored;

/// What samples should have, as far as somebody says it.
#[derive(Clone, Debug)]
pub(super) struct SampleRules {
    /// Whether samples have a member of labels; none if nobody says it.
    pub has_labels: Option<bool>,
    /// Names of the arrays beside the volume, in the order of their members; none if nobody says it.
    pub extras: Option<Vec<String>>,
    /// Number of columns of a table that each text is made of; none if nobody says it.
    pub text_columns: Option<usize>,
    /// Whether samples of any shard may be in a shard, in any order.
    pub is_shuffled: bool,
}

/// A shard as a walk found it.
pub(super) struct WalkedShard {
    /// File name.
    pub name: String,
    /// Path of the file.
    pub path: PathBuf,
    /// Shard number, from the file name.
    pub number: u64,
    /// Bytes of the file when the folder was listed.
    pub len: u64,
    /// SHA-256 of the bytes that were read, in hexadecimal.
    pub sha256: String,
    /// Samples with all members, and nothing wrong in them.
    pub samples: Vec<WalkedSample>,
    /// Keys in the order of the file; those of broken samples are among them.
    pub keys: Vec<String>,
    /// Bytes of the members' payloads; a compressed volume counts with the bytes of its plain member.
    pub payload_bytes: u64,
    /// Bytes that the shard would have if its volumes were plain.
    pub plain_len: u64,
    /// Whether a volume is compressed; a damaged one counts.
    pub has_packed: bool,
    /// Whether the operating system delivered the file to its last byte.
    pub is_read_to_end: bool,
    /// Findings about this shard.
    pub findings: Vec<Finding>,
}

impl WalkedShard {
    /// A shard of which nothing was read yet.
    pub(super) fn unread(file: &ShardFile) -> Self {
        Self {
            name: file.name.clone(),
            path: file.path.clone(),
            number: file.number,
            len: file.len,
            sha256: String::new(),
            samples: Vec::new(),
            keys: Vec::new(),
            payload_bytes: 0,
            plain_len: 0,
            has_packed: false,
            is_read_to_end: false,
            findings: Vec::new(),
        }
    }
}

/// A range of bytes of a shard, or of an unpacked volume member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    /// Offset of the first byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Span {
    /// Reads the bytes of a shard.
    ///
    /// # Errors
    /// The file cannot be read, or there is no memory.
    pub(super) fn read(self, file: &dyn Stored) -> io::Result<Vec<u8>> {
        let mut bytes = zeros(to_usize(self.len))?;
        file.read_exact_at(&mut bytes, self.start)?;
        Ok(bytes)
    }
}

/// Locations of the members of a sample.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberSpans {
    /// The voxels, without the NPY header before them. In the shard if the volume is plain, else in the unpacked
    /// member.
    pub voxels: Span,
    /// The compressed member of the volume in the shard; none if the volume is plain.
    pub packed: Option<(Span, Filter)>,
    /// The JSON member in the shard.
    pub json: Span,
    /// The text member in the shard.
    pub text: Span,
    /// The member of the labels in the shard; with its NPY header, where the profile has one. None if samples have no
    /// labels.
    pub labels: Option<Span>,
    /// The arrays beside the volume.
    pub extras: Vec<WalkedExtra>,
}

/// An array beside the volume, as a walk found it.
#[derive(Clone, Debug)]
pub(super) struct WalkedExtra {
    /// Name, from the extension.
    pub name: String,
    /// The member in the shard.
    pub span: Span,
    /// The filter, if the member is compressed.
    pub packed: Option<Filter>,
}

/// A sample with all members, as a walk found it.
#[derive(Debug)]
pub(super) struct WalkedSample {
    /// Key, `SHARD_INDEX` of six digits each.
    pub key: String,
    /// Index within the shard, from the key.
    pub index: u64,
    /// Study id, from the JSON member.
    pub study_id: String,
    /// Kind of volume by the JSON member: `stored`, `rescaled` or `preprocessed`.
    pub kind: String,
    /// Shape of the volume by the JSON member, in voxels.
    pub shape: [u64; 3],
    /// Dtype of the voxels by the JSON member.
    pub dtype: Dtype,
    /// Values that 0 and 255 stand for, of uint8.
    pub window: Option<[f64; 2]>,
    /// Number of labels; 0 without a member of them.
    pub label_count: usize,
    /// How the members are named and encoded.
    pub profile: Profile,
    /// Locations of the members.
    pub members: MemberSpans,
    /// Bytes of the shard from the header of the first member to the padding of the last.
    pub range: Range<u64>,
}

impl WalkedSample {
    /// Number of voxels, by the shape.
    pub(super) fn voxels(&self) -> u64 {
        self.shape.iter().product()
    }
}
