//! Volumes that come from the disk cache instead of being made again.
//!
//! The cache knows volumes by digests alone. Before one is taken from there, its source is looked at: one that is gone
//! or has changed is the error that it is without a cache, and one of which only the ctime differs is read and compared
//! with its checksum.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::base::num::to_usize;
use crate::cache::Key;
use crate::cache::disk::{DiskCache, DiskCacheStats, VolumeDigest};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::volume::{Filled, Sink, Volume};

/// The volumes in the disk cache, if there is one.
#[derive(Default)]
pub(super) struct KeptVolumes {
    used: OnceLock<(Arc<DiskCache>, Vec<VolumeDigest>)>,
}

impl KeptVolumes {
    /// Says which cache there is. Only the first call counts.
    ///
    /// # Errors
    /// [`Error::System`] if the current folder, from which relative paths start, is not known.
    pub(super) fn set(&self, plan: &Plan, cache: Arc<DiskCache>) -> Result<()> {
        let here = std::env::current_dir().map_err(|error| Error::system("find the current folder", error))?;
        let _ = self.used.set((cache, plan.volume_digests(&here)));
        Ok(())
    }

    /// Whether a volume is in the cache, as far as is known. Never waits.
    pub(super) fn has(&self, key: Key) -> bool {
        self.of(key).is_some_and(|(cache, digest)| cache.has(digest))
    }

    /// Fills a volume from the cache; `None` if it must be made.
    pub(super) fn fill(&self, volume: &Volume<'_>, key: Key, sink: &mut impl Sink) -> Option<Filled> {
        let (cache, digest) = self.of(key)?;
        if volume.is_as_planned() { cache.fill(digest, sink) } else { None }
    }

    /// Reads the bytes of a volume from `offset` on that fill `out`; `None` if they must be made.
    pub(super) fn peek(&self, volume: &Volume<'_>, key: Key, offset: u64, out: &mut [u8]) -> Option<()> {
        let (cache, digest) = self.of(key).filter(|(cache, digest)| cache.has(digest))?;
        if volume.is_as_planned() { cache.peek(digest, volume.byte_len(), offset, out) } else { None }
    }

    /// Hands over a volume that was made, to be kept.
    pub(super) fn keep(&self, volume: &Volume<'_>, key: Key, bytes: Bytes) {
        if let Some((cache, digest)) = self.of(key) {
            cache.keep(*digest, bytes, volume.filter());
        }
    }

    /// What the cache holds and did so far; `None` if there is none.
    pub(super) fn stats(&self) -> Option<DiskCacheStats> {
        self.used.get().map(|(cache, _)| cache.stats())
    }

    fn of(&self, key: Key) -> Option<(&DiskCache, &VolumeDigest)> {
        let (cache, digests) = self.used.get()?;
        Some((cache, digests.get(to_usize(key.into()))?))
    }
}
