//! The cache's promises, by counters and gates instead of clocks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::region::Size;
use super::schedule::{Schedule, WorkerStep};
use super::{Cache, FillFailure, Key, Poll, VolumeSource, VolumeWriter, Waiter};

const LEN: usize = 16 * 4096;
const SIZE: Size = Size { len: LEN, scratch: 0 };
const CHUNK: usize = 4096;
/// A test that waits longer has hung.
const DEADLINE: Duration = Duration::from_secs(30);

/// Volume `key` is `LEN` bytes of value `key`, in chunks; what else a fill does is up to the test.
struct Fake<F> {
    len: usize,
    scratch: usize,
    before_chunk: F,
}

impl<F: Fn(Key, usize) -> Result<(), String> + Send + Sync + 'static> VolumeSource for Fake<F> {
    type Error = String;

    fn len(&self, _key: Key) -> usize {
        self.len
    }

    fn scratch(&self, _key: Key) -> usize {
        self.scratch
    }

    fn fill(&self, key: Key, writer: &mut VolumeWriter<'_, String>) -> Result<bool, String> {
        for chunk in 0..self.len / CHUNK {
            if writer.cancelled() {
                return Ok(false);
            }
            (self.before_chunk)(key, chunk)?;
            writer.spare()[..CHUNK].fill(byte(key));
            writer.publish(CHUNK);
        }
        Ok(true)
    }

    fn failure(&self, _key: Key, cause: FillFailure) -> String {
        format!("{cause:?}")
    }
}

fn byte(key: Key) -> u8 {
    u8::try_from(key % 251).unwrap()
}

fn cache<F>(volumes: usize, threads: usize, before_chunk: F) -> Cache<Fake<F>>
where
    F: Fn(Key, usize) -> Result<(), String> + Send + Sync + 'static,
{
    Cache::new(Fake { len: LEN, scratch: 0, before_chunk }, volumes * LEN, threads, false).unwrap()
}

struct Answer(Sender<(usize, Result<Bytes, String>)>, usize);

impl Waiter<String> for Answer {
    fn ready(self: Box<Self>, result: Result<Bytes, String>) {
        self.0.send((self.1, result)).unwrap();
    }
}

/// Asks for a range; the answer comes through the channel under `tag` whether it was ready or not.
fn ask<S: VolumeSource<Error = String>>(
    cache: &Cache<S>,
    key: Key,
    range: std::ops::Range<usize>,
    reader: Option<u64>,
    tag: usize,
    answers: &Sender<(usize, Result<Bytes, String>)>,
) {
    if let Poll::Ready(result, waiter) = cache.read(key, range, reader, Box::new(Answer(answers.clone(), tag))) {
        waiter.ready(result);
    }
}

fn read<S: VolumeSource<Error = String>>(
    cache: &Cache<S>,
    key: Key,
    range: std::ops::Range<usize>,
    reader: u64,
) -> Result<Bytes, String> {
    let (sender, answers) = mpsc::channel();
    ask(cache, key, range, Some(reader), 0, &sender);
    answers.recv_timeout(DEADLINE).unwrap().1
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::yield_now();
    }
}

/// A gate that fills wait at until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<()>>);

impl Gate {
    fn close(&self) -> impl Drop + '_ {
        self.0.lock().unwrap()
    }

    fn pass(&self) -> Result<(), String> {
        drop(self.0.lock().unwrap());
        Ok(())
    }
}

#[test]
fn many_readers_of_one_volume_are_one_fill() {
    let gate = Gate::default();
    let behind = gate.clone();
    let cache = cache(4, 2, move |_, _| behind.pass());
    let (sender, answers) = mpsc::channel();
    let closed = gate.close();
    for reader in 0..8 {
        ask(&cache, 7, 0..LEN, Some(reader), 0, &sender);
    }
    drop(closed);
    for _ in 0..8 {
        let (_, result) = answers.recv_timeout(DEADLINE).unwrap();
        assert!(result.unwrap().iter().all(|b| *b == 7));
    }
    assert_eq!(cache.counters().fills.load(Ordering::Relaxed), 1);
}

#[test]
fn an_error_or_panic_reaches_every_waiter_and_is_not_kept() {
    for panics in [false, true] {
        let gate = Gate::default();
        let behind = gate.clone();
        let tries = AtomicUsize::new(0);
        let cache = cache(4, 2, move |_, chunk| {
            behind.pass()?;
            match (chunk, tries.load(Ordering::Relaxed)) {
                (3, 0) => {
                    tries.store(1, Ordering::Relaxed);
                    assert!(!panics, "damaged");
                    Err("damaged".into())
                }
                _ => Ok(()),
            }
        });
        let (sender, answers) = mpsc::channel();
        let closed = gate.close();
        (0..5).for_each(|tag| ask(&cache, 1, 0..LEN, None, tag, &sender));
        drop(closed);
        for _ in 0..5 {
            assert!(answers.recv_timeout(DEADLINE).unwrap().1.unwrap_err().contains("damaged"));
        }
        assert_eq!(cache.counters().failures.load(Ordering::Relaxed), 1);
        assert_eq!(read(&cache, 1, 0..LEN, 1).unwrap().len(), LEN);
        assert_eq!(cache.memory().0, LEN);
    }
}

#[test]
fn bytes_are_served_while_the_volume_fills_in_the_order_of_readiness() {
    let (permits, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let cache = cache(2, 1, move |_, _| wait.lock().unwrap().recv().map_err(|_| "no permit".to_owned()));
    let (sender, answers) = mpsc::channel();
    for (tag, chunks) in [(0, 5..6), (1, 0..1), (2, 2..4), (3, 0..2)] {
        ask(&cache, 3, chunks.start * CHUNK..chunks.end * CHUNK, None, tag, &sender);
    }
    permits.send(()).unwrap();
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap().0, 1);
    (0..5).for_each(|_| permits.send(()).unwrap());
    let order: Vec<usize> = (0..3).map(|_| answers.recv_timeout(DEADLINE).unwrap().0).collect();
    assert_eq!(order, [3, 2, 0]);
    (0..10).for_each(|_| permits.send(()).unwrap());
}

#[test]
fn more_readers_than_the_budget_has_volumes_decode_each_once() {
    let cache = cache(3, 2, |_, _| Ok(()));
    std::thread::scope(|scope| {
        for reader in 0..8u32 {
            let cache = &cache;
            scope.spawn(move || {
                for key in (reader * 10)..(reader * 10 + 4) {
                    for chunk in 0..LEN / CHUNK {
                        let bytes = read(cache, key, chunk * CHUNK..(chunk + 1) * CHUNK, u64::from(reader)).unwrap();
                        assert!(bytes.iter().all(|b| *b == byte(key)));
                    }
                    cache.move_on(u64::from(reader), key);
                }
            });
        }
    });
    assert_eq!(cache.counters().fills.load(Ordering::Relaxed), 8 * 4);
    assert!(cache.counters().peak_bytes.load(Ordering::Relaxed) <= 3 * LEN as u64);
}

#[test]
fn an_idle_reader_gives_way_to_one_that_waits() {
    let cache = cache(1, 1, |_, _| Ok(()));
    assert_eq!(read(&cache, 1, 0..CHUNK, 1).unwrap().len(), CHUNK);
    // Reader 1 stops in the middle; reader 2 gets the room when that has been idle.
    assert_eq!(read(&cache, 2, 0..LEN, 2).unwrap().len(), LEN);
    assert_eq!(read(&cache, 1, CHUNK..LEN, 1).unwrap().len(), LEN - CHUNK);
}

#[test]
fn a_reader_that_waits_elsewhere_does_not_hold_up_the_queue() {
    let mut schedule: Schedule<String> = Schedule::new(LEN, false);
    let now = Instant::now();
    schedule.want(2, SIZE, Some(1), CHUNK, now);
    let WorkerStep::Fill(2, entry, Ok(_)) = schedule.next(now) else { panic!("the only volume is not filled") };
    schedule.ended(2, &entry, true, now);
    // Reader 2 waits for room, which reader 1 holds in the middle of volume 2.
    schedule.want(3, SIZE, Some(2), LEN, now);
    assert!(matches!(schedule.next(now), WorkerStep::Wait(Some(_))));
    // Now reader 1 waits too, behind it: nobody could go on.
    schedule.want(1, SIZE, Some(1), CHUNK, now);
    assert!(matches!(schedule.next(now), WorkerStep::Drop(_)));
}

#[test]
fn a_volume_larger_than_the_budget_is_served_and_not_kept() {
    let source = Fake { len: 4 * LEN, scratch: 0, before_chunk: |_, _| Ok(()) };
    let cache = Cache::new(source, LEN, 2, false).unwrap();
    for key in [1, 2, 1] {
        for part in 0..4 {
            assert_eq!(read(&cache, key, part * LEN..(part + 1) * LEN, 5).unwrap().len(), LEN);
        }
        cache.move_on(5, key);
    }
    wait_until("nothing is kept", || cache.memory().0 == 0);
    assert_eq!(cache.counters().peak_bytes.load(Ordering::Relaxed), 4 * LEN as u64);
}

#[test]
fn reading_ahead_stays_in_the_budget_and_gives_way() {
    let begun: Arc<[AtomicUsize; 100]> = Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
    let counts = begun.clone();
    let cache = cache(3, 2, move |key, chunk| {
        counts[key as usize].fetch_add(usize::from(chunk == 0), Ordering::Relaxed);
        Ok(())
    });
    cache.read_ahead(1, &[10, 11, 12, 13, 14], &[]);
    wait_until("three are read ahead", || cache.counters().fills.load(Ordering::Relaxed) == 3);
    // A demand displaces what its reader would come to last.
    assert_eq!(read(&cache, 99, 0..LEN, 2).unwrap().len(), LEN);
    for key in [10, 11] {
        assert_eq!(read(&cache, key, 0..LEN, 1).unwrap().len(), LEN);
        assert_eq!(begun[key as usize].load(Ordering::Relaxed), 1);
    }
    assert!(cache.counters().peak_bytes.load(Ordering::Relaxed) <= 3 * LEN as u64);
}

#[test]
fn what_was_read_ahead_stops_when_its_reader_leaves() {
    let started = Arc::new(AtomicU64::new(0));
    let (seen, gate) = (started.clone(), Gate::default());
    let behind = gate.clone();
    let cache = cache(8, 1, move |_, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        behind.pass()
    });
    let closed = gate.close();
    cache.read_ahead(1, &[1, 2, 3], &[]);
    wait_until("the first fill runs", || started.load(Ordering::SeqCst) == 1);
    cache.leave(1);
    drop(closed);
    wait_until("it is cancelled", || cache.counters().cancelled.load(Ordering::Relaxed) == 1);
    wait_until("its memory is back", || cache.memory().0 == 0);
    assert_eq!(cache.counters().fills.load(Ordering::Relaxed), 1);
    // A reader that wants it later gets it.
    assert_eq!(read(&cache, 1, 0..LEN, 2).unwrap().len(), LEN);
}

#[test]
fn what_is_kept_is_filled_once_and_nothing_is_begun_for_it() {
    let started = Arc::new(AtomicU64::new(0));
    let (seen, gate) = (started.clone(), Gate::default());
    let behind = gate.clone();
    let cache = cache(8, 1, move |_, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        behind.pass()
    });
    let closed = gate.close();
    cache.read_ahead(1, &[1, 2], &[]);
    wait_until("the first fill runs", || started.load(Ordering::SeqCst) == 1);
    // A read that reaches volume 3 overtakes those of 1 and 2; volume 0 was read before and is here no more.
    cache.read_ahead(1, &[3], &[0, 1, 2]);
    drop(closed);
    for key in [1, 2, 3] {
        assert_eq!(read(&cache, key, 0..LEN, 1).unwrap().len(), LEN);
    }
    let counters = cache.counters();
    assert_eq!(counters.cancelled.load(Ordering::Relaxed), 0);
    assert_eq!(counters.fills.load(Ordering::Relaxed), 3);
}

#[test]
fn dropping_the_cache_ends_a_running_fill() {
    let gate = Gate::default();
    let behind = gate.clone();
    let cache = cache(2, 1, move |_, _| behind.pass());
    let closed = gate.close();
    cache.read_ahead(1, &[1, 2], &[]);
    wait_until("the fill runs", || cache.counters().fills.load(Ordering::Relaxed) == 1);
    drop(closed);
    drop(cache);
}

#[test]
fn random_traffic_keeps_every_byte_and_the_budget() {
    let cache = cache(4, 3, |key, chunk| if key % 7 == 0 && chunk == 9 { Err("bad".into()) } else { Ok(()) });
    std::thread::scope(|scope| {
        for reader in 0..6u64 {
            let cache = &cache;
            scope.spawn(move || {
                let mut state = reader * 7919 + 1;
                let mut random = |below: usize| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    usize::try_from(state >> 33).unwrap() % below
                };
                for _ in 0..400 {
                    let key = Key::try_from(random(20)).unwrap();
                    let start = random(LEN);
                    let end = start + random(LEN - start) + 1;
                    match random(10) {
                        0 => cache.read_ahead(reader, &[key, key + 1, key + 2], &[]),
                        1 => cache.leave(reader),
                        _ => match read(cache, key, start..end, reader) {
                            Ok(bytes) => assert!(bytes.len() == end - start && bytes.iter().all(|b| *b == byte(key))),
                            Err(error) => assert!(error == "bad" && key % 7 == 0),
                        },
                    }
                    cache.move_on(reader, key); // jumps about: nobody is to wait until it is idle
                }
                cache.leave(reader);
            });
        }
    });
    assert!(cache.counters().peak_bytes.load(Ordering::Relaxed) <= 4 * LEN as u64);
}

#[test]
fn what_a_fill_takes_beside_its_volume_is_counted_until_it_ends() {
    let (limit, scratch) = (4 * LEN, 2 * LEN);
    for (scratch, most) in [(scratch, limit), (limit, limit + LEN)] {
        let (running, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (fills, most_fills) = (running.clone(), at_once.clone());
        let before_chunk = move |_, chunk| {
            match chunk {
                0 => drop(most_fills.fetch_max(fills.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst)),
                _ if chunk == LEN / CHUNK - 1 => drop(fills.fetch_sub(1, Ordering::SeqCst)),
                _ => std::thread::yield_now(),
            }
            Ok(())
        };
        let cache = Cache::new(Fake { len: LEN, scratch, before_chunk }, limit, 4, false).unwrap();
        let (sender, answers) = mpsc::channel();
        for key in 0..12 {
            ask(&cache, key, 0..LEN, Some(key.into()), 0, &sender);
        }
        for _ in 0..12 {
            answers.recv_timeout(DEADLINE).unwrap().1.unwrap();
        }
        assert_eq!(at_once.load(Ordering::SeqCst), 1, "two fills do not fit {limit} bytes");
        let peak = cache.counters().peak_bytes.load(Ordering::Relaxed);
        assert!(peak <= most as u64 && peak >= (LEN + scratch) as u64, "{peak} bytes of {most}");
        wait_until("what the fills took is free", || cache.memory().0 <= limit);
    }
}
