//! The volumes in the folder: found, written, and removed to make room.

use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytesize::ByteSize;
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, futimens, statvfs};

use super::format::file_len;
use super::index::{Index, name_of};
use super::packing::Packing;
use super::place::Place;
use super::queue::{Job, Queue};
use super::read::{KeptVolume, Unread};
use super::write::write;
use super::{DiskCacheStats, VolumeDigest, list};
use crate::base::lock::lock;
use crate::error::{self, Error, Result};

/// The time of a file's last use is written at most this often.
const USE_NOTED: Duration = Duration::from_secs(60);
/// How long nothing is written after the disk had no room, or refused a file: it would be asked for each volume.
const PAUSE: Duration = Duration::from_secs(60);

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// The volumes in the folder, and those that wait to be written.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) place: Place,
    /// The bytes that all files together may take.
    pub(super) limit: u64,
    pub(super) packing: Packing,
    pub(super) queue: Queue,
    pub(super) counters: Counters,
    index: Mutex<Index>,
    /// Until when nothing is written.
    paused: Mutex<Option<Instant>>,
}

impl Keeper {
    /// Reads what is in the folder, and removes what killed processes left unfinished. `waiting` are the bytes that may
    /// wait to be written.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder, or the room on its disk, cannot be read.
    pub(super) fn new(place: Place, limit: Option<u64>, waiting: usize, is_packed: bool) -> Result<Self> {
        let listing = list(&place)?;
        for name in &listing.left {
            let _ = place.folder.remove(name); // or the next start does it
        }
        let room = free_room(&place)?.saturating_add(listing.bytes());
        let limit = limit.unwrap_or(room / 5 * 4);
        Ok(Self {
            place,
            limit,
            packing: Packing::new(is_packed),
            queue: Queue::new(waiting),
            counters: Counters::default(),
            index: Mutex::new(Index::new(listing)),
            paused: Mutex::new(None),
        })
    }

    /// What the user should know if the disk has less room than the cache may take, with the remedy.
    pub(super) fn lack_of_room(&self) -> Option<String> {
        let room = free_room(&self.place).ok()?.saturating_add(lock(&self.index).bytes());
        (room < self.limit || self.limit == 0).then(|| {
            format!(
                "--disk-cache {}: its disk has room for {}, and the cache may take {}: volumes are kept as long as there \
                 is room, the others are made each time; make room there, or lower --disk-cache-size",
                self.place.path.display(),
                ByteSize(room),
                ByteSize(self.limit)
            )
        })
    }

    /// Whether a volume is in the folder, as far as is known.
    pub(super) fn has(&self, digest: &VolumeDigest) -> bool {
        lock(&self.index).has(digest)
    }

    /// Opens the volume of this digest and length, and calls `read` with it; `None` if it is not there or cannot be
    /// read. A damaged one is removed.
    pub(super) fn with_volume<T>(
        &self,
        digest: &VolumeDigest,
        len: u64,
        read: impl FnOnce(&KeptVolume<'_>) -> Result<T, Unread>,
    ) -> Option<T> {
        let name = name_of(digest);
        let result = match self.place.folder.open(&name, OFlags::RDONLY, 0) {
            Ok(file) => {
                let result = KeptVolume::open(&file, digest, len).and_then(|volume| read(&volume));
                result.inspect(|_| self.note_use(digest, &file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lock(&self.index).remove(digest);
                return None;
            }
            Err(error) => Err(Unread::Failed(error)),
        };
        result.inspect_err(|unread| self.unread(digest, &name, unread)).ok()
    }

    /// Notes that a volume cannot be read. It is forgotten, so that it is written again when it was made; but for want
    /// of descriptors or memory, which says nothing about the file.
    fn unread(&self, digest: &VolumeDigest, name: &str, unread: &Unread) {
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        let path = self.place.path.join(name);
        match unread {
            Unread::Failed(error) if error::is_limit(error) => {
                log::warn!("{}: cannot read the kept volume: {}", path.display(), error::reason(error));
                return;
            }
            Unread::Failed(error) => {
                let reason = error::reason(error);
                log::warn!("{}: cannot read the kept volume: {reason}; the volume is made anew", path.display());
            }
            Unread::Damaged(reason) => {
                log::warn!("{}: {reason}; the file is removed, and the volume made anew", path.display());
            }
        }
        let _ = self.place.folder.remove(name); // or it is replaced
        lock(&self.index).remove(digest);
    }

    /// Notes that a volume was read.
    fn note_use(&self, digest: &VolumeDigest, file: &File) {
        let Ok(metadata) = file.metadata() else { return };
        lock(&self.index).add(*digest, metadata.len());
        let noted = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if SystemTime::now().duration_since(noted).unwrap_or_default() >= USE_NOTED {
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let _ = futimens(file, &Timestamps { last_access: now, last_modification: now }); // then it goes earlier
        }
    }

    /// Writes what waits, until the queue is closed.
    pub(super) fn write_all(&self) {
        while let Some(job) = self.queue.pop() {
            let bytes = job.volume.len();
            self.write_one(&job);
            drop(job); // before the room is given to others
            self.queue.done(bytes);
        }
    }

    /// Writes a volume, if there is room for it.
    fn write_one(&self, job: &Job) {
        let digest = &job.digest;
        let bytes = file_len(job.volume.len() as u64); // packed ones take less
        if self.has(digest) {
            return;
        }
        if self.is_paused() || !self.make_room(bytes) {
            self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let write = || {
            let is_behind = self.queue.is_behind();
            self.packing.with_codec(is_behind, |codec| write(&self.place.folder, job, codec, || self.queue.is_over()))
        };
        let written = match write() {
            // Others have taken the room: this cache holds less then.
            Err(error) if is_no_room(&error) && self.give_way(bytes) => write(),
            written => written,
        };
        match written {
            Ok(Some(bytes)) => {
                lock(&self.index).add(*digest, bytes);
                self.counters.kept.fetch_add(1, Ordering::Relaxed);
            }
            Ok(None) => {
                self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                self.pause(&error);
            }
        }
    }

    /// Removes the volumes that were used least recently until there is room for a file of so many bytes within the
    /// limit; false if there cannot be.
    fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.limit {
            return false;
        }
        if lock(&self.index).is_stale()
            && let Ok(listing) = list(&self.place)
        {
            lock(&self.index).renew(listing);
        }
        while lock(&self.index).bytes().saturating_add(bytes) > self.limit {
            if self.remove_oldest().is_none() {
                return false;
            }
        }
        true
    }

    /// Removes the volumes that were used least recently until so many bytes are free; false if it holds fewer.
    fn give_way(&self, bytes: u64) -> bool {
        let mut freed = 0;
        while freed < bytes {
            let Some(removed) = self.remove_oldest() else { return false };
            freed += removed;
        }
        true
    }

    /// Removes the volume that was used least recently, and returns the bytes of its file; `None` if there is none, or
    /// it cannot be removed.
    fn remove_oldest(&self) -> Option<u64> {
        let oldest = lock(&self.index).oldest()?;
        match self.place.folder.remove(name_of(&oldest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                self.pause(&error);
                return None;
            }
            Ok(()) => {
                self.counters.removed.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {} // another daemon has removed it
        }
        Some(lock(&self.index).remove(&oldest))
    }

    fn is_paused(&self) -> bool {
        lock(&self.paused).is_some_and(|until| until > Instant::now())
    }

    /// Writes nothing for a while, and says why. A folder of a volume's name stands in the way of that volume alone.
    fn pause(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::IsADirectory {
            return;
        }
        *lock(&self.paused) = Some(Instant::now() + PAUSE);
        let remedy = if is_no_room(error) { "; make room there, or lower --disk-cache-size" } else { "" };
        log::warn!(
            "{}: cannot keep volumes in the disk cache: {}{remedy}; for {} s none is written, and all are made as \
             without it",
            self.place.path.display(),
            error::reason(error),
            PAUSE.as_secs()
        );
    }

    /// What the cache holds and did so far.
    pub(super) fn stats(&self) -> DiskCacheStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (bytes, volumes) = {
            let index = lock(&self.index);
            (index.bytes(), index.len() as u64)
        };
        let Counters { hits, misses, kept, skipped, removed, errors } = &self.counters;
        DiskCacheStats {
            folder: self.place.path.to_string_lossy().into_owned(),
            bytes,
            limit: self.limit,
            volumes,
            hits: get(hits),
            misses: get(misses),
            kept: get(kept),
            skipped: get(skipped),
            removed: get(removed),
            errors: get(errors),
            waiting_bytes: self.queue.bytes() as u64,
        }
    }
}

/// The bytes that this user may still write on the disk of the folder.
fn free_room(place: &Place) -> Result<u64> {
    let found =
        statvfs(&place.path).map_err(|error| Error::io(&place.path, "ask for the room on the disk", error.into()));
    found.map(|found| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether an error is that the disk, or the user's share of it, is full.
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero)
}
