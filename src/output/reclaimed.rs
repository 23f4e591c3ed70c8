//! The journal of NPZ files that were removed because the shards of a folder hold their volumes: a line before each
//! removal and one after it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::STATUS_DIR;
use crate::error::{Error, Result};
use crate::plan::{Plan, SampleDigest, ShardId};

const NAME: &str = "reclaim.jsonl";

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// An NPZ is about to be removed. If it is gone later, this is why.
    Removing(Removing),
    /// It is removed, and its folder's entries are durable.
    Removed {
        /// Its study.
        study_id: String,
    },
}

/// What is known of an NPZ, for people and for the digest of its shard.
#[derive(Serialize, Deserialize)]
pub struct Removing {
    /// Its study.
    pub study_id: String,
    /// The file, relative to the data folder.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// CRC-32 of its array, in hexadecimal.
    pub crc32: String,
    /// The file of the shard that holds its volume.
    pub shard: String,
    /// SHA-256 of that file, in hexadecimal.
    pub shard_sha256: String,
    /// What the sample adds to the digest of that shard.
    pub sample_digest: SampleDigest,
}

/// Where the journal of a folder of shards is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(STATUS_DIR).join(NAME)
}

/// The files that were removed, or about to be; none if there is no journal. Lines that a crash cut short are passed over.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn read(folder: &Path) -> Result<Vec<Removing>> {
    let path = path(folder);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(&path, "read the journal of removed NPZ files", error)),
    };
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let removing = |line| match line {
        Line::Removing(removing) => Some(removing),
        Line::Removed { .. } => None,
    };
    Ok(lines.filter_map(removing).collect())
}

/// Refuses to make shards again without volumes whose NPZ files were removed: there is no other copy of them.
///
/// # Errors
/// [`Error::Refused`] if one of `shards` is there and holds such a volume which `plan` does not have in it;
/// [`Error::Io`] as [`read`].
pub fn refuse_to_lose(folder: &Path, plan: &Plan, shards: &[ShardId]) -> Result<()> {
    for Removing { study_id, shard, .. } in read(folder)? {
        let Some(id) = Plan::shard_named(&shard).filter(|id| shards.contains(id)) else { continue };
        let is_planned = (id as usize) < plan.shards.len() && plan.shard_samples(id).any(|s| s.study_id == study_id);
        if !is_planned && folder.join(&shard).exists() {
            return Err(Error::Refused(format!(
                "{}: {shard} would be made again without {study_id}, whose NPZ file reclaim has removed: this shard is \
                 all that is left of it; choose another output folder",
                folder.display()
            )));
        }
    }
    Ok(())
}
