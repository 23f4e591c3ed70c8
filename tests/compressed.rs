//! Compressed shards as the source: whatever their volumes are, the waist gives the plain bytes at every offset.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may end at the first surprise

#[allow(dead_code)] // what other tests need of it
mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Example, Stored};
use ctwds_fs::dataset::ScanProgress;
use ctwds_fs::formats::codec::{Codec, Method};
use ctwds_fs::materialize::{OnError, Outcome, Request, Silent, materialize};
use ctwds_fs::output::archive;
use ctwds_fs::output::partition::Part;
use ctwds_fs::output::place::Place;
use ctwds_fs::plan::Plan;
use ctwds_fs::shard::{Serving, ShardSet};
use ctwds_fs::storage;
use proptest::prelude::*;

fn serve(plan: Plan) -> ShardSet {
    ShardSet::new(plan, Serving { cache_bytes: 3 << 20, threads: 2, read_ahead: 2, read_once: false }).unwrap()
}

fn write(plan: Plan, out: &Path, codec: Option<Codec>) -> Outcome {
    let (part, on_error, recheck) = (Part::WHOLE, OnError::Fail, false);
    let out = &Place::on_disk(out);
    let request = Request { out, workers: 2, codec, part, on_error, recheck, clean: false };
    materialize(serve(plan), &request, &AtomicBool::new(false), &Silent).unwrap()
}

/// From less than a block to several, which no block divides.
fn stored() -> impl Strategy<Value = Stored> {
    let shape = prop_oneof![[1usize..12, 1usize..12, 1usize..40], [40usize..70, 50usize..60, 60usize..90]];
    (shape, any::<bool>(), any::<bool>()).prop_map(|(shape, fortran, deflated)| Stored {
        shape,
        descr: "<i2",
        fortran,
        deflated,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn compressed_shards_are_served_as_plain_ones(
        volumes in prop::collection::vec(stored(), 1..5),
        per_shard in 1u32..4,
        is_old in any::<bool>(),
        wanted in prop::collection::vec((0usize..4, 0.0..1.05, prop_oneof![0usize..600, 0usize..900_000]), 1..30),
    ) {
        let example = Example::write(volumes, per_shard);
        let naive = example.naive_shards();
        let [packed, back] = ["packed", "back"].map(|name| example.folder.path().join(name));
        let method = if is_old { Method::Shuffle } else { Method::Predict };
        prop_assert_eq!(write(example.plan(), &packed, Some(Codec { level: 1, method })).written, naive.len());
        let plan = archive::plan(&packed, storage::local(), 2, &ScanProgress::default()).unwrap();
        prop_assert_eq!(&plan.digest, &example.plan().digest);
        let set = serve(plan.clone());
        let cursors: Vec<_> = (0..naive.len()).map(|id| Arc::new(set.cursor(u32::try_from(id).unwrap()))).collect();
        for (shard, fraction, len) in wanted {
            let bytes = &naive[shard % naive.len()];
            let start = (bytes.len() as f64 * fraction) as usize;
            let expected = bytes.get(start..bytes.len().min(start + len)).unwrap_or_default();
            let cursor = &cursors[shard % naive.len()];
            prop_assert!(set.read(cursor.shard(), start as u64, len).unwrap() == expected, "{} at {}", len, start);
            prop_assert!(set.read_with(cursor, start as u64, len).unwrap() == expected, "{} at {}", len, start);
        }
        write(plan, &back, None);
        for (id, bytes) in (0..).zip(&naive) {
            prop_assert!(std::fs::read(back.join(Plan::shard_name(id))).unwrap() == *bytes, "shard {}", id);
        }
    }
}

#[test]
fn every_changed_byte_of_a_volume_is_noticed() {
    for method in [Method::Shuffle, Method::Predict] {
        every_changed_byte_is_noticed(method);
    }
}

fn every_changed_byte_is_noticed(method: Method) {
    let example = Example::write(vec![Stored { shape: [6, 7, 8], descr: "<i2", fortran: false, deflated: false }], 1);
    let naive = example.naive_shards();
    let packed = example.folder.path().join("packed");
    write(example.plan(), &packed, Some(Codec { level: 1, method }));
    let path = packed.join(Plan::shard_name(0));
    let right = std::fs::read(&path).unwrap();
    let size = ctwds_fs::formats::tar::parse(&right[..512]).unwrap().size as usize;
    for at in 512..512 + size {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        std::fs::write(&path, &wrong).unwrap();
        let noticed = archive::plan(&packed, storage::local(), 1, &ScanProgress::default())
            .and_then(|plan| serve(plan).read(0, 0, naive[0].len()));
        // A bit that the format does not use changes nothing; any other is an error.
        assert!(noticed.as_ref().map_or(true, |bytes| *bytes == naive[0]), "byte {at} of the shard");
    }
}
