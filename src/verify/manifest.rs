//! The manifest of a folder of shards. Unknown fields are ignored and most fields may be missing: the original
//! converter writes six numbers, `ctwds-fs` writes more, and a later version of `ctwds-fs` may write more still.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use super::finding::{Finding, Verdict};
use crate::storage::Store;

/// Name of the manifest in a folder of shards.
pub(super) const FILE_NAME: &str = "manifest.json";

/// The content of `manifest.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    /// Number of shards.
    pub num_shards: usize,
    /// Largest number of samples of a shard.
    pub samples_per_shard: u32,
    /// Number of samples in all shards.
    pub total_samples: usize,
    /// Payload of all members, in MiB.
    pub total_size_mb: f64,
    /// Payload of all members, in GiB.
    pub total_size_gb: f64,
    /// Payload of all members divided by the number of samples, in MiB.
    pub average_sample_size_mb: f64,
    /// Program that wrote the manifest, with its version.
    pub tool: Option<String>,
    /// Digest of the plan that the shards were made from.
    pub plan_digest: Option<String>,
    /// Dtype of all volumes; none for float16.
    pub volume_dtype: Option<String>,
    /// What makes HU of the values of each slope and intercept; none in manifests of version 0.1.
    pub value_groups: Option<Vec<ValueGroup>>,
    /// Names of the classes, in the order of the labels.
    pub label_names: Option<Vec<String>>,
    /// Extensions of the members of each sample; none for the four that most have.
    pub members: Option<Vec<String>>,
    /// Number of columns that each text is made of; none for findings and impressions.
    pub text_columns: Option<usize>,
    /// Columns of the tables whose values stand in the samples' JSON.
    #[serde(default)]
    pub extra_columns: Vec<String>,
    /// Samples of the data set that are in no shard.
    #[serde(default)]
    pub left_out: Vec<LeftOutEntry>,
    /// One entry a shard; none in a manifest of the original converter.
    pub shards: Option<Vec<ShardEntry>>,
    /// Seed and epoch of a shuffled view; none for shards in the order of the plan.
    pub shuffle: Option<serde_json::Value>,
    /// File name of a shard to its index in `shards`.
    #[serde(skip)]
    by_name: HashMap<String, usize>,
}

/// The volumes of one slope and intercept, as the manifest lists them.
#[derive(Debug, Deserialize)]
pub(super) struct ValueGroup {
    /// Slope of the metadata table.
    pub rescale_slope: f64,
    /// Intercept of the metadata table.
    pub rescale_intercept: f64,
    /// Number of volumes that were looked at; 0 where the user decided.
    pub looked_at: usize,
    /// What makes HU of the values, as the flag `--rescale` says it.
    pub rescale: String,
}

/// A sample that is left out, as the manifest lists it.
#[derive(Debug, Deserialize)]
pub(super) struct LeftOutEntry {
    /// Study id of the sample.
    pub study_id: String,
    /// Reason for people.
    #[serde(default)]
    pub reason: String,
}

/// A shard, as the manifest lists it.
#[derive(Debug, Deserialize)]
pub(super) struct ShardEntry {
    /// File name.
    pub name: String,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes that the shard would have if its volumes were plain; none where they are.
    pub plain_size: Option<u64>,
    /// SHA-256 of the file, in hexadecimal; none in the manifest of a mount.
    pub sha256: Option<String>,
    /// Samples in the order of the shard.
    pub samples: Vec<SampleEntry>,
}

/// A sample, as the manifest lists it.
#[derive(Debug, Deserialize)]
pub(super) struct SampleEntry {
    /// Key of the sample.
    pub key: String,
    /// Study id of the sample.
    pub study_id: String,
    /// Bytes of the sample's NPZ file.
    pub source_size: Option<u64>,
}

impl Manifest {
    /// The names of the arrays beside the volume, in the order of their members: what stands behind text and labels.
    pub(super) fn extras(&self) -> impl Iterator<Item = &str> {
        let fixed = 3 + usize::from(self.has_labels());
        let members = self.members.iter().flatten().skip(fixed);
        members.map(|member| member.strip_suffix(".npy").unwrap_or(member))
    }

    /// Whether samples have a member of labels.
    pub(super) fn has_labels(&self) -> bool {
        self.members.as_ref().is_none_or(|members| members.iter().any(|member| member.starts_with("labels")))
    }

    /// The entry of the shard whose file has this name.
    pub(super) fn shard(&self, name: &str) -> Option<&ShardEntry> {
        self.shards.as_ref()?.get(*self.by_name.get(name)?)
    }

    /// The SHA-256 of the shard whose file has this name, in hexadecimal.
    pub(super) fn sha256(&self, name: &str) -> Option<&str> {
        self.shard(name)?.sha256.as_deref()
    }

    /// Bytes of the NPZ files of all samples; none unless the manifest has the size of each.
    pub(super) fn npz_bytes(&self) -> Option<u64> {
        self.shards.as_ref()?.iter().flat_map(|shard| &shard.samples).map(|sample| sample.source_size).sum()
    }
}

/// Reads the manifest of a folder, and lists what is wrong with the file itself. No manifest is returned where it is
/// missing, cannot be read, or is damaged; a finding then says so.
pub(super) fn read(store: &dyn Store, folder: &Path) -> (Option<Manifest>, Vec<Finding>) {
    let bytes = match store.read(&folder.join(FILE_NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = "it is missing: materialize has not finished here (the same command goes on where it was), or \
                        the parts of a conversion have not been merged";
            return (None, vec![Finding::new(Verdict::Incomplete, FILE_NAME, what)]);
        }
        Err(error) => {
            return (None, vec![Finding::unread(FILE_NAME, "it cannot be read", error)]);
        }
    };
    match serde_json::from_slice::<Manifest>(&bytes) {
        Ok(mut manifest) => {
            let names = manifest.shards.iter().flatten().enumerate();
            manifest.by_name = names.map(|(index, shard)| (shard.name.clone(), index)).collect();
            (Some(manifest), Vec::new())
        }
        Err(error) => {
            let what = format!("it is no manifest, or a damaged one: {error}");
            (None, vec![Finding::damaged(FILE_NAME, what)])
        }
    }
}
