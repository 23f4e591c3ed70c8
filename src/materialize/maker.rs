//! Making the bytes of one shard, plain or compressed, and finding out which samples fail.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};

use super::bad_samples::ShardFailure;
use super::blocks::BlockPool;
use super::compress::{self, CompressTask};
use super::control::Control;
use super::fill::BlockFiller;
use super::hash_pair::{WorkerLane, WriterMessage};
use super::plain::{self, PlainEvent};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::codec::Method;
use crate::plan::ShardId;
use crate::plan::layout::Content;
use crate::shard::{Cursor, ShardSet};

/// Bytes that are read at a time where samples are tried again.
const READ: usize = 4 << 20;

/// A worker's means to make one shard after the other.
pub(super) struct ShardMaker<'a> {
    /// The shards.
    pub(super) set: &'a ShardSet,
    /// Path of the output folder, for messages.
    pub(super) folder: &'a Path,
    /// Blocks for the shards' bytes.
    pub(super) pool: Arc<BlockPool>,
    /// The worker's lane among those that hash.
    pub(super) lane: WorkerLane,
    /// The filters, and the way to the threads that compress; `None` for plain shards.
    pub(super) packing: Option<(Method, Sender<CompressTask>)>,
    /// Stops the work, and gets its progress.
    pub(super) control: Control<'a>,
}

/// How making a shard ended.
enum Made {
    /// All bytes are in blocks.
    Complete(BlockFiller),
    /// The run is to stop, or the writing thread has given up and has the reason.
    GivenUp,
    /// Bytes could not be made.
    Failed(Vec<ShardFailure>),
}

impl ShardMaker<'_> {
    /// Makes one shard's bytes; `writer` is the way to the thread that writes them. Returns why the shard failed:
    /// nothing if it is complete, if the run is to stop, or if the writing thread has given up and has the reason.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no memory.
    pub(super) fn make(&self, id: ShardId, writer: SyncSender<WriterMessage>) -> Result<Vec<ShardFailure>> {
        let no_memory = |error| Error::io(self.folder, "get memory to write", error);
        let filler = BlockFiller::new(self.pool.clone(), self.lane.begin(writer)).map_err(no_memory)?;
        let cursor = Arc::new(self.set.cursor(id));
        let made = match &self.packing {
            Some((method, tasks)) => self.make_compressed(&cursor, filler, (*method, tasks)),
            None => self.make_plain(&cursor, filler),
        };
        match made.map_err(no_memory)? {
            Made::Complete(filler) => {
                filler.finish();
                Ok(Vec::new())
            }
            Made::GivenUp => Ok(Vec::new()),
            Made::Failed(failures) => Ok(failures),
        }
    }

    fn make_plain(&self, cursor: &Arc<Cursor>, filler: BlockFiller) -> io::Result<Made> {
        for event in plain::begin(self.set.clone(), cursor.clone(), filler) {
            match event {
                PlainEvent::Progress(_) if self.control.is_stopped() => return Ok(Made::GivenUp),
                PlainEvent::Progress(bytes) => self.control.observer.wrote(bytes as u64),
                PlainEvent::Complete(filler) => return Ok(Made::Complete(filler)),
                PlainEvent::GivenUp => return Ok(Made::GivenUp),
                PlainEvent::NoMemory(error) => return Err(error),
                PlainEvent::Failed { offset, error } => return Ok(Made::Failed(self.failures(cursor, offset, error))),
            }
        }
        let error = Error::Internal("the shard was dropped while it was made".into());
        Ok(Made::Failed(vec![ShardFailure { shard: cursor.shard(), sample: None, error }]))
    }

    fn make_compressed(
        &self,
        cursor: &Arc<Cursor>,
        mut filler: BlockFiller,
        packing: (Method, &Sender<CompressTask>),
    ) -> io::Result<Made> {
        let mut failed = None;
        let read = |offset, len| {
            if self.control.is_stopped() {
                return None;
            }
            match self.set.read_with(cursor, offset, len) {
                Ok(bytes) => {
                    self.control.observer.wrote(bytes.len() as u64);
                    Some(bytes)
                }
                Err(error) => {
                    failed = Some((offset, error));
                    None
                }
            }
        };
        let shard = (self.set.plan(), cursor.shard());
        let is_complete = compress::shard(shard, packing, read, |bytes| filler.write(bytes))?;
        Ok(match failed {
            Some((offset, error)) => {
                drop(filler); // its lane is free while the samples are tried
                Made::Failed(self.failures(cursor, offset, error))
            }
            None if is_complete => Made::Complete(filler),
            None => Made::GivenUp,
        })
    }

    /// All samples that fail in a shard of which reading from `offset` on failed with `error`: one run is to find all
    /// of them. If no sample fails when it is read on its own, the storage had failed, and the shard has one failure
    /// without a sample.
    fn failures(&self, cursor: &Arc<Cursor>, offset: u64, error: Error) -> Vec<ShardFailure> {
        let (plan, shard) = (self.set.plan(), cursor.shard());
        let mut failures = Vec::new();
        for (extent, _) in plan.locate(shard, 0, u64::MAX) {
            let (Content::Payload(member), end) = (extent.content, extent.start + extent.len) else { continue };
            if !member.member.has_voxels() || end <= offset {
                continue;
            }
            let mut at = extent.start;
            while at < end && !self.control.is_stopped() {
                match self.set.read_with(cursor, at, READ.min(to_usize(end - at))) {
                    Ok(bytes) => at += bytes.len() as u64,
                    Err(error) => {
                        let sample = Some(plan.sample_index(shard, member));
                        failures.push(ShardFailure { shard, sample, error });
                        break;
                    }
                }
            }
        }
        if failures.is_empty() {
            failures.push(ShardFailure { shard, sample: None, error });
        }
        failures
    }
}
