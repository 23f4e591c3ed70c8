//! What all readers of a shard set share: how it is served, the cache of volumes, and the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

use super::volumes::Volumes;
use crate::base::limits::not_started;
use crate::base::num::to_usize;
use crate::base::parallel::available_cores;
use crate::cache::Cache;
use crate::cache::disk::DiskCacheStats;
use crate::error::Result;
use crate::plan::Plan;

/// How shards are served; changes no byte.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// Memory for volumes, in bytes.
    pub cache_bytes: u64,
    /// The number of threads that fill volumes.
    pub threads: usize,
    /// The number of volumes that are filled ahead of each reader who reads in order, as far as the memory allows.
    pub read_ahead: usize,
    /// Whether a volume that was read to its end is not asked for again soon, because the kernel has it, or because
    /// nobody needs it.
    pub read_once: bool,
}

impl Serving {
    /// The number of filling threads where the user named none: the cores, and at least eight where each volume is
    /// waited for over a network.
    pub fn usual_threads(plan: &Plan) -> usize {
        if plan.dataset.store.is_remote(&plan.dataset.root) { available_cores().max(8) } else { available_cores() }
    }

    /// The number of volumes to fill ahead where the user named none: one for each filling thread, and one that is
    /// ready while these work.
    pub fn usual_read_ahead(threads: usize) -> usize {
        threads + 1
    }
}

/// What a shard set did so far; a snapshot for status files and tests.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// The threads that fill volumes.
    pub decoder_threads: u64,
    /// Fills of whole volumes that were begun and are no copies: neither of a shard file nor from the disk cache.
    pub volumes_decoded: u64,
    /// Volumes that were copied from finished shard files.
    pub volumes_copied: u64,
    /// What the disk cache holds and did; `None` without one.
    pub disk_cache: Option<DiskCacheStats>,
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
    /// The most bytes that volumes took in memory at one time.
    pub cache_peak_bytes: u64,
    /// Bytes that volumes may take in memory.
    pub cache_limit: u64,
    /// Volumes in memory.
    pub volumes_cached: u64,
    /// Bytes handed out.
    pub bytes_served: u64,
}

/// The state that all clones and readers of a shard set share.
pub(super) struct State {
    pub(super) cache: Cache<Volumes>,
    pub(super) serving: Serving,
    /// The number of volumes that are filled ahead of each reader now: at first [`Serving::read_ahead`].
    pub(super) read_ahead: AtomicUsize,
    /// Cursors that were made so far; the next one's id.
    pub(super) cursors: AtomicU64,
    /// Reads that were answered by a peek.
    pub(super) peeks: AtomicU64,
    /// Bytes that were handed out.
    pub(super) served: AtomicU64,
}

impl State {
    /// Starts the filling threads for a plan's volumes.
    ///
    /// # Errors
    /// [`crate::error::Error::System`] if the operating system gives no thread.
    pub(super) fn new(plan: Arc<Plan>, serving: Serving) -> Result<Self> {
        let Serving { cache_bytes, threads, read_ahead, read_once } = serving;
        let volumes = Volumes::new(plan);
        // A data set larger than the cache, read in order, never finds a volume again before it was displaced.
        let recycle = read_once || volumes.total_len() > cache_bytes;
        let cache = Cache::new(volumes, to_usize(cache_bytes), threads, recycle)
            .map_err(|error| not_started(format!("start {threads} decoder threads"), error))?;
        let [cursors, peeks, served] = [(); 3].map(|()| AtomicU64::new(0));
        Ok(Self { cache, serving, read_ahead: AtomicUsize::new(read_ahead), cursors, peeks, served })
    }

    /// The volumes that the cache holds and fills.
    pub(super) fn volumes(&self) -> &Volumes {
        self.cache.source()
    }

    /// The plan that is served.
    pub(super) fn plan(&self) -> &Plan {
        &self.volumes().plan
    }

    /// A snapshot of the counters.
    pub(super) fn stats(&self) -> Stats {
        let counters = self.cache.counters();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (used, limit) = self.cache.memory();
        let copied = get(&self.volumes().copies.fills);
        let disk_cache = self.volumes().kept.stats();
        let from_disk = disk_cache.as_ref().map_or(0, |stats| stats.hits);
        Stats {
            decoder_threads: self.serving.threads as u64,
            volumes_decoded: get(&counters.fills).saturating_sub(copied + from_disk),
            volumes_copied: copied,
            disk_cache,
            volumes_failed: get(&counters.failures),
            volumes_cancelled: get(&counters.cancelled),
            read_ahead_hits: get(&counters.ahead_hits),
            peeks: get(&self.peeks),
            cache_hits: get(&counters.hits),
            cache_waits: get(&counters.waits),
            cache_bytes: used as u64,
            cache_peak_bytes: get(&counters.peak_bytes),
            cache_limit: limit as u64,
            volumes_cached: self.cache.held() as u64,
            bytes_served: get(&self.served),
        }
    }
}
