//! Volumes that are copied from finished shard files instead of being made again.
//!
//! Only files of plain shards count, of exactly the planned size. A volume whose copy cannot be read, or whose file is
//! gone, is made from its source; a copy that could not be read is not tried again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::base::file_id::FileId;
use crate::base::lock::lock;
use crate::base::num::to_usize;
use crate::cache::Key;
use crate::error::Result;
use crate::plan::layout::Content;
use crate::plan::{Plan, ShardId};
use crate::storage::Files;
use crate::volume::{Filled, ShardVolume, Sink, Storage, VolumeMember};

/// The finished files of plain shards, as whoever serves a plan knows them.
pub trait ShardFiles: Send + Sync {
    /// Whether the file of a shard is finished and has `size` bytes, as far as that is known without asking a disk.
    fn has(&self, shard: ShardId, size: u64) -> bool;
    /// The path and the identity of a shard's file, if the file is there and has `size` bytes. May wait for a disk.
    fn find(&self, shard: ShardId, size: u64) -> Option<(PathBuf, FileId)>;
}

/// The copies of volumes in finished shard files.
#[derive(Default)]
pub(super) struct Copies {
    /// Where finished files are; empty until somebody says so.
    files: OnceLock<Box<dyn ShardFiles>>,
    /// The number of fills from files, those under way included.
    pub(super) fills: AtomicU64,
    /// Volumes whose copies could not be read.
    unreadable: Mutex<HashSet<Key>>,
}

impl Copies {
    /// Says where finished files are. Only the first call counts.
    pub(super) fn set(&self, files: Box<dyn ShardFiles>) {
        let _ = self.files.set(files);
    }

    /// Whether a volume has a copy, as far as that is known. Never waits.
    pub(super) fn has(&self, plan: &Plan, key: Key) -> bool {
        let Some(files) = self.files.get() else { return false };
        let shard = plan.shard_of(plan.volume_numbered(to_usize(key.into())).0);
        plan.shard(shard).is_some_and(|planned| files.has(shard, planned.layout.len()))
            && !lock(&self.unreadable).contains(&key)
    }

    /// Fills a volume from its copy. Nothing is handed on before the whole copy was read, so that the volume can still
    /// be made from its source, whatever fails. `None` if it must be: there is no copy that can be read.
    pub(super) fn fill(&self, plan: &Plan, key: Key, sink: &mut impl Sink) -> Option<Filled> {
        let (path, member) = self.find(plan, key)?;
        self.fills.fetch_add(1, Ordering::Relaxed);
        let mut withheld = Withheld { sink, len: 0 };
        let filled = ShardVolume { store: &Files, path, member: &member }.fill(&mut withheld);
        let len = withheld.len;
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

    /// Reads the bytes of a volume from `offset` on that fill `out` from the copy; `None` if there is no copy that can
    /// be read.
    pub(super) fn peek(&self, plan: &Plan, key: Key, offset: u64, out: &mut [u8]) -> Option<()> {
        let (path, member) = self.find(plan, key)?;
        self.if_readable(key, ShardVolume { store: &Files, path, member: &member }.peek(offset, out))
    }

    /// The result of reading a copy; `None` after an error, which is logged and not tried again.
    fn if_readable<T>(&self, key: Key, result: Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                if lock(&self.unreadable).insert(key) {
                    log::warn!("{error}; the volume is made from its source instead");
                }
            })
            .ok()
    }

    /// The path of the file that holds a volume's copy, and the place of the voxels in that file.
    fn find(&self, plan: &Plan, key: Key) -> Option<(PathBuf, VolumeMember)> {
        if !self.has(plan, key) {
            return None;
        }
        let (index, member) = plan.volume_numbered(to_usize(key.into()));
        let id = plan.shard_of(index);
        let shard = plan.shard(id)?;
        let (path, file_id) = self.files.get()?.find(id, shard.layout.len())?;
        let start = shard.layout.sample_starts().get(index.checked_sub(shard.samples.start)?)?;
        let is_payload = |content| matches!(content, Content::Payload(id) if id.member == member);
        let payload = plan.locate(id, *start, u64::MAX).find(|(extent, _)| is_payload(extent.content))?.0;
        let len = plan.volume(&plan.dataset.samples[index], member).byte_len();
        let member = VolumeMember {
            file: path.clone(),
            file_id,
            // The bytes before the voxels in the member are not part of the volume.
            offset: payload.start + payload.len - len,
            len,
            storage: Storage::Plain,
        };
        Some((path, member))
    }
}

/// A sink that takes bytes and hands none on.
struct Withheld<'a, S> {
    sink: &'a mut S,
    /// The number of bytes that were taken.
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
