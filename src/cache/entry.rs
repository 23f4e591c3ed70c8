//! One volume in the cache: waiting for its turn, being filled, or full; and the reads that wait for it.

use crate::base::lock::lock;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::growing::{self, Growing};
use super::region::{Region, Size};

/// A read that waits for bytes of a volume.
pub trait Waiter<E>: Send + 'static {
    /// Answers the read. Called once, on the thread that made the bytes ready, or that failed to.
    fn ready(self: Box<Self>, result: Result<Bytes, E>);
}

/// The outcome of [`CacheEntry::take`]. A waiter that is not kept is returned.
pub(super) enum Taken<E, W> {
    /// The bytes, which were filled already.
    Ready(Bytes, Box<W>),
    /// The error that the fill failed with.
    Failed(E, Box<W>),
    /// The bytes are not filled yet; the waiter will be called.
    Parked,
    /// The fill was cancelled before this read asked: the key must be looked up again.
    Gone(Box<W>),
}

/// One volume in the cache: its length, how far its fill is, and the reads that wait for it.
pub(super) struct CacheEntry<E> {
    size: Size,
    state: Mutex<State<E>>,
}

struct State<E> {
    phase: Phase<E>,
    /// The fill is to stop, unless a read asks for the volume before the filling thread notices.
    cancel: bool,
    waiters: Vec<(Range<usize>, Box<dyn Waiter<E>>)>,
}

enum Phase<E> {
    Queued,
    Filling(Arc<Growing<Region>>),
    Full(Arc<Growing<Region>>),
    Failed(E),
    Cancelled,
}

impl<E: Clone + 'static> CacheEntry<E> {
    /// An entry for a volume whose fill has not begun.
    pub(super) fn new(size: Size) -> Self {
        Self { size, state: Mutex::new(State { phase: Phase::Queued, cancel: false, waiters: Vec::new() }) }
    }

    /// The memory of the volume.
    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// The length of the volume in bytes.
    pub(super) fn len(&self) -> usize {
        self.size.len
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        // Nothing panics while it holds this lock; if it did, the state would still be one of the phases.
        lock(&self.state)
    }

    /// Returns the bytes `range`, or keeps `waiter` and calls it once they are filled.
    pub(super) fn take<W: Waiter<E>>(&self, range: Range<usize>, waiter: Box<W>) -> Taken<E, W> {
        let mut state = self.lock();
        let buffer = match &state.phase {
            Phase::Queued => None,
            Phase::Filling(buffer) | Phase::Full(buffer) => Some(buffer),
            Phase::Failed(error) => return Taken::Failed(error.clone(), waiter),
            Phase::Cancelled => return Taken::Gone(waiter),
        };
        if let Some(slice) = buffer.and_then(|buffer| Growing::slice(buffer, range.clone())) {
            state.cancel = false; // a reader wants it after all
            return Taken::Ready(Bytes::from_owner(slice), waiter);
        }
        state.cancel = false;
        state.waiters.push((range, waiter));
        Taken::Parked
    }

    /// Cancels an entry whose fill has not begun and that no read waits for; true if it was such an entry. A read that
    /// still finds it gets [`Taken::Gone`].
    pub(super) fn discard(&self) -> bool {
        let mut state = self.lock();
        let idle = matches!(state.phase, Phase::Queued) && state.waiters.is_empty();
        if idle {
            state.phase = Phase::Cancelled;
        }
        idle
    }

    /// The address of the volume's buffer, by which the memory is recognised when its last reader drops it; `None`
    /// before the fill.
    pub(super) fn address(&self) -> Option<usize> {
        match &self.lock().phase {
            Phase::Filling(buffer) | Phase::Full(buffer) => Some(buffer.address()),
            _ => None,
        }
    }

    /// Begins the fill of `buffer`.
    pub(super) fn start(&self, buffer: Arc<Growing<Region>>) {
        self.lock().phase = Phase::Filling(buffer);
    }

    /// Asks a running fill to stop; false if a read waits for the volume, and the fill goes on.
    pub(super) fn request_cancel(&self) -> bool {
        let mut state = self.lock();
        state.cancel = state.waiters.is_empty();
        state.cancel
    }

    /// Whether the fill must end: true, for good, once a cancel was asked for and no read asked for the volume since.
    /// The filling thread calls this between chunks.
    pub(super) fn confirm_cancel(&self) -> bool {
        let mut state = self.lock();
        let cancelled = state.cancel && matches!(state.phase, Phase::Filling(_));
        let old = if cancelled { std::mem::replace(&mut state.phase, Phase::Cancelled) } else { Phase::Queued };
        drop(state);
        drop(old); // a buffer must not be dropped under the lock: its memory goes back through another lock
        cancelled
    }

    /// Answers the reads whose bytes are filled by now, those of the lowest end first.
    pub(super) fn wake(&self) {
        let mut state = self.lock();
        let (Phase::Filling(buffer) | Phase::Full(buffer)) = &state.phase else { return };
        let buffer = buffer.clone();
        let filled = buffer.filled();
        let (mut ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.waiters).into_iter().partition(|(range, _)| range.end <= filled);
        state.waiters = waiting;
        drop(state);
        ready.sort_by_key(|(range, _)| range.end);
        for (range, waiter) in ready {
            if let Some(slice) = Growing::slice(&buffer, range) {
                answer(waiter, Ok(Bytes::from_owner(slice)));
            }
        }
    }

    /// Marks the volume as full; the reads that waited for its end are answered by [`Self::wake`].
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        if let Phase::Filling(buffer) = &state.phase {
            state.phase = Phase::Full(buffer.clone());
        }
    }

    /// Marks the fill as failed, and answers every read that waits with `error`.
    pub(super) fn fail(&self, error: E) {
        let mut state = self.lock();
        let old = std::mem::replace(&mut state.phase, Phase::Failed(error.clone()));
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        drop(old); // not under the lock, as in `confirm_cancel`
        for (_, waiter) in waiters {
            answer(waiter, Err(error.clone()));
        }
    }
}

/// Calls a waiter. If it panics, the filling thread and the other waiters must go on.
fn answer<E: 'static>(waiter: Box<dyn Waiter<E>>, result: Result<Bytes, E>) {
    if catch_unwind(AssertUnwindSafe(|| waiter.ready(result))).is_err() {
        log::error!("a read failed by an internal error, reported above");
    }
}

/// The buffer that a volume is filled into, and the entry whose waiting reads are answered as the fill goes on.
pub struct VolumeWriter<'a, E> {
    /// The entry of the volume that is filled.
    pub(super) entry: &'a CacheEntry<E>,
    /// The writer of the buffer that the volume is filled into.
    pub(super) buffer: growing::Writer<Region>,
}

impl<E: Clone + 'static> VolumeWriter<'_, E> {
    /// The bytes of the volume that are not published yet; at the start all of them.
    pub fn spare(&mut self) -> &mut [u8] {
        self.buffer.spare()
    }

    /// Makes the first `len` bytes of [`Self::spare`] readable and answers the reads that waited for them. Reads of the
    /// volume's end are answered only when the fill has ended, because an answer may lead to a request for the next
    /// volume, for which this one has to make room.
    pub fn publish(&mut self, len: usize) {
        self.buffer.publish(len);
        if !self.buffer.is_full() {
            self.entry.wake();
        }
    }

    /// All bytes of the volume, without a copy; `None` if some are not published yet. Who holds them holds the volume's
    /// memory, which counts until then.
    pub fn whole(&self) -> Option<Bytes> {
        let slice = Growing::slice(self.buffer.shared(), 0..self.entry.len());
        slice.map(Bytes::from_owner)
    }

    /// Whether no reader wants the rest. Once this returns true, the fill must end.
    pub fn cancelled(&mut self) -> bool {
        self.entry.confirm_cancel()
    }
}
