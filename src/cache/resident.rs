//! What the schedule knows of one volume.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Reader;
use super::entry::Entry;

/// A reader that asked for nothing for this long may lose its volume to one that waits. A training step takes
/// longer now and then, but then its loader has batches in store.
pub(super) const IDLE: Duration = Duration::from_secs(2);
/// A reader that went on to another volume may still have requests for the old one under way, because the kernel
/// reads ahead on several threads.
pub(super) const GRACE: Duration = Duration::from_millis(20);

/// A volume in the schedule: how far it is, and who is in the middle of it.
pub(super) struct Resident<E> {
    pub(super) entry: Arc<Entry<E>>,
    pub(super) progress: Progress,
    /// The number of the last use, for the least recently used.
    pub(super) last_used: u64,
    pub(super) readers: Vec<Use>,
    /// Those who will come to it.
    pub(super) ahead_for: Vec<Reader>,
    /// A reader has read all of it.
    pub(super) read_past: bool,
}

/// How far a volume is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Queued,
    Running { cancelling: bool },
    Full,
}

/// A reader in the middle of a volume.
pub(super) struct Use {
    pub(super) reader: Reader,
    pub(super) served: usize,
    /// Until when the volume is kept for it, unless it asks again.
    pub(super) until: Instant,
    pub(super) moved_on: bool,
}

impl<E: Clone + 'static> Resident<E> {
    pub(super) fn queued(len: usize) -> Self {
        let entry = Arc::new(Entry::new(len));
        Self {
            entry,
            progress: Progress::Queued,
            last_used: 0,
            readers: Vec::new(),
            ahead_for: Vec::new(),
            read_past: false,
        }
    }

    /// Counts what a reader took; true if it has read all.
    pub(super) fn note(&mut self, reader: Reader, bytes: usize, now: Instant) -> bool {
        let at = self.readers.iter().position(|u| u.reader == reader).unwrap_or_else(|| {
            self.readers.push(Use { reader, served: 0, until: now, moved_on: false });
            self.readers.len() - 1
        });
        let reading = &mut self.readers[at];
        reading.served += bytes;
        // What comes within the grace was on its way when the reader moved on; later, it has come back.
        reading.moved_on &= reading.until > now;
        reading.until = now + if reading.moved_on { GRACE } else { IDLE };
        let ended = reading.served >= self.entry.len();
        if ended {
            self.readers.swap_remove(at);
            self.read_past = true;
        }
        ended
    }
}
