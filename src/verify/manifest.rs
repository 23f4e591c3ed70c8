//! What `manifest.json` says. Read leniently: the original converter writes six numbers, `ctwds-fs` more, and a later
//! version of it more still.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use super::finding::{Finding, Verdict};
use crate::error::{Error, Result};

pub(super) const NAME: &str = "manifest.json";

/// The manifest.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub num_shards: usize,
    pub samples_per_shard: u32,
    pub total_samples: usize,
    /// MiB of payload.
    pub total_size_mb: f64,
    pub total_size_gb: f64,
    pub average_sample_size_mb: f64,
    pub tool: Option<String>,
    pub plan_digest: Option<String>,
    pub label_names: Option<Vec<String>>,
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// None where only the converter's fields are there.
    pub shards: Option<Vec<Shard>>,
    /// Of a shuffled view.
    pub shuffle: Option<serde_json::Value>,
    #[serde(skip)]
    by_name: HashMap<String, usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LeftOut {
    pub study_id: String,
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Shard {
    pub name: String,
    pub size: u64,
    /// Of the plain shard, where this one is compressed.
    pub plain_size: Option<u64>,
    pub sha256: Option<String>,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sample {
    pub key: String,
    pub study_id: String,
    pub source_size: Option<u64>,
}

impl Manifest {
    pub(super) fn shard(&self, name: &str) -> Option<&Shard> {
        self.shards.as_ref()?.get(*self.by_name.get(name)?)
    }

    pub(super) fn sha256(&self, name: &str) -> Option<&str> {
        self.shard(name)?.sha256.as_deref()
    }

    /// Bytes of the sources, if the manifest has them.
    pub(super) fn npz_bytes(&self) -> Option<u64> {
        self.shards.as_ref()?.iter().flat_map(|shard| &shard.samples).map(|sample| sample.source_size).sum()
    }
}

/// The manifest, and what is wrong with it.
///
/// # Errors
/// The folder is not there.
pub(super) fn read(folder: &Path) -> Result<(Option<Manifest>, Vec<Finding>)> {
    fs::read_dir(folder).map_err(|error| Error::io(folder, "list the folder of shards", error))?;
    let bytes = match fs::read(folder.join(NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = "it is missing: materialize has not finished here (the same command goes on where it was), or \
                        the parts of a conversion have not been merged";
            return Ok((None, vec![Finding::new(Verdict::Incomplete, NAME, what)]));
        }
        Err(error) => {
            return Ok((None, vec![Finding::new(Verdict::Unchecked, NAME, format!("it cannot be read: {error}"))]));
        }
    };
    match serde_json::from_slice::<Manifest>(&bytes) {
        Ok(mut manifest) => {
            let names = manifest.shards.iter().flatten().enumerate();
            manifest.by_name = names.map(|(at, shard)| (shard.name.clone(), at)).collect();
            Ok((Some(manifest), Vec::new()))
        }
        Err(error) => {
            let what = format!("it is no manifest, or a damaged one: {error}");
            Ok((None, vec![Finding::damaged(NAME, what)]))
        }
    }
}
