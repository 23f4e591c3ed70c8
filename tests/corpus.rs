//! Replays the fuzzer's corpus, so that what it found stays found where no fuzzer can be built.

#![allow(clippy::unwrap_used)] // a test may end at the first surprise

use std::fs;
use std::path::Path;

/// `scripts/test.sh` builds the targets; this holds in every run of the tests that each one is a program of
/// `fuzz/Cargo.toml`, does what the corpus replays, and is missing nowhere.
#[test]
fn every_target_is_built_and_replayed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let mut files: Vec<String> = fs::read_dir(root.join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut names: Vec<&str> = ctwds_fs::fuzzing::TARGETS.iter().map(|(name, _)| *name).collect();
    files.sort_unstable();
    names.sort_unstable();
    assert_eq!(files, names);
    for name in names {
        let file = format!("fuzz_targets/{name}.rs");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{file}\"")), "fuzz/Cargo.toml: {name}");
        let text = fs::read_to_string(root.join(&file)).unwrap();
        assert!(text.contains(&format!("ctwds_fs::fuzzing::{name}(bytes)")), "{file}");
    }
}

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
