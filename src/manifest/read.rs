//! The manifest of a folder of shards, read.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::{NAME, SCHEMA_VERSION};
use crate::dataset::LeftOut;
use crate::error::{Error, Result};
use crate::members::Format;
use crate::volume::Kind;

/// What a manifest says, as far as shards can be served by it.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    schema_version: u32,
    /// Slots of a shard.
    pub samples_per_shard: u32,
    /// The plan that the shards are made by.
    pub plan_digest: String,
    /// The members' names.
    pub format: Format,
    /// The kind of all volumes.
    pub volume_kind: Kind,
    /// Names of the classes.
    pub label_names: Vec<String>,
    /// Volumes whose slots are empty.
    pub left_out: Vec<LeftOut>,
    /// Volumes that the tables do not know.
    pub unmatched: Vec<Unmatched>,
    /// By number.
    pub shards: Vec<Shard>,
}

/// A volume that some table does not know.
#[derive(Debug, Deserialize)]
pub struct Unmatched {
    /// The file's stem.
    pub study_id: String,
    /// The tables.
    pub not_in: String,
}

/// A shard.
#[derive(Debug, Deserialize)]
pub struct Shard {
    /// The file's name.
    pub name: String,
    /// The file's bytes.
    pub size: u64,
    /// Bytes of the plain shard, where the file is compressed.
    pub plain_size: Option<u64>,
    /// Of the file; absent in the manifest of a mount.
    pub sha256: Option<String>,
    /// In order.
    pub samples: Vec<Sample>,
}

/// A sample.
#[derive(Debug, Deserialize)]
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

/// The manifest in a folder of shards.
///
/// # Errors
/// [`Error::Refused`] if there is none, [`Error::Io`] if it cannot be read, [`Error::Malformed`] if it is no manifest of
/// this version.
pub fn read(folder: &Path) -> Result<Manifest> {
    let path = folder.join(NAME);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Refused(format!(
            "{}: no {NAME} here; it is written last, so the folder is another one, or not finished: run the same \
             materialize again to finish it",
            folder.display()
        )),
        _ => Error::io(&path, "read the manifest", error),
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| Error::malformed(&path, format!("not a manifest of ctwds-fs: {error}")))?;
    if manifest.schema_version != SCHEMA_VERSION {
        let reason = format!("a manifest of version {}; this program knows {SCHEMA_VERSION}", manifest.schema_version);
        return Err(Error::malformed(&path, reason));
    }
    Ok(manifest)
}
