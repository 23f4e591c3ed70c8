//! The waist against the naive shard: virtual, materialised and mounted, at random offsets, in any order.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may end at the first surprise

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Example, Stored};
use ctwds_fs::materialize::{OnError, Request, Silent, materialize};
use ctwds_fs::output::partition::Part;
use ctwds_fs::output::place::Place;
use ctwds_fs::plan::shuffle;
use ctwds_fs::plan::{ShardId, View};
use ctwds_fs::shard::{Serving, ShardSet};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// A read: which shard, where (as a fraction of its length, so that it fits any), and how much.
type Wanted = (usize, f64, usize);

fn stored() -> impl Strategy<Value = Stored> {
    let descr = prop::sample::select(vec!["<f4", ">f4", "<f8", "<f2", "|u1", "<i2", ">i4"]);
    ([1usize..12, 1usize..12, 1usize..40], descr, any::<bool>(), any::<bool>())
        .prop_map(|(shape, descr, fortran, deflated)| Stored { shape, descr, fortran, deflated })
}

fn reads() -> impl Strategy<Value = Vec<Wanted>> {
    prop::collection::vec((0usize..4, 0.0..1.1, prop_oneof![0usize..600, 0usize..20_000]), 1..30)
}

/// The conformance check that every way of reading passes: `read` gives exactly the naive bytes, cut at the end.
fn check_reads(naive: &[Vec<u8>], wanted: &[Wanted], read: impl Fn(usize, u64, usize) -> Vec<u8>) {
    for &(shard, fraction, len) in wanted {
        let shard = shard % naive.len();
        let bytes = &naive[shard];
        let start = ((bytes.len() as f64 * fraction) as usize).min(bytes.len() + 5);
        let expected = bytes.get(start..bytes.len().min(start + len)).unwrap_or_default();
        let found = read(shard, start as u64, len);
        assert!(found == expected, "shard {shard}, {len} bytes at {start}: {} bytes differ", found.len());
    }
}

fn read_file(path: &Path, offset: u64, len: usize) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], offset + filled as u64).unwrap() {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    bytes
}

fn shard_path(folder: &Path, shard: usize) -> PathBuf {
    folder.join(format!("shard-{shard:06}.tar"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn virtual_and_materialised_shards_equal_the_naive_one(
        volumes in prop::collection::vec(stored(), 1..6),
        per_shard in 1u32..4,
        cache_pages in 1u64..12,
        threads in 1usize..4,
        read_ahead in 0usize..4,
        wanted in reads(),
    ) {
        let example = Example::write(volumes, per_shard);
        let naive = example.naive_shards();
        let set = ShardSet::new(
            example.plan(),
            Serving { cache_bytes: cache_pages * 4096, threads, read_ahead, read_once: per_shard == 1 },
        )
        .unwrap();
        prop_assert_eq!(set.plan().shards.len(), naive.len());
        check_reads(&naive, &wanted, |shard, offset, len| set.read(u32::try_from(shard).unwrap(), offset, len).unwrap().to_vec());
        let cursors: Vec<_> = (0..naive.len()).map(|id| Arc::new(set.cursor(u32::try_from(id).unwrap()))).collect();
        check_reads(&naive, &wanted, |shard, offset, len| set.read_with(&cursors[shard], offset, len).unwrap().to_vec());
        let out = example.folder.path().join("out");
        let (part, on_error, recheck) = (Part::WHOLE, OnError::Fail, false);
        let place = Place::on_disk(&out);
        let request = Request { out: &place, workers: threads, codec: None, part, on_error, recheck, clean: false };
        let outcome = materialize(set.clone(), &request, &AtomicBool::new(false), &Silent).unwrap();
        prop_assert_eq!(outcome.written, naive.len());
        check_reads(&naive, &wanted, |shard, offset, len| read_file(&shard_path(&out, shard), offset, len));
        prop_assert!(set.stats().cache_bytes <= set.stats().cache_limit.max(set.stats().cache_peak_bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_shards_of_an_epoch_equal_naive_ones_of_the_same_order(
        volumes in prop::collection::vec(stored(), 1..9),
        per_shard in 1u32..4,
        seed in any::<u64>(),
        cache_pages in 1u64..12,
        read_ahead in 0usize..4,
        wanted in reads(),
    ) {
        let count = u32::try_from(volumes.len()).unwrap();
        let example = Example::write(volumes, per_shard);
        let plan = example.plan().with_epochs(seed, 3).unwrap();
        let serving = Serving { cache_bytes: cache_pages * 4096, threads: 2, read_ahead, read_once: false };
        let set = ShardSet::new(plan, serving).unwrap();
        for epoch in [2, 0, 1] {
            let order = shuffle::order(seed, epoch.into(), count);
            let naive = example.naive_view(&order.into_iter().map(|index| index as usize).collect::<Vec<_>>());
            let ids: Vec<ShardId> = set.plan().view(View::Epoch(epoch)).unwrap().collect();
            prop_assert_eq!(ids.len(), naive.len());
            check_reads(&naive, &wanted, |shard, offset, len| set.read(ids[shard], offset, len).unwrap().to_vec());
            let cursors: Vec<_> = ids.iter().map(|id| Arc::new(set.cursor(*id))).collect();
            check_reads(&naive, &wanted, |shard, offset, len| set.read_with(&cursors[shard], offset, len).unwrap().to_vec());
            for (cursor, bytes) in cursors.iter().zip(&naive) {
                prop_assert_eq!(set.len(cursor.shard()).unwrap(), bytes.len() as u64);
                let found: Vec<u8> = (0..bytes.len() as u64)
                    .step_by(5000)
                    .flat_map(|offset| set.read_with(cursor, offset, 5000).unwrap().to_vec())
                    .collect();
                prop_assert!(found == *bytes);
            }
        }
        let beyond = set.plan().view(View::Epoch(2)).unwrap().last().unwrap() + 1;
        prop_assert!(set.read(beyond, 0, 1).is_err() && set.len(beyond).is_none());
        let plain = example.naive_shards();
        check_reads(&plain, &wanted, |shard, offset, len| set.read(u32::try_from(shard).unwrap(), offset, len).unwrap().to_vec());
    }
}

/// Volumes that are small, larger than a read, and large enough to be peeked at, in all orders and compressions.
fn mixed_example() -> Example {
    let mut volumes = Vec::new();
    for (shape, descr) in [([3, 5, 7], "<f4"), ([40, 50, 60], "<i2"), ([128, 128, 150], "<f4")] {
        for (fortran, deflated) in [(false, false), (false, true), (true, false), (true, true)] {
            volumes.push(Stored { shape, descr, fortran, deflated });
        }
    }
    Example::write(volumes, 5)
}

#[test]
fn concurrent_readers_in_any_order_see_the_same_bytes() {
    let example = mixed_example();
    let naive = example.naive_shards();
    // Room for two of the large volumes; more readers than that.
    let set =
        ShardSet::new(example.plan(), Serving { cache_bytes: 10 << 20, threads: 3, read_ahead: 4, read_once: true })
            .unwrap();
    std::thread::scope(|scope| {
        for reader in 0..6u64 {
            let (set, naive) = (&set, &naive);
            scope.spawn(move || {
                let shard = u32::try_from(reader % 3).unwrap();
                let cursor = Arc::new(set.cursor(shard));
                let bytes = &naive[shard as usize];
                let step = [512, 4096, 10_240, 131_072, 1 << 20, 5 << 20][usize::try_from(reader).unwrap()];
                for start in (0..bytes.len()).step_by(step) {
                    let found = set.read_with(&cursor, start as u64, step).unwrap();
                    assert!(found == bytes[start..bytes.len().min(start + step)], "reader {reader} at {start}");
                }
            });
        }
    });
    assert!(set.stats().cache_peak_bytes <= 10 << 20);
}

/// Unmounts when dropped, however the test ends.
struct Mount {
    point: tempfile::TempDir,
}

impl Mount {
    fn new(example: &Example, flags: &[&str]) -> Self {
        let point = tempfile::tempdir().unwrap();
        let log = example.folder.path().join("mount.log");
        let output = Command::new(env!("CARGO_BIN_EXE_ctwds-fs"))
            .arg("mount")
            .args(example.flags())
            .args(flags)
            .arg("--log-file")
            .arg(log)
            .arg(point.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { point }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let ended = Command::new(env!("CARGO_BIN_EXE_ctwds-fs")).arg("unmount").arg(self.point.path()).status();
        if !ended.is_ok_and(|status| status.success()) {
            let _ = Command::new("umount").args(["--force", "--lazy"]).arg(self.point.path()).status();
        }
    }
}

#[test]
fn the_mounted_shard_equals_the_naive_one() {
    if std::env::var_os("CTWDS_SKIP_FUSE").is_some_and(|skip| skip == "1") {
        eprintln!("skipped: CTWDS_SKIP_FUSE=1");
        return;
    }
    let example = mixed_example();
    let naive = example.naive_shards();
    for page_cache in ["on", "off"] {
        check_mount(&example, &naive, page_cache);
    }
}

fn check_mount(example: &Example, naive: &[Vec<u8>], page_cache: &str) {
    let mount = Mount::new(example, &["--cache-size", "16MiB", "--threads", "2", "--page-cache", page_cache]);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..20 {
        let wanted = reads().new_tree(&mut runner).unwrap().current();
        check_reads(naive, &wanted, |shard, offset, len| {
            read_file(&shard_path(mount.point.path(), shard), offset, len)
        });
    }
    for (shard, bytes) in naive.iter().enumerate() {
        assert!(std::fs::read(shard_path(mount.point.path(), shard)).unwrap() == *bytes, "shard {shard}");
    }
}
