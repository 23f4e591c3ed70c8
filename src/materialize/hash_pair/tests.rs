//! Pairs of lanes whose workers have any speed: order, digests, turns, and no waiting without end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use sha2::Digest;

use super::*;
use memmap2::MmapMut;

/// A block of these bytes, shorter than those of a run.
fn block(content: &[u8]) -> AlignedBlock {
    let mut memory = MmapMut::map_anon(content.len().max(1)).unwrap();
    memory[..content.len()].copy_from_slice(content);
    AlignedBlock { memory, filled: content.len() }
}

fn read(receiver: Receiver<WriterMessage>) -> (Vec<u8>, Option<String>) {
    let (mut bytes, mut digest) = (Vec::new(), None);
    for message in receiver {
        match message {
            WriterMessage::Block(block) => bytes.extend(block.bytes()),
            WriterMessage::End(found) => digest = Some(found),
        }
    }
    (bytes, digest)
}

/// What a worker makes: blocks of one repeated byte, each after a pause in microseconds, and the length of the last
/// one. Without a last one, the shard is given up.
type TestShard = (Vec<(u8, u64)>, Option<usize>);

fn make(lane: &WorkerLane, (blocks, last): &TestShard) {
    let (sender, receiver) = sync_channel(1);
    let reader = thread::spawn(move || read(receiver));
    let hasher = lane.begin(sender);
    for (byte, pause) in blocks {
        thread::sleep(Duration::from_micros(*pause));
        assert!(hasher.add(block(&[*byte; BLOCK])));
    }
    let mut expected: Vec<u8> = blocks.iter().flat_map(|(byte, _)| [*byte; BLOCK]).collect();
    let Some(last) = *last else {
        drop(hasher);
        let (bytes, digest) = reader.join().unwrap();
        assert!(expected.starts_with(&bytes) && digest.is_none());
        return;
    };
    hasher.end(block(&vec![7; last]));
    expected.extend(vec![7; last]);
    let digest = format!("{:x}", sha2::Sha256::digest(&expected));
    assert_eq!(reader.join().unwrap(), (expected, Some(digest)));
}

fn shards() -> impl Strategy<Value = Vec<TestShard>> {
    let blocks = prop::collection::vec((any::<u8>(), prop_oneof![3 => Just(0u64), 1 => 0..300u64]), 0..30);
    prop::collection::vec((blocks, prop::option::weighted(0.8, 0usize..200)), 0..4)
}

/// Fails if the work takes a minute: then it waits for something that never happens.
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
    fn shards_do_not_mix(workers in prop::collection::vec(shards(), 1..4)) {
        in_time(move || thread::scope(|scope| {
            for (lane, shards) in lanes(workers.len()).zip(&workers) {
                scope.spawn(move || shards.iter().for_each(|shard| make(&lane, shard)));
            }
        }));
    }
}

/// Both lanes of a pair, each with a shard, and the channels to the threads that would write.
fn both() -> [(ShardHasher, Receiver<WriterMessage>); 2] {
    let begin = |lane: WorkerLane| {
        let (sender, receiver) = sync_channel(9);
        (lane.begin(sender), receiver)
    };
    let [one, other] = lanes(2).map(begin).collect::<Vec<_>>().try_into().ok().unwrap();
    [one, other]
}

fn add(hasher: &ShardHasher) {
    assert!(hasher.add(block(&[1; BLOCK])));
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
        (1..MAX_WAITING).for_each(|_| add(&other)); // the first one is late
        assert_eq!(count(), [0, 0]);
        add(&other);
        assert_eq!(count(), [0, 1]);
        drop(one);
        add(&other);
        assert_eq!(count()[1], MAX_WAITING, "a lane without a shard is not waited for");
    });
}

/// The other thread may take all blocks of a lane that waits, and leave blocks of its own.
#[test]
fn no_lane_waits_without_blocks() {
    in_time(|| {
        let [(one, _from_one), (other, _from_other)] = both();
        let pair = one.pair.clone();
        let hash = mem::replace(&mut lock(&pair.state).lanes[0].hash, LaneHash::InWork); // and it is its turn
        add(&other);
        let waits = thread::spawn(move || (0..MAX_WAITING).for_each(|_| add(&one)));
        while lock(&pair.state).lanes[0].waiting.len() < MAX_WAITING {
            thread::yield_now();
        }
        let mut state = lock(&pair.state);
        state.lanes[0] = Lane { hash, ..Lane::default() };
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
            // The other thread hashes a block of it.
            let hash = mem::replace(&mut lock(&pair.state).lanes[0].hash, LaneHash::InWork);
            let ends = thread::spawn(move || match is_dropped {
                true => drop(one),
                false => one.end(block(&[])),
            });
            assert_eq!(from_one.recv_timeout(Duration::from_millis(50)).err(), Some(RecvTimeoutError::Timeout));
            let mut state = lock(&pair.state);
            state.lanes[0].hash = hash;
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
        let gives_up = |_| !one.add(block(&[1; BLOCK]));
        assert!((0..=MAX_WAITING).any(gives_up));
        other.end(block(&[1]));
        assert!(read(from_other).1.is_some());
    });
}
