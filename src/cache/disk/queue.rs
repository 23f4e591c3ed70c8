//! The volumes that wait to be written, and the one thread that writes them, behind the readers.
//!
//! A volume that waits holds its memory, which the memory cache counts. So no more waits than a given number of bytes,
//! the volume that is being written included; what does not fit is not kept, which costs time only.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::VolumeDigest;
use crate::base::lock::{self, lock};
use crate::formats::codec::RowFilter;

/// How long the thread goes on writing what waits when the mount has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// A volume that is to be kept.
#[derive(Debug)]
pub(super) struct Job {
    /// The digest of the volume.
    pub(super) digest: VolumeDigest,
    /// All of its bytes.
    pub(super) volume: Bytes,
    /// What is done to its blocks before they are packed, where volumes are packed.
    pub(super) filter: RowFilter,
}

/// The volumes that wait to be written.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// The bytes that may wait.
    limit: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// The bytes of all jobs, and of the one that is being written.
    bytes: usize,
    /// When the thread ends whatever waits; `None` as long as the mount lives.
    until: Option<Instant>,
}

impl Queue {
    /// An empty queue for so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new(), limit }
    }

    /// Adds a volume; false if there is no room. One volume of any size may wait alone.
    pub(super) fn push(&self, job: Job) -> bool {
        let mut waiting = lock(&self.waiting);
        let bytes = waiting.bytes.saturating_add(job.volume.len());
        if waiting.until.is_some() || (waiting.bytes > 0 && bytes > self.limit) {
            return false;
        }
        waiting.bytes = bytes;
        waiting.jobs.push_back(job);
        self.changed.notify_all();
        true
    }

    /// The next volume to write; waits for it. `None` when the thread is to end.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.until.is_some_and(|until| until <= Instant::now()) {
                return None;
            }
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.until.is_some() {
                return None;
            }
            waiting = lock::wait(&self.changed, waiting);
        }
    }

    /// Whether more than half of the room is taken, by more than the volume that is being written.
    pub(super) fn is_behind(&self) -> bool {
        let waiting = lock(&self.waiting);
        !waiting.jobs.is_empty() && waiting.bytes > self.limit / 2
    }

    /// Notes that a volume of so many bytes was written, or given up, and its memory is free.
    pub(super) fn done(&self, bytes: usize) {
        lock(&self.waiting).bytes -= bytes;
        self.changed.notify_all();
    }

    /// Waits until nothing waits any more, or the thread must end.
    pub(super) fn wait_until_empty(&self) {
        let mut waiting = lock(&self.waiting);
        while waiting.bytes > 0 {
            let Some(until) = waiting.until else { return };
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            waiting = lock::wait_timeout(&self.changed, waiting, rest);
        }
    }

    /// The bytes that wait, those that are being written included.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.waiting).bytes
    }

    /// Takes no more volumes. What waits is written as far as [`PATIENCE`] allows.
    pub(super) fn close(&self) {
        lock(&self.waiting).until.get_or_insert_with(|| Instant::now() + PATIENCE);
        self.changed.notify_all();
    }

    /// Whether the thread must end at once.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.waiting).until.is_some_and(|until| until <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::codec::{Filter, Method};

    #[test]
    fn what_waits_is_bounded_and_written_in_order() {
        let queue = Queue::new(100);
        let filter = RowFilter::new(Filter::new(Method::Shuffle, 1, false), 1);
        let job = |number: u8, len| Job { digest: [number; 32], volume: vec![0; len].into(), filter };
        assert!(queue.push(job(1, 500)), "one of any size");
        assert!(!queue.push(job(2, 1)));
        assert_eq!(queue.pop().unwrap().digest, [1; 32]);
        assert!(!queue.push(job(2, 1)), "it is still being written");
        queue.done(500);
        assert!(queue.push(job(3, 60)) && queue.push(job(4, 40)) && !queue.push(job(5, 1)));
        assert_eq!(queue.bytes(), 100);
        queue.close();
        assert!(!queue.push(job(6, 0)) && !queue.is_over());
        assert_eq!([(); 3].map(|()| queue.pop().map(|job| job.digest[0])), [Some(3), Some(4), None]);
    }
}
