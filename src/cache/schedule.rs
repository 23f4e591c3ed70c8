//! The schedule: the choice of the next fill and of what makes room for it. This is the state under the cache's one
//! lock, without threads or clocks.
//!
//! Demanded volumes go first and strictly in order, so that each is filled in the end; volumes read ahead take what
//! room is left. Room is made by the least recently used volume that no reader is in the middle of, then (for a demand
//! only) by volumes read ahead. A volume that a reader is in the middle of stays until it is read past, or the reader
//! has been idle for its [`Patience`] while others wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use memmap2::MmapMut;

use super::entry::CacheEntry;
use super::patience::Patience;
use super::region::Size;
use super::region::{self, MemoryBudget, capacity};
use super::resident::{ActiveReader, FillState, Resident};
use super::{Key, ReaderId, Task};

/// The volumes of the cache, the queues of fills and tasks, and the memory budget.
pub(super) struct Schedule<E> {
    entries: HashMap<Key, Resident<E>>,
    tasks: VecDeque<Task>,
    demand: VecDeque<Key>,
    ahead: VecDeque<Key>,
    /// The memory in use and the memory that is free for reuse.
    pub(super) budget: MemoryBudget,
    /// Removed volumes that a worker is to drop outside the lock.
    retired: Vec<Arc<CacheEntry<E>>>,
    uses: u64,
    /// Whether a volume that was read to its end gives its memory to the next one before fresh memory is taken.
    recycle: bool,
    /// How long a reader that asks for nothing may keep a volume from others.
    pub(super) patience: Patience,
    closing: bool,
}

/// The next step of a filling thread.
pub(super) enum WorkerStep<E> {
    /// Run this task.
    Run(Task),
    /// Fill the volume of this key in this memory, or fail it where there was none.
    Fill(Key, Arc<CacheEntry<E>>, std::io::Result<MmapMut>),
    /// Drop these outside the lock, then ask again.
    Drop(Vec<Arc<CacheEntry<E>>>),
    /// Wait for a change of the schedule, or until this time.
    Wait(Option<Instant>),
    /// End the thread.
    Close,
}

/// The answer to [`Schedule::want`].
pub(super) struct Wanted<E> {
    /// The volume that the reader asked for.
    pub(super) entry: Arc<CacheEntry<E>>,
    /// Whether a filling thread may have something to do now.
    pub(super) is_work: bool,
    /// Whether the fill was begun ahead of this reader, which asks for the first time.
    pub(super) was_ahead: bool,
}

enum Room<E> {
    Fits,
    Evicted(Vec<Arc<CacheEntry<E>>>),
    Blocked(Option<Instant>),
}

impl<E: Clone + 'static> Schedule<E> {
    /// An empty schedule with a budget of `limit` bytes; `recycle` as in [`super::Cache::new`].
    pub(super) fn new(limit: usize, recycle: bool) -> Self {
        Self {
            entries: HashMap::new(),
            tasks: VecDeque::new(),
            demand: VecDeque::new(),
            ahead: VecDeque::new(),
            budget: MemoryBudget::new(limit),
            retired: Vec::new(),
            uses: 0,
            recycle,
            patience: Patience::new(),
            closing: false,
        }
    }

    /// Chooses the next step of a filling thread.
    pub(super) fn next(&mut self, now: Instant) -> WorkerStep<E> {
        if self.closing {
            return WorkerStep::Close;
        }
        if !self.retired.is_empty() {
            return WorkerStep::Drop(std::mem::take(&mut self.retired));
        }
        if let Some(task) = self.tasks.pop_front() {
            return WorkerStep::Run(task);
        }
        let mut wake_at = None;
        for demanded in [true, false] {
            let queue = if demanded { &self.demand } else { &self.ahead };
            let Some(&key) = queue.front() else { continue };
            match self.make_room(key, demanded, now) {
                Room::Fits => return self.begin(key, demanded),
                Room::Evicted(entries) => return WorkerStep::Drop(entries),
                Room::Blocked(until) => {
                    wake_at = until;
                    break; // what is read ahead must not take the room that a demand waits for
                }
            }
        }
        WorkerStep::Wait(wake_at)
    }

    fn begin(&mut self, key: Key, demanded: bool) -> WorkerStep<E> {
        if demanded {
            self.demand.pop_front()
        } else {
            self.ahead.pop_front()
        };
        let Some(resident) = self.entries.get_mut(&key) else { return WorkerStep::Wait(None) };
        resident.fill_state = FillState::Running { cancelling: false };
        let entry = resident.entry.clone();
        let memory = self.budget.take(entry.size());
        WorkerStep::Fill(key, entry, memory)
    }

    fn make_room(&mut self, wanted: Key, demanded: bool, now: Instant) -> Room<E> {
        let size = self.entries[&wanted].entry.size();
        let needed = size.while_filled();
        if self.budget.fits(needed) {
            let past = self.recyclable(size.len, now).and_then(|key| self.give_up(key));
            return past.map_or(Room::Fits, |entry| Room::Evicted(vec![entry]));
        }
        let mut going = self.budget.leaving();
        going += self
            .entries
            .values()
            .filter(|r| r.fill_state == FillState::Running { cancelling: true })
            .map(Resident::counted)
            .sum::<usize>();
        let mut evicted = Vec::new();
        let enough = |going: usize, budget: &MemoryBudget| {
            let rest = budget.used().saturating_sub(going);
            rest == 0 || rest.saturating_add(needed) <= budget.limit()
        };
        while !enough(going, &self.budget) {
            let Some(key) = self.victim(demanded, now) else { break };
            let size = self.entries[&key].counted();
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
        let readers = self.entries.values().flat_map(|r| &r.readers);
        let expiry = readers.map(|u| if demanded { u.while_others_wait } else { u.until }).filter(|until| *until > now);
        Room::Blocked(expiry.min())
    }

    fn is_cancelling(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|r| r.fill_state == FillState::Running { cancelling: true })
    }

    /// The volume that is missed least: an unused one, the least recently used first; for a demand then one whose
    /// readers try the others' patience; then one that was read ahead, the latest first, because its reader comes to it
    /// last; then one that only waiting readers hold.
    fn victim(&self, demanded: bool, now: Instant) -> Option<Key> {
        if let Some(key) = self.unused(|u| u.until <= now, |_| true) {
            return Some(key);
        }
        if !demanded {
            return None;
        }
        if let Some(key) = self.unused(|u| u.while_others_wait <= now, |_| true) {
            return Some(key);
        }
        let ahead = self.entries.iter().filter(|(_, r)| {
            !r.ahead_for.is_empty()
                && matches!(r.fill_state, FillState::Full | FillState::Running { cancelling: false })
        });
        if let Some((key, _)) = ahead.max_by_key(|(_, r)| r.last_used) {
            return Some(*key);
        }
        // A reader whose requests came out of order may wait for one volume in the middle of another: it cannot go on
        // there, so that keeping it would stop every reader.
        let queued =
            |reader| self.demand.iter().any(|key| self.entries[key].readers.iter().any(|u| u.reader == reader));
        let waiting = |u: &ActiveReader| queued(u.reader);
        let stuck = self
            .entries
            .iter()
            .filter(|(_, r)| r.fill_state == FillState::Full && r.readers.iter().all(|u| u.until <= now || waiting(u)));
        stuck.min_by_key(|(_, r)| r.last_used).map(|(key, _)| *key)
    }

    /// The least recently used full volume whose readers are all `idle`, among those that `may` go.
    fn unused(&self, idle: impl Fn(&ActiveReader) -> bool, may: impl Fn(&Resident<E>) -> bool) -> Option<Key> {
        let candidates = self.entries.iter().filter(|(_, r)| {
            r.fill_state == FillState::Full && r.ahead_for.is_empty() && r.readers.iter().all(&idle) && may(r)
        });
        candidates.min_by_key(|(_, r)| r.last_used).map(|(key, _)| *key)
    }

    /// A volume that was read to its end and whose memory serves for `len` bytes, where no free memory does. Memory
    /// that was touched before is worth more than such a volume, which the kernel has cached by now: first touch of
    /// fresh pages was measured slower than decoding into them.
    fn recyclable(&mut self, len: usize, now: Instant) -> Option<Key> {
        if !self.recycle || self.budget.has_spare(len) || self.budget.leaving() > 0 {
            return None;
        }
        self.unused(|u| u.until <= now, |r| r.read_past && region::serves(capacity(r.entry.len()), len))
    }

    /// Evicts a full volume, or asks a running fill to stop.
    fn give_up(&mut self, key: Key) -> Option<Arc<CacheEntry<E>>> {
        let resident = self.entries.get_mut(&key)?;
        match resident.fill_state {
            FillState::Full => {
                let resident = self.entries.remove(&key)?;
                for reading in resident.readers.iter().filter(|u| !u.moved_on) {
                    self.patience.lost(reading.reader, key, reading.patience);
                }
                if let Some(address) = resident.entry.address() {
                    self.budget.expect(address, resident.entry.len());
                }
                Some(resident.entry)
            }
            FillState::Running { .. } => {
                resident.fill_state = FillState::Running { cancelling: resident.entry.request_cancel() };
                None
            }
            FillState::Queued => None,
        }
    }

    /// Notes that a reader asks for `bytes` of the volume `key`: finds the volume, or queues its fill.
    pub(super) fn want(
        &mut self,
        key: Key,
        size: Size,
        reader: Option<ReaderId>,
        bytes: usize,
        now: Instant,
    ) -> Wanted<E> {
        self.uses += 1;
        let patience = reader.map(|reader| self.patience.with(reader, key));
        let is_new = !self.entries.contains_key(&key);
        let resident = self.entries.entry(key).or_insert_with(|| Resident::queued(size));
        resident.last_used = self.uses;
        let expected = resident.ahead_for.len();
        resident.ahead_for.retain(|other| Some(*other) != reader);
        let was_ahead = resident.fill_state != FillState::Queued && resident.ahead_for.len() < expected;
        if let FillState::Running { cancelling } = &mut resident.fill_state {
            *cancelling = false;
        }
        let queued = resident.fill_state == FillState::Queued;
        let asked = reader.zip(patience);
        let ended = asked.is_some_and(|(reader, patience)| resident.note(reader, bytes, patience, now));
        let entry = resident.entry.clone();
        if capacity(size.len) > self.budget.limit() {
            self.retire_oversized();
        }
        let waiting_ahead = self.ahead.len();
        if queued {
            self.ahead.retain(|ahead| *ahead != key);
        }
        if is_new || waiting_ahead > self.ahead.len() {
            self.demand.push_back(key);
        }
        Wanted { entry, is_work: queued || ended, was_ahead }
    }

    /// Drops volumes that are larger than the budget and that no reader is in the middle of: they are served, not kept.
    fn retire_oversized(&mut self) {
        let limit = self.budget.limit();
        let oversized = self.entries.extract_if(|_, r| {
            r.fill_state == FillState::Full && r.readers.is_empty() && capacity(r.entry.len()) > limit
        });
        self.retired.extend(oversized.map(|(_, r)| r.entry));
    }

    /// Removes a volume whose fill was found cancelled before its thread could say so; the key can be asked for again.
    pub(super) fn forget(&mut self, key: Key, entry: &Arc<CacheEntry<E>>) {
        if self.entries.get(&key).is_some_and(|r| Arc::ptr_eq(&r.entry, entry)) {
            self.retired.extend(self.entries.remove(&key).map(|r| r.entry));
            self.demand.retain(|queued| *queued != key);
            self.ahead.retain(|queued| *queued != key);
        }
    }

    /// Whether a volume is full, being filled, or waits for its fill.
    pub(super) fn contains(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// Queues fills of `keys`, each with its memory, ahead of `reader`; `kept` as in
    /// [`super::Cache::read_ahead`].
    pub(super) fn read_ahead(&mut self, reader: ReaderId, keys: &[(Key, Size)], kept: &[Key]) {
        self.forget_ahead(reader, |key| kept.contains(&key) || keys.iter().any(|(wanted, _)| *wanted == key));
        for &(key, size) in keys {
            // A volume larger than the budget would displace everything that is being read.
            if size.while_filled() > self.budget.limit() {
                continue;
            }
            self.uses += 1;
            let is_new = !self.entries.contains_key(&key);
            let resident = self.entries.entry(key).or_insert_with(|| Resident::queued(size));
            let is_ahead = !resident.ahead_for.is_empty();
            if is_new || (is_ahead && !resident.ahead_for.contains(&reader)) {
                resident.ahead_for.push(reader);
            }
            if is_new {
                resident.last_used = self.uses;
                self.ahead.push_back(key);
            }
        }
    }

    fn forget_ahead(&mut self, reader: ReaderId, keep: impl Fn(Key) -> bool) {
        let stale: Vec<Key> = self
            .entries
            .iter()
            .filter(|(key, r)| r.ahead_for.contains(&reader) && !keep(**key))
            .map(|(key, _)| *key)
            .collect();
        for key in stale {
            let Some(resident) = self.entries.get_mut(&key) else { continue };
            resident.ahead_for.retain(|other| *other != reader);
            match resident.fill_state {
                _ if !resident.ahead_for.is_empty() => {}
                FillState::Queued if resident.entry.discard() => {
                    self.ahead.retain(|queued| *queued != key);
                    self.retired.extend(self.entries.remove(&key).map(|r| r.entry));
                }
                FillState::Running { .. } => drop(self.give_up(key)),
                FillState::Queued | FillState::Full => {}
            }
        }
    }

    /// Notes that `reader` went on from `key` to another volume, perhaps before its end.
    pub(super) fn move_on(&mut self, reader: ReaderId, key: Key, now: Instant) {
        let Some(resident) = self.entries.get_mut(&key) else { return };
        for reading in resident.readers.iter_mut().filter(|u| u.reader == reader) {
            reading.move_on(now);
            // Its first bytes may have been peeked at, which is not counted.
            resident.read_past |= reading.served >= resident.entry.len() / 2;
        }
    }

    /// Notes that `reader` has ended: no volume is kept or filled for it any more.
    pub(super) fn leave(&mut self, reader: ReaderId) {
        self.patience.forget(reader);
        for resident in self.entries.values_mut() {
            resident.readers.retain(|u| u.reader != reader);
        }
        self.retire_oversized();
        self.forget_ahead(reader, |_| false);
    }

    /// Queues a task.
    pub(super) fn push_task(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// Notes that a fill ended: the volume is `full`, or it is removed.
    pub(super) fn ended(&mut self, key: Key, entry: &Arc<CacheEntry<E>>, full: bool, now: Instant) {
        let Some(resident) = self.entries.get_mut(&key).filter(|r| Arc::ptr_eq(&r.entry, entry)) else { return };
        if full && (capacity(entry.len()) <= self.budget.limit() || !resident.readers.is_empty()) {
            resident.fill_state = FillState::Full;
            // Its readers may have waited for longer than an idle one is given.
            resident.readers.iter_mut().filter(|u| !u.moved_on).for_each(|u| u.keep(now));
        } else {
            self.retired.extend(self.entries.remove(&key).map(|r| r.entry));
        }
    }

    /// The number of volumes that are full or being filled.
    pub(super) fn held(&self) -> usize {
        self.entries.values().filter(|r| r.fill_state != FillState::Queued).count()
    }

    /// Closes the schedule and returns all volumes that are left.
    pub(super) fn drain(&mut self) -> Vec<Arc<CacheEntry<E>>> {
        self.closing = true;
        self.tasks.clear();
        let retired = std::mem::take(&mut self.retired);
        self.entries.drain().map(|(_, resident)| resident.entry).chain(retired).collect()
    }
}
