//! The shards that `materialize` has finished in a folder. They are found by the journals there, and used while it goes
//! on.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::base::file_id::FileId;
use crate::base::files;
use crate::base::lock::lock;
use crate::error::{Error, Result};
use crate::output::journal::{self, Journals};
use crate::output::source_times;
use crate::plan::{Plan, ShardId};
use crate::shard::ShardFiles;

/// The finished shards of a folder, by its journals (one for each part), which are read again when one has changed.
pub(super) struct FinishedShards {
    folder: PathBuf,
    /// For each shard of the plan, the digest of what it is made of.
    digests: Vec<String>,
    /// For each shard of the plan, the times of its sources without a checksum.
    times: Vec<Option<String>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The stamp of each journal when it was read.
    stamps: Option<Vec<Stamp>>,
    /// The size in bytes of each finished shard.
    sizes: HashMap<ShardId, u64>,
}

/// The attributes by which a changed journal is noticed.
#[derive(PartialEq)]
struct Stamp {
    path: PathBuf,
    file_id: FileId,
}

impl FinishedShards {
    /// Reads which shards of `plan` are finished in `folder`, which may not be there yet.
    ///
    /// # Errors
    /// [`Error::Refused`] if the folder holds compressed shards, or shards and none of this plan;
    /// [`Error::Io`] if it cannot be read.
    pub(super) fn open(folder: &Path, plan: &Plan) -> Result<Self> {
        let folder = std::path::absolute(folder).map_err(|error| Error::io(folder, "resolve the path", error))?;
        let digests: Vec<String> = (0..).map_while(|id| plan.shard_digest(id).map(str::to_owned)).collect();
        let times = (0..).zip(&digests).map(|(id, _)| source_times::of_shard(plan, id)).collect();
        let finished = Self { folder, digests, times, state: Mutex::default() };
        let journals = Journals::read(&finished.folder)?;
        if journals.codec().is_some() {
            return Err(Error::Refused(format!(
                "--materialized {}: the folder holds compressed shards, and a mount shows plain ones; mount --shards \
                 serves them",
                finished.folder.display()
            )));
        }
        if journals.all_finished().next().is_some() && finished.sizes(&journals).is_empty() {
            return Err(Error::Refused(format!(
                "--materialized {}: the folder holds shards of another plan (other volumes, tables or options); \
                 give the options that it was made with, or another folder",
                finished.folder.display()
            )));
        }
        Ok(finished)
    }

    /// The recorded shards that are of this plan: whole, or without samples that could not be made.
    fn sizes(&self, journals: &Journals) -> HashMap<ShardId, u64> {
        if journals.codec().is_some() {
            return HashMap::new();
        }
        let is_of_plan = |id: ShardId, found: &journal::FinishedShard| {
            let times = self.times.get(id as usize).and_then(Option::as_deref);
            self.digests.get(id as usize).is_some_and(|digest| found.is_of(digest)) && found.has_times(times)
        };
        journals
            .all_finished()
            .filter(|(id, found)| is_of_plan(*id, found))
            .map(|(id, found)| (id, found.size))
            .collect()
    }

    /// The size of a finished shard in bytes, by the journals as they were last read.
    pub(super) fn recorded(&self, id: ShardId) -> Option<u64> {
        lock(&self.state).sizes.get(&id).copied()
    }

    /// The path of a shard's file, which may not be there.
    pub(super) fn path(&self, id: ShardId) -> PathBuf {
        self.folder.join(Plan::shard_name(id))
    }

    /// The file of a shard and its size in bytes; `None` if the shard was not finished when the journals were last
    /// read, or if the file has another size.
    pub(super) fn file(&self, id: ShardId) -> Option<(File, u64)> {
        let size = self.recorded(id)?;
        let file = files::open_now(&self.path(id)).ok()?;
        let metadata = file.metadata().ok()?;
        (metadata.is_file() && metadata.len() == size).then_some((file, size))
    }

    /// Reads the journals again if one has changed. A journal that cannot be read now is read by a later call.
    pub(super) fn refresh(&self) {
        let stamps = self.stamps();
        if stamps.is_some() && lock(&self.state).stamps == stamps {
            return;
        }
        let sizes = match Journals::read(&self.folder) {
            Ok(journals) => self.sizes(&journals),
            Err(error) => return log::warn!("{error}; the shards in it are made from the NPZ files meanwhile"),
        };
        *lock(&self.state) = State { stamps, sizes };
    }

    fn stamps(&self) -> Option<Vec<Stamp>> {
        let stamp = |path: PathBuf| {
            let found = fs::metadata(&path).ok()?;
            Some(Stamp { path, file_id: FileId::of(&found) })
        };
        journal::paths(&self.folder).ok()?.into_iter().map(|(_, path)| stamp(path)).collect()
    }
}

/// The shards of shuffled views take their volumes from these files.
impl ShardFiles for Arc<FinishedShards> {
    fn has(&self, shard: ShardId, size: u64) -> bool {
        self.recorded(shard) == Some(size)
    }

    fn find(&self, shard: ShardId, size: u64) -> Option<(PathBuf, FileId)> {
        let path = self.path(shard);
        let metadata = fs::metadata(&path).ok().filter(|found| found.is_file() && found.len() == size)?;
        Some((path, FileId::of(&metadata)))
    }
}
