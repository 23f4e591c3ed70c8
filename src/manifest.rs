//! `manifest.json`: what the shards hold. The same schema in the mount (digests null) and on disk.
//!
//! The first six fields are those that the CT-CLIP converter writes and its loader reads; sizes there are MiB and GiB
//! of payload.

use serde::Serialize;

use crate::dataset::{LeftOut, Selected};
use crate::members::Format;
use crate::plan::{Plan, ShardId};
use crate::volume::Kind;

/// The manifest's file name.
pub const NAME: &str = "manifest.json";
/// Raised when a field changes its meaning.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Manifest<'a> {
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
    label_names: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    selection: Option<&'a Selected>,
    left_out: &'a [LeftOut],
    unmatched: Vec<Unmatched<'a>>,
    shards: Vec<Shard<'a>>,
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
    sha256: Option<&'a str>,
    sample_count: usize,
    samples: Vec<Sample<'a>>,
}

#[derive(Serialize)]
struct Sample<'a> {
    key: String,
    study_id: &'a str,
    source: String,
    source_size: u64,
    source_crc32: String,
}

/// The manifest of a plan; `sha256` gives a shard's digest where it is known.
pub fn render<'a>(plan: &'a Plan, sha256: impl Fn(ShardId) -> Option<&'a str>) -> Vec<u8> {
    const MIB: f64 = 1024.0 * 1024.0;
    let samples = plan.dataset.samples.len();
    let total_mb = plan.payload_bytes as f64 / MIB;
    let manifest = Manifest {
        num_shards: plan.shards.len(),
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
        label_names: &plan.dataset.label_names,
        selection: plan.dataset.selected.as_ref(),
        left_out: &plan.dataset.left_out,
        unmatched: plan.dataset.unmatched.iter().map(|(study_id, not_in)| Unmatched { study_id, not_in }).collect(),
        shards: (0..).zip(&plan.shards).map(|(id, shard)| shard_entry(plan, id, shard, sha256(id))).collect(),
    };
    // Plain structs of strings and finite numbers: neither can fail to serialise.
    let mut json = serde_json::to_vec_pretty(&manifest).expect("the manifest serialises");
    json.push(b'\n');
    json
}

fn shard_entry<'a>(plan: &'a Plan, id: ShardId, shard: &crate::plan::Shard, sha256: Option<&'a str>) -> Shard<'a> {
    let samples = &plan.dataset.samples[shard.samples.clone()];
    let entry = |sample: &'a crate::dataset::Sample| Sample {
        key: plan.key(sample),
        study_id: &sample.study_id,
        source: sample.path.to_string_lossy().into_owned(),
        source_size: sample.array.fingerprint.size,
        source_crc32: format!("{:08x}", sample.array.member.crc),
    };
    Shard {
        name: Plan::shard_name(id),
        size: shard.layout.len(),
        sha256,
        sample_count: samples.len(),
        samples: samples.iter().map(entry).collect(),
    }
}
