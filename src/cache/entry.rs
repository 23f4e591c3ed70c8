//! One volume in the cache: waiting for its turn, being filled, or full; and the reads that wait for it.

use crate::base::lock::lock;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::growing::{self, Growing};
use super::region::Region;

/// Somebody who waits for bytes.
pub trait Wait<E>: Send + 'static {
    /// Called once, on the thread that made the bytes ready.
    fn ready(self: Box<Self>, result: Result<Bytes, E>);
}

/// What came of asking for bytes; a waiter that was not parked comes back.
pub(super) enum Taken<E, W> {
    /// The bytes are here.
    Ready(Bytes, Box<W>),
    /// The volume could not be filled.
    Failed(E, Box<W>),
    /// The waiter will be called.
    Parked,
    /// The fill was cancelled before anybody asked: look the key up again.
    Gone(Box<W>),
}

pub(super) struct Entry<E> {
    len: usize,
    state: Mutex<State<E>>,
}

struct State<E> {
    phase: Phase<E>,
    /// The fill is to stop, unless somebody comes before it notices.
    cancel: bool,
    waiters: Vec<(Range<usize>, Box<dyn Wait<E>>)>,
}

enum Phase<E> {
    Queued,
    Filling(Arc<Growing<Region>>),
    Full(Arc<Growing<Region>>),
    Failed(E),
    Cancelled,
}

impl<E: Clone + 'static> Entry<E> {
    pub(super) fn new(len: usize) -> Self {
        Self { len, state: Mutex::new(State { phase: Phase::Queued, cancel: false, waiters: Vec::new() }) }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        // Nothing panics while it holds this lock; if it did, the state would still be one of the phases.
        lock(&self.state)
    }

    /// The bytes `range`, or the promise to call `waiter` with them.
    pub(super) fn take<W: Wait<E>>(&self, range: Range<usize>, waiter: Box<W>) -> Taken<E, W> {
        let mut state = self.lock();
        let buffer = match &state.phase {
            Phase::Queued => None,
            Phase::Filling(buffer) | Phase::Full(buffer) => Some(buffer),
            Phase::Failed(error) => return Taken::Failed(error.clone(), waiter),
            Phase::Cancelled => return Taken::Gone(waiter),
        };
        if let Some(slice) = buffer.and_then(|buffer| Growing::slice(buffer, range.clone())) {
            state.cancel = false; // somebody wants it after all
            return Taken::Ready(Bytes::from_owner(slice), waiter);
        }
        state.cancel = false;
        state.waiters.push((range, waiter));
        Taken::Parked
    }

    /// Takes a queued entry that nobody waits for out of service: whoever still finds it looks again.
    pub(super) fn discard(&self) -> bool {
        let mut state = self.lock();
        let idle = matches!(state.phase, Phase::Queued) && state.waiters.is_empty();
        if idle {
            state.phase = Phase::Cancelled;
        }
        idle
    }

    /// Where the buffer of a volume lies, to recognise its memory when the last reader has dropped it.
    pub(super) fn address(&self) -> Option<usize> {
        match &self.lock().phase {
            Phase::Filling(buffer) | Phase::Full(buffer) => Some(buffer.address()),
            _ => None,
        }
    }

    /// Begins the fill.
    pub(super) fn start(&self, buffer: Arc<Growing<Region>>) {
        self.lock().phase = Phase::Filling(buffer);
    }

    /// Asks a running fill to stop; false if somebody waits for it.
    pub(super) fn request_cancel(&self) -> bool {
        let mut state = self.lock();
        state.cancel = state.waiters.is_empty();
        state.cancel
    }

    /// Called by the filler between chunks: true, for good, once a cancel was asked for and nobody came since.
    pub(super) fn confirm_cancel(&self) -> bool {
        let mut state = self.lock();
        let cancelled = state.cancel && matches!(state.phase, Phase::Filling(_));
        let old = if cancelled { std::mem::replace(&mut state.phase, Phase::Cancelled) } else { Phase::Queued };
        drop(state);
        drop(old); // a buffer must not be dropped under the lock: its memory goes home through another lock
        cancelled
    }

    /// Answers the reads that are ready by now, the earliest first.
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

    /// The fill is complete; [`Self::wake`] answers those who waited for its end.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        if let Phase::Filling(buffer) = &state.phase {
            state.phase = Phase::Full(buffer.clone());
        }
    }

    /// The fill failed: everybody who waits gets the error.
    pub(super) fn fail(&self, error: E) {
        let mut state = self.lock();
        let old = std::mem::replace(&mut state.phase, Phase::Failed(error.clone()));
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        drop(old); // as above
        for (_, waiter) in waiters {
            answer(waiter, Err(error.clone()));
        }
    }
}

/// A waiter that panics must not take the filler, and with it the other waiters, along.
fn answer<E: 'static>(waiter: Box<dyn Wait<E>>, result: Result<Bytes, E>) {
    if catch_unwind(AssertUnwindSafe(|| waiter.ready(result))).is_err() {
        log::error!("a read failed by an internal error, reported above");
    }
}

/// What a filler writes to: the buffer, and the reads that its progress answers.
pub struct Writer<'a, E> {
    pub(super) entry: &'a Entry<E>,
    pub(super) buffer: growing::Writer<Region>,
}

impl<E: Clone + 'static> Writer<'_, E> {
    /// The bytes that are not published yet.
    pub fn spare(&mut self) -> &mut [u8] {
        self.buffer.spare()
    }

    /// Makes the first `len` bytes of [`Self::spare`] readable and answers the reads that waited for them; those that
    /// waited for the volume's end only once the fill has ended, because an answer may ask for the next volume, for
    /// which this one is to make room.
    pub fn publish(&mut self, len: usize) {
        self.buffer.publish(len);
        if !self.buffer.is_full() {
            self.entry.wake();
        }
    }

    /// Whether nobody wants the rest. After a yes, the fill must end.
    pub fn cancelled(&mut self) -> bool {
        self.entry.confirm_cancel()
    }
}
