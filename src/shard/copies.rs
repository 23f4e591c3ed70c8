//! Volumes that stand in finished shard files already, byte for byte: read from there instead of being made again.
//!
//! Only the files of plain shards count, of exactly the planned size. A copy that cannot be read, or whose file is
//! gone, is made as if it had never been there, and not tried again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::base::file_id::FileId;
use crate::base::lock::lock;
use crate::base::num::to_usize;
use crate::cache::Key;
use crate::error::Result;
use crate::formats::tar;
use crate::plan::members::VOLUME;
use crate::plan::{Plan, ShardId};
use crate::volume::{Filled, ShardVolume, Sink, Storage, VolumeMember};

/// The finished files of plain shards.
pub trait Files: Send + Sync {
    /// Whether the file of a shard is finished and has this size, as far as that is known without asking a disk.
    fn has(&self, shard: ShardId, size: u64) -> bool;
    /// The file and its state, if it is there and has this size. May wait for a disk.
    fn find(&self, shard: ShardId, size: u64) -> Option<(PathBuf, FileId)>;
}

#[derive(Default)]
pub(super) struct Copies {
    files: OnceLock<Box<dyn Files>>,
    /// Fills from files, those under way included.
    pub(super) fills: AtomicU64,
    unreadable: Mutex<HashSet<Key>>,
}

impl Copies {
    pub(super) fn set(&self, files: Box<dyn Files>) {
        let _ = self.files.set(files); // the first stay
    }

    /// Whether there is a copy, as far as that is known. Never waits.
    pub(super) fn has(&self, plan: &Plan, key: Key) -> bool {
        let Some(files) = self.files.get() else { return false };
        let shard = plain_shard(plan, key);
        plan.shard(shard).is_some_and(|planned| files.has(shard, planned.layout.len()))
            && !lock(&self.unreadable).contains(&key)
    }

    /// Fills a volume from its copy. Nothing is handed on before all of it was read: whatever fails, the volume can be
    /// made from its source. `None` if it must.
    pub(super) fn fill(&self, plan: &Plan, key: Key, sink: &mut impl Sink) -> Option<Filled> {
        let (path, member) = self.find(plan, key)?;
        self.fills.fetch_add(1, Ordering::Relaxed);
        let mut whole = Withheld { sink, len: 0 };
        let filled = ShardVolume { path, member: &member }.fill(&mut whole);
        let len = whole.len;
        match self.if_readable(key, filled) {
            Some(Filled::Complete) => {
                sink.publish(len);
                Some(Filled::Complete)
            }
            Some(Filled::Cancelled) => Some(Filled::Cancelled),
            None => {
                self.fills.fetch_sub(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Reads a part of a copy; `None` if there is none that can be read.
    pub(super) fn peek(&self, plan: &Plan, key: Key, offset: u64, out: &mut [u8]) -> Option<()> {
        let (path, member) = self.find(plan, key)?;
        self.if_readable(key, ShardVolume { path, member: &member }.peek(offset, out))
    }

    fn if_readable<T>(&self, key: Key, result: Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                if lock(&self.unreadable).insert(key) {
                    log::warn!("{error}; the volume is made from its source instead");
                }
            })
            .ok()
    }

    /// The voxels of a volume in its plain shard.
    fn find(&self, plan: &Plan, key: Key) -> Option<(PathBuf, VolumeMember)> {
        if !self.has(plan, key) {
            return None;
        }
        let (id, index) = (plain_shard(plan, key), key as usize);
        let shard = plan.shard(id)?;
        let (path, file_id) = self.files.get()?.find(id, shard.layout.len())?;
        let start = shard.layout.sample_starts().get(index.checked_sub(shard.samples.start)?)?;
        let len = plan.volume(&plan.dataset.samples[index]).byte_len();
        // What stands before the voxels in the member is not part of the volume.
        let prefix = plan.member_sizes(index)[usize::from(VOLUME)] - len;
        let member = VolumeMember {
            file: path.clone(),
            file_id,
            offset: start + tar::BLOCK + prefix,
            len,
            storage: Storage::Plain,
        };
        Some((path, member))
    }
}

fn plain_shard(plan: &Plan, key: Key) -> ShardId {
    plan.dataset.samples[to_usize(key.into())].slot / plan.options.samples_per_shard
}

/// Takes bytes and hands none on.
struct Withheld<'a, S> {
    sink: &'a mut S,
    len: usize,
}

impl<S: Sink> Sink for Withheld<'_, S> {
    fn spare(&mut self) -> &mut [u8] {
        &mut self.sink.spare()[self.len..]
    }

    fn publish(&mut self, len: usize) {
        self.len += len;
    }

    fn cancelled(&mut self) -> bool {
        self.sink.cancelled()
    }
}
