//! When a few voxels are made on their own, instead of filling their volume: for readers that walk the headers of a
//! shard. With the page before or after a header, the kernel reads some voxels that nobody looks at.

use std::ops::Range;

use super::state::State;
use crate::base::lock::lock;
use crate::cache::Key;

/// The work that a peek may cost, in bytes that are only copied, before the whole volume is filled instead: 4 MiB of
/// stored source bytes, or 1 MiB of deflated ones, is 2 ms.
const MAX_COST: u64 = 4 << 20;
/// Bytes at a volume's begin that a walk of the headers touches: the kernel's and Python's read-ahead behind the header
/// before the volume. Between these and [`TAIL`] nothing is peeked at, so that whoever reads a whole volume needs a
/// fill, and with it the checksum.
const HEAD: u64 = 7 << 19;
/// Bytes at a volume's end that a walk of the headers touches: the kernel's read-around in front of the next header.
const TAIL: u64 = 1 << 20;
/// Volumes of fewer bytes are filled at once: that costs no more than a few peeks.
const MIN_VOLUME: u64 = 8 << 20;

/// Whether a range of a volume's bytes is better made on its own, for a reader that does not read in order.
///
/// If the range reaches into the volume's last chunk, the volume is noted as peeked at ([`super::volumes::Volumes`]).
pub(super) fn is_better(state: &State, key: Key, range: &Range<u64>) -> bool {
    let volumes = state.volumes();
    let volume = volumes.volume(key);
    let is_cheap = volume.byte_len() >= MIN_VOLUME
        && (range.end <= HEAD || range.start >= volume.byte_len() - TAIL)
        && volumes.peek_cost(key, range.start, range.end - range.start).is_some_and(|cost| cost <= MAX_COST)
        && !volumes.has_failed(key);
    if is_cheap && volume.reaches_last_chunk(range.end) {
        // Before the look into the cache: a fill that begins after it sees the note.
        lock(&volumes.peeked).insert(key);
    }
    is_cheap && !state.cache.contains(key)
}

/// Whether a part of a volume, of which no more is wanted, is better made on its own: where no byte before it must be
/// unpacked, and the volume is not in the cache. Of what is unpacked, each block has its own checksum.
pub(super) fn is_enough(state: &State, key: Key, range: &Range<u64>) -> bool {
    let volumes = state.volumes();
    let cost = |start| volumes.peek_cost(key, start, range.end - range.start);
    let starts_anywhere = cost(range.start).zip(cost(0)).is_some_and(|(here, first)| here <= 2 * first);
    starts_anywhere && !volumes.has_failed(key) && !state.cache.contains(key)
}
