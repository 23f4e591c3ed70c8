//! `manifest.json`: what the shards hold. The same schema in the mount (digests null) and on disk.
//!
//! The first six fields are those that the CT-CLIP converter writes and its loader reads; sizes there are MiB and GiB
//! of payload. In a shuffled view's, each shard lists its samples in that view's order.

mod read;

use serde::{Serialize, Serializer};

use crate::codec::{BLOCK, CODEC, Codec, FILTER};
use crate::dataset::LeftOut;
use crate::members::Format;
use crate::plan::{Plan, ShardId, View};
use crate::record::Finished;
use crate::volume::Kind;

pub use read::{Manifest, Sample as ReadSample, Shard as ReadShard, read};

/// The manifest's file name.
pub const NAME: &str = "manifest.json";
/// Raised when a field changes its meaning.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    num_shards: usize,
    samples_per_shard: u32,
    total_samples: usize,
    total_size_mb: f64,
    total_size_gb: f64,
    average_sample_size_mb: f64,
    schema_version: u32,
    tool: &'static str,
    plan_digest: &'a str,
    format: Format,
    volume_kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<Compression>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shuffle: Option<Shuffle>,
    label_names: &'a [String],
    left_out: &'a [LeftOut],
    unmatched: Vec<Unmatched<'a>>,
    shards: Vec<Shard<'a>>,
}

/// How the volumes of the shards are stored, where they are not plain.
#[derive(Serialize)]
struct Compression {
    codec: &'static str,
    level: i32,
    filter: &'static str,
    block_bytes: usize,
}

/// What determines the order of a shuffled view; its samples keep the keys that they have in the plain shards.
#[derive(Serialize)]
struct Shuffle {
    seed: u64,
    epoch: u32,
}

#[derive(Serialize)]
struct Unmatched<'a> {
    study_id: &'a str,
    not_in: &'a str,
}

#[derive(Serialize)]
struct Shard<'a> {
    name: String,
    size: u64,
    /// Of the plain shard, where this one is compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    plain_size: Option<u64>,
    sha256: Option<&'a str>,
    sample_count: usize,
    samples: Samples<'a>,
}

/// The samples of a shard, each made when it is written: all entries of 47,149 samples would take 20 MB.
struct Samples<'a> {
    plan: &'a Plan,
    id: ShardId,
}

#[derive(Serialize)]
struct Sample<'a> {
    key: String,
    study_id: &'a str,
    source: String,
    source_size: u64,
    source_crc32: String,
}

/// The manifest of a plan's plain shards; `sha256` gives a shard's digest where it is known.
pub fn render<'a>(plan: &'a Plan, sha256: impl Fn(ShardId) -> Option<&'a str>) -> Vec<u8> {
    render_view(plan, View::Plain, sha256)
}

/// The same for any view of it.
pub fn render_view<'a>(plan: &'a Plan, view: View, sha256: impl Fn(ShardId) -> Option<&'a str>) -> Vec<u8> {
    render_all(plan, view, None, |id, plain_size| (plain_size, None, sha256(id)))
}

/// The manifest of compressed shards; `file` gives what is known of each. The sizes of payload are those of the plain
/// shards.
pub fn render_compressed<'a>(plan: &'a Plan, codec: Codec, file: impl Fn(ShardId) -> Option<&'a Finished>) -> Vec<u8> {
    let compression = Compression { codec: CODEC, level: codec.level, filter: FILTER, block_bytes: BLOCK };
    render_all(plan, View::Plain, Some(compression), |id, plain_size| match file(id) {
        Some(file) => (file.size, Some(plain_size), Some(&file.sha256)),
        None => (0, Some(plain_size), None),
    })
}

/// `file` gives the size of a shard's file, that of the plain shard if the file is another, and its digest.
fn render_all<'a>(
    plan: &'a Plan,
    view: View,
    compression: Option<Compression>,
    file: impl Fn(ShardId, u64) -> (u64, Option<u64>, Option<&'a str>),
) -> Vec<u8> {
    const MIB: f64 = 1024.0 * 1024.0;
    let samples = plan.dataset.samples.len();
    let shards = plan.view(view).into_iter().flatten();
    let shards: Vec<Shard<'a>> = shards.filter_map(|id| shard_entry(plan, id, &file)).collect();
    let shuffle = match (view, plan.shuffle_seed()) {
        (View::Epoch(epoch), Some(seed)) => Some(Shuffle { seed, epoch }),
        _ => None,
    };
    let total_mb = plan.payload_bytes as f64 / MIB;
    let manifest = Written {
        num_shards: shards.len(),
        samples_per_shard: plan.options.samples_per_shard,
        total_samples: samples,
        total_size_mb: total_mb,
        total_size_gb: total_mb / 1024.0,
        average_sample_size_mb: total_mb / samples.max(1) as f64,
        schema_version: SCHEMA_VERSION,
        tool: concat!("ctwds-fs ", env!("CARGO_PKG_VERSION")),
        plan_digest: &plan.digest,
        format: plan.options.format,
        volume_kind: plan.kind(),
        compression,
        shuffle,
        label_names: &plan.dataset.label_names,
        left_out: &plan.dataset.left_out,
        unmatched: plan.dataset.unmatched.iter().map(|(study_id, not_in)| Unmatched { study_id, not_in }).collect(),
        shards,
    };
    // Plain structs of strings and finite numbers: neither can fail to serialise.
    let mut json = serde_json::to_vec_pretty(&manifest).expect("the manifest serialises");
    json.push(b'\n');
    json
}

fn shard_entry<'a>(
    plan: &'a Plan,
    id: ShardId,
    file: &impl Fn(ShardId, u64) -> (u64, Option<u64>, Option<&'a str>),
) -> Option<Shard<'a>> {
    let (_, number) = plan.view_of(id)?;
    let (size, plain_size, sha256) = file(id, plan.shard(id)?.layout.len());
    let (sample_count, samples) = (plan.samples(id).len(), Samples { plan, id });
    Some(Shard { name: Plan::shard_name(number), size, plain_size, sha256, sample_count, samples })
}

impl Serialize for Samples<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.plan.shard_samples(self.id).map(|sample| sample_entry(self.plan, sample)))
    }
}

fn sample_entry<'a>(plan: &Plan, sample: &'a crate::dataset::Sample) -> Sample<'a> {
    let (source_size, crc) = sample.npz_size_and_crc();
    Sample {
        key: plan.key(sample),
        study_id: &sample.study_id,
        source: sample.path.to_string_lossy().into_owned(),
        source_size,
        source_crc32: format!("{crc:08x}"),
    }
}
