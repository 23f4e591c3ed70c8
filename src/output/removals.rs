//! The removal journal: which NPZ files were removed because the shards of a folder hold their volumes. There is one
//! line before each removal and one after it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::STATUS_DIR;
use super::place::{Place, Sizes};
use crate::error::{Error, Result};
use crate::plan::{Plan, SampleDigest, ShardId};

/// File name of the removal journal.
pub const NAME: &str = "reclaim.jsonl";

/// A line of the removal journal, in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalLine {
    /// An NPZ is about to be removed. If it is gone later, this is why.
    Removing(RemovedNpz),
    /// An NPZ is removed, and the entries of its folder are durable.
    Removed {
        /// Study of the NPZ.
        study_id: String,
    },
}

/// What is known of a removed NPZ, for people and for the digest of its shard.
#[derive(Serialize, Deserialize)]
pub struct RemovedNpz {
    /// Study of the NPZ.
    pub study_id: String,
    /// Path of the file, relative to the data folder.
    pub path: PathBuf,
    /// Size of the file in bytes.
    pub size: u64,
    /// CRC-32 of the array, in hexadecimal; empty for an NPY file, which has none.
    pub crc32: String,
    /// File name of the shard that holds the volume.
    pub shard: String,
    /// SHA-256 of the shard's file, in hexadecimal.
    pub shard_sha256: String,
    /// What the sample adds to the digest of the shard.
    pub sample_digest: SampleDigest,
}

/// The path of the removal journal of a folder of shards, for messages.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(STATUS_DIR).join(NAME)
}

/// Reads which files were removed or about to be removed; none if there is no removal journal. Lines that a crash cut
/// short are passed over.
///
/// # Errors
/// [`Error::Io`] if the journal cannot be read.
pub fn read(folder: &Path) -> Result<Vec<RemovedNpz>> {
    read_in(&Place::on_disk(folder))
}

fn read_in(folder: &Place) -> Result<Vec<RemovedNpz>> {
    let below = Path::new(STATUS_DIR).join(NAME);
    let text = folder.read_if_there(&below, "read the journal of removed NPZ files")?.unwrap_or_default();
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let removed = |line| match line {
        RemovalLine::Removing(removed) => Some(removed),
        RemovalLine::Removed { .. } => None,
    };
    Ok(lines.filter_map(removed).collect())
}

/// Refuses to make shards again without volumes whose NPZ files were removed: there is no other copy of these volumes.
///
/// # Errors
/// [`Error::Refused`] if the file of one of `shards` is there and holds such a volume, and `plan` does not have the
/// volume in that shard; [`Error::Io`] if the removal journal cannot be read.
pub fn refuse_to_lose(folder: &Place, plan: &Plan, shards: &[ShardId]) -> Result<()> {
    let removed = read_in(folder)?;
    let sizes = if removed.is_empty() { Sizes::new() } else { folder.sizes()? };
    for RemovedNpz { study_id, shard, .. } in removed {
        let Some(id) = Plan::shard_named(&shard).filter(|id| shards.contains(id)) else { continue };
        let is_planned = (id as usize) < plan.shards.len() && plan.shard_samples(id).any(|s| s.study_id == study_id);
        if !is_planned && folder.size(&sizes, &shard)?.is_some() {
            return Err(Error::Refused(format!(
                "{}: {shard} would be made again without {study_id}, whose NPZ file reclaim has removed: this shard is \
                 all that is left of it; choose another output folder",
                folder.path().display()
            )));
        }
    }
    Ok(())
}
