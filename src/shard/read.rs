//! One read of a shard: every byte of every shard comes from here, whoever asks. No read waits on its caller's thread.
//!
//! [`start`] asks the plan which extents the read covers, and gathers their bytes in order:
//!
//! | extent | origin of its bytes |
//! |---|---|
//! | header of a member | [`Plan::header`], which writes it by `formats::tar` |
//! | JSON, text or labels | [`Plan::small_payload`], which makes them by `plan::members` |
//! | volume or extra, before the voxels | [`Plan::small_payload`]: the NPY header, if the profile has one |
//! | volume or extra, voxels | the cache, filled by `shard/volumes.rs`; or a peek (`shard/peek.rs`) |
//! | padding and end of the file | zeros |

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::cursor::{Cursor, NotedRead};
use super::peek;
use super::state::State;
use crate::base::num::to_usize;
use crate::cache::{Key, Poll, Waiter};
use crate::error::{Error, Result};
use crate::plan::layout::{Content, MemberId};
use crate::plan::members::Member;
use crate::plan::{Plan, ShardId};

/// Called once with the bytes of a read, or with the reason why there are none.
pub(super) type Done = Box<dyn FnOnce(Result<Bytes>) + Send>;

/// Which bytes are wanted, and by whom.
pub(super) struct Request {
    /// The shard, of any view.
    pub(super) shard: ShardId,
    /// The offset of the first byte in the shard.
    pub(super) offset: u64,
    /// The number of bytes; those behind the end of the shard are not given.
    pub(super) len: usize,
    /// The reader's cursor, for which volumes are filled ahead; `None` for a single read.
    pub(super) cursor: Option<Arc<Cursor>>,
    /// Whether the caller wants no more of the volumes than these bytes.
    pub(super) is_excerpt: bool,
}

/// Starts a read. `done` is called before this returns if no voxel must be waited for, else by a filling thread.
pub(super) fn start(state: Arc<State>, request: Request, done: Done) {
    let Request { shard, offset, len, cursor, is_excerpt } = request;
    let Some(shard_len) = state.plan().shard(shard).map(|shard| shard.layout.len()) else {
        return done(Err(Error::NotFound));
    };
    let len = (len as u64).min(shard_len.saturating_sub(offset));
    let pieces = pieces(state.plan(), shard, offset, len);
    state.served.fetch_add(len, Ordering::Relaxed);
    let sequential = cursor.as_ref().is_some_and(|cursor| cursor.note(noted(&state, offset, len, &pieces)));
    let answer = Answer::for_pieces(pieces.len(), len);
    Box::new(Read { state, cursor, sequential, is_excerpt, pieces, answer, done }).advance();
}

/// Bytes of a read that have one origin.
enum Piece {
    /// Bytes that are known from the plan.
    Known(Bytes),
    /// Voxels.
    Voxels(Voxels),
}

/// Voxels of one volume.
struct Voxels {
    /// The volume.
    key: Key,
    /// The place of the volume among those of the shard.
    place: u32,
    /// The wanted bytes of the volume.
    range: Range<u64>,
}

/// The pieces of `len` bytes of a shard from `offset` on, in order.
fn pieces(plan: &Plan, shard: ShardId, offset: u64, len: u64) -> VecDeque<Piece> {
    let mut pieces = VecDeque::new();
    for (extent, range) in plan.locate(shard, offset, len) {
        match extent.content {
            Content::Header(member) => {
                let header = Bytes::copy_from_slice(&plan.header(shard, member));
                pieces.push_back(Piece::Known(slice(&header, range)));
            }
            Content::Payload(id) => match id.member {
                Member::Json | Member::Text | Member::Labels => {
                    pieces.push_back(Piece::Known(slice(&plan.small_payload(shard, id), range)));
                }
                Member::Volume | Member::Extra(_) => pieces.extend(volume_pieces(plan, shard, id, range)),
            },
            Content::Zeros => {
                pieces.push_back(Piece::Known(vec![0; to_usize(range.end - range.start)].into()));
            }
        }
    }
    pieces
}

/// The pieces of a range of a volume's or an extra's member: of the bytes before the voxels, and of the voxels.
fn volume_pieces(plan: &Plan, shard: ShardId, id: MemberId, range: Range<u64>) -> impl Iterator<Item = Piece> {
    let before_voxels = plan.small_payload(shard, id);
    let first_voxel = before_voxels.len() as u64;
    let known = (range.start < first_voxel)
        .then(|| Piece::Known(slice(&before_voxels, range.start..range.end.min(first_voxel))));
    let voxels = (range.end > first_voxel).then(|| {
        let number = |sample| Key::try_from(plan.volume_number(sample, id.member)).unwrap_or(Key::MAX);
        let range = range.start.max(first_voxel) - first_voxel..range.end - first_voxel;
        let (key, place) = (number(plan.sample_index(shard, id)), number(to_usize(id.sample.into())));
        Piece::Voxels(Voxels { key, place, range })
    });
    known.into_iter().chain(voxels)
}

fn slice(bytes: &Bytes, range: Range<u64>) -> Bytes {
    bytes.slice(to_usize(range.start)..to_usize(range.end))
}

/// What a reader's cursor has to know of a read.
fn noted(state: &State, offset: u64, len: u64, pieces: &VecDeque<Piece>) -> NotedRead {
    let mut voxels = pieces.iter().filter_map(|piece| match piece {
        Piece::Voxels(voxels) => Some(voxels),
        Piece::Known(_) => None,
    });
    let first = voxels.next();
    let last = voxels.next_back().or(first);
    NotedRead {
        offset,
        len,
        places: first.zip(last).map(|(first, last)| first.place..=last.place),
        needs_fill: last.is_some_and(|last| state.volumes().peek_cost(last.key, 0, 1).is_none()),
    }
}

/// The bytes that were gathered so far.
enum Answer {
    /// Of a read with one piece at most, which is handed on without a copy.
    Single(Bytes),
    /// Of a read with several pieces.
    Joined(Vec<u8>),
}

impl Answer {
    /// The empty answer of a read of `len` bytes in so many pieces.
    fn for_pieces(pieces: usize, len: u64) -> Self {
        if pieces > 1 { Self::Joined(Vec::with_capacity(to_usize(len))) } else { Self::Single(Bytes::new()) }
    }

    /// Adds the bytes of the next piece.
    fn add(&mut self, bytes: Bytes) {
        match self {
            Self::Single(all) => *all = bytes,
            Self::Joined(all) => all.extend_from_slice(&bytes),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Single(all) => all,
            Self::Joined(all) => all.into(),
        }
    }
}

/// A read that is not answered yet. It moves from the asking thread to the filling threads that it waits for.
struct Read {
    state: Arc<State>,
    cursor: Option<Arc<Cursor>>,
    /// Whether the cursor takes its reader for one that reads the shard in order.
    sequential: bool,
    /// Whether no more of the volumes is wanted.
    is_excerpt: bool,
    /// The pieces that are not in the answer yet.
    pieces: VecDeque<Piece>,
    answer: Answer,
    done: Done,
}

impl Read {
    /// Gathers pieces until the read is answered or waits for a volume.
    fn advance(mut self: Box<Self>) {
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Known(bytes) => self.answer.add(bytes),
                Piece::Voxels(voxels) if self.is_better_peeked(&voxels) => return self.peek(voxels),
                Piece::Voxels(voxels) => match self.take(voxels) {
                    Some(read) => self = read,
                    None => return,
                },
            }
        }
        (self.done)(Ok(self.answer.into_bytes()));
    }

    /// Whether voxels are better made on their own than by a fill of their volume.
    fn is_better_peeked(&self, voxels: &Voxels) -> bool {
        match self.is_excerpt {
            true => peek::is_enough(&self.state, voxels.key, &voxels.range),
            false => !self.sequential && peek::is_better(&self.state, voxels.key, &voxels.range),
        }
    }

    /// Adds voxels that are in the cache. `None` if the read is not to go on here: the cache calls [`Waiter::ready`]
    /// when the voxels are there, or the read was answered with an error.
    fn take(self: Box<Self>, Voxels { key, range, .. }: Voxels) -> Option<Box<Self>> {
        let state = self.state.clone();
        let reader = self.cursor.as_ref().map(|cursor| cursor.id());
        match state.cache.read(key, to_usize(range.start)..to_usize(range.end), reader, self) {
            Poll::Parked => None,
            Poll::Ready(Err(error), read) => {
                (read.done)(Err(error));
                None
            }
            Poll::Ready(Ok(bytes), mut read) => {
                read.answer.add(bytes);
                Some(read)
            }
        }
    }

    /// Makes voxels on their own, on a filling thread; fills the volume if that turns out to be impossible.
    fn peek(self: Box<Self>, voxels: Voxels) {
        self.state.peeks.fetch_add(1, Ordering::Relaxed);
        let state = self.state.clone();
        state.clone().cache.run(Box::new(move || {
            let Range { start, end } = voxels.range;
            let mut bytes = vec![0; to_usize(end - start)];
            match state.volumes().peek(voxels.key, start, &mut bytes) {
                Some(result) => self.ready(result.map(|()| bytes.into())),
                None => {
                    if let Some(read) = self.take(voxels) {
                        read.advance();
                    }
                }
            }
        }));
    }
}

impl Waiter<Error> for Read {
    fn ready(mut self: Box<Self>, result: Result<Bytes>) {
        match result {
            Err(error) => (self.done)(Err(error)),
            Ok(bytes) => {
                self.answer.add(bytes);
                self.advance();
            }
        }
    }
}
