//! `manifest.json`: what the shards hold. A mount shows it with the schema that it has on disk; its digests are null.
//!
//! The first six fields are those that the CT-CLIP converter writes and its loader reads; sizes there are MiB and GiB
//! of payload. In the manifest of a shuffled view, each shard lists its samples in the order of the view. A part of a
//! conversion writes the manifest of its own shards; those of all parts are merged into the manifest of the whole.

mod merge;
mod read;

use serde::{Deserialize, Serialize};

pub use merge::{Merged, merge};
pub use read::{read, read_at, read_in};

use crate::dataset::{LeftOut, Sample, Selected};
use crate::formats::codec::{BLOCK, CODEC, Codec};
use crate::output::indexes::ListedShard;
use crate::output::journal::FinishedShard;
use crate::output::partition::Part;
use crate::plan::members::{Profile, volume_filter};
use crate::plan::values::ValueGroup;
use crate::plan::{Plan, ShardId, View};
use crate::volume::{Dialect, Kind, OutputDtype, VoxelFormat};

/// File name of the manifest.
pub const NAME: &str = "manifest.json";
/// Stem and extension of the manifest's file name, for [`Part::file_name`].
pub const FILE: (&str, &str) = ("manifest", "json");
/// Version of the schema; raised when a field changes its meaning.
const SCHEMA_VERSION: u32 = 2;

/// The content of a manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    num_shards: usize,
    /// Slots of each shard, empty ones included.
    pub samples_per_shard: u32,
    total_samples: usize,
    total_size_mb: f64,
    total_size_gb: f64,
    average_sample_size_mb: f64,
    schema_version: u32,
    tool: String,
    /// Digest of the plan that was asked for.
    pub plan_digest: String,
    /// The part whose shards these are; not there for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<PartEntry>,
    /// Format of the shards: the names of a sample's members.
    pub format: Profile,
    /// Extensions of the members of each sample, where these are not the usual four.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// Number of columns that each text is made of, where these are not the usual two.
    #[serde(default = "usual_text_columns", skip_serializing_if = "are_usual_text_columns")]
    pub text_columns: usize,
    /// Columns whose values stand in the samples' JSON behind its own fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_columns: Vec<String>,
    /// Kind of all volumes.
    pub volume_kind: Kind,
    /// Dtype of all volumes; not there for float16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume_dtype: Option<OutputDtype>,
    /// Values that became 0 and 255; there for uint8 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume_window: Option<[f64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compression: Option<CompressionEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shuffle: Option<ShuffleEntry>,
    /// What the values of the volumes show, and so what makes HU of them; not there in manifests of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_groups: Option<Vec<ValueGroup>>,
    /// Names of the classes, in the order of the labels.
    pub label_names: Vec<String>,
    /// The selection that the user asked for, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selected>,
    /// Samples whose slots are empty, with the reasons.
    pub left_out: Vec<LeftOut>,
    /// Volumes that have no row in some table.
    pub unmatched: Vec<UnmatchedEntry>,
    /// Shards in the order of their numbers.
    pub shards: Vec<ShardEntry>,
}

/// How the volumes of the shards are stored, where they are not plain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CompressionEntry {
    codec: String,
    level: i32,
    filter: String,
    block_bytes: usize,
}

/// What determines the order of a shuffled view. Samples keep the keys that they have in the plain shards.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ShuffleEntry {
    seed: u64,
    epoch: u32,
}

/// The part of a conversion that wrote the manifest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PartEntry {
    index: u32,
    of: u32,
    /// Number of shards of all parts.
    num_shards: usize,
}

/// A volume that has no row in some table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnmatchedEntry {
    /// Stem of the NPZ file's name.
    pub study_id: String,
    /// Names of the tables that lack the row.
    pub not_in: String,
}

/// A shard as the manifest lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShardEntry {
    /// File name.
    pub name: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// Size of the plain shard in bytes, where this one is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_size: Option<u64>,
    /// SHA-256 of the file, in hexadecimal; not known in a mount.
    pub sha256: Option<String>,
    /// Digest of all that determines the plain bytes; not there for a shard of a shuffled view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// Bytes of all members of the plain shard, without headers and padding.
    payload_size: u64,
    sample_count: usize,
    /// Samples in the order in which the shard holds them.
    pub samples: Vec<SampleEntry>,
}

/// A sample as the manifest lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SampleEntry {
    /// Name that the members of the sample share, without extensions.
    pub key: String,
    /// Study of the sample.
    pub study_id: String,
    /// Path of the NPZ or NPY, relative to the data folder.
    pub source: String,
    /// Size of the file in bytes.
    pub source_size: u64,
    /// CRC-32 of the array in the NPZ, in hexadecimal; empty for an NPY, which has none.
    pub source_crc32: String,
    /// Dialect of the array in the NPZ, or "unknown"; where it is native, the field is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dialect: Option<String>,
}

/// What is known of a shard's file.
struct ShardFileInfo {
    size: u64,
    plain_size: Option<u64>,
    sha256: Option<String>,
}

impl Manifest {
    /// The manifest of a part of a plan; `sha256` gives a shard's digest in hexadecimal where it is known.
    pub fn new(plan: &Plan, part: Part, sha256: impl Fn(ShardId) -> Option<String>) -> Self {
        let file = |id, size| ShardFileInfo { size, plain_size: None, sha256: sha256(id) };
        Self::of_view(plan, View::Plain, part, file)
    }

    /// The manifest of a part's compressed shards; `finished` gives what is recorded of each.
    pub fn compressed<'a>(
        plan: &Plan,
        part: Part,
        codec: Codec,
        finished: impl Fn(ShardId) -> Option<&'a FinishedShard>,
    ) -> Self {
        let file = |id, plain_size| {
            let finished = finished(id);
            ShardFileInfo {
                size: finished.map_or(0, |file| file.size),
                plain_size: Some(plain_size),
                sha256: finished.map(|file| file.sha256.clone()),
            }
        };
        let (name, level) = (CODEC.to_owned(), codec.level);
        let filter = volume_filter(codec.method, plan.voxel_format()).name().to_owned();
        let compression = Some(CompressionEntry { codec: name, level, filter, block_bytes: BLOCK });
        Self { compression, ..Self::of_view(plan, View::Plain, part, file) }
    }

    /// The manifest of a part of a view; `file` gives what is known of a shard's file, from the plain size in bytes.
    fn of_view(plan: &Plan, view: View, part: Part, file: impl Fn(ShardId, u64) -> ShardFileInfo) -> Self {
        let per_shard = plan.options.samples_per_shard;
        let shards = plan.view(view).into_iter().flatten().filter(|id| part.has(*id));
        let left_out = plan.dataset.left_out.iter().filter(|left_out| part.has(left_out.slot / per_shard));
        let unmatched = plan.dataset.unmatched.iter().cloned();
        let shuffle = match (view, plan.shuffle_seed()) {
            (View::Epoch(epoch), Some(seed)) => Some(ShuffleEntry { seed, epoch }),
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
            part: (part != Part::WHOLE).then(|| PartEntry {
                index: part.index(),
                of: part.of(),
                num_shards: plan.shards.len(),
            }),
            format: plan.options.format,
            members: (!plan.members.are_usual()).then(|| plan.members.extensions().map(str::to_owned).collect()),
            text_columns: plan.dataset.text_columns,
            extra_columns: plan.dataset.extra_columns.iter().map(|column| column.name.clone()).collect(),
            volume_kind: plan.kind(),
            volume_dtype: Some(plan.voxel_format().dtype()).filter(|dtype| *dtype != OutputDtype::Float16),
            volume_window: plan.voxel_format().window(),
            compression: None,
            shuffle,
            value_groups: value_groups(plan),
            label_names: plan.dataset.label_names.clone(),
            selection: plan.dataset.selected.clone(),
            left_out: left_out.cloned().collect(),
            unmatched: unmatched.map(|(study_id, not_in)| UnmatchedEntry { study_id, not_in }).collect(),
            shards: shards.filter_map(|id| shard_entry(plan, id, &file)).collect(),
        };
        manifest.sum_up();
        manifest
    }

    /// The shards, as indexes list them.
    pub fn listed(&self) -> Vec<ListedShard> {
        let listed = |shard: &ShardEntry| ListedShard {
            name: shard.name.clone(),
            samples: shard.samples.len(),
            bytes: shard.size,
        };
        self.shards.iter().map(listed).collect()
    }

    /// The format of the shards' voxels.
    ///
    /// # Errors
    /// The dtype and the window do not belong together.
    pub fn voxel_format(&self) -> Result<VoxelFormat, String> {
        let format = VoxelFormat::new(self.volume_dtype.unwrap_or_default(), self.volume_window);
        format.map_err(|_| "its volume_dtype and volume_window contradict each other".into())
    }

    /// Whether the shards' volumes are compressed.
    pub fn is_compressed(&self) -> bool {
        self.compression.is_some()
    }

    /// Computes the totals again from the shards.
    fn sum_up(&mut self) {
        const MIB: f64 = 1024.0 * 1024.0;
        let samples = self.shards.iter().map(|shard| shard.sample_count).sum::<usize>();
        let total_mb = self.shards.iter().map(|shard| shard.payload_size).sum::<u64>() as f64 / MIB;
        self.num_shards = self.shards.len();
        self.total_samples = samples;
        (self.total_size_mb, self.total_size_gb) = (total_mb, total_mb / 1024.0);
        self.average_sample_size_mb = total_mb / samples.max(1) as f64;
    }

    /// The content of the file, in JSON.
    pub fn render(&self) -> Vec<u8> {
        // Plain structs of strings and finite numbers: neither can fail to serialise.
        let mut json = serde_json::to_vec_pretty(self).expect("the manifest serialises");
        json.push(b'\n');
        json
    }
}

/// The content of the manifest of a whole plan; `sha256` gives a shard's digest in hexadecimal where it is known.
pub fn render<'a>(plan: &Plan, sha256: impl Fn(ShardId) -> Option<&'a str>) -> Vec<u8> {
    Manifest::new(plan, Part::WHOLE, |id| sha256(id).map(str::to_owned)).render()
}

/// The content of the manifest of a view, whose shards are no files.
pub fn render_view(plan: &Plan, view: View) -> Vec<u8> {
    let file = |_, size| ShardFileInfo { size, plain_size: None, sha256: None };
    Manifest::of_view(plan, view, Part::WHOLE, file).render()
}

/// What the values of a plan's volumes show. JSON has no NaN, and volumes without a slope are nothing that a reader
/// rescales.
fn value_groups(plan: &Plan) -> Option<Vec<ValueGroup>> {
    let mut groups = plan.values.clone()?;
    groups.retain(|group| group.rescale_slope.is_finite() && group.rescale_intercept.is_finite());
    Some(groups)
}

/// Findings and impressions: what each text is made of in manifests that do not say it.
fn usual_text_columns() -> usize {
    2
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands on a reference")]
fn are_usual_text_columns(columns: &usize) -> bool {
    *columns == usual_text_columns()
}

fn shard_entry(plan: &Plan, id: ShardId, file: &impl Fn(ShardId, u64) -> ShardFileInfo) -> Option<ShardEntry> {
    let (_, number) = plan.view_of(id)?;
    let ShardFileInfo { size, plain_size, sha256 } = file(id, plan.shard(id)?.layout.len());
    let samples: Vec<SampleEntry> = plan.shard_samples(id).map(|sample| sample_entry(plan, sample)).collect();
    Some(ShardEntry {
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

fn sample_entry(plan: &Plan, sample: &Sample) -> SampleEntry {
    let (source_size, crc) = sample.npz_size_and_crc();
    SampleEntry {
        key: plan.key(sample),
        study_id: sample.study_id.clone(),
        source: sample.path.to_string_lossy().into_owned(),
        source_size,
        source_crc32: crc.map_or_else(String::new, |crc| format!("{crc:08x}")),
        dialect: plan.values.as_ref().and_then(|_| dialect_name(sample.dialect())),
    }
}

/// The entry for a dialect; none for the one that most arrays have.
fn dialect_name(dialect: Option<Dialect>) -> Option<String> {
    match dialect {
        Some(Dialect::Native) => None,
        Some(Dialect::Hu) => Some("hu".into()),
        Some(Dialect::Normalized) => Some("normalized".into()),
        None => Some("unknown".into()),
    }
}

impl SampleEntry {
    /// The dialect of the array; `None` if it is not known. Only of a manifest that has [`Manifest::value_groups`].
    pub fn dialect(&self) -> Option<Dialect> {
        match self.dialect.as_deref() {
            None => Some(Dialect::Native),
            Some("hu") => Some(Dialect::Hu),
            Some("normalized") => Some(Dialect::Normalized),
            Some(_) => None,
        }
    }
}
