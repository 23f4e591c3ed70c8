//! One object that is read at offsets, and the requests for what is read next.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use object_store::path::Path as ObjectKey;

use super::client::{Answer, Client};
use super::network::Pending;
use super::{REQUEST, REQUESTS_AHEAD, Stored};
use crate::base::file_id::FileId;
use crate::base::lock::lock;
use crate::base::num::to_usize;

/// An object in a bucket.
pub(super) struct Object {
    client: Arc<Client>,
    key: ObjectKey,
    state: Mutex<State>,
}

/// What was asked for, and what has come.
#[derive(Default)]
struct State {
    /// The identity in the first answer, which all others must have.
    identity: Option<FileId>,
    /// What will be read in order and is not asked for yet.
    to_ask: Range<u64>,
    /// Requests in flight, in the order of their ranges.
    asked: VecDeque<(Range<u64>, Pending<io::Result<Answer>>)>,
    /// The answer that is being read, and the offset of its first byte.
    current: Option<(u64, Answer)>,
}

impl Object {
    pub(super) fn new(client: Arc<Client>, key: ObjectKey) -> Self {
        Self { client, key, state: Mutex::new(State::default()) }
    }

    /// Reads bytes at `offset`: those that were asked for ahead, or by a request of its own.
    fn read(&self, state: &mut State, out: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.turn_to(state, offset)?
            && let Some((start, answer)) = &state.current
        {
            return Ok(copy(answer, *start, offset, out));
        }
        let range = offset..offset + out.len() as u64;
        let answer = self.client.get(self.key.clone(), Some(range.clone())).wait()??;
        check(state, &answer, &range)?;
        Ok(copy(&answer, offset, offset, out))
    }

    /// Asks for what comes next, as far as so many requests may be in flight.
    fn ask_ahead(&self, state: &mut State) {
        while !state.to_ask.is_empty() && (state.asked.len() as u64) < REQUESTS_AHEAD {
            let end = state.to_ask.end.min(state.to_ask.start + REQUEST);
            let range = state.to_ask.start..end;
            state.asked.push_back((range.clone(), self.client.get(self.key.clone(), Some(range))));
            state.to_ask.start = end;
        }
    }

    /// Makes the answer that has the byte at `offset` the current one; false if that byte was not asked for.
    fn turn_to(&self, state: &mut State, offset: u64) -> io::Result<bool> {
        loop {
            match &state.current {
                Some((start, answer)) if (*start..*start + answer.len()).contains(&offset) => return Ok(true),
                _ => {}
            }
            match state.asked.front() {
                Some((range, _)) if range.end > offset && range.start <= offset => {}
                _ => return Ok(false),
            }
            let Some((range, pending)) = state.asked.pop_front() else { return Ok(false) };
            let answer = pending.wait()??;
            self.ask_ahead(state);
            check(state, &answer, &range)?;
            state.current = Some((range.start, answer));
        }
    }
}

/// Checks that an answer is of the object that was read before, and has all bytes that there are in the range.
fn check(state: &mut State, answer: &Answer, range: &Range<u64>) -> io::Result<()> {
    let first = *state.identity.get_or_insert(answer.identity);
    if first != answer.identity {
        return Err(replaced());
    }
    let wanted = range.end.min(first.size).saturating_sub(range.start);
    if answer.len() == wanted {
        return Ok(());
    }
    let reason = format!("the storage sent {} bytes in place of {wanted}", answer.len());
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

fn replaced() -> io::Error {
    io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "the object was replaced while it was read")
}

/// Copies what an answer, which begins at `start`, has from `offset` on, and returns the number of bytes.
fn copy(answer: &Answer, start: u64, offset: u64, mut out: &mut [u8]) -> usize {
    let (mut skip, whole) = (to_usize(offset - start), out.len());
    for piece in &answer.pieces {
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        let len = out.len().min(piece.len() - skip);
        let (now, later) = out.split_at_mut(len);
        now.copy_from_slice(&piece[skip..skip + len]);
        (out, skip) = (later, 0);
        if out.is_empty() {
            break;
        }
    }
    whole - out.len()
}

impl Stored for Object {
    fn identity(&self) -> io::Result<Option<FileId>> {
        Ok(lock(&self.state).identity)
    }

    fn is_regular(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = lock(&self.state);
        if state.identity.is_some_and(|identity| offset >= identity.size) || out.is_empty() {
            return Ok(0); // a range behind the end is an error of the storage, not an empty answer
        }
        match self.read(&mut state, out, offset) {
            // It is empty, or shorter than whoever asks took it for; that is no error of its own, but it must be told.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let (found, _) = self.client.head(self.key.clone()).wait()??;
                if *state.identity.get_or_insert(found) == found { Ok(0) } else { Err(replaced()) }
            }
            read => read,
        }
    }

    fn will_read(&self, range: Range<u64>) {
        let mut state = lock(&self.state);
        (state.to_ask, state.current) = (range, None);
        state.asked.clear();
        self.ask_ahead(&mut state);
    }
}
