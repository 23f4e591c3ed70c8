//! The architecture's rules, as far as they can be read off the source text.

#![allow(clippy::unwrap_used)] // a test may end at the first surprise

use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 400;
const MAX_FUNCTION: usize = 70;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    let mut files = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    walk(&root.join("src"), &mut files);
    walk(&root.join("tests"), &mut files);
    files
}

/// Source files (below `src`) whose text before the unit tests contains `needle`.
fn using(needle: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: Vec<String> = sources()
        .into_iter()
        .filter_map(|(path, text)| {
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let uses = code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(needle));
            let name = path.strip_prefix(&root).ok()?.to_string_lossy().into_owned();
            uses.then_some(name)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn files_and_functions_are_short() {
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= MAX_LINES, "{}: {} lines", path.display(), lines.len());
        let mut start: Option<(usize, usize)> = None;
        for (number, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let is_fn = code.starts_with("fn ") || code.starts_with("pub") && code.contains("fn ");
            if start.is_none() && is_fn && !code.ends_with(';') {
                start = Some((number, indent));
            } else if let Some((from, depth)) = start
                && code.starts_with('}')
                && indent == depth
            {
                assert!(number - from < MAX_FUNCTION, "{}:{}: {} lines", path.display(), from + 1, number - from);
                start = None;
            }
        }
    }
}

#[test]
fn layers_keep_their_distance() {
    assert_eq!(using("fuser::"), ["fs/fuse.rs", "fs/mount.rs", "fs/passthrough.rs"]);
    for pure in [
        "plan/layout.rs",
        "formats/sha256.rs",
        "plan/shuffle.rs",
        "output/indexes.rs",
        "plan/views.rs",
        "plan/content.rs",
        "plan/digests.rs",
        "plan/digest_text.rs",
        "fs/node.rs",
        "fs/names.rs",
    ] {
        assert!(!using("std::fs").contains(&pure.to_owned()), "{pure} touches files");
    }
    for pure in [
        "formats/tar.rs",
        "plan/members.rs",
        "plan/mod.rs",
        "formats/pyjson.rs",
        "volume/cast.rs",
        "volume/transpose.rs",
    ] {
        assert!(!using("std::fs").contains(&pure.to_owned()), "{pure} touches files");
    }
    // The waist: nothing that produces shard bytes goes around it. Copies are of what it made before.
    assert_eq!(using("Volume {"), ["plan/content.rs", "shard/copies.rs"]);
    let makers = using(".volume(");
    let allowed = |name: &&String| *name == "commands/plan.rs" || name.starts_with("shard/");
    assert!(makers.iter().all(|name| allowed(&name)), "{makers:?}");
    for (below, above) in [
        ("formats/npz/", "crate::volume"),
        ("volume/", "crate::cache"),
        ("cache/", "crate::volume"),
        ("dataset/", "crate::shard"),
        ("shard/", "crate::fs"),
        // An auditor that shares code with what it audits finds nothing.
        ("verify/", "crate::shard"),
        ("verify/", "crate::formats::npz"),
        ("verify/", "crate::cache"),
        ("verify/", "crate::formats::codec"),
        ("verify/", "crate::plan::members"),
        ("verify/", "crate::plan::layout"),
        ("verify/", "crate::output::manifest"),
        ("verify/", "crate::formats::tar"),
        ("verify/", "crate::formats::sha256"),
        ("verify/", "crate::bench"),
        ("bench/", "crate::verify"),
    ] {
        assert!(!using(above).iter().any(|name| name.starts_with(below)), "{below} uses {above}");
    }
}

#[test]
fn unsafe_code_stays_where_it_is_proved() {
    assert_eq!(
        using("unsafe "),
        [
            "cache/growing.rs",
            "cache/region.rs",
            "commands/daemon.rs",
            "formats/inflate/symbols.rs",
            "formats/sha256.rs",
            "volume/narrow.rs",
            "volume/transpose.rs"
        ]
    );
}

#[test]
fn nothing_is_left_undone() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tidy.rs");
    for (path, text) in sources().into_iter().filter(|(path, _)| *path != here) {
        for word in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}
