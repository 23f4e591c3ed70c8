//! What is filled next and what makes room for it: the state under the cache's one lock, without threads or clocks.
//!
//! Demanded volumes go first and strictly in order, so that none starves; volumes read ahead take what room is
//! left. Room is made by the least recently used volume that nobody is in the middle of, then (for a demand only)
//! by volumes read ahead. A volume that a reader is in the middle of stays until it is read past, or the reader has
//! been idle for [`IDLE`] while others wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::entry::Entry;
use super::growing::Growing;
use super::region::{self, Ledger, Region, capacity};
use super::{Key, Reader, Task};

/// A reader that asked for nothing for this long may lose its volume to one that waits. A training step takes
/// longer now and then, but then its loader has batches in store.
const IDLE: Duration = Duration::from_secs(2);
/// A reader that went on to another volume may still have requests for the old one under way, because the kernel
/// reads ahead on several threads.
const GRACE: Duration = Duration::from_millis(20);

pub(super) struct Schedule<E> {
    entries: HashMap<Key, Resident<E>>,
    tasks: VecDeque<Task>,
    demand: VecDeque<Key>,
    ahead: VecDeque<Key>,
    pub(super) ledger: Ledger,
    /// Evicted volumes whose memory a reply still holds.
    leaving: Vec<(Weak<Growing<Region>>, usize)>,
    /// Removed volumes that a worker is to drop outside the lock.
    retired: Vec<Arc<Entry<E>>>,
    uses: u64,
    closing: bool,
}

struct Resident<E> {
    entry: Arc<Entry<E>>,
    progress: Progress,
    /// The number of the last use, for the least recently used.
    last_used: u64,
    readers: Vec<Use>,
    ahead_for: Option<Reader>,
    /// A reader has read all of it.
    read_past: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Queued,
    Running { cancelling: bool },
    Full,
}

struct Use {
    reader: Reader,
    served: usize,
    until: Instant,
}

/// What a worker does next.
pub(super) enum Next<E> {
    Run(Task),
    Fill(Key, Arc<Entry<E>>, std::io::Result<MmapMut>),
    /// Drop these outside the lock, then ask again.
    Drop(Vec<Arc<Entry<E>>>),
    /// Nothing to do before a change, or this moment.
    Wait(Option<Instant>),
    Close,
}

enum Room<E> {
    Fits,
    Evicted(Vec<Arc<Entry<E>>>),
    Blocked(Option<Instant>),
}

impl<E: Clone + 'static> Schedule<E> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: HashMap::new(),
            tasks: VecDeque::new(),
            demand: VecDeque::new(),
            ahead: VecDeque::new(),
            ledger: Ledger::new(limit),
            leaving: Vec::new(),
            retired: Vec::new(),
            uses: 0,
            closing: false,
        }
    }

    /// Chooses the next job.
    pub(super) fn next(&mut self, now: Instant) -> Next<E> {
        if self.closing {
            return Next::Close;
        }
        if !self.retired.is_empty() {
            return Next::Drop(std::mem::take(&mut self.retired));
        }
        if let Some(task) = self.tasks.pop_front() {
            return Next::Run(task);
        }
        let mut wake_at = None;
        for demanded in [true, false] {
            let queue = if demanded { &self.demand } else { &self.ahead };
            let Some(&key) = queue.front() else { continue };
            let len = self.entries[&key].entry.len();
            match self.make_room(len, demanded, now) {
                Room::Fits => return self.begin(key, demanded),
                Room::Evicted(entries) => return Next::Drop(entries),
                Room::Blocked(until) => {
                    wake_at = until;
                    break; // what is read ahead must not take the room that a demand waits for
                }
            }
        }
        Next::Wait(wake_at)
    }

    fn begin(&mut self, key: Key, demanded: bool) -> Next<E> {
        if demanded {
            self.demand.pop_front()
        } else {
            self.ahead.pop_front()
        };
        let Some(resident) = self.entries.get_mut(&key) else { return Next::Wait(None) };
        resident.progress = Progress::Running { cancelling: false };
        let entry = resident.entry.clone();
        let memory = self.ledger.take(entry.len());
        Next::Fill(key, entry, memory)
    }

    fn make_room(&mut self, len: usize, demanded: bool, now: Instant) -> Room<E> {
        if self.ledger.fits(len) {
            let past = self.recyclable(len, now).and_then(|key| self.give_up(key));
            return past.map_or(Room::Fits, |entry| Room::Evicted(vec![entry]));
        }
        self.leaving.retain(|(buffer, _)| buffer.strong_count() > 0);
        let mut going: usize = self.leaving.iter().map(|(_, size)| size).sum();
        going += self
            .entries
            .values()
            .filter(|r| r.progress == Progress::Running { cancelling: true })
            .map(|r| capacity(r.entry.len()))
            .sum::<usize>();
        let mut evicted = Vec::new();
        let enough = |going: usize, ledger: &Ledger| {
            let rest = ledger.used().saturating_sub(going);
            rest == 0 || rest + capacity(len) <= ledger.limit()
        };
        while !enough(going, &self.ledger) {
            let Some(key) = self.victim(demanded, now) else { break };
            let size = capacity(self.entries[&key].entry.len());
            match self.give_up(key) {
                Some(entry) => evicted.push(entry),
                None if self.is_cancelling(key) => {}
                None => break,
            }
            going += size;
        }
        if !evicted.is_empty() {
            return Room::Evicted(evicted);
        }
        let expiry = self.entries.values().flat_map(|r| &r.readers).map(|u| u.until).filter(|until| *until > now).min();
        Room::Blocked(expiry)
    }

    fn is_cancelling(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|r| r.progress == Progress::Running { cancelling: true })
    }

    /// The volume that is missed least: an unused one, the least recently used first; for a demand then one that was
    /// read ahead, the latest first, because its reader comes to it last.
    fn victim(&self, demanded: bool, now: Instant) -> Option<Key> {
        if let Some(key) = self.unused(now, |_| true) {
            return Some(key);
        }
        let ahead = self.entries.iter().filter(|(_, r)| {
            demanded
                && r.ahead_for.is_some()
                && matches!(r.progress, Progress::Full | Progress::Running { cancelling: false })
        });
        ahead.max_by_key(|(_, r)| r.last_used).map(|(key, _)| *key)
    }

    /// The least recently used full volume that nobody is in the middle of, among those that `may` go.
    fn unused(&self, now: Instant, may: impl Fn(&Resident<E>) -> bool) -> Option<Key> {
        let candidates = self.entries.iter().filter(|(_, r)| {
            let idle = r.readers.iter().all(|u| u.until <= now);
            r.progress == Progress::Full && r.ahead_for.is_none() && idle && may(r)
        });
        candidates.min_by_key(|(_, r)| r.last_used).map(|(key, _)| *key)
    }

    /// A volume that was read to its end and whose memory serves for `len` bytes, where no free memory does. Memory
    /// that was touched before is worth more than such a volume, which the kernel has cached by now: first touch of
    /// fresh pages was measured slower than decoding into them.
    fn recyclable(&mut self, len: usize, now: Instant) -> Option<Key> {
        self.leaving.retain(|(buffer, _)| buffer.strong_count() > 0);
        if self.ledger.has_spare(len) || !self.leaving.is_empty() {
            return None;
        }
        self.unused(now, |r| r.read_past && region::serves(capacity(r.entry.len()), len))
    }

    /// Evicts a full volume, or asks a running fill to stop.
    fn give_up(&mut self, key: Key) -> Option<Arc<Entry<E>>> {
        let resident = self.entries.get_mut(&key)?;
        match resident.progress {
            Progress::Full => {
                let resident = self.entries.remove(&key)?;
                self.leaving.push((resident.entry.full_buffer(), capacity(resident.entry.len())));
                Some(resident.entry)
            }
            Progress::Running { .. } => {
                resident.progress = Progress::Running { cancelling: resident.entry.request_cancel() };
                None
            }
            Progress::Queued => None,
        }
    }

    /// A reader asks for `bytes` of a volume: finds it, or queues its fill. True if there is new work.
    pub(super) fn want(
        &mut self,
        key: Key,
        len: usize,
        reader: Option<Reader>,
        bytes: usize,
        now: Instant,
    ) -> (Arc<Entry<E>>, bool) {
        self.uses += 1;
        let is_new = !self.entries.contains_key(&key);
        let resident = self.entries.entry(key).or_insert_with(|| Resident::queued(len, None));
        resident.last_used = self.uses;
        let was_ahead = resident.ahead_for.take().is_some();
        if let Progress::Running { cancelling } = &mut resident.progress {
            *cancelling = false;
        }
        let queued = resident.progress == Progress::Queued;
        if let Some(reader) = reader {
            resident.note(reader, bytes, now);
        }
        let entry = resident.entry.clone();
        // One that is larger than the budget is served, and not kept.
        if resident.progress == Progress::Full && resident.readers.is_empty() && capacity(len) > self.ledger.limit() {
            self.retired.extend(self.entries.remove(&key).map(|r| r.entry));
        }
        if queued && was_ahead {
            self.ahead.retain(|queued| *queued != key);
        }
        if queued && (is_new || was_ahead) {
            self.demand.push_back(key);
        }
        (entry, queued)
    }

    /// Whether a volume is here or on its way.
    pub(super) fn contains(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// `reader` will want `keys` next, in this order, and nothing that it wanted ahead before.
    pub(super) fn read_ahead(&mut self, reader: Reader, keys: &[(Key, usize)]) {
        self.forget_ahead(reader, |key| keys.iter().any(|(wanted, _)| *wanted == key));
        for &(key, len) in keys {
            // A volume larger than the budget would displace everything that is being read.
            if !self.entries.contains_key(&key) && capacity(len) <= self.ledger.limit() {
                self.uses += 1;
                let resident = Resident { last_used: self.uses, ..Resident::queued(len, Some(reader)) };
                self.entries.insert(key, resident);
                self.ahead.push_back(key);
            }
        }
    }

    fn forget_ahead(&mut self, reader: Reader, keep: impl Fn(Key) -> bool) {
        let stale: Vec<Key> = self
            .entries
            .iter()
            .filter(|(key, r)| r.ahead_for == Some(reader) && !keep(**key))
            .map(|(key, _)| *key)
            .collect();
        for key in stale {
            let Some(resident) = self.entries.get_mut(&key) else { continue };
            resident.ahead_for = None;
            match resident.progress {
                Progress::Queued if resident.entry.discard() => {
                    self.ahead.retain(|queued| *queued != key);
                    self.retired.extend(self.entries.remove(&key).map(|r| r.entry));
                }
                Progress::Running { .. } => drop(self.give_up(key)),
                Progress::Queued | Progress::Full => {}
            }
        }
    }

    /// `reader` left `key` for another volume, perhaps before its end.
    pub(super) fn move_on(&mut self, reader: Reader, key: Key, now: Instant) {
        let uses = self.entries.get_mut(&key).into_iter().flat_map(|r| &mut r.readers);
        uses.filter(|u| u.reader == reader).for_each(|u| u.until = u.until.min(now + GRACE));
    }

    /// `reader` is gone: nothing is kept or filled for its sake.
    pub(super) fn leave(&mut self, reader: Reader) {
        for resident in self.entries.values_mut() {
            resident.readers.retain(|u| u.reader != reader);
        }
        self.forget_ahead(reader, |_| false);
    }

    pub(super) fn push_task(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// A fill ended: the volume is full, or it is no longer here.
    pub(super) fn ended(&mut self, key: Key, entry: &Arc<Entry<E>>, full: bool) {
        let Some(resident) = self.entries.get_mut(&key).filter(|r| Arc::ptr_eq(&r.entry, entry)) else { return };
        if full && (capacity(entry.len()) <= self.ledger.limit() || !resident.readers.is_empty()) {
            resident.progress = Progress::Full;
        } else {
            self.retired.extend(self.entries.remove(&key).map(|r| r.entry));
        }
    }

    /// Volumes that are full or being filled.
    pub(super) fn held(&self) -> usize {
        self.entries.values().filter(|r| r.progress != Progress::Queued).count()
    }

    /// Everything, at the end.
    pub(super) fn drain(&mut self) -> Vec<Arc<Entry<E>>> {
        self.closing = true;
        self.tasks.clear();
        self.entries.drain().map(|(_, resident)| resident.entry).collect()
    }
}

impl<E: Clone + 'static> Resident<E> {
    fn queued(len: usize, ahead_for: Option<Reader>) -> Self {
        let entry = Arc::new(Entry::new(len));
        Self { entry, progress: Progress::Queued, last_used: 0, readers: Vec::new(), ahead_for, read_past: false }
    }

    fn note(&mut self, reader: Reader, bytes: usize, now: Instant) {
        let at = self.readers.iter().position(|u| u.reader == reader).unwrap_or_else(|| {
            self.readers.push(Use { reader, served: 0, until: now });
            self.readers.len() - 1
        });
        let reading = &mut self.readers[at];
        reading.served += bytes;
        reading.until = now + IDLE;
        if reading.served >= self.entry.len() {
            self.readers.swap_remove(at);
            self.read_past = true;
        }
    }
}
