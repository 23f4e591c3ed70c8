//! The waist: every byte of every shard comes into being in [`ShardSet::read_then`], whoever asks.
//!
//! Layout × volume × cache. A pure function of the plan: cache size, threads, read sizes and order never change a byte.

mod copies;
mod cursor;
mod read;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::Serialize;

use copies::Copies;
pub use copies::Files;
pub use cursor::Cursor;

use crate::base::lock::lock;
use crate::base::num::to_usize;
use crate::cache::{self, Cache, FillFailure, Key};
use crate::error::{Error, Result};
use crate::plan::{Plan, ShardId};
use crate::volume::{Filled, Sink, Volume};

/// The shards of a plan, readable at any offset.
#[derive(Clone)]
pub struct ShardSet {
    inner: Arc<Inner>,
}

/// How shards are served; changes no byte.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// Memory for volumes, in bytes.
    pub cache_bytes: u64,
    /// Decoders.
    pub threads: usize,
    /// Volumes that are filled ahead of each reader who reads on, as far as the memory allows.
    pub read_ahead: usize,
    /// Volumes which were read are not asked for again soon, because the kernel has them, or nobody does.
    pub read_once: bool,
}

impl Serving {
    /// Volumes ahead where the user named no number: one for each decoder, and one that is ready while they work.
    pub fn usual_read_ahead(threads: usize) -> usize {
        threads + 1
    }
}

struct Inner {
    cache: Cache<Volumes>,
    serving: Serving,
    read_ahead: AtomicUsize,
    cursors: AtomicU64,
    peeks: AtomicU64,
    served: AtomicU64,
}

impl Inner {
    fn plan(&self) -> &Plan {
        &self.cache.source().plan
    }
}

/// What happened so far; a snapshot for status files and tests.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Fills of whole volumes that were begun and are no copies.
    pub volumes_decoded: u64,
    /// Volumes that were copied from finished shard files.
    pub volumes_copied: u64,
    /// Fills that failed.
    pub volumes_failed: u64,
    /// Fills that stopped because their reader left.
    pub volumes_cancelled: u64,
    /// Volumes that were decoded, or being decoded, before anybody asked for them, and then were asked for.
    pub read_ahead_hits: u64,
    /// Reads around a tar header that were answered without filling the volume.
    pub peeks: u64,
    /// Voxel reads that were answered at once.
    pub cache_hits: u64,
    /// Voxel reads that waited for a decoder.
    pub cache_waits: u64,
    /// Bytes that volumes take in memory.
    pub cache_bytes: u64,
    /// The most that they took.
    pub cache_peak_bytes: u64,
    /// What they may take.
    pub cache_limit: u64,
    /// Volumes in memory.
    pub volumes_cached: u64,
    /// Bytes handed out.
    pub bytes_served: u64,
}

/// A volume that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeError {
    /// Its sample.
    pub study_id: String,
    /// Why; names the file.
    pub error: String,
}

impl ShardSet {
    /// Serves `plan`.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn new(plan: impl Into<Arc<Plan>>, serving: Serving) -> Result<Self> {
        let plan = plan.into();
        let Serving { cache_bytes, threads, read_ahead, read_once } = serving;
        let read_ahead = AtomicUsize::new(read_ahead);
        let volumes = Volumes { plan, failed: Mutex::default(), peeked: Mutex::default(), copies: Copies::default() };
        // A data set larger than the cache, read in order, never finds a volume again before it was displaced.
        let total: u64 = volumes.plan.dataset.samples.iter().map(|sample| volumes.plan.volume(sample).byte_len()).sum();
        let recycle = read_once || total > cache_bytes;
        let cache = Cache::new(volumes, to_usize(cache_bytes), threads, recycle)
            .map_err(|error| Error::Refused(format!("cannot start {threads} decoder threads: {error}")))?;
        let [cursors, peeks, served] = [(); 3].map(|()| AtomicU64::new(0));
        Ok(Self { inner: Arc::new(Inner { cache, serving, read_ahead, cursors, peeks, served }) })
    }

    /// The same serving of another plan; first gives up the memory of this one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_plan(self, plan: Plan) -> Result<Self> {
        let serving = self.inner.serving;
        drop(self);
        Self::new(plan, serving)
    }

    /// From now on, reads so many volumes ahead of each reader. Changes no byte.
    pub fn set_read_ahead(&self, volumes: usize) {
        self.inner.read_ahead.store(volumes, Ordering::Relaxed);
    }

    /// The plan that is served.
    pub fn plan(&self) -> &Plan {
        self.inner.plan()
    }

    /// From now on, takes volumes from these files where they are there. Changes no byte.
    pub fn use_copies(&self, files: Box<dyn Files>) {
        self.inner.cache.source().copies.set(files);
    }

    /// The same, to keep.
    pub fn shared_plan(&self) -> Arc<Plan> {
        self.inner.cache.source().plan.clone()
    }

    /// The size of a shard in bytes.
    pub fn len(&self, id: ShardId) -> Option<u64> {
        self.plan().shard(id).map(|shard| shard.layout.len())
    }

    /// A sequence of reads of one shard by one reader: what is read ahead and kept is decided by it.
    pub fn cursor(&self, shard: ShardId) -> Cursor {
        Cursor::new(self.inner.clone(), self.inner.cursors.fetch_add(1, Ordering::Relaxed), shard)
    }

    /// `len` bytes of shard `id` from `offset` on, fewer only at the end of the shard; waits for them.
    ///
    /// # Errors
    /// Why a volume could not be decoded; [`Error::NotFound`] if there is no such shard.
    pub fn read(&self, id: ShardId, offset: u64, len: usize) -> Result<Bytes> {
        wait_for(|done| read::begin(self.inner.clone(), None, id, offset, len, done))
    }

    /// The same for a reader with a cursor, without waiting: `done` is called at once if the bytes are there, else
    /// on the thread that made them ready.
    pub fn read_then(
        &self,
        cursor: &Arc<Cursor>,
        offset: u64,
        len: usize,
        done: impl FnOnce(Result<Bytes>) + Send + 'static,
    ) {
        read::begin(self.inner.clone(), Some(cursor.clone()), cursor.shard(), offset, len, Box::new(done));
    }

    /// The same, waiting.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_on(&self, cursor: &Arc<Cursor>, offset: u64, len: usize) -> Result<Bytes> {
        wait_for(|done| self.read_then(cursor, offset, len, done))
    }

    /// The volumes that could not be read so far, and why.
    pub fn errors(&self) -> Vec<VolumeError> {
        let volumes = self.inner.cache.source();
        let samples = &volumes.plan.dataset.samples;
        let error = |(key, error): (&Key, &String)| VolumeError {
            study_id: samples[*key as usize].study_id.clone(),
            error: error.clone(),
        };
        lock(&volumes.failed).iter().map(error).collect()
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        let counters = self.inner.cache.counters();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (used, limit) = self.inner.cache.memory();
        let copied = get(&self.inner.cache.source().copies.fills);
        Stats {
            volumes_decoded: get(&counters.fills).saturating_sub(copied),
            volumes_copied: copied,
            volumes_failed: get(&counters.failures),
            volumes_cancelled: get(&counters.cancelled),
            read_ahead_hits: get(&counters.ahead_hits),
            peeks: get(&self.inner.peeks),
            cache_hits: get(&counters.hits),
            cache_waits: get(&counters.waits),
            cache_bytes: used as u64,
            cache_peak_bytes: get(&counters.peak_bytes),
            cache_limit: limit as u64,
            volumes_cached: self.inner.cache.held() as u64,
            bytes_served: get(&self.inner.served),
        }
    }
}

fn wait_for(start: impl FnOnce(Box<dyn FnOnce(Result<Bytes>) + Send>)) -> Result<Bytes> {
    let (sender, receiver) = mpsc::sync_channel(1);
    start(Box::new(move |result| drop(sender.send(result))));
    receiver.recv().unwrap_or_else(|_| Err(Error::Internal("a read was dropped without an answer".into())))
}

/// The volumes of a plan as the cache's source; keys are indexes into the samples.
struct Volumes {
    plan: Arc<Plan>,
    /// Those that could not be read, and why. Every reader gets the error, the log has it once.
    failed: Mutex<BTreeMap<Key, String>>,
    /// Those whose last chunk was peeked at. The kernel may have cached it, so it no longer stands for the checksum:
    /// nothing of them is published before that was checked.
    peeked: Mutex<HashSet<Key>>,
    copies: Copies,
}

impl Volumes {
    fn volume(&self, key: Key) -> Volume<'_> {
        self.plan.volume(&self.plan.dataset.samples[key as usize])
    }

    /// The work of a peek, as [`Volume::peek_cost`]; a copy is only read.
    fn peek_cost(&self, key: Key, offset: u64, len: u64) -> Option<u64> {
        if self.copies.has(&self.plan, key) { Some(len) } else { self.volume(key).peek_cost(offset, len) }
    }

    /// A part of a volume on its own; `None` where it takes a whole fill after all.
    fn peek(&self, key: Key, offset: u64, out: &mut [u8]) -> Option<Result<()>> {
        if self.copies.peek(&self.plan, key, offset, out).is_some() {
            return Some(Ok(()));
        }
        let volume = self.volume(key);
        volume.peek_cost(offset, out.len() as u64)?;
        Some(volume.peek(offset, out).inspect_err(|error| self.log_once(key, error)))
    }

    fn log_once(&self, key: Key, error: &Error) {
        if lock(&self.failed).insert(key, error.to_string()).is_none() {
            log::error!("{}: {error}", self.plan.dataset.samples[key as usize].study_id);
        }
    }
}

impl cache::VolumeSource for Volumes {
    type Error = Error;

    fn len(&self, key: Key) -> usize {
        to_usize(self.volume(key).byte_len())
    }

    fn fill(&self, key: Key, writer: &mut cache::VolumeWriter<'_, Error>) -> Result<bool> {
        if let Some(filled) = self.copies.fill(&self.plan, key, &mut CacheSink(writer)) {
            return Ok(filled == Filled::Complete);
        }
        let verify_first = lock(&self.peeked).contains(&key);
        let result = self.volume(key).fill(&mut CacheSink(writer), verify_first);
        result.map(|filled| filled == Filled::Complete).inspect_err(|error| self.log_once(key, error))
    }

    fn failure(&self, key: Key, cause: FillFailure) -> Error {
        let error = match cause {
            FillFailure::Panic(message) => Error::Internal(message),
            FillFailure::NoMemory(error) => {
                Error::Refused(format!("no memory for the volume ({error}); lower --cache-size"))
            }
        };
        self.log_once(key, &error);
        error
    }
}

struct CacheSink<'a, 'b>(&'a mut cache::VolumeWriter<'b, Error>);

impl Sink for CacheSink<'_, '_> {
    fn spare(&mut self) -> &mut [u8] {
        self.0.spare()
    }

    fn publish(&mut self, len: usize) {
        self.0.publish(len);
    }

    fn cancelled(&mut self) -> bool {
        self.0.cancelled()
    }
}
