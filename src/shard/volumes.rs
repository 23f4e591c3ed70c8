//! The volumes of a plan, as the cache fills them: from the disk cache, copied from a finished shard file, or made from
//! their source.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use super::copies::Copies;
use super::kept::KeptVolumes;
use crate::base::lock::lock;
use crate::base::num::to_usize;
use crate::cache::disk::PEEK_COST;
use crate::cache::{self, FillFailure, Key};
use crate::error::{Error, Result, shown};
use crate::plan::Plan;
use crate::plan::members::Member;
use crate::volume::{DECODER_SCRATCH, Filled, Sink, Volume};

/// The volumes and extras of a plan. The key of one is its [`Plan::volume_number`].
pub(super) struct Volumes {
    pub(super) plan: Arc<Plan>,
    /// The volumes that could not be read, and why. Every reader gets the error, the log has it once.
    pub(super) failed: Mutex<BTreeMap<Key, String>>,
    /// The volumes whose last chunk was peeked at. The kernel may have cached that chunk, so that reading it no longer
    /// means that the checksum was right: nothing of these volumes is published before it was compared.
    pub(super) peeked: Mutex<HashSet<Key>>,
    /// Finished shard files that hold some of the volumes.
    pub(super) copies: Copies,
    /// The disk cache, which holds some of the volumes.
    pub(super) kept: KeptVolumes,
}

impl Volumes {
    /// The volumes of a plan, none of which was read.
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            failed: Mutex::default(),
            peeked: Mutex::default(),
            copies: Copies::default(),
            kept: KeptVolumes::default(),
        }
    }

    /// The source of a volume.
    pub(super) fn volume(&self, key: Key) -> Volume<'_> {
        let (sample, member) = self.plan.volume_numbered(to_usize(key.into()));
        self.plan.volume(&self.plan.dataset.samples[sample], member)
    }

    /// The keys of all volumes and extras.
    fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let count = self.plan.volume_number(self.plan.dataset.samples.len(), Member::Volume);
        0..Key::try_from(count).unwrap_or(Key::MAX)
    }

    /// The sample of a volume or extra, as an index into those of the data set.
    pub(super) fn sample(&self, key: Key) -> usize {
        self.plan.volume_numbered(to_usize(key.into())).0
    }

    /// The study of a volume or extra.
    pub(super) fn study_id(&self, key: Key) -> &str {
        &self.plan.dataset.samples[self.sample(key)].study_id
    }

    /// The lengths of all volumes together, in bytes.
    pub(super) fn total_len(&self) -> u64 {
        self.keys().map(|key| self.volume(key).byte_len()).sum()
    }

    /// The volume that takes the most memory beside itself while it is made, beyond [`DECODER_SCRATCH`]: its key, and
    /// these bytes. `None` if no volume takes more.
    pub(super) fn largest_scratch(&self) -> Option<(Key, u64)> {
        let beyond = |key| (key, self.volume(key).scratch_bytes().saturating_sub(DECODER_SCRATCH));
        let all = self.keys().map(beyond);
        all.filter(|(_, bytes)| *bytes > 0).max_by_key(|(_, bytes)| *bytes)
    }

    /// Whether a volume could not be read before.
    pub(super) fn has_failed(&self, key: Key) -> bool {
        lock(&self.failed).contains_key(&key)
    }

    /// The work of peeking at `len` bytes, as [`Volume::peek_cost`] has it; a copy is only read. `None` where only a
    /// fill makes these bytes.
    pub(super) fn peek_cost(&self, key: Key, offset: u64, len: u64) -> Option<u64> {
        if self.kept.has(key) {
            return Some(len + PEEK_COST);
        }
        if self.copies.has(&self.plan, key) { Some(len) } else { self.volume(key).peek_cost(offset, len) }
    }

    /// Makes the bytes of a volume from `offset` on that fill `out`, and nothing else of the volume. `None` where only
    /// a fill makes these bytes, because a copy is gone, or because the source's ctime differs.
    pub(super) fn peek(&self, key: Key, offset: u64, out: &mut [u8]) -> Option<Result<()>> {
        if self.copies.peek(&self.plan, key, offset, out).is_some() {
            return Some(Ok(()));
        }
        let volume = self.volume(key);
        if self.kept.peek(&volume, key, offset, out).is_some() {
            return Some(Ok(()));
        }
        volume.peek_cost(offset, out.len() as u64)?;
        match volume.peek(offset, out) {
            Ok(is_made) => is_made.then_some(Ok(())),
            Err(error) => {
                self.log_once(key, &error);
                Some(Err(error))
            }
        }
    }

    fn log_once(&self, key: Key, error: &Error) {
        // The sizes of a mount never change, so its readers get the error for as long as it lives.
        let remedy = match error {
            Error::Malformed { .. } => {
                "; to leave such samples out, list them with `verify --sources` and mount again with --exclude"
            }
            _ => "", // their messages name the remedy, or the file is fine
        };
        let message = format!("{error}{remedy}");
        if lock(&self.failed).insert(key, message.clone()).is_none() {
            log::error!("{}: {message}", shown(self.study_id(key)));
        }
    }
}

impl cache::VolumeSource for Volumes {
    type Error = Error;

    fn len(&self, key: Key) -> usize {
        to_usize(self.volume(key).byte_len())
    }

    fn scratch(&self, key: Key) -> usize {
        to_usize(self.volume(key).scratch_bytes().saturating_sub(DECODER_SCRATCH))
    }

    fn fill(&self, key: Key, writer: &mut cache::VolumeWriter<'_, Error>) -> Result<bool> {
        let volume = self.volume(key);
        if let Some(filled) = self.kept.fill(&volume, key, &mut CacheSink(writer)) {
            return Ok(filled == Filled::Complete);
        }
        if let Some(filled) = self.copies.fill(&self.plan, key, &mut CacheSink(writer)) {
            return Ok(filled == Filled::Complete);
        }
        let verify_first = lock(&self.peeked).contains(&key);
        let result = volume.fill(&mut CacheSink(writer), verify_first);
        let is_complete = result.map(|filled| filled == Filled::Complete);
        if let Ok(true) = is_complete
            && let Some(bytes) = writer.whole()
        {
            self.kept.keep(&volume, key, bytes);
        }
        is_complete.inspect_err(|error| self.log_once(key, error))
    }

    fn failure(&self, key: Key, cause: FillFailure) -> Error {
        let error = match cause {
            FillFailure::Panic(message) => Error::Internal(message),
            FillFailure::NoMemory(error) => Error::system("get memory for the volume", error),
        };
        self.log_once(key, &error);
        error
    }
}

/// The cache's memory as a volume's sink.
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
