//! A second level behind the memory cache: volumes that were made for a reader, kept in a folder on a local disk.
//!
//! A volume is found by a digest of what determines its bytes, whatever plan, shard or slot it stands in. It is written
//! behind the readers, by one thread, and whatever goes wrong with that costs time only: what is not there, damaged or
//! foreign is made anew. No byte is handed on before the checksums of the whole volume were compared.
//!
//! | module | what it does |
//! |---|---|
//! | `mod` | finds volumes, and takes those that are to be kept |
//! | `format` | how a volume's file is built |
//! | `read`, `write` | read and write one |
//! | `index` | knows what is in the folder, and what was used least recently |
//! | `queue` | holds what waits to be written |
//! | `keeper` | makes room and writes |
//! | `packing` | says which volumes are packed |
//! | `place` | checks the folder |
//!
//! Several daemons may share a folder: files appear whole, by a rename, and any may remove any.

mod format;
mod index;
mod keeper;
mod packing;
mod place;
mod queue;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use bytes::Bytes;
use serde::Serialize;

pub use index::Kept;
pub use place::Forbidden;

use crate::base::limits::not_started;
use crate::base::num::to_usize;
use crate::base::parallel;
use crate::error::{Error, Result};
use crate::formats::codec::RowFilter;
use crate::volume::{Filled, Sink};
use index::{Listing, name_of};
use keeper::Keeper;
use place::Place;
use queue::Job;

/// SHA-256 of all that determines a volume's bytes.
pub type VolumeDigest = [u8; 32];

/// The work of looking at a few bytes of a kept volume beside these bytes themselves, in bytes that are only copied.
pub const PEEK_COST: u64 = 2 * format::BLOCK as u64;

/// How a disk cache is to be.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The folder, which is made if it is missing.
    pub folder: &'a Path,
    /// The bytes that all files together may take; `None` for four fifths of what the disk has for them.
    pub limit: Option<u64>,
    /// The bytes of memory that volumes may hold while they wait to be written.
    pub waiting: u64,
    /// Whether all volumes are packed, and not only as [`DiskCache::expect`] says. Those that are in the folder are
    /// read in both ways.
    pub is_packed: bool,
    /// Folders in which the cache must not lie.
    pub forbidden: &'a [Forbidden<'a>],
}

/// What a disk cache holds and did so far.
#[derive(Clone, Debug, Serialize)]
pub struct DiskCacheStats {
    /// The folder.
    pub folder: String,
    /// Bytes of all files, as far as is known.
    pub bytes: u64,
    /// Bytes that all files may take.
    pub limit: u64,
    /// Volumes in the folder, as far as is known.
    pub volumes: u64,
    /// Fills that came from the folder, those under way included.
    pub hits: u64,
    /// Fills that found no volume there, or none that could be used.
    pub misses: u64,
    /// Volumes that were written.
    pub kept: u64,
    /// Volumes that were made and not written: the disk was too slow or full.
    pub skipped: u64,
    /// Volumes that were removed to make room.
    pub removed: u64,
    /// Files that were damaged or could not be read or written.
    pub errors: u64,
    /// Bytes of memory that wait to be written.
    pub waiting_bytes: u64,
}

/// A disk cache, with the thread that writes. When it is dropped, what waits is written, for a few seconds at most.
#[derive(Debug)]
pub struct DiskCache {
    keeper: Arc<Keeper>,
    writer: Option<JoinHandle<()>>,
}

impl DiskCache {
    /// Opens the cache in a folder, removes what killed processes left unfinished there, and starts the thread.
    ///
    /// # Errors
    /// [`Error::Refused`] with the remedy if the folder cannot be a cache's; [`Error::Io`] if it cannot be made or
    /// read; [`Error::System`] if there is no thread.
    pub fn open(request: Request<'_>) -> Result<Self> {
        let place = Place::prepare(request.folder, request.forbidden)?;
        let keeper = Arc::new(Keeper::new(place, request.limit, to_usize(request.waiting), request.is_packed)?);
        let writing = keeper.clone();
        let writer = parallel::spawn("disk-cache", move || writing.write_all());
        let writer = writer.map_err(|error| not_started("start the thread of the disk cache", error))?;
        Ok(Self { keeper, writer: Some(writer) })
    }

    /// The folder, absolute and without links.
    pub fn folder(&self) -> &Path {
        &self.keeper.place.path
    }

    /// The bytes that all files together may take.
    pub fn limit(&self) -> u64 {
        self.keeper.limit
    }

    /// What the user should know if the disk has less room than the cache may take, with the remedy.
    pub fn lack_of_room(&self) -> Option<String> {
        self.keeper.lack_of_room()
    }

    /// Says how many bytes the volumes have together that readers may ask for. If the cache may not take them all, they
    /// are packed as long as processors idle, so that more of them have room.
    pub fn expect(&self, bytes: u64) {
        self.keeper.packing.set_lacks_room(bytes > self.keeper.limit);
    }

    /// Whether a volume is in the folder, as far as is known. Never waits for the disk.
    pub fn has(&self, digest: &VolumeDigest) -> bool {
        self.keeper.has(digest)
    }

    /// Fills a volume from the folder. Nothing is handed on before all of it was compared with its checksums, so that
    /// it can still be made anew. `None` if it must be.
    pub fn fill(&self, digest: &VolumeDigest, sink: &mut impl Sink) -> Option<Filled> {
        let len = sink.spare().len();
        self.keeper.counters.hits.fetch_add(1, Ordering::Relaxed);
        let read = self.keeper.with_volume(digest, len as u64, |volume| volume.read(sink));
        match read {
            Some(true) => {
                sink.publish(len);
                Some(Filled::Complete)
            }
            Some(false) => Some(Filled::Cancelled),
            None => {
                self.keeper.counters.hits.fetch_sub(1, Ordering::Relaxed);
                self.keeper.counters.misses.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Reads the bytes from `offset` on that fill `out` of a volume of `len` bytes; `None` if they must be made.
    pub fn peek(&self, digest: &VolumeDigest, len: u64, offset: u64, out: &mut [u8]) -> Option<()> {
        if !self.has(digest) {
            return None;
        }
        self.keeper.with_volume(digest, len, |volume| volume.read_part(offset, out))
    }

    /// Takes a volume that was made, to write it behind the reader. It may not be kept, which only costs time. `filter`
    /// is what makes its blocks smaller, where volumes are packed; they hold whole values of it.
    pub fn keep(&self, digest: VolumeDigest, volume: Bytes, filter: RowFilter) {
        if volume.is_empty() || self.has(&digest) {
            return;
        }
        if !self.keeper.queue.push(Job { digest, volume, filter }) {
            self.keeper.counters.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the cache holds and did so far.
    pub fn stats(&self) -> DiskCacheStats {
        self.keeper.stats()
    }

    /// Writes what waits, for a few seconds at most; nothing is kept from then on.
    pub fn close(&self) {
        self.keeper.queue.close();
        self.keeper.queue.wait_until_empty();
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        self.keeper.queue.close();
        let this = std::thread::current().id();
        // The writing thread may drop the last user of the cache, with a volume's memory: it cannot wait for itself.
        if let Some(writer) = self.writer.take().filter(|writer| writer.thread().id() != this) {
            let _ = writer.join(); // a panic was already reported by the panic hook
        }
    }
}

/// What is in the folder of a disk cache.
#[derive(Debug)]
pub struct Contents {
    /// The folder, absolute and without links.
    pub folder: PathBuf,
    /// The volumes, with the names of their files, the one that was used last first.
    pub volumes: Vec<(String, Kept)>,
    /// Unfinished files whose writers have ended.
    pub unfinished: usize,
    /// Entries that are none of the cache's.
    pub foreign: usize,
}

/// Looks at the folder of a disk cache, and changes nothing.
///
/// # Errors
/// [`Error::Refused`] if it is none; [`Error::Io`] if it cannot be read.
pub fn contents(folder: &Path) -> Result<Contents> {
    let place = Place::existing(folder)?;
    let listing = list(&place)?;
    let mut volumes: Vec<_> = listing.kept.iter().map(|(digest, kept)| (name_of(digest), *kept)).collect();
    volumes.sort_by(|(name, kept), (other, than)| than.used_ns.cmp(&kept.used_ns).then_with(|| name.cmp(other)));
    Ok(Contents { folder: place.path, volumes, unfinished: listing.left.len(), foreign: listing.foreign })
}

/// What was removed from the folder of a disk cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleared {
    /// Volumes that were removed.
    pub volumes: u64,
    /// The bytes of their files.
    pub bytes: u64,
    /// Unfinished files that were removed.
    pub unfinished: u64,
    /// Entries that are none of the cache's, and stayed.
    pub foreign: u64,
}

/// Removes the volumes in the folder of a disk cache, and what killed processes left unfinished; nothing else. A mount
/// that uses the folder makes its volumes anew.
///
/// # Errors
/// [`Error::Refused`] if the folder is no disk cache; [`Error::Io`] if a file cannot be removed.
pub fn clear(folder: &Path) -> Result<Cleared> {
    let place = Place::existing(folder)?;
    let listing = list(&place)?;
    let mut cleared = Cleared { foreign: listing.foreign as u64, ..Cleared::default() };
    for (digest, kept) in &listing.kept {
        if remove(&place, &name_of(digest))? {
            cleared.volumes += 1;
            cleared.bytes += kept.bytes;
        }
    }
    for name in &listing.left {
        cleared.unfinished += u64::from(remove(&place, name)?);
    }
    Ok(cleared)
}

fn list(place: &Place) -> Result<Listing> {
    let listing = Listing::read(&place.folder, &place.path, place::TAG);
    listing.map_err(|error| Error::io(&place.path, "list the disk cache", error))
}

/// Removes a file of the cache; false if another process did.
fn remove(place: &Place, name: &str) -> Result<bool> {
    match place.folder.remove(name) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(&place.path.join(name), "remove the file of the disk cache", error)),
    }
}
