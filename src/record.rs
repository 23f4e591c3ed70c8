//! The record of an output folder: which shards of which plan are finished. Each line was durable before the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::error::{Error, Result};

/// The folder of what is about the shards and none of them; hidden, so that a glob of `*.tar` does not see it.
pub const STATUS_DIR: &str = ".ctwds";
/// One JSON line for the plan, then one for each finished shard.
const JOURNAL: &str = "journal.jsonl";

/// The first line.
#[derive(Serialize, Deserialize)]
pub struct Header {
    /// The digest of the plan that the shards belong to.
    pub plan_digest: String,
    /// How their volumes are compressed, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
}

/// A finished shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// The file's name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of the file, in hexadecimal.
    pub sha256: String,
}

/// What a record says.
#[derive(Debug)]
pub struct Record {
    /// The plan.
    pub plan_digest: String,
    /// How the volumes are compressed, if they are.
    pub codec: Option<Codec>,
    /// In the order in which they were finished; a shard that was made again stands there twice.
    pub shards: Vec<Finished>,
}

/// Where the record of an output folder is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(STATUS_DIR).join(JOURNAL)
}

/// The record of an output folder; `None` if there is none, or not even its first line is whole.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn read(folder: &Path) -> Result<Option<Record>> {
    let path = path(folder);
    match fs::read(&path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(&path, "read the record of finished shards", error)),
    }
}

/// Lines that a crash cut short are passed over.
pub fn parse(text: &[u8]) -> Option<Record> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let Header { plan_digest, codec } = serde_json::from_slice(lines.next()?).ok()?;
    let shards = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    Some(Record { plan_digest, codec, shards })
}
