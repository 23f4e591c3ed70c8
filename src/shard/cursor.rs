//! One reader's position in a shard: whether the reader reads in order, and which volumes it will want next.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::state::State;
use crate::base::lock::lock;
use crate::cache::{Key, ReaderId};
use crate::plan::ShardId;
use crate::plan::layout::Content;
use crate::plan::members::Member;

/// Bytes that a reader must have read without a gap to be taken for one that reads in order. Walking headers through
/// Python's buffer of `st_blksize` reads 1 MiB at each header, and the kernel reads another two ahead.
const SEQUENTIAL: u64 = 7 << 19;
/// Bytes by which requests of a reader that reads in order may be out of order: the kernel reads ahead on several
/// threads.
const REORDER: u64 = 2 << 20;

/// A sequence of reads of one shard by one reader. Dropping it releases what was kept and filled ahead for the reader.
pub struct Cursor {
    state: Arc<State>,
    id: ReaderId,
    shard: ShardId,
    position: Mutex<Position>,
}

/// What a cursor knows of its reader. Volumes are named by their places in the shard, among volumes and extras: the
/// samples have as many each.
#[derive(Default)]
struct Position {
    /// The end of the furthest read of the current run, a run being reads without a gap.
    next: u64,
    /// Bytes of that run.
    run: u64,
    /// Whether that run was once taken for one of a reader that reads in order: it stays one, whatever volume follows.
    sequential: bool,
    /// The last volume that was read.
    volume: Option<u32>,
    /// The volumes that were asked to be filled ahead.
    ahead: Option<Range<u32>>,
}

/// A read, as far as a cursor has to know it.
pub(super) struct NotedRead {
    /// The offset of the first byte in the shard.
    pub(super) offset: u64,
    /// The length of the read in bytes.
    pub(super) len: u64,
    /// The places of the first and the last volume whose voxels are read; `None` if no voxel is.
    pub(super) places: Option<RangeInclusive<u32>>,
    /// Whether even one byte of the last of these volumes takes a fill of the whole volume.
    pub(super) needs_fill: bool,
}

impl Cursor {
    /// A cursor at the begin of a shard, for the reader `id`.
    pub(super) fn new(state: Arc<State>, id: ReaderId, shard: ShardId) -> Self {
        Self { state, id, shard, position: Mutex::default() }
    }

    /// The shard that is read.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The cache's name for the reader.
    pub(super) fn id(&self) -> ReaderId {
        self.id
    }

    /// Notes a read, and asks the cache to fill ahead what the reader will want next. True if the reader reads in
    /// order.
    ///
    /// A reader that begins at the shard's begin, and whose first voxel takes a whole fill, is at once taken for one
    /// that reads in order: before its first fill ended there would be no second read to decide by, and a reader that
    /// only walks the headers needs the following volumes just as much.
    pub(super) fn note(&self, read: NotedRead) -> bool {
        let NotedRead { offset, len, places, needs_fill } = read;
        let last = places.as_ref().map(|places| *places.end());
        let mut position = lock(&self.position);
        let end = offset.saturating_add(len);
        let continues = offset <= position.next.saturating_add(REORDER) && end.saturating_add(REORDER) >= position.next;
        if continues {
            position.run += len;
            position.next = position.next.max(end);
        } else {
            position.run = len;
            position.next = end;
        }
        let begins = needs_fill && position.run == position.next;
        let sequential = position.run >= SEQUENTIAL || begins || (continues && position.sequential);
        position.sequential = sequential;
        let left = match (position.volume, last) {
            (Some(old), Some(new)) if new > old || (new < old && !continues) => Some(old),
            _ => None,
        };
        if left.is_some() || position.volume.is_none() {
            position.volume = last.or(position.volume);
        }
        let depth = self.state.read_ahead.load(Ordering::Relaxed);
        let wanted = match position.volume {
            Some(volume) if sequential && depth > 0 => self.wanted_from(volume, depth),
            _ => 0..0,
        };
        let asked = position.ahead.replace(wanted.clone()).unwrap_or(0..0);
        // Still under the lock: two requests of one reader must not leave the older list standing.
        if let Some(left) = left.and_then(|left| self.key(left)) {
            self.state.cache.move_on(self.id, left);
        }
        if asked != wanted {
            // Volumes that were wanted ahead and that the reader has passed by now are asked for by this very read, or
            // by one that the kernel sent before it and that comes later.
            let first = match places {
                Some(_) if continues => self.place_of(position.next.saturating_sub(REORDER)),
                Some(places) if sequential => *places.start(),
                _ => u32::MAX,
            };
            let keys = |places: Range<u32>| places.filter_map(|place| self.key(place)).collect::<Vec<Key>>();
            let passed = first..last.map_or(first, |last| last + 1);
            self.state.cache.read_ahead(self.id, &keys(wanted), &keys(passed));
        }
        sequential
    }

    /// The places of `volume` and of those of the `depth` samples behind it, as far as the shard has them.
    fn wanted_from(&self, volume: u32, depth: usize) -> Range<u32> {
        let plan = self.state.plan();
        let place = |samples: usize| {
            u32::try_from(samples.saturating_mul(plan.members.with_voxels().count())).unwrap_or(u32::MAX)
        };
        let (end, depth) = (place(plan.samples(self.shard).len()), place(depth).saturating_add(1));
        volume..end.min(volume.saturating_add(depth))
    }

    /// The place of the first volume of the sample that the shard's byte at `offset` belongs to.
    fn place_of(&self, offset: u64) -> u32 {
        let plan = self.state.plan();
        let place = plan.locate(self.shard, offset, REORDER).find_map(|(extent, _)| match extent.content {
            Content::Header(id) | Content::Payload(id) => Some(plan.volume_number(id.sample as usize, Member::Volume)),
            Content::Zeros => None,
        });
        place.and_then(|place| u32::try_from(place).ok()).unwrap_or(u32::MAX)
    }

    /// The volume at a place of the shard.
    fn key(&self, place: u32) -> Option<Key> {
        let plan = self.state.plan();
        let (sample, member) = plan.volume_numbered(place as usize);
        Key::try_from(plan.volume_number(plan.samples(self.shard).get(sample)?, member)).ok()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.state.cache.leave(self.id);
    }
}
