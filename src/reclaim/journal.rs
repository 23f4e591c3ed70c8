//! What was removed: a line before each removal and one after it, each durable before what follows.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::materialize::{lock_folder, sync_folder};
use crate::part::Part;
use crate::plan::SampleDigest;
use crate::record::{STATUS_DIR, append};

const NAME: &str = "reclaim.jsonl";

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
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
pub(super) struct Removing {
    pub(super) study_id: String,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) crc32: String,
    pub(super) shard: String,
    pub(super) shard_sha256: String,
    pub(super) sample_digest: SampleDigest,
}

/// The journal of a folder of shards, which no other run that writes there can have at the same time.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    _lock: File,
}

impl Journal {
    /// Opens or creates it.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let lock = lock_folder(folder, Part::WHOLE)?;
        let path = path(folder);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(|error| Error::io(&path, "open the journal of removed NPZ files", error))?;
        sync_folder(&folder.join(STATUS_DIR))?;
        Ok(Self { path, file, _lock: lock })
    }

    /// Durable when it returns.
    pub(super) fn add(&mut self, line: Line) -> Result<()> {
        append(&mut self.file, &[line])
            .map_err(|error| Error::io(&self.path, "note the removal of an NPZ file (nothing more is removed)", error))
    }
}

/// The digests of the samples whose NPZ files were removed, by study; lines that a crash cut short are passed over.
pub(super) fn read(folder: &Path) -> Result<HashMap<String, SampleDigest>> {
    let path = path(folder);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(Error::io(&path, "read the journal of removed NPZ files", error)),
    };
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let removing = |line| match line {
        Line::Removing(removing) => Some((removing.study_id, removing.sample_digest)),
        Line::Removed { .. } => None,
    };
    Ok(lines.filter_map(removing).collect())
}

fn path(folder: &Path) -> PathBuf {
    folder.join(STATUS_DIR).join(NAME)
}
