//! A byte-budgeted cache of volumes that are being filled or full, and the threads that fill them.
//!
//! Generic: knows keys, lengths and a [`VolumeSource`] of bytes, nothing of CT or tar. One fill per key is in flight;
//! its bytes, or its error, reach every read that waits; errors are not kept. The budget counts fills in flight, and
//! free memory that is kept for reuse stays within it too. No lock is held while bytes are made, copied or answered.
//! The second level behind it, on a local disk, is [`disk`].

pub mod disk;
mod entry;
mod growing;
mod patience;
mod region;
mod resident;
mod schedule;
mod sync;
#[cfg(test)]
mod tests;

use crate::base::lock::{self, lock};
use crate::base::parallel;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use memmap2::MmapMut;

pub use entry::{VolumeWriter, Waiter};

use entry::{CacheEntry, Taken};
use growing::Growing;
use region::Size;
use region::{MemoryOwner, Region};
use schedule::{Schedule, Wanted, WorkerStep};

/// The number that names a volume.
pub type Key = u32;
/// The number that names a reader: one open file, or one worker.
pub type ReaderId = u64;
/// Work for a filling thread that takes no memory of the budget.
pub type Task = Box<dyn FnOnce() + Send>;

/// The source that makes the bytes of volumes.
pub trait VolumeSource: Send + Sync + 'static {
    /// The reason why a volume cannot be made.
    type Error: Clone + Send + 'static;

    /// The length of a volume in bytes.
    fn len(&self, key: Key) -> usize;

    /// The memory in bytes that making a volume takes beside the volume, beyond what each filling thread takes anyway.
    /// It is counted like the volume, from the beginning of the fill to its end.
    fn scratch(&self, key: Key) -> usize;

    /// Makes all bytes of a volume and publishes them through `writer`. Returns false if it stopped because
    /// [`VolumeWriter::cancelled`] was true.
    ///
    /// # Errors
    /// The reason why the volume cannot be made; every read that waits for the volume gets it.
    fn fill(&self, key: Key, writer: &mut VolumeWriter<'_, Self::Error>) -> Result<bool, Self::Error>;

    /// The error that readers get for a fill that panicked or got no memory.
    fn failure(&self, key: Key, cause: FillFailure) -> Self::Error;
}

/// The reason why a fill failed outside of the [`VolumeSource`]'s own errors.
#[derive(Debug)]
pub enum FillFailure {
    /// The fill panicked with this message.
    Panic(String),
    /// The operating system gave no memory.
    NoMemory(std::io::Error),
}

/// The state of a read: answered, or to be answered by a call of its waiter.
pub enum Poll<E, W> {
    /// The bytes or the error, and the waiter, which was not needed.
    Ready(Result<Bytes, E>, Box<W>),
    /// The waiter will be called on a filling thread.
    Parked,
}

/// Counts of what the cache did so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// The fills that were begun.
    pub fills: AtomicU64,
    /// The fills that failed.
    pub failures: AtomicU64,
    /// The fills that stopped because no reader wanted the volume any more.
    pub cancelled: AtomicU64,
    /// The volumes whose fill was begun ahead of a reader that then asked for them.
    pub ahead_hits: AtomicU64,
    /// The reads that were answered at once.
    pub hits: AtomicU64,
    /// The reads that waited for a fill.
    pub waits: AtomicU64,
    /// The most memory that volumes took at any time, in bytes.
    pub peak_bytes: AtomicU64,
}

/// A cache of volumes with its filling threads. When it is dropped, the threads end, and reads that still wait are
/// dropped unanswered.
pub struct Cache<S: VolumeSource> {
    shared: Arc<Shared<S>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared<S: VolumeSource> {
    source: S,
    schedule: Mutex<Schedule<S::Error>>,
    changed: Condvar,
    counters: Counters,
}

impl<S: VolumeSource> Cache<S> {
    /// A cache of `limit` bytes with `threads` filling threads. With `recycle`, the memory of a volume that a reader
    /// has read to its end is used for the next one, instead of being kept as long as the limit allows.
    ///
    /// # Errors
    /// The error of the operating system if it refuses a thread.
    pub fn new(source: S, limit: usize, threads: usize, recycle: bool) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            source,
            schedule: Mutex::new(Schedule::new(limit, recycle)),
            changed: Condvar::new(),
            counters: Counters::default(),
        });
        let mut cache = Self { shared, workers: Vec::new() };
        for number in 0..threads.max(1) {
            let shared = cache.shared.clone();
            cache.workers.push(parallel::spawn(&format!("decode-{number}"), move || shared.work())?);
        }
        Ok(cache)
    }

    /// Says that the kernel keeps the bytes that it was given, so that a reader may get the rest of a volume without
    /// asking for it. While others wait, a volume is then kept for a moment only after the last request of its reader,
    /// and for longer if that turns out to be too short.
    pub fn kernel_keeps(&self) {
        self.shared.lock().patience.kernel_keeps();
    }

    /// Reads the bytes `range` of volume `key`: at once if they are filled, else through `waiter`. The volume is kept
    /// for `reader` until that has read all of it.
    pub fn read<W: Waiter<S::Error>>(
        &self,
        key: Key,
        range: Range<usize>,
        reader: Option<ReaderId>,
        mut waiter: Box<W>,
    ) -> Poll<S::Error, W> {
        loop {
            let size = self.shared.size(key);
            let Wanted { entry, is_work, was_ahead } =
                self.shared.lock().want(key, size, reader, range.len(), Instant::now());
            if was_ahead {
                self.shared.counters.ahead_hits.fetch_add(1, Ordering::Relaxed);
            }
            let taken = entry.take(range.clone(), waiter);
            if is_work {
                self.shared.changed.notify_all();
            }
            let counters = &self.shared.counters;
            match taken {
                Taken::Ready(bytes, waiter) => {
                    counters.hits.fetch_add(1, Ordering::Relaxed);
                    return Poll::Ready(Ok(bytes), waiter);
                }
                Taken::Failed(error, waiter) => return Poll::Ready(Err(error), waiter),
                Taken::Parked => {
                    counters.waits.fetch_add(1, Ordering::Relaxed);
                    return Poll::Parked;
                }
                Taken::Gone(back) => waiter = back,
            }
            self.shared.lock().forget(key, &entry);
        }
    }

    /// Whether a volume is full, being filled, or waits for its fill.
    pub fn contains(&self, key: Key) -> bool {
        self.shared.lock().contains(key)
    }

    /// Fills `keys` ahead of `reader`, in this order, as far as the budget allows. The list replaces the one of the
    /// reader's last call; of that, only the volumes in `kept` stay wanted.
    pub fn read_ahead(&self, reader: ReaderId, keys: &[Key], kept: &[Key]) {
        let keys: Vec<_> = keys.iter().map(|key| (*key, self.shared.size(*key))).collect();
        self.shared.lock().read_ahead(reader, &keys, kept);
        self.shared.changed.notify_all();
    }

    /// Notes that `reader` went on from `key` to another volume.
    pub fn move_on(&self, reader: ReaderId, key: Key) {
        self.shared.lock().move_on(reader, key, Instant::now());
        self.shared.changed.notify_all();
    }

    /// Notes that `reader` has ended: no volume is kept or filled for it any more.
    pub fn leave(&self, reader: ReaderId) {
        self.shared.lock().leave(reader);
        self.shared.changed.notify_all();
    }

    /// Runs a task on a filling thread, before any waiting fill.
    pub fn run(&self, task: Task) {
        self.shared.lock().push_task(task);
        self.shared.changed.notify_one();
    }

    /// The source that makes the volumes.
    pub fn source(&self) -> &S {
        &self.shared.source
    }

    /// The counts of what the cache did so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The memory that volumes take now, and the limit, both in bytes.
    pub fn memory(&self) -> (usize, usize) {
        let schedule = self.shared.lock();
        (schedule.budget.used(), schedule.budget.limit())
    }

    /// The number of volumes that are full or being filled.
    pub fn held(&self) -> usize {
        self.shared.lock().held()
    }
}

impl<S: VolumeSource> Drop for Cache<S> {
    fn drop(&mut self) {
        let entries = self.shared.lock().drain();
        self.shared.changed.notify_all();
        for entry in &entries {
            entry.request_cancel();
        }
        drop(entries);
        let this = std::thread::current().id();
        // A worker that drops the last user of the cache cannot wait for itself.
        for worker in self.workers.drain(..).filter(|worker| worker.thread().id() != this) {
            let _ = worker.join(); // a panic was already reported by the panic hook
        }
    }
}

impl<S: VolumeSource> MemoryOwner for Shared<S> {
    fn take_back(&self, map: MmapMut) {
        let mut schedule = self.lock();
        schedule.budget.put(map);
        let discarded = schedule.budget.take_discarded();
        drop(schedule);
        self.changed.notify_all();
        drop(discarded);
    }
}

impl<S: VolumeSource> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Schedule<S::Error>> {
        // The schedule calls no code of others under its lock, so a poisoned lock means a bug that was reported
        // already.
        lock(&self.schedule)
    }

    fn size(&self, key: Key) -> Size {
        Size { len: self.source.len(key), scratch: self.source.scratch(key) }
    }

    fn work(self: Arc<Self>) {
        loop {
            match self.next() {
                WorkerStep::Run(task) => {
                    if catch_unwind(AssertUnwindSafe(task)).is_err() {
                        log::error!("a read failed by an internal error, reported above");
                    }
                }
                WorkerStep::Fill(key, entry, memory) => self.fill(key, &entry, memory),
                WorkerStep::Drop(entries) => drop(entries),
                WorkerStep::Wait(_) => {}
                WorkerStep::Close => return,
            }
        }
    }

    fn next(&self) -> WorkerStep<S::Error> {
        let mut schedule = self.lock();
        loop {
            let now = Instant::now();
            schedule = match schedule.next(now) {
                WorkerStep::Wait(Some(until)) => {
                    lock::wait_timeout(&self.changed, schedule, until.saturating_duration_since(now))
                }
                WorkerStep::Wait(None) => lock::wait(&self.changed, schedule),
                next => return next,
            };
        }
    }

    fn fill(self: &Arc<Self>, key: Key, entry: &Arc<CacheEntry<S::Error>>, memory: std::io::Result<MmapMut>) {
        self.counters.fills.fetch_add(1, Ordering::Relaxed);
        let result = match memory {
            Ok(map) => {
                let mut schedule = self.lock();
                self.counters.peak_bytes.fetch_max(schedule.budget.used() as u64, Ordering::Relaxed);
                let discarded = schedule.budget.take_discarded();
                drop(schedule);
                drop(discarded);
                let (shared, buffer) = Growing::new(Region::new(map, entry.len(), self.clone()));
                entry.start(shared);
                let mut writer = VolumeWriter { entry, buffer };
                let result = catch_unwind(AssertUnwindSafe(|| self.source.fill(key, &mut writer)))
                    .unwrap_or_else(|panic| Err(self.source.failure(key, FillFailure::Panic(panic_message(&*panic)))));
                self.lock().budget.release(entry.size().scratch);
                result
            }
            Err(error) => Err(self.source.failure(key, FillFailure::NoMemory(error))),
        };
        // An entry that failed or was cancelled leaves the map before its waiters are called: errors are not kept.
        let complete = matches!(result, Ok(true));
        if complete {
            entry.finish();
        }
        self.lock().ended(key, entry, complete, Instant::now());
        match result {
            Ok(true) => entry.wake(),
            Ok(false) => {
                self.counters.cancelled.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                entry.fail(error);
            }
        }
        self.changed.notify_all();
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".into())
}
