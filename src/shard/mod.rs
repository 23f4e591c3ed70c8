//! The waist: every byte of every shard, for every caller, comes from one function, `start` in `shard/read.rs`.
//!
//! The bytes are a pure function of the plan: cache size, threads, read sizes and order never change one.
//!
//! | module | what it does |
//! |---|---|
//! | `read` | gathers the bytes of one read; the place to look for the origin of a byte |
//! | `peek` | decides which voxels are made without filling their volume |
//! | `volumes` | fills volumes for the cache |
//! | `copies` | finds volumes in finished shard files, to copy them |
//! | `kept` | finds volumes in the disk cache, and hands over to it those that were made |
//! | `cursor` | follows one reader, and says which volumes to fill ahead |
//! | `state` | what all readers share: the cache, the counters |

mod copies;
mod cursor;
mod kept;
mod peek;
mod read;
mod state;
mod volumes;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use bytes::Bytes;
use serde::Serialize;

pub use copies::ShardFiles;
pub use cursor::Cursor;
use read::{Done, Request};
use state::State;
pub use state::{Serving, Stats};

use crate::base::lock::lock;
use crate::cache::Key;
use crate::cache::disk::DiskCache;
use crate::error::{Error, Result};
use crate::plan::{Plan, ShardId};

/// The shards of a plan, readable at any offset. A clone serves from the same cache.
#[derive(Clone)]
pub struct ShardSet {
    state: Arc<State>,
}

/// A volume that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeError {
    /// The study of the volume.
    pub study_id: String,
    /// Why the volume could not be read; names the file.
    pub error: String,
}

impl ShardSet {
    /// Serves `plan`.
    ///
    /// # Errors
    /// [`Error::System`] if the operating system gives no thread.
    pub fn new(plan: impl Into<Arc<Plan>>, serving: Serving) -> Result<Self> {
        Ok(Self { state: Arc::new(State::new(plan.into(), serving)?) })
    }

    /// Serves another plan in the same way as this set, whose memory is given up first.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_plan(self, plan: Plan) -> Result<Self> {
        let serving = self.state.serving;
        drop(self);
        Self::new(plan, serving)
    }

    /// Refuses a plan with a volume that takes more memory beside itself, while it is made, than the limit for volumes:
    /// even alone it would exceed limit, volume and 32 MiB for each filling thread.
    ///
    /// # Errors
    /// [`Error::Refused`] with the study and the limit that `option` would have to set.
    pub fn check_memory(&self, option: &str) -> Result<()> {
        let limit = self.state.serving.cache_bytes;
        match self.state.volumes().largest_scratch() {
            Some((key, bytes)) if bytes > limit => {
                let sample = &self.plan().dataset.samples[self.state.volumes().sample(key)];
                Err(Error::Refused(format!(
                    "{}: making the volume of {study_id} takes {bytes} bytes beside it, as its planes are large, and \
                     {option} is {limit}: raise it to {bytes} or more, or leave the sample out with --exclude",
                    self.plan().dataset.root.join(&sample.path).display(),
                    study_id = sample.study_id
                )))
            }
            _ => Ok(()),
        }
    }

    /// Sets the number of volumes that are filled ahead of each reader from now on. Changes no byte.
    pub fn set_read_ahead(&self, volumes: usize) {
        self.state.read_ahead.store(volumes, Ordering::Relaxed);
    }

    /// The plan that is served.
    pub fn plan(&self) -> &Plan {
        self.state.plan()
    }

    /// The plan that is served, to keep beyond this set.
    pub fn shared_plan(&self) -> Arc<Plan> {
        self.state.volumes().plan.clone()
    }

    /// From now on copies volumes from these shard files where they are there. Changes no byte. Only the first call
    /// counts.
    pub fn use_copies(&self, files: Box<dyn ShardFiles>) {
        self.state.volumes().copies.set(files);
    }

    /// From now on takes volumes from this disk cache where they are there, and keeps there those that are made.
    /// Changes no byte. Only the first call counts.
    ///
    /// # Errors
    /// [`Error::System`] if the current folder, from which relative paths of the data set start, is not known.
    pub fn use_disk_cache(&self, cache: Arc<DiskCache>) -> Result<()> {
        cache.expect(self.state.volumes().total_len());
        self.state.volumes().kept.set(self.plan(), cache)
    }

    /// Says that the kernel keeps the bytes that it was given: a reader may finish a volume without asking for its
    /// rest. Changes no byte.
    pub fn kernel_keeps(&self) {
        self.state.cache.kernel_keeps();
    }

    /// The size of a shard in bytes; `None` if there is no such shard.
    pub fn len(&self, id: ShardId) -> Option<u64> {
        self.plan().shard(id).map(|shard| shard.layout.len())
    }

    /// A cursor for one reader of one shard. What is filled ahead and kept for the reader is decided by the cursor.
    pub fn cursor(&self, shard: ShardId) -> Cursor {
        Cursor::new(self.state.clone(), self.state.cursors.fetch_add(1, Ordering::Relaxed), shard)
    }

    /// Reads `len` bytes of a shard from `offset` on, fewer only at the end of the shard; waits for them.
    ///
    /// # Errors
    /// Why a volume could not be decoded; [`Error::NotFound`] if there is no such shard.
    pub fn read(&self, shard: ShardId, offset: u64, len: usize) -> Result<Bytes> {
        wait_for(|done| {
            read::start(self.state.clone(), Request { shard, offset, len, cursor: None, is_excerpt: false }, done)
        })
    }

    /// Reads as [`Self::read`] does, for a caller who wants no more of a volume: of compressed shards only the blocks
    /// are unpacked that hold these bytes. Where a volume can only be made from its beginning on, all of it is.
    ///
    /// # Errors
    /// As [`Self::read`]. The checksum of a whole NPZ array is not compared for a part of it.
    pub fn read_excerpt(&self, shard: ShardId, offset: u64, len: usize) -> Result<Bytes> {
        let request = Request { shard, offset, len, cursor: None, is_excerpt: true };
        wait_for(|done| read::start(self.state.clone(), request, done))
    }

    /// Reads as [`Self::read`] does, for a reader with a cursor, and waits.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_with(&self, cursor: &Arc<Cursor>, offset: u64, len: usize) -> Result<Bytes> {
        wait_for(|done| self.read_then(cursor, offset, len, done))
    }

    /// Reads as [`Self::read_with`] does, without waiting: `done` is called before this returns if the bytes are there,
    /// else on the thread that made them.
    pub fn read_then(
        &self,
        cursor: &Arc<Cursor>,
        offset: u64,
        len: usize,
        done: impl FnOnce(Result<Bytes>) + Send + 'static,
    ) {
        let request = Request { shard: cursor.shard(), offset, len, cursor: Some(cursor.clone()), is_excerpt: false };
        read::start(self.state.clone(), request, Box::new(done));
    }

    /// The volumes that could not be read so far, and why.
    pub fn errors(&self) -> Vec<VolumeError> {
        let volumes = self.state.volumes();
        let error = |(key, error): (&Key, &String)| VolumeError {
            study_id: volumes.study_id(*key).to_owned(),
            error: error.clone(),
        };
        lock(&volumes.failed).iter().map(error).collect()
    }

    /// A snapshot of what this set did so far.
    pub fn stats(&self) -> Stats {
        self.state.stats()
    }
}

/// Starts a read with a `done` that wakes this thread, and waits for it.
fn wait_for(start: impl FnOnce(Done)) -> Result<Bytes> {
    let (sender, receiver) = mpsc::sync_channel(1);
    start(Box::new(move |result| drop(sender.send(result))));
    receiver.recv().unwrap_or_else(|_| Err(Error::Internal("a read was dropped without an answer".into())))
}
