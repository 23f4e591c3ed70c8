//! The SHA-256 of the shards that two workers make, computed together: see [`crate::formats::sha256`] for why.
//!
//! A thread that has filled a block leaves it, and goes on with the next one; when both workers' blocks wait, one thread
//! hashes two at once. They take turns at that, so that neither shard falls behind. Nobody waits for a worker that is
//! slower or makes nothing: its block is hashed alone, a few blocks later or at once. Both wait for the disk.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use memmap2::MmapMut;

use super::output::Message;
use crate::base::lock::{self, lock};
use crate::formats::sha256::{BLOCK, NewBlocks, Sha256};

/// Blocks of a worker that wait for one of the other's, at most.
const MOST: usize = 4;

/// What two workers share.
#[derive(Default)]
struct Pair {
    state: Mutex<State>,
    /// A thread has given streams back.
    returned: Condvar,
}

#[derive(Default)]
struct State {
    sides: [Side; 2],
    /// The side that hashes as soon as both have a block; the other one only where its queue is full or at its end.
    turn: usize,
}

/// One worker's shard, if it makes one.
#[derive(Default)]
struct Side {
    stream: Option<Stream>,
    /// A thread has the stream, and hashes a block of it.
    busy: bool,
    /// Blocks with their lengths, the oldest first.
    waiting: VecDeque<(MmapMut, usize)>,
}

struct Stream {
    digest: Sha256,
    /// None once it has given up.
    writer: Option<SyncSender<Message>>,
}

/// A block, and the stream that it continues.
struct Taken {
    side: usize,
    stream: Stream,
    block: MmapMut,
    len: usize,
}

impl State {
    fn can_take(&self, side: usize) -> bool {
        self.sides[side].stream.is_some() && !self.sides[side].waiting.is_empty()
    }

    /// Whether a block of this side is to be hashed now, alone or with one of the other.
    fn is_due(&self, side: usize) -> bool {
        let other = &self.sides[1 - side];
        let is_alone = other.stream.is_none() && !other.busy;
        is_alone || self.sides[side].waiting.len() >= MOST || self.turn == side && self.can_take(1 - side)
    }

    fn take(&mut self, side: usize) -> Option<Taken> {
        if !self.can_take(side) {
            return None;
        }
        let Side { stream, busy, waiting } = &mut self.sides[side];
        *busy = true;
        let (stream, (block, len)) = stream.take().zip(waiting.pop_front())?;
        Some(Taken { side, stream, block, len })
    }
}

/// A worker's place in a pair.
pub(super) struct Place {
    pair: Arc<Pair>,
    side: usize,
}

/// A place for each worker, two by two.
pub(super) fn places(workers: usize) -> impl Iterator<Item = Place> {
    let mut pair = Arc::<Pair>::default();
    (0..workers).map(move |worker| {
        if worker.is_multiple_of(2) {
            pair = Arc::default();
        }
        Place { pair: pair.clone(), side: worker % 2 }
    })
}

impl Place {
    /// Begins a shard, after the one before has ended or was dropped.
    pub(super) fn begin(&self, writer: SyncSender<Message>) -> Hashing {
        let stream = Stream { digest: Sha256::default(), writer: Some(writer) };
        let before = lock(&self.pair.state).sides[self.side].stream.replace(stream);
        debug_assert!(before.is_none(), "a shard was begun before the last one ended");
        Hashing { pair: self.pair.clone(), side: self.side }
    }
}

/// A shard's blocks on their way to the writing thread, which gets them hashed and in order. Dropped before its end, it
/// closes the channel.
pub(super) struct Hashing {
    pair: Arc<Pair>,
    side: usize,
}

impl Hashing {
    /// Adds the first `len` bytes of a block, a multiple of 64. False if the writing thread has given up.
    pub(super) fn add(&self, block: MmapMut, len: usize) -> bool {
        let mut state = lock(&self.pair.state);
        state.sides[self.side].waiting.push_back((block, len));
        loop {
            state = if state.can_take(self.side) && state.is_due(self.side) {
                self.hash(state)
            } else if state.sides[self.side].waiting.len() >= MOST {
                self.wait(state) // the other thread is at a block of this shard
            } else {
                return state.sides[self.side].stream.as_ref().is_none_or(|stream| stream.writer.is_some());
            };
        }
    }

    /// Adds the last bytes, and sends the digest after them.
    pub(super) fn end(self, block: MmapMut, len: usize) {
        let rest = block[..len].as_chunks::<BLOCK>().1.to_vec();
        let mut state = lock(&self.pair.state);
        state.sides[self.side].waiting.push_back((block, len));
        while state.can_take(self.side) || state.sides[self.side].busy {
            state = if state.can_take(self.side) { self.hash(state) } else { self.wait(state) };
        }
        let stream = state.sides[self.side].stream.take();
        drop(state);
        if let Some(Stream { digest, writer: Some(writer) }) = stream {
            let _ = writer.send(Message::End(digest.finish(&rest))); // a writer that has given up says why
        }
    }

    /// Hashes the oldest block, together with one of the other side if there is one, and hands them on.
    fn hash<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (mut mine, mut theirs) = (state.take(self.side), state.take(1 - self.side));
        if theirs.is_some() {
            state.turn = 1 - self.side;
        }
        drop(state);
        match (&mut mine, &mut theirs) {
            (Some(mine), Some(theirs)) => Sha256::update_both(mine.parts(), theirs.parts()),
            (Some(alone), None) | (None, Some(alone)) => {
                let NewBlocks { digest, blocks } = alone.parts();
                digest.update(blocks);
            }
            (None, None) => {}
        }
        let sent = [mine, theirs].map(|taken| taken.map(Taken::send));
        let mut state = lock(&self.pair.state);
        for (side, stream) in sent.into_iter().flatten() {
            let side = &mut state.sides[side];
            (side.stream, side.busy) = (Some(stream), false);
        }
        self.pair.returned.notify_all();
        state
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        lock::wait(&self.pair.returned, state)
    }
}

impl Taken {
    fn parts(&mut self) -> NewBlocks<'_> {
        NewBlocks { digest: &mut self.stream.digest, blocks: self.block[..self.len].as_chunks().0 }
    }

    /// Sends the block to the writing thread, and gives the stream back.
    fn send(self) -> (usize, Stream) {
        let Self { side, mut stream, block, len } = self;
        stream.writer = stream.writer.filter(|writer| writer.send(Message::Block(block, len)).is_ok());
        (side, stream)
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        let mut state = lock(&self.pair.state);
        state.sides[self.side].waiting.clear();
        while state.sides[self.side].busy {
            state = self.wait(state);
        }
        let stream = state.sides[self.side].stream.take();
        drop(state);
        drop(stream); // wakes the writing thread
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;
    use sha2::Digest;

    use super::*;

    /// Blocks are short here: their lengths are free.
    fn block(content: &[u8]) -> (MmapMut, usize) {
        let mut block = MmapMut::map_anon(content.len().max(1)).unwrap();
        block[..content.len()].copy_from_slice(content);
        (block, content.len())
    }

    fn read(receiver: Receiver<Message>) -> (Vec<u8>, Option<String>) {
        let (mut bytes, mut digest) = (Vec::new(), None);
        for message in receiver {
            match message {
                Message::Block(block, len) => bytes.extend(&block[..len]),
                Message::End(found) => digest = Some(found),
            }
        }
        (bytes, digest)
    }

    /// What a worker makes: blocks of one byte, each after a pause in microseconds, and a last one of any length. Without
    /// that, the shard is given up.
    type Shard = (Vec<(u8, u64)>, Option<usize>);

    fn make(place: &Place, (blocks, last): &Shard) {
        let (sender, receiver) = sync_channel(1);
        let reader = thread::spawn(move || read(receiver));
        let hashing = place.begin(sender);
        for (byte, pause) in blocks {
            thread::sleep(Duration::from_micros(*pause));
            let (block, len) = block(&[*byte; BLOCK]);
            assert!(hashing.add(block, len));
        }
        let mut expected: Vec<u8> = blocks.iter().flat_map(|(byte, _)| [*byte; BLOCK]).collect();
        let Some(last) = *last else {
            drop(hashing);
            let (bytes, digest) = reader.join().unwrap();
            assert!(expected.starts_with(&bytes) && digest.is_none());
            return;
        };
        let (block, len) = block(&vec![7; last]);
        hashing.end(block, len);
        expected.extend(vec![7; last]);
        let digest = format!("{:x}", sha2::Sha256::digest(&expected));
        assert_eq!(reader.join().unwrap(), (expected, Some(digest)));
    }

    fn shards() -> impl Strategy<Value = Vec<Shard>> {
        let blocks = prop::collection::vec((any::<u8>(), prop_oneof![3 => Just(0u64), 1 => 0..300u64]), 0..30);
        prop::collection::vec((blocks, prop::option::weighted(0.8, 0usize..200)), 0..4)
    }

    /// Fails if it takes a minute: what waits here for nothing would wait for ever.
    fn in_time(work: impl FnOnce() + Send + 'static) {
        let (done, waiting) = sync_channel(1);
        let worker = thread::spawn(move || {
            work();
            let _ = done.send(());
        });
        if waiting.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            panic!("it hangs");
        }
        worker.join().unwrap();
    }

    proptest! {
        // Not simplified: each attempt at what hangs would take a minute.
        #![proptest_config(ProptestConfig { max_shrink_iters: 0, ..ProptestConfig::with_cases(64) })]

        /// Whatever the workers' speeds and shards are, each shard has its own bytes in order, and their digest.
        #[test]
        fn shards_do_not_mix(crew in prop::collection::vec(shards(), 1..4)) {
            in_time(move || thread::scope(|scope| {
                for (place, shards) in places(crew.len()).zip(&crew) {
                    scope.spawn(move || shards.iter().for_each(|shard| make(&place, shard)));
                }
            }));
        }
    }

    /// Both sides of a pair, each in a shard, and what their writing threads have got.
    fn both() -> [(Hashing, Receiver<Message>); 2] {
        let begin = |place: Place| {
            let (sender, receiver) = sync_channel(9);
            (place.begin(sender), receiver)
        };
        let [one, other] = places(2).map(begin).collect::<Vec<_>>().try_into().ok().unwrap();
        [one, other]
    }

    fn add(hashing: &Hashing) {
        let (block, len) = block(&[1; BLOCK]);
        assert!(hashing.add(block, len));
    }

    #[test]
    fn two_blocks_that_wait_are_hashed_by_turns() {
        in_time(|| {
            let [(one, from_one), (other, from_other)] = both();
            let count = || [from_one.try_iter().count(), from_other.try_iter().count()];
            add(&one);
            add(&other); // it is the first one's turn
            assert_eq!(count(), [0, 0]);
            add(&one);
            assert_eq!(count(), [1, 1]);
            add(&other);
            assert_eq!(count(), [1, 1]);
            (1..MOST).for_each(|_| add(&other)); // the first one is late
            assert_eq!(count(), [0, 0]);
            add(&other);
            assert_eq!(count(), [0, 1]);
            drop(one);
            add(&other);
            assert_eq!(count()[1], MOST, "nobody is waited for who makes nothing");
        });
    }

    /// The other thread may take all blocks of a side that waits, and leave blocks of its own.
    #[test]
    fn nobody_waits_without_blocks() {
        in_time(|| {
            let [(one, _from_one), (other, _from_other)] = both();
            let pair = one.pair.clone();
            let stream = lock(&pair.state).sides[0].stream.take();
            lock(&pair.state).sides[0].busy = true; // and it is its turn
            add(&other);
            let waits = thread::spawn(move || (0..MOST).for_each(|_| add(&one)));
            while lock(&pair.state).sides[0].waiting.len() < MOST {
                thread::yield_now();
            }
            let mut state = lock(&pair.state);
            state.sides[0] = Side { stream, ..Side::default() };
            pair.returned.notify_all();
            drop(state);
            waits.join().unwrap();
        });
    }

    #[test]
    fn a_shard_ends_when_its_last_block_is_hashed() {
        for is_dropped in [false, true] {
            in_time(move || {
                let [(one, from_one), (_other, _from_other)] = both();
                let pair = one.pair.clone();
                let stream = lock(&pair.state).sides[0].stream.take();
                lock(&pair.state).sides[0].busy = true; // a block of it is with the other thread
                let ends = thread::spawn(move || match is_dropped {
                    true => drop(one),
                    false => one.end(MmapMut::map_anon(1).unwrap(), 0),
                });
                assert_eq!(from_one.recv_timeout(Duration::from_millis(50)).err(), Some(RecvTimeoutError::Timeout));
                let mut state = lock(&pair.state);
                (state.sides[0].stream, state.sides[0].busy) = (stream, false);
                pair.returned.notify_all();
                drop(state);
                ends.join().unwrap();
                assert_eq!(read(from_one).1.is_none(), is_dropped);
            });
        }
    }

    #[test]
    fn a_writer_that_has_given_up_is_noticed() {
        in_time(|| {
            let [(one, from_one), (other, from_other)] = both();
            drop(from_one);
            let gives_up = |_| {
                let (block, len) = block(&[1; BLOCK]);
                !one.add(block, len)
            };
            assert!((0..=MOST).any(gives_up));
            let (last, len) = block(&[1]);
            other.end(last, len);
            assert!(read(from_other).1.is_some());
        });
    }
}
