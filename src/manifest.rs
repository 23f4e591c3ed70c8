//! `manifest.json`: what the shards hold. The same schema in the mount (digests null) and on disk.
//!
//! The first six fields are those that the CT-CLIP converter writes and its loader reads; sizes there are MiB and GiB
//! of payload. A part of a conversion writes the manifest of its own shards; all parts' together are the whole's.

mod merge;

use serde::{Deserialize, Serialize};

pub use merge::{Merged, merge};

use crate::dataset::LeftOut;
use crate::members::Format;
use crate::part::Part;
use crate::plan::{Plan, ShardId};
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
    samples_per_shard: u32,
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
    format: Format,
    volume_kind: Kind,
    label_names: Vec<String>,
    left_out: Vec<LeftOut>,
    unmatched: Vec<Unmatched>,
    /// By number.
    pub shards: Vec<Shard>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PartOf {
    index: u32,
    of: u32,
    /// Shards of all parts.
    num_shards: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unmatched {
    study_id: String,
    not_in: String,
}

/// One shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shard {
    /// The file's name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of the file, in hexadecimal; not known in a mount.
    pub sha256: Option<String>,
    /// The digest of all that determines its bytes.
    pub plan_digest: String,
    /// Bytes of its members.
    payload_size: u64,
    sample_count: usize,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sample {
    key: String,
    study_id: String,
    source: String,
    source_size: u64,
    source_crc32: String,
}

impl Manifest {
    /// The manifest of a part of a plan; `sha256` gives a shard's digest where it is known.
    pub fn new(plan: &Plan, part: Part, sha256: impl Fn(ShardId) -> Option<String>) -> Self {
        let per_shard = plan.options.samples_per_shard;
        let shards = (0..).zip(&plan.shards).filter(|(id, _)| part.has(*id));
        let left_out = plan.dataset.left_out.iter().filter(|left_out| part.has(left_out.slot / per_shard));
        let unmatched = plan.dataset.unmatched.iter().cloned();
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
            label_names: plan.dataset.label_names.clone(),
            left_out: left_out.cloned().collect(),
            unmatched: unmatched.map(|(study_id, not_in)| Unmatched { study_id, not_in }).collect(),
            shards: shards.map(|(id, shard)| entry(plan, id, shard, sha256(id))).collect(),
        };
        manifest.sum_up();
        manifest
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

fn entry(plan: &Plan, id: ShardId, shard: &crate::plan::Shard, sha256: Option<String>) -> Shard {
    let samples = &plan.dataset.samples[shard.samples.clone()];
    let entry = |sample: &crate::dataset::Sample| Sample {
        key: plan.key(sample),
        study_id: sample.study_id.clone(),
        source: sample.path.to_string_lossy().into_owned(),
        source_size: sample.array.fingerprint.size,
        source_crc32: format!("{:08x}", sample.array.member.crc),
    };
    Shard {
        name: Plan::shard_name(id),
        size: shard.layout.len(),
        sha256,
        plan_digest: shard.digest.clone(),
        payload_size: shard.layout.payload_len(),
        sample_count: samples.len(),
        samples: samples.iter().map(entry).collect(),
    }
}
