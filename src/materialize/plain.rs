//! Making a plain shard. Its bytes are copied into blocks by the thread that made them: a decoder that has filled a
//! piece of a volume finds it in its own cache. A thread of its own would read all of it from memory again, and be
//! woken for each piece.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::fill::BlockFiller;
use crate::base::lock::lock;
use crate::error::{Error, Result};
use crate::shard::{Cursor, ShardSet};

/// Bytes of the first read. One that covers more than the beginning of a volume is known to want all of it, so that no
/// look at its first bytes alone is tried.
const FIRST_READ: usize = 4 << 20;
/// Bytes of each later read: half of a common L2 cache, so that the copy finds them there.
const READ: usize = 256 << 10;
/// Bytes after which the progress is reported.
const REPORT: usize = 4 << 20;

/// What the thread that waits for a shard learns.
pub(super) enum PlainEvent {
    /// More bytes are in blocks: their number.
    Progress(usize),
    /// All bytes are in blocks.
    Complete(BlockFiller),
    /// The writing thread has given up, and has the reason.
    GivenUp,
    /// Blocks could not be had, for want of memory.
    NoMemory(io::Error),
    /// The bytes from `offset` on could not be made.
    Failed {
        /// Offset in the shard, in bytes.
        offset: u64,
        /// Why the bytes could not be made.
        error: Error,
    },
}

/// Begins to make the cursor's shard of `set`. The last event is another one than [`PlainEvent::Progress`], unless a
/// decoder panicked. Once the receiver is dropped, the work ends early.
pub(super) fn begin(set: ShardSet, cursor: Arc<Cursor>, filler: BlockFiller) -> Receiver<PlainEvent> {
    let (events, receiver) = mpsc::channel();
    let len = set.len(cursor.shard()).unwrap_or(0);
    Box::new(PlainShard { set, cursor, len, filler, offset: 0, unreported: 0, events }).go_on(None);
    receiver
}

/// A plain shard that is being made.
struct PlainShard {
    set: ShardSet,
    cursor: Arc<Cursor>,
    len: u64,
    /// Declared before `events`, so that it is dropped first, by a panic too: when the channel closes, the next shard
    /// may begin in the same lane.
    filler: BlockFiller,
    /// Bytes made so far.
    offset: u64,
    /// Bytes of these that were not reported yet.
    unreported: usize,
    events: Sender<PlainEvent>,
}

/// A read that was asked for. The shard is continued by the asking thread or by the one that answers, whichever comes
/// second; the first one leaves here what it has.
#[derive(Default)]
struct PendingRead {
    shard: Option<Box<PlainShard>>,
    answer: Option<Result<Bytes>>,
}

impl PlainShard {
    /// Takes an answer and asks for more bytes, until an answer is left to another thread or the shard ends.
    fn go_on(mut self: Box<Self>, mut answer: Option<Result<Bytes>>) {
        loop {
            match answer.take() {
                None => {}
                Some(Ok(bytes)) => match self.take(&bytes) {
                    Ok(true) => {}
                    Ok(false) => return self.end(PlainEvent::GivenUp),
                    Err(error) => return self.end(PlainEvent::NoMemory(error)),
                },
                Some(Err(error)) => {
                    let offset = self.offset;
                    return self.end(PlainEvent::Failed { offset, error });
                }
            }
            if self.offset >= self.len {
                return self.complete();
            }
            let pending = Arc::new(Mutex::new(PendingRead::default()));
            let (answered, len) = (pending.clone(), if self.offset == 0 { FIRST_READ } else { READ });
            self.set.read_then(&self.cursor, self.offset, len, move |result| {
                let mut pending = lock(&answered);
                match pending.shard.take() {
                    None => pending.answer = Some(result),
                    Some(shard) => {
                        drop(pending);
                        shard.go_on(Some(result));
                    }
                }
            });
            let mut pending = lock(&pending);
            answer = pending.answer.take();
            if answer.is_none() {
                pending.shard = Some(self);
                return;
            }
        }
    }

    /// Copies bytes into blocks. False if the writing thread has given up, or the waiting one has left.
    ///
    /// # Errors
    /// There is no memory.
    fn take(&mut self, bytes: &Bytes) -> io::Result<bool> {
        self.offset += bytes.len() as u64;
        self.unreported += bytes.len();
        if !self.filler.write(bytes)? {
            return Ok(false);
        }
        if self.unreported >= REPORT || self.offset >= self.len {
            return Ok(self.events.send(PlainEvent::Progress(std::mem::take(&mut self.unreported))).is_ok());
        }
        Ok(true)
    }

    fn complete(self) {
        let Self { events, filler, .. } = self;
        let _ = events.send(PlainEvent::Complete(filler)); // the receiver is gone if the run was stopped
    }

    fn end(self, event: PlainEvent) {
        let Self { events, filler, .. } = self;
        drop(filler); // first, as when both are dropped
        let _ = events.send(event); // the receiver is gone if the run was stopped
    }
}
