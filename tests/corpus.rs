//! Replays the fuzzer's corpus, so that what it found stays found where no fuzzer can be built.

#![allow(clippy::unwrap_used)] // a test may end at the first surprise

use std::fs;
use std::path::Path;

#[test]
fn every_input_of_the_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, check) in ctwds_fs::fuzzing::TARGETS {
        let folder = root.join("fuzz/corpus").join(name);
        let mut inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        if name == "npz" {
            inputs.extend(fs::read_dir(root.join("tests/npz")).unwrap().map(|entry| entry.unwrap().path()));
        }
        assert!(inputs.len() >= 4, "{}: no corpus", folder.display());
        for input in inputs {
            let bytes = fs::read(&input).unwrap();
            let result = std::panic::catch_unwind(|| check(&bytes));
            assert!(result.is_ok(), "{}", input.display());
            // A crash that cuts the file short at any place; long ones at some.
            for len in (0..bytes.len()).step_by((bytes.len() / 256).max(1)) {
                let result = std::panic::catch_unwind(|| check(&bytes[..len]));
                assert!(result.is_ok(), "{}, cut at {len}", input.display());
            }
        }
    }
}
