//! One read: the parts that it touches, gathered in order, without ever waiting on the calling thread.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Cursor, Inner};
use crate::base::lock::lock;
use crate::base::num::to_usize;
use crate::cache::{Key, Poll, Waiter};
use crate::error::{Error, Result};
use crate::plan::ShardId;
use crate::plan::layout::{Content, Extent};
use crate::plan::members::VOLUME;

/// The work that a look at a volume's first or last bytes may cost before the whole volume is filled instead:
/// 4 MiB of stored source bytes, or 1 MiB of deflated ones, is 2 ms.
const PEEK_COST: u64 = 4 << 20;
/// What a walk of the headers touches of a volume: the kernel's and Python's read-ahead behind the header before it,
/// and the kernel's read-around in front of the header after it. Between the two nothing is peeked at, so that whoever
/// reads a whole volume needs a fill, and with it the checksum.
const PEEK_HEAD: u64 = 7 << 19;
const PEEK_TAIL: u64 = 1 << 20;
/// Volumes smaller than this are filled at once: they cost no more than a few peeks.
const PEEK_MIN_VOLUME: u64 = 8 << 20;

pub(super) type Done = Box<dyn FnOnce(Result<Bytes>) + Send>;

enum Part {
    Literal(Bytes),
    Voxels(Voxels),
}

/// Voxels of one volume.
struct Voxels {
    key: Key,
    /// The number of its sample in the shard.
    place: u32,
    range: Range<u64>,
}

/// A read under way; moves from the asking thread to the decoders that it waits for.
struct Read {
    set: Arc<Inner>,
    cursor: Option<Arc<Cursor>>,
    sequential: bool,
    parts: VecDeque<Part>,
    /// What was gathered; stays unused where a single part is the whole answer.
    gathered: Option<Vec<u8>>,
    done: Done,
}

/// Begins the read of `len` bytes of a shard from `offset` on and calls `done` with them, now or later.
pub(super) fn begin(set: Arc<Inner>, cursor: Option<Arc<Cursor>>, shard: ShardId, offset: u64, len: usize, done: Done) {
    let Some(shard_len) = set.plan().shard(shard).map(|shard| shard.layout.len()) else {
        return done(Err(Error::NotFound));
    };
    let mut parts = VecDeque::new();
    for (extent, range) in set.plan().locate(shard, offset, len as u64) {
        push_parts(&set, shard, extent, range, &mut parts);
    }
    let total = (len as u64).min(shard_len.saturating_sub(offset));
    set.served.fetch_add(total, Ordering::Relaxed);
    let mut voxels = parts.iter().filter_map(|part| match part {
        Part::Voxels(voxels) => Some(voxels),
        Part::Literal(_) => None,
    });
    let first = voxels.next();
    let last = voxels.next_back().or(first);
    let whole = last.is_some_and(|last| set.cache.source().peek_cost(last.key, 0, 1).is_none());
    let touched = first.zip(last).map(|(first, last)| (first.place, last.place));
    let sequential = cursor.as_ref().is_some_and(|cursor| cursor.note(offset, total, touched, whole));
    let gathered = (parts.len() != 1).then(|| Vec::with_capacity(to_usize(total)));
    Box::new(Read { set, cursor, sequential, parts, gathered, done }).advance();
}

fn push_parts(set: &Inner, shard: ShardId, extent: Extent, range: Range<u64>, parts: &mut VecDeque<Part>) {
    let plan = set.plan();
    let slice = |bytes: Bytes, range: &Range<u64>| bytes.slice(to_usize(range.start)..to_usize(range.end));
    let member = match extent.content {
        Content::Zeros => {
            return parts.push_back(Part::Literal(vec![0; to_usize(range.end - range.start)].into()));
        }
        Content::Header(member) => {
            let header = Bytes::copy_from_slice(&plan.header(shard, member));
            return parts.push_back(Part::Literal(slice(header, &range)));
        }
        Content::Payload(member) => member,
    };
    let small = plan.small_payload(shard, member);
    if member.member != VOLUME {
        return parts.push_back(Part::Literal(slice(small, &range)));
    }
    // The volume's member: what stands before the voxels, then they.
    let prefix = small.len() as u64;
    if range.start < prefix {
        parts.push_back(Part::Literal(slice(small, &(range.start..range.end.min(prefix)))));
    }
    if range.end > prefix {
        let key = Key::try_from(plan.sample_index(shard, member)).unwrap_or(Key::MAX);
        let range = range.start.max(prefix) - prefix..range.end - prefix;
        parts.push_back(Part::Voxels(Voxels { key, place: member.sample, range }));
    }
}

impl Read {
    /// Goes on until the read is answered or waits for a volume.
    fn advance(mut self: Box<Self>) {
        while let Some(part) = self.parts.pop_front() {
            let (key, range) = match part {
                Part::Literal(bytes) => {
                    match self.add(bytes) {
                        Some(read) => self = read,
                        None => return,
                    }
                    continue;
                }
                Part::Voxels(Voxels { key, range, .. }) => (key, range),
            };
            if self.may_peek(key, &range) {
                return self.peek(key, range);
            }
            match self.take(key, range) {
                Some(read) => self = read,
                None => return,
            }
        }
        (self.done)(Ok(self.gathered.unwrap_or_default().into()));
    }

    /// Takes voxels of a filled volume. `None` if the read waits for them, or is answered.
    fn take(self: Box<Self>, key: Key, range: Range<u64>) -> Option<Box<Self>> {
        let set = self.set.clone();
        let reader = self.cursor.as_ref().map(|cursor| cursor.id());
        match set.cache.read(key, to_usize(range.start)..to_usize(range.end), reader, self) {
            Poll::Parked => None,
            Poll::Ready(Err(error), read) => {
                (read.done)(Err(error));
                None
            }
            Poll::Ready(Ok(bytes), read) => read.add(bytes),
        }
    }

    /// Takes a part's bytes; answers the read if they are all of it.
    fn add(mut self: Box<Self>, bytes: Bytes) -> Option<Box<Self>> {
        match &mut self.gathered {
            None => {
                (self.done)(Ok(bytes));
                None
            }
            Some(gathered) => {
                gathered.extend_from_slice(&bytes);
                Some(self)
            }
        }
    }

    /// Whether the wanted voxels are cheaper to make on their own, for a reader that looks at headers only.
    fn may_peek(&self, key: Key, range: &Range<u64>) -> bool {
        let volumes = self.set.cache.source();
        let volume = volumes.volume(key);
        let is_cheap = !self.sequential
            && volume.byte_len() >= PEEK_MIN_VOLUME
            && (range.end <= PEEK_HEAD || range.start >= volume.byte_len() - PEEK_TAIL)
            && volumes.peek_cost(key, range.start, range.end - range.start).is_some_and(|cost| cost <= PEEK_COST)
            && !lock(&volumes.failed).contains_key(&key);
        if is_cheap && volume.reaches_last_chunk(range.end) {
            // Before the look into the cache: a fill that begins after it knows of the peek.
            lock(&volumes.peeked).insert(key);
        }
        is_cheap && !self.set.cache.contains(key)
    }

    fn peek(self: Box<Self>, key: Key, range: Range<u64>) {
        self.set.peeks.fetch_add(1, Ordering::Relaxed);
        let set = self.set.clone();
        set.clone().cache.run(Box::new(move || {
            let mut voxels = vec![0; to_usize(range.end - range.start)];
            match set.cache.source().peek(key, range.start, &mut voxels) {
                Some(result) => self.ready(result.map(|()| voxels.into())),
                None => {
                    if let Some(read) = self.take(key, range) {
                        read.advance();
                    }
                }
            }
        }));
    }
}

impl Waiter<Error> for Read {
    fn ready(self: Box<Self>, result: Result<Bytes>) {
        match result {
            Err(error) => (self.done)(Err(error)),
            Ok(bytes) => {
                if let Some(read) = self.add(bytes) {
                    read.advance();
                }
            }
        }
    }
}
