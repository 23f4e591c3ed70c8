//! `manifest.json`: what the shards hold. The same schema in the mount (digests null) and on disk.
//!
//! The first six fields are those that the CT-CLIP converter writes and its loader reads; sizes there are MiB and GiB
//! of payload. In a shuffled view's, each shard lists its samples in that view's order. A part of a conversion writes the
//! manifest of its own shards; all parts' together are the whole's.

mod merge;
mod read;

use serde::{Deserialize, Serialize};

pub use merge::{Merged, merge};
pub use read::read;

use crate::dataset::{LeftOut, Selected};
use crate::formats::codec::{BLOCK, CODEC, Codec, FILTER};
use crate::output::journal::Finished;
use crate::output::partition::Part;
use crate::plan::members::Profile;
use crate::plan::{Plan, ShardId, View};
use crate::volume::Kind;

/// The manifest's file name.
pub const NAME: &str = "manifest.json";
/// The same in two pieces, for [`Part::file_name`].
pub const FILE: (&str, &str) = ("manifest", "json");
/// Raised when a field changes its meaning.
const SCHEMA_VERSION: u32 = 2;

/// The content of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    num_shards: usize,
    /// Slots of a shard.
    pub samples_per_shard: u32,
    total_samples: usize,
    total_size_mb: f64,
    total_size_gb: f64,
    average_sample_size_mb: f64,
    schema_version: u32,
    tool: String,
    /// The digest of the plan that was asked for.
    pub plan_digest: String,
    /// Of which part these are the shards; not there for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<PartOf>,
    /// The members' names.
    pub format: Profile,
    /// The kind of all volumes.
    pub volume_kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compression: Option<Compression>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shuffle: Option<Shuffle>,
    /// Names of the classes.
    pub label_names: Vec<String>,
    /// What the user selected by, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selected>,
    /// Samples whose slots are empty.
    pub left_out: Vec<LeftOut>,
    /// Volumes that some table does not know.
    pub unmatched: Vec<Unmatched>,
    /// By number.
    pub shards: Vec<Shard>,
}

/// How the volumes of the shards are stored, where they are not plain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Compression {
    codec: String,
    level: i32,
    filter: String,
    block_bytes: usize,
}

/// What determines the order of a shuffled view; its samples keep the keys that they have in the plain shards.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Shuffle {
    seed: u64,
    epoch: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PartOf {
    index: u32,
    of: u32,
    /// Shards of all parts.
    num_shards: usize,
}

/// A volume that some table does not know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unmatched {
    /// The file's stem.
    pub study_id: String,
    /// The tables.
    pub not_in: String,
}

/// One shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shard {
    /// The file's name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of the plain shard, where this one is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_size: Option<u64>,
    /// Of the file, in hexadecimal; not known in a mount.
    pub sha256: Option<String>,
    /// The digest of all that determines the plain bytes; not there for a shuffled view's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// Bytes of its members where it is plain.
    payload_size: u64,
    sample_count: usize,
    /// In order.
    pub samples: Vec<Sample>,
}

/// A sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Its members' names without the extensions.
    pub key: String,
    /// Its study.
    pub study_id: String,
    /// The NPZ, relative to the data folder.
    pub source: String,
    /// Bytes of the NPZ.
    pub source_size: u64,
    /// CRC-32 of its array, in hexadecimal.
    pub source_crc32: String,
}

/// What is known of a shard's file.
struct File {
    size: u64,
    plain_size: Option<u64>,
    sha256: Option<String>,
}

impl Manifest {
    /// The manifest of a part of a plan; `sha256` gives a shard's digest where it is known.
    pub fn new(plan: &Plan, part: Part, sha256: impl Fn(ShardId) -> Option<String>) -> Self {
        let file = |id, size| File { size, plain_size: None, sha256: sha256(id) };
        Self::of_view(plan, View::Plain, part, file)
    }

    /// That of a part's compressed shards; `finished` gives what is known of each.
    pub fn compressed<'a>(
        plan: &Plan,
        part: Part,
        codec: Codec,
        finished: impl Fn(ShardId) -> Option<&'a Finished>,
    ) -> Self {
        let file = |id, plain_size| {
            let finished = finished(id);
            File {
                size: finished.map_or(0, |file| file.size),
                plain_size: Some(plain_size),
                sha256: finished.map(|file| file.sha256.clone()),
            }
        };
        let (name, filter, level) = (CODEC.to_owned(), FILTER.to_owned(), codec.level);
        let compression = Some(Compression { codec: name, level, filter, block_bytes: BLOCK });
        Self { compression, ..Self::of_view(plan, View::Plain, part, file) }
    }

    /// `file` gives what is known of a shard, from its plain size.
    fn of_view(plan: &Plan, view: View, part: Part, file: impl Fn(ShardId, u64) -> File) -> Self {
        let per_shard = plan.options.samples_per_shard;
        let shards = plan.view(view).into_iter().flatten().filter(|id| part.has(*id));
        let left_out = plan.dataset.left_out.iter().filter(|left_out| part.has(left_out.slot / per_shard));
        let unmatched = plan.dataset.unmatched.iter().cloned();
        let shuffle = match (view, plan.shuffle_seed()) {
            (View::Epoch(epoch), Some(seed)) => Some(Shuffle { seed, epoch }),
            _ => None,
        };
        let mut manifest = Self {
            num_shards: 0,
            samples_per_shard: per_shard,
            total_samples: 0,
            total_size_mb: 0.0,
            total_size_gb: 0.0,
            average_sample_size_mb: 0.0,
            schema_version: SCHEMA_VERSION,
            tool: concat!("ctwds-fs ", env!("CARGO_PKG_VERSION")).into(),
            plan_digest: plan.digest.clone(),
            part: (part != Part::WHOLE).then(|| PartOf {
                index: part.index(),
                of: part.of(),
                num_shards: plan.shards.len(),
            }),
            format: plan.options.format,
            volume_kind: plan.kind(),
            compression: None,
            shuffle,
            label_names: plan.dataset.label_names.clone(),
            selection: plan.dataset.selected.clone(),
            left_out: left_out.cloned().collect(),
            unmatched: unmatched.map(|(study_id, not_in)| Unmatched { study_id, not_in }).collect(),
            shards: shards.filter_map(|id| entry(plan, id, &file)).collect(),
        };
        manifest.sum_up();
        manifest
    }

    /// Whether the shards' volumes are compressed.
    pub fn is_compressed(&self) -> bool {
        self.compression.is_some()
    }

    /// Makes the totals those of the shards.
    fn sum_up(&mut self) {
        const MIB: f64 = 1024.0 * 1024.0;
        let samples = self.shards.iter().map(|shard| shard.sample_count).sum::<usize>();
        let total_mb = self.shards.iter().map(|shard| shard.payload_size).sum::<u64>() as f64 / MIB;
        self.num_shards = self.shards.len();
        self.total_samples = samples;
        (self.total_size_mb, self.total_size_gb) = (total_mb, total_mb / 1024.0);
        self.average_sample_size_mb = total_mb / samples.max(1) as f64;
    }

    /// The file's content.
    pub fn render(&self) -> Vec<u8> {
        // Plain structs of strings and finite numbers: neither can fail to serialise.
        let mut json = serde_json::to_vec_pretty(self).expect("the manifest serialises");
        json.push(b'\n');
        json
    }
}

/// The manifest of a whole plan; `sha256` gives a shard's digest where it is known.
pub fn render<'a>(plan: &Plan, sha256: impl Fn(ShardId) -> Option<&'a str>) -> Vec<u8> {
    Manifest::new(plan, Part::WHOLE, |id| sha256(id).map(str::to_owned)).render()
}

/// That of a view of it, whose shards are no files.
pub fn render_view(plan: &Plan, view: View) -> Vec<u8> {
    let file = |_, size| File { size, plain_size: None, sha256: None };
    Manifest::of_view(plan, view, Part::WHOLE, file).render()
}

fn entry(plan: &Plan, id: ShardId, file: &impl Fn(ShardId, u64) -> File) -> Option<Shard> {
    let (_, number) = plan.view_of(id)?;
    let File { size, plain_size, sha256 } = file(id, plan.shard(id)?.layout.len());
    let entry = |sample: &crate::dataset::Sample| {
        let (source_size, crc) = sample.npz_size_and_crc();
        Sample {
            key: plan.key(sample),
            study_id: sample.study_id.clone(),
            source: sample.path.to_string_lossy().into_owned(),
            source_size,
            source_crc32: format!("{crc:08x}"),
        }
    };
    let samples: Vec<Sample> = plan.shard_samples(id).map(entry).collect();
    Some(Shard {
        name: Plan::shard_name(number),
        size,
        plain_size,
        sha256,
        plan_digest: plan.shard_digest(id).map(str::to_owned),
        payload_size: plan.shard_payload(id),
        sample_count: samples.len(),
        samples,
    })
}
