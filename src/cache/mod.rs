//! A byte-budgeted cache of volumes that are being filled or full, and the threads that fill them.
//!
//! Generic: knows keys, lengths and a [`Source`] of bytes, nothing of CT or tar. One fill per key is in flight; its
//! bytes, or its error, reach everybody who waits; errors are not kept. The budget counts fills in flight, and free
//! memory that is kept for reuse stays within it too. No lock is held while bytes are made, copied or answered.

mod entry;
mod growing;
mod region;
mod resident;
mod schedule;
mod sync;
#[cfg(test)]
mod tests;

use crate::base::lock::{self, lock};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use memmap2::MmapMut;

pub use entry::{Wait, Writer};

use entry::{Entry, Taken};
use growing::Growing;
use region::{Home, Region};
use schedule::{Next, Schedule, Wanted};

/// Names a volume.
pub type Key = u32;
/// Names somebody who reads: one open file, one worker.
pub type Reader = u64;
/// Work for a filling thread that needs no memory of the budget.
pub type Task = Box<dyn FnOnce() + Send>;

/// Makes the bytes of volumes.
pub trait Source: Send + Sync + 'static {
    /// Why a volume cannot be made.
    type Error: Clone + Send + 'static;

    /// The length of a volume in bytes.
    fn len(&self, key: Key) -> usize;

    /// Publishes all bytes of a volume. False if it stopped because the writer said that it was cancelled.
    ///
    /// # Errors
    /// Whatever prevents it; everybody who waits for the volume gets it.
    fn fill(&self, key: Key, writer: &mut Writer<'_, Self::Error>) -> Result<bool, Self::Error>;

    /// The error for a fill that did not end as it should.
    fn broken(&self, key: Key, cause: Broken) -> Self::Error;
}

/// Why a fill did not end as it should.
#[derive(Debug)]
pub enum Broken {
    /// It panicked with this message.
    Panic(String),
    /// The operating system gave no memory.
    NoMemory(std::io::Error),
}

/// A read's state: answered, or to be answered by a call.
pub enum Poll<E, W> {
    /// The bytes, and the waiter that was not needed.
    Ready(Result<Bytes, E>, Box<W>),
    /// The waiter will be called on a filling thread.
    Parked,
}

/// What the cache did so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Fills that were begun.
    pub fills: AtomicU64,
    /// Fills that failed.
    pub failures: AtomicU64,
    /// Fills that stopped because nobody wanted them any more.
    pub cancelled: AtomicU64,
    /// Volumes whose fill was begun ahead of their reader, who then came.
    pub ahead_hits: AtomicU64,
    /// Reads answered at once.
    pub hits: AtomicU64,
    /// Reads that waited.
    pub waits: AtomicU64,
    /// The most memory that volumes took, in bytes.
    pub peak_bytes: AtomicU64,
}

/// The cache. Dropping it ends its threads; reads that still wait are dropped unanswered.
pub struct Cache<S: Source> {
    shared: Arc<Shared<S>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared<S: Source> {
    source: S,
    schedule: Mutex<Schedule<S::Error>>,
    changed: Condvar,
    counters: Counters,
}

impl<S: Source> Cache<S> {
    /// A cache of `limit` bytes with `threads` filling threads. With `recycle`, a volume that a reader has read to its
    /// end gives its memory to the next one, instead of being kept as long as the limit allows.
    ///
    /// # Errors
    /// The operating system refuses a thread.
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
            let builder = std::thread::Builder::new().name(format!("decode-{number}"));
            cache.workers.push(builder.spawn(move || shared.work())?);
        }
        Ok(cache)
    }

    /// The bytes `range` of volume `key`, at once or through `waiter`. A `reader` keeps the volume until it has
    /// read all of it.
    pub fn read<W: Wait<S::Error>>(
        &self,
        key: Key,
        range: Range<usize>,
        reader: Option<Reader>,
        mut waiter: Box<W>,
    ) -> Poll<S::Error, W> {
        loop {
            let len = self.shared.source.len(key);
            let Wanted { entry, is_work, was_ahead } =
                self.shared.lock().want(key, len, reader, range.len(), Instant::now());
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

    /// Whether a volume is here or on its way.
    pub fn contains(&self, key: Key) -> bool {
        self.shared.lock().contains(key)
    }

    /// Fills `keys` for `reader`, in this order, as far as the budget allows; replaces what it wanted ahead before, except
    /// that those of `kept` which it wanted stay wanted.
    pub fn read_ahead(&self, reader: Reader, keys: &[Key], kept: &[Key]) {
        let keys: Vec<_> = keys.iter().map(|key| (*key, self.shared.source.len(*key))).collect();
        self.shared.lock().read_ahead(reader, &keys, kept);
        self.shared.changed.notify_all();
    }

    /// `reader` went on from `key` to another volume.
    pub fn move_on(&self, reader: Reader, key: Key) {
        self.shared.lock().move_on(reader, key, Instant::now());
        self.shared.changed.notify_all();
    }

    /// `reader` is gone.
    pub fn leave(&self, reader: Reader) {
        self.shared.lock().leave(reader);
        self.shared.changed.notify_all();
    }

    /// Runs a task on a filling thread, before any waiting fill.
    pub fn run(&self, task: Task) {
        self.shared.lock().push_task(task);
        self.shared.changed.notify_one();
    }

    /// Where the volumes come from.
    pub fn source(&self) -> &S {
        &self.shared.source
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Bytes of memory that volumes take now, and the budget.
    pub fn memory(&self) -> (usize, usize) {
        let schedule = self.shared.lock();
        (schedule.ledger.used(), schedule.ledger.limit())
    }

    /// Volumes that are full or being filled.
    pub fn held(&self) -> usize {
        self.shared.lock().held()
    }
}

impl<S: Source> Drop for Cache<S> {
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

impl<S: Source> Home for Shared<S> {
    fn take_back(&self, map: MmapMut) {
        let mut schedule = self.lock();
        schedule.ledger.put(map);
        let discarded = schedule.ledger.take_discarded();
        drop(schedule);
        self.changed.notify_all();
        drop(discarded);
    }
}

impl<S: Source> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Schedule<S::Error>> {
        // The schedule runs no foreign code under its lock, so a poisoned one means a bug that was reported already.
        lock(&self.schedule)
    }

    fn work(self: Arc<Self>) {
        loop {
            match self.next() {
                Next::Run(task) => {
                    if catch_unwind(AssertUnwindSafe(task)).is_err() {
                        log::error!("a read failed by an internal error, reported above");
                    }
                }
                Next::Fill(key, entry, memory) => self.fill(key, &entry, memory),
                Next::Drop(entries) => drop(entries),
                Next::Wait(_) => {}
                Next::Close => return,
            }
        }
    }

    fn next(&self) -> Next<S::Error> {
        let mut schedule = self.lock();
        loop {
            let now = Instant::now();
            schedule = match schedule.next(now) {
                Next::Wait(Some(until)) => {
                    let wait = self.changed.wait_timeout(schedule, until.saturating_duration_since(now));
                    wait.unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
                Next::Wait(None) => lock::wait(&self.changed, schedule),
                next => return next,
            };
        }
    }

    fn fill(self: &Arc<Self>, key: Key, entry: &Arc<Entry<S::Error>>, memory: std::io::Result<MmapMut>) {
        self.counters.fills.fetch_add(1, Ordering::Relaxed);
        let result = match memory {
            Ok(map) => {
                let mut schedule = self.lock();
                self.counters.peak_bytes.fetch_max(schedule.ledger.used() as u64, Ordering::Relaxed);
                let discarded = schedule.ledger.take_discarded();
                drop(schedule);
                drop(discarded);
                let (shared, buffer) = Growing::new(Region::new(map, entry.len(), self.clone()));
                entry.start(shared);
                let mut writer = Writer { entry, buffer };
                catch_unwind(AssertUnwindSafe(|| self.source.fill(key, &mut writer)))
                    .unwrap_or_else(|panic| Err(self.source.broken(key, Broken::Panic(panic_message(&*panic)))))
            }
            Err(error) => Err(self.source.broken(key, Broken::NoMemory(error))),
        };
        // An entry that failed or was cancelled leaves the map before its waiters hear of it: errors are not kept.
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
