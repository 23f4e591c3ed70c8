//! One reader's position in a shard: whether it reads on, and what it will want next.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::Inner;
use crate::base::lock::lock;
use crate::cache::{Key, ReaderId};
use crate::plan::ShardId;
use crate::plan::layout::Content;

/// A reader that has read this far without a gap reads on. Walking headers through Python's buffer of `st_blksize`
/// reads 1 MiB at each header, and the kernel reads another two ahead.
const SEQUENTIAL: u64 = 7 << 19;
/// How far out of order requests of a sequential reader may come: the kernel reads ahead on several threads.
const REORDER: u64 = 2 << 20;

/// A sequence of reads of one shard. Dropping it releases what was kept and read ahead for it.
pub struct Cursor {
    set: Arc<Inner>,
    id: ReaderId,
    shard: ShardId,
    position: Mutex<Position>,
}

#[derive(Default)]
struct Position {
    /// The end of the furthest read of the current run.
    next: u64,
    /// Bytes of that run.
    run: u64,
    /// Whether that run was taken for one of a reader who reads on: it stays one, whatever volume comes next.
    sequential: bool,
    /// The last volume that was read, by its place in the shard.
    volume: Option<u32>,
    /// The volumes asked for ahead, by their places.
    ahead: Option<Range<u32>>,
}

impl Cursor {
    pub(super) fn new(set: Arc<Inner>, id: ReaderId, shard: ShardId) -> Self {
        Self { set, id, shard, position: Mutex::default() }
    }

    /// The shard that is read.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) fn id(&self) -> ReaderId {
        self.id
    }

    /// Notes a read of `len` bytes that touches the shard's volumes from the first to the last of `touched`; true if the
    /// reader reads on.
    ///
    /// `whole` says that the first byte of the last takes a whole fill. A reader who begins at the shard's begin is then
    /// taken at once for one who reads on: before its first fill ended there would be no second read to tell by, and
    /// one who only walks the headers needs the following volumes just as much.
    pub(super) fn note(&self, offset: u64, len: u64, touched: Option<(u32, u32)>, whole: bool) -> bool {
        let last = touched.map(|(_, last)| last);
        let mut position = lock(&self.position);
        let end = offset.saturating_add(len);
        let reads_on = offset <= position.next.saturating_add(REORDER) && end.saturating_add(REORDER) >= position.next;
        if reads_on {
            position.run += len;
            position.next = position.next.max(end);
        } else {
            position.run = len;
            position.next = end;
        }
        let begins = whole && position.run == position.next;
        let sequential = position.run >= SEQUENTIAL || begins || (reads_on && position.sequential);
        position.sequential = sequential;
        let left = match (position.volume, last) {
            (Some(old), Some(new)) if new > old || (new < old && !reads_on) => Some(old),
            _ => None,
        };
        if left.is_some() || position.volume.is_none() {
            position.volume = last.or(position.volume);
        }
        let depth = self.set.read_ahead.load(Ordering::Relaxed);
        let wanted = match position.volume {
            Some(volume) if sequential && depth > 0 => self.wanted_from(volume, depth),
            _ => 0..0,
        };
        let asked = position.ahead.replace(wanted.clone()).unwrap_or(0..0);
        // Still under the lock: two requests of one reader must not leave the older wishes standing.
        if let Some(left) = left.and_then(|left| self.key(left)) {
            self.set.cache.move_on(self.id, left);
        }
        if asked != wanted {
            // Those that were wanted ahead and that the reader is past by now are asked for by this very read, or by one
            // that the kernel sent before it and that comes later.
            let first = match touched {
                Some(_) if reads_on => self.place_at(position.next.saturating_sub(REORDER)),
                Some((first, _)) if sequential => first,
                _ => u32::MAX,
            };
            let keys = |places: Range<u32>| places.filter_map(|place| self.key(place)).collect::<Vec<Key>>();
            self.set.cache.read_ahead(self.id, &keys(wanted), &keys(first..last.map_or(first, |last| last + 1)));
        }
        sequential
    }

    /// `volume` and the `depth` of the shard behind it that are wanted ahead.
    fn wanted_from(&self, volume: u32, depth: usize) -> Range<u32> {
        let end = u32::try_from(self.set.plan().samples(self.shard).len()).unwrap_or(u32::MAX);
        let depth = u32::try_from(depth.saturating_add(1)).unwrap_or(u32::MAX);
        volume..end.min(volume.saturating_add(depth))
    }

    /// The place of the sample that the shard's byte at `offset` belongs to.
    fn place_at(&self, offset: u64) -> u32 {
        let mut behind = self.set.plan().locate(self.shard, offset, REORDER);
        let place = behind.find_map(|(extent, _)| match extent.content {
            Content::Header(member) | Content::Payload(member) => Some(member.sample),
            Content::Zeros => None,
        });
        place.unwrap_or(u32::MAX)
    }

    fn key(&self, place: u32) -> Option<Key> {
        Key::try_from(self.set.plan().samples(self.shard).get(place as usize)?).ok()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.set.cache.leave(self.id);
    }
}
