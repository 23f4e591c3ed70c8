//! One volume in the schedule: how far its fill is, which readers use it, and when it was used last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ReaderId;
use super::entry::CacheEntry;
use super::region::Size;
use super::region::capacity;

/// The time after which a reader that asked for nothing may lose its volume to one that waits. A training step takes
/// longer now and then, but then its loader has batches in store.
pub(super) const IDLE: Duration = Duration::from_secs(2);
/// The time for which a volume is kept after its reader went on to another one. Requests for the old volume may still
/// be under way, because the kernel reads ahead on several threads.
pub(super) const GRACE: Duration = Duration::from_millis(20);

/// A volume in the schedule: how far its fill is, and which readers are in the middle of it.
pub(super) struct Resident<E> {
    /// The volume's bytes, and the reads that wait for them.
    pub(super) entry: Arc<CacheEntry<E>>,
    /// How far the fill is.
    pub(super) fill_state: FillState,
    /// The number of the last use; the least recently used volume has the smallest.
    pub(super) last_used: u64,
    /// The readers that are in the middle of the volume.
    pub(super) readers: Vec<ActiveReader>,
    /// The readers that the volume is read ahead for, and that have not asked for it yet.
    pub(super) ahead_for: Vec<ReaderId>,
    /// Whether a reader has read all of the volume.
    pub(super) read_past: bool,
}

/// How far the fill of a volume is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FillState {
    /// The fill waits for its turn.
    Queued,
    /// A thread fills the volume; `cancelling` if it was asked to stop.
    Running { cancelling: bool },
    /// All bytes are filled.
    Full,
}

/// A reader in the middle of a volume.
pub(super) struct ActiveReader {
    /// The reader's id.
    pub(super) reader: ReaderId,
    /// The bytes of the volume that the reader asked for so far.
    pub(super) served: usize,
    /// The time until which the volume is kept for the reader, unless it asks again.
    pub(super) until: Instant,
    /// The time until which the volume is kept for the reader while others wait for room.
    pub(super) while_others_wait: Instant,
    /// How long after its last request the reader may lose the volume to one that waits.
    pub(super) patience: Duration,
    /// Whether the reader went on to another volume.
    pub(super) moved_on: bool,
}

impl<E: Clone + 'static> Resident<E> {
    /// A volume whose fill waits for its turn.
    pub(super) fn queued(size: Size) -> Self {
        let entry = Arc::new(CacheEntry::new(size));
        Self {
            entry,
            fill_state: FillState::Queued,
            last_used: 0,
            readers: Vec::new(),
            ahead_for: Vec::new(),
            read_past: false,
        }
    }

    /// What the volume counts of the memory: less when its fill has ended.
    pub(super) fn counted(&self) -> usize {
        match self.fill_state {
            FillState::Queued => 0,
            FillState::Running { .. } => self.entry.size().while_filled(),
            FillState::Full => capacity(self.entry.len()),
        }
    }

    /// Adds `bytes` to what `reader` asked for; true if that is the whole volume now. `patience` as in
    /// [`ActiveReader::patience`].
    pub(super) fn note(&mut self, reader: ReaderId, bytes: usize, patience: Duration, now: Instant) -> bool {
        let at = self.readers.iter().position(|u| u.reader == reader).unwrap_or_else(|| {
            let (until, while_others_wait) = (now, now);
            self.readers.push(ActiveReader { reader, served: 0, until, while_others_wait, patience, moved_on: false });
            self.readers.len() - 1
        });
        let reading = &mut self.readers[at];
        reading.served += bytes;
        // A request within the grace was under way when the reader moved on; a later one shows that it came back.
        reading.moved_on &= reading.until > now;
        reading.patience = patience;
        reading.keep(now);
        let ended = reading.served >= self.entry.len();
        if ended {
            self.readers.swap_remove(at);
            self.read_past = true;
        }
        ended
    }
}

impl ActiveReader {
    /// Keeps the volume for the reader, who asked or was answered `now`.
    pub(super) fn keep(&mut self, now: Instant) {
        self.until = now + if self.moved_on { GRACE } else { IDLE };
        self.while_others_wait = self.until.min(now + self.patience);
    }

    /// Notes that the reader went on to another volume.
    pub(super) fn move_on(&mut self, now: Instant) {
        self.moved_on = true;
        self.until = self.until.min(now + GRACE);
        self.while_others_wait = self.while_others_wait.min(self.until);
    }
}
