//! A shard's bytes on their way into blocks, by the thread that makes them: a decoder that has filled a piece of a volume
//! finds it in its own cache. A thread of its own would read all of it from memory again, and be woken for each piece.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::output::Output;
use crate::base::lock::lock;
use crate::error::{Error, Result};
use crate::shard::{Cursor, ShardSet};

/// Bytes of the first read. One that covers more than the beginning of a volume is known to want all of it, so that no
/// look at its first bytes alone is tried.
const FIRST: usize = 4 << 20;
/// Bytes of a read after it: half of a common L2, so that the copy finds them there.
const PIECE: usize = 256 << 10;
/// Bytes after which the waiting thread is told how far the shard is.
const REPORT: usize = 4 << 20;

/// What the waiting thread is told.
pub(super) enum Told {
    /// So many more bytes are on their way to the disk.
    Progress(usize),
    /// All are.
    Complete(Output),
    /// The writing thread has given up, and has the reason.
    GivenUp,
    /// There was no memory to write.
    NoMemory(io::Error),
    /// The bytes from an offset on could not be made.
    Failed(u64, Error),
}

/// Begins to make the cursor's shard of `set`. The last message is another one than [`Told::Progress`], unless a decoder
/// panicked; once the receiver is dropped, the stream ends early.
pub(super) fn begin(set: ShardSet, cursor: Arc<Cursor>, output: Output) -> Receiver<Told> {
    let (told, receiver) = mpsc::channel();
    let len = set.len(cursor.shard()).unwrap_or(0);
    Box::new(Stream { set, cursor, len, output, offset: 0, unreported: 0, told }).go_on(None);
    receiver
}

struct Stream {
    set: ShardSet,
    cursor: Arc<Cursor>,
    len: u64,
    /// Before `told`: whoever listens may begin the next shard in its place, so it goes first, even by a panic.
    output: Output,
    offset: u64,
    unreported: usize,
    told: Sender<Told>,
}

/// A read that was asked for: whoever comes second of the asking thread and the answer goes on.
#[derive(Default)]
struct Meeting {
    stream: Option<Box<Stream>>,
    answer: Option<Result<Bytes>>,
}

impl Stream {
    /// Takes an answer and asks for more, until an answer is left to another thread or the stream ends.
    fn go_on(mut self: Box<Self>, mut answer: Option<Result<Bytes>>) {
        loop {
            match answer.take() {
                None => {}
                Some(Ok(bytes)) => match self.take(&bytes) {
                    Ok(true) => {}
                    Ok(false) => return self.end(Told::GivenUp),
                    Err(error) => return self.end(Told::NoMemory(error)),
                },
                Some(Err(error)) => {
                    let offset = self.offset;
                    return self.end(Told::Failed(offset, error));
                }
            }
            if self.offset >= self.len {
                return self.complete();
            }
            let meeting = Arc::new(Mutex::new(Meeting::default()));
            let (theirs, piece) = (meeting.clone(), if self.offset == 0 { FIRST } else { PIECE });
            self.set.read_then(&self.cursor, self.offset, piece, move |result| {
                let mut meeting = lock(&theirs);
                match meeting.stream.take() {
                    None => meeting.answer = Some(result),
                    Some(stream) => {
                        drop(meeting);
                        stream.go_on(Some(result));
                    }
                }
            });
            let mut meeting = lock(&meeting);
            answer = meeting.answer.take();
            if answer.is_none() {
                meeting.stream = Some(self);
                return;
            }
        }
    }

    /// False if nobody wants any more.
    ///
    /// # Errors
    /// There is no memory.
    fn take(&mut self, bytes: &Bytes) -> io::Result<bool> {
        self.offset += bytes.len() as u64;
        self.unreported += bytes.len();
        if !self.output.write(bytes)? {
            return Ok(false);
        }
        if self.unreported >= REPORT || self.offset >= self.len {
            return Ok(self.told.send(Told::Progress(std::mem::take(&mut self.unreported))).is_ok());
        }
        Ok(true)
    }

    fn complete(self) {
        let Self { told, output, .. } = self;
        let _ = told.send(Told::Complete(output)); // nobody listens any more if the run was stopped
    }

    fn end(self, told: Told) {
        let Self { told: listener, output, .. } = self;
        drop(output); // first, as above
        let _ = listener.send(told); // nobody listens any more if the run was stopped
    }
}
