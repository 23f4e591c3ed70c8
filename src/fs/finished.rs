//! Shards that `materialize` has finished in a folder: found by its record, used while it goes on.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::npz::Fingerprint;
use crate::plan::{Plan, ShardId};
use crate::record;
use crate::shard::Files;

/// The record of a folder, read again when it has grown.
pub(super) struct Finished {
    folder: PathBuf,
    plan_digest: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Inode, size and time of the record when it was read.
    stamp: Option<(u64, u64, i64, i64)>,
    sizes: HashMap<String, u64>,
}

impl Finished {
    /// The finished shards of `folder`, which may not be there yet.
    ///
    /// # Errors
    /// [`Error::Refused`] if the folder holds shards of another plan, [`Error::Io`] if it cannot be read.
    pub(super) fn open(folder: &Path, plan_digest: &str) -> Result<Self> {
        let folder = std::path::absolute(folder).map_err(|error| Error::io(folder, "resolve the path", error))?;
        let found = record::read(&folder)?;
        if found.as_ref().is_some_and(|found| found.codec.is_some()) {
            return Err(Error::Refused(format!(
                "--materialized {}: the folder holds compressed shards, and a mount shows plain ones; mount --shards \
                 serves them",
                folder.display()
            )));
        }
        if found.is_some_and(|found| found.plan_digest != plan_digest) {
            return Err(Error::Refused(format!(
                "--materialized {}: the folder holds shards of another plan (other volumes, tables or options); \
                 give the options that it was made with, or another folder",
                folder.display()
            )));
        }
        Ok(Self { folder, plan_digest: plan_digest.to_owned(), state: Mutex::default() })
    }

    /// The file of a shard and its size, if it was finished when the record was last read, and is whole.
    pub(super) fn file(&self, id: ShardId) -> Option<(File, u64)> {
        let size = self.recorded_size(id)?;
        let file = File::open(self.folder.join(Plan::shard_name(id))).ok()?;
        let metadata = file.metadata().ok()?;
        (metadata.is_file() && metadata.len() == size).then_some((file, size))
    }

    fn recorded_size(&self, id: ShardId) -> Option<u64> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner()).sizes.get(&Plan::shard_name(id)).copied()
    }

    /// Reads the record again if it has changed. A record that cannot be read now will be read later.
    pub(super) fn refresh(&self) {
        let path = record::path(&self.folder);
        let stamp = fs::metadata(&path).ok().map(|found| (found.ino(), found.len(), found.mtime(), found.mtime_nsec()));
        if self.state.lock().unwrap_or_else(|poison| poison.into_inner()).stamp == stamp {
            return;
        }
        let sizes = match record::read(&self.folder) {
            Ok(Some(found)) if found.plan_digest == self.plan_digest && found.codec.is_none() => {
                found.shards.into_iter().map(|shard| (shard.name, shard.size)).collect()
            }
            Ok(_) => HashMap::new(),
            Err(error) => return log::warn!("{error}; the shards in it are made from the NPZ files meanwhile"),
        };
        *self.state.lock().unwrap_or_else(|poison| poison.into_inner()) = State { stamp, sizes };
    }
}

/// The volumes of an epoch's shards are taken from the files.
impl Files for Arc<Finished> {
    fn has(&self, shard: ShardId, size: u64) -> bool {
        self.recorded_size(shard) == Some(size)
    }

    fn find(&self, shard: ShardId, size: u64) -> Option<(PathBuf, Fingerprint)> {
        let path = self.folder.join(Plan::shard_name(shard));
        let metadata = fs::metadata(&path).ok().filter(|found| found.is_file() && found.len() == size)?;
        Some((path, Fingerprint::of(&metadata)))
    }
}
