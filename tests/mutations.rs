//! Source files damaged in every region and way: whoever reads the whole volume gets the right bytes or an error,
//! never wrong bytes, a panic, a hang, or memory that the file does not account for.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may end at the first surprise

#[allow(dead_code)] // each test uses its part of it
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Example, Stored};
use ctwds_fs::error::{Error, Result};
use ctwds_fs::shard::{Serving, ShardSet};

/// Mutations of each region, way and moment.
const SEEDS: u64 = 2;
/// A mutation takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// What planning and serving take besides the file and the volume: tables, windows, threads.
const OVERHEAD: usize = 2 << 20;
/// Deflate packs at most this well, so a file of a sound length accounts for no more.
const MAX_RATIO: usize = 1032;

/// Counts what the whole process has allocated. The cache's volumes are mapped, and counted by its own statistics.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(USED.fetch_add(layout.size(), SeqCst) + layout.size(), SeqCst);
        // SAFETY: the caller's promise is the system allocator's demand.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), SeqCst);
        // SAFETY: `place` came from `alloc`, which the system's allocator answered.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SplitMix64: the same mutations in every run, and no two alike.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn part_of(&mut self, range: &Range<usize>, longest: usize) -> Range<usize> {
        let start = range.start + self.below(range.len());
        start..range.end.min(start + 1 + self.below(longest))
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The regions of a zip file, found by its signatures, which the fixtures have nowhere else.
fn regions(bytes: &[u8]) -> Vec<(&'static str, Range<usize>)> {
    let find = |mark: &[u8]| bytes.windows(4).enumerate().filter(|(_, w)| *w == mark).map(|(at, _)| at).collect();
    let (locals, entries, ends): (Vec<usize>, Vec<usize>, Vec<usize>) =
        (find(b"PK\x03\x04"), find(b"PK\x01\x02"), find(b"PK\x05\x06"));
    // The array `data` is the last in every fixture.
    let (local, entry, end) = (locals[locals.len() - 1], entries[entries.len() - 1], ends[0]);
    let data = local + 30 + number(bytes, local + 26, 2) + number(bytes, local + 28, 2);
    let zip64: Vec<usize> = find(b"PK\x06\x06");
    let mut regions = vec![
        ("end record", end..bytes.len()),
        ("zip directory", entries[0]..zip64.first().copied().unwrap_or(end)),
        ("directory's CRC", entry + 16..entry + 20),
        ("directory's sizes", entry + 20..entry + 28),
        ("directory's name", entry + 46..entry + 46 + number(bytes, entry + 28, 2)),
        ("local header", local..data),
        ("local CRC", local + 14..local + 18),
        ("npy header", data..data + 128.min(entries[0] - data)),
        ("data", data..entries[0]),
        ("data's end", entries[0] - 24.min(entries[0] - data)..entries[0]),
    ];
    regions.extend(zip64.first().map(|start| ("zip64 records", *start..end)));
    regions
}

const WAYS: [&str; 7] = ["bit", "byte", "zero", "noise", "remove", "truncate", "duplicate"];
/// Those that leave the length as it is: what a failing disk does, which no time stamp tells of.
const IN_PLACE: usize = 4;

fn mutate(bytes: &mut Vec<u8>, region: &Range<usize>, way: usize, random: &mut Random) {
    let at = region.start + random.below(region.len());
    let part = random.part_of(region, 64);
    match WAYS[way] {
        "bit" => bytes[at] ^= 1 << random.below(8),
        "byte" => bytes[at] ^= 1 + random.below(255) as u8,
        "zero" => bytes[part].fill(0),
        "noise" => bytes[part].iter_mut().for_each(|byte| *byte = random.next() as u8),
        "remove" => drop(bytes.drain(part)),
        "truncate" => bytes.truncate(at),
        _ => {
            let copy = bytes[part.clone()].to_vec();
            bytes.splice(part.end..part.end, copy);
        }
    }
}

/// Reads all of the one shard, in an order that `seed` chooses.
fn read_all(set: &ShardSet, seed: u64) -> Result<Vec<u8>> {
    let len = set.len(0).unwrap() as usize;
    let cursor = Arc::new(set.cursor(0));
    let piece = [len.max(1), 10_240, 131_072][(seed % 3) as usize];
    let mut starts: Vec<usize> = (0..len).step_by(piece).collect();
    if seed % 2 == 1 {
        starts.reverse();
    }
    let mut found = vec![0; len];
    for start in starts {
        let bytes = set.read_with(&cursor, start as u64, piece)?;
        found[start..start + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(found)
}

/// What became of a mutation, for the count.
fn outcome(example: &Example, right: &[u8], original: &[u8], mutated: &[u8], planned: bool, seed: u64) -> &'static str {
    let path = example.path("volumes/v_000.npz");
    let before = write_in_place(&path, original, None);
    let kept = planned.then(|| example.try_plan().unwrap());
    write_in_place(&path, mutated, Some(before));
    let plan = match kept.map_or_else(|| example.try_plan(), Ok) {
        Ok(plan) => plan,
        Err(Error::Malformed { path: named, .. }) if named == path => return "left out",
        Err(other) => panic!("not the sample's fault: {other:?}"),
    };
    let serving = Serving { cache_bytes: 4 << 20, threads: 1, read_ahead: 1, read_once: false };
    let set = ShardSet::new(plan, serving).unwrap();
    let outcome = match read_all(&set, seed) {
        Ok(bytes) => {
            assert!(bytes == right, "WRONG BYTES");
            "right"
        }
        Err(Error::Malformed { path: named, .. } | Error::Changed { path: named, .. }) if named == path => "error",
        Err(other) => panic!("no error of the file's content: {other:?}"),
    };
    let len = set.len(0).unwrap() as usize;
    assert!(set.stats().cache_peak_bytes as usize <= (4 << 20).max(len + 4096), "the cache took too much");
    assert!(len <= OVERHEAD + mutated.len() * MAX_RATIO, "a shard of {len} bytes");
    outcome
}

/// Writes the file without another inode, with the given time; returns its time.
fn write_in_place(path: &Path, bytes: &[u8], time: Option<std::time::SystemTime>) -> std::time::SystemTime {
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    if let Some(time) = time {
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
    file.metadata().unwrap().modified().unwrap()
}

/// Ends the process if a mutation takes too long, naming it.
fn watch(current: &Arc<Mutex<(Instant, String)>>) {
    let current = Arc::downgrade(current);
    std::thread::spawn(move || {
        while let Some(current) = current.upgrade() {
            let (since, name) = current.lock().unwrap_or_else(|poison| poison.into_inner()).clone();
            if since.elapsed() > DEADLINE {
                eprintln!("after {DEADLINE:?} still not read: {name}");
                std::process::abort();
            }
            drop(current);
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

/// The fixtures: how the array is stored, and the file of `tests/npz` instead of one by the `zip` crate.
fn fixtures() -> Vec<(Stored, Option<&'static str>)> {
    let stored = |shape, descr, fortran, deflated| Stored { shape, descr, fortran, deflated };
    let small = [4, 5, 6];
    vec![
        (stored(small, "<f4", false, false), Some("stored.npz")),
        (stored(small, "<f4", true, true), Some("deflated_fortran.npz")),
        (stored(small, "<f4", false, false), Some("beside_others.npz")),
        (stored(small, "<i2", false, true), Some("streamed.npz")),
        (stored(small, "<i2", false, false), Some("commented.npz")),
        (stored(small, "<f4", false, false), Some("zip64.npz")),
        (stored(small, "<f4", false, false), Some("aligned.npz")),
        // Several chunks, so that voxels are handed on before the checksum is known.
        (stored([40, 60, 80], "<f4", false, false), None),
        (stored([40, 60, 80], "<i2", false, true), None),
        (stored([40, 60, 80], ">f4", true, false), None),
        (stored([40, 60, 80], "<f8", true, true), None),
    ]
}

#[test]
fn damaged_files_give_right_bytes_or_an_error() {
    let current = Arc::new(Mutex::new((Instant::now(), String::new())));
    watch(&current);
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut random = Random(20_251_125);
    for (stored, file) in fixtures() {
        let example = Example::write(vec![stored.clone()], 1);
        let original = match file {
            Some(name) => fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npz").join(name)).unwrap(),
            None => fs::read(example.path("volumes/v_000.npz")).unwrap(),
        };
        let right = example.naive_shards().remove(0);
        assert_eq!(outcome(&example, &right, &original, &original, false, 0), "right", "{file:?}, untouched");
        for (region, range) in regions(&original) {
            for (way, planned) in (0..WAYS.len()).flat_map(|way| [(way, false), (way, true)]) {
                if planned && way >= IN_PLACE {
                    continue;
                }
                for seed in 0..SEEDS {
                    let mut mutated = original.clone();
                    mutate(&mut mutated, &range, way, &mut random);
                    let name = format!("{file:?} {stored:?}: {region}, {}, planned {planned}, {seed}", WAYS[way]);
                    *current.lock().unwrap() = (Instant::now(), name.clone());
                    let base = USED.load(SeqCst);
                    PEAK.store(base, SeqCst);
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        outcome(&example, &right, &original, &mutated, planned, seed)
                    }));
                    let result = result.unwrap_or_else(|_| panic!("{name}"));
                    let peak = PEAK.load(SeqCst) - base;
                    // The reader's own copies: the shard, and a piece of it.
                    assert!(peak <= OVERHEAD + mutated.len() + 3 * right.len(), "{name}: {peak} bytes");
                    *counts.entry((region, result)).or_default() += 1;
                }
            }
        }
    }
    let total =
        |wanted: &str| counts.iter().filter(|((_, result), _)| *result == wanted).map(|(_, n)| n).sum::<usize>();
    assert!(counts.values().sum::<usize>() >= 1000 && total("left out") > 100 && total("error") > 100);
}
