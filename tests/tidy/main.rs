//! The architecture's rules, as far as they can be read off the source text.
//!
//! Each rule is a function over a [`Tree`] of files that answers with what breaks it, one line each. It is applied to
//! the project here, and in `planted.rs` to small sources that break it and to some that nearly do.

#![allow(clippy::unwrap_used)] // a test may end at the first surprise

mod code;
mod docs;
mod imports;
mod planted;
mod text;
mod tree;
mod walls;

use tree::Tree;

/// The rooms of `src` from the lowest on, each with the rooms that it may import: the whole order of the program.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("base", &["error"]),
    ("storage", &["base", "error"]),
    ("formats", &["base", "error", "storage"]),
    ("volume", &["base", "error", "formats", "storage"]),
    ("dataset", &["base", "error", "formats", "storage", "volume"]),
    ("plan", &["base", "dataset", "error", "formats", "storage", "volume"]),
    ("output", &["base", "dataset", "error", "formats", "plan", "storage", "volume"]),
    ("cache", &["base", "error", "formats", "volume"]),
    ("shard", &["base", "cache", "error", "plan", "storage", "volume"]),
    ("fs", &["base", "error", "output", "plan", "shard"]),
    ("materialize", &["base", "dataset", "error", "formats", "output", "plan", "shard", "storage"]),
    ("reclaim", &["base", "dataset", "error", "output", "plan", "shard", "storage"]),
    ("estimate", &["base", "dataset", "error", "formats", "plan", "shard", "volume"]),
    ("bench", &["base", "error"]),
    ("report", &["base", "dataset", "error", "formats", "plan", "shard", "volume"]),
    ("verify", &["base", "dataset", "error", "plan", "storage", "volume"]),
    ("cli", &["base", "dataset", "error", "formats", "materialize", "output", "plan", "storage", "volume"]),
    (
        "commands",
        &[
            "base",
            "bench",
            "cache",
            "cli",
            "dataset",
            "error",
            "estimate",
            "formats",
            "fs",
            "materialize",
            "output",
            "plan",
            "reclaim",
            "report",
            "shard",
            "storage",
            "verify",
            "volume",
        ],
    ),
    ("fuzzing", &["base", "dataset", "formats", "output"]),
    ("main", &["commands"]),
];

/// Walls within what [`ROOMS`] allows: an auditor that shares code with what it audits finds nothing.
const WALLS: &[(&str, &str)] = &[
    ("verify", "plan::layout"),
    ("verify", "plan::members"),
    ("verify", "volume::narrow"),
    ("verify", "volume::planes"),
    ("verify", "volume::resample"),
    ("verify", "volume::shard_file"),
    ("verify", "volume::source"),
    ("verify", "volume::transpose"),
];

/// The files that speak FUSE.
const FUSE: &[&str] = &["src/fs/fuse.rs", "src/fs/mount.rs", "src/fs/passthrough.rs"];

/// The room of object storage: nothing else is asynchronous, or knows the client.
const ASYNCHRONOUS: &[(&str, &[&str])] = &[
    (
        "object_store",
        &[
            "src/storage/client.rs",
            "src/storage/object.rs",
            "src/storage/reason.rs",
            "src/storage/settings.rs",
            "src/storage/upload.rs",
            "src/storage/write.rs",
        ],
    ),
    ("tokio", &["src/storage/network.rs"]),
    ("futures_util", &["src/storage/client.rs"]),
];

/// Modules whose answers depend on their arguments alone.
const PURE: &[&str] = &[
    "src/formats/pyjson.rs",
    "src/formats/sha256.rs",
    "src/formats/tar.rs",
    "src/fs/names.rs",
    "src/fs/node.rs",
    "src/output/indexes.rs",
    "src/plan/content.rs",
    "src/plan/digest_text.rs",
    "src/plan/digests.rs",
    "src/plan/layout.rs",
    "src/plan/members.rs",
    "src/plan/values.rs",
    "src/plan/mod.rs",
    "src/plan/shuffle.rs",
    "src/plan/views.rs",
    "src/plan/volume_digest.rs",
    "src/cache/disk/format.rs",
    "src/volume/cast.rs",
    "src/volume/transpose.rs",
];

/// Unsafe code: each file has its proof beside it and a test against a portable definition or a model.
const UNSAFE: &[&str] = &[
    "src/base/limits.rs",
    "src/cache/growing.rs",
    "src/cache/region.rs",
    "src/commands/daemon.rs",
    "src/formats/codec/running_sum.rs",
    "src/formats/codec/whole.rs",
    "src/formats/inflate/symbols.rs",
    "src/formats/sha256.rs",
    "src/volume/narrow.rs",
    "src/volume/transpose.rs",
    // The model of the growing buffer, and an allocator that counts.
    "tests/loom.rs",
    "tests/mutations.rs",
];

/// The one way to the standard streams.
const STREAMS: &[&str] = &["src/commands/terminal.rs"];

/// The one file that starts threads, and the one that starts tasks on such a thread.
const THREADS: &[&str] = &["src/base/parallel.rs", "src/storage/network.rs"];

/// Nothing that produces shard bytes goes around the plan's volumes. Copies are of what they made before; the report
/// compares them with the same in float32.
const VOLUME_MAKERS: &[&str] = &["src/plan/content.rs", "src/report/means.rs", "src/shard/copies.rs"];

/// Who asks a plan for a sample's volume: the waist, the digest of what determines it, and the report for lengths and
/// the source in float32.
const VOLUME_CALLERS: &[&str] =
    &["src/shard/", "src/plan/volume_digest.rs", "src/report/means.rs", "src/report/volume.rs"];

/// Applies a rule to the project.
fn holds(rule: impl Fn(&Tree) -> Vec<String>) {
    let wrong = rule(&Tree::of_project());
    assert!(wrong.is_empty(), "{} times:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn files_are_short() {
    holds(|tree| text::lengths(tree, 400));
}

#[test]
fn functions_are_short() {
    holds(|tree| code::functions(tree, 70));
}

#[test]
fn modules_import_in_no_circle() {
    holds(walls::circles);
}

#[test]
fn rooms_import_those_below_them() {
    holds(|tree| walls::rooms(tree, ROOMS));
}

#[test]
fn walls_stand() {
    holds(|tree| walls::walls(tree, WALLS));
}

#[test]
fn fuse_is_spoken_in_three_files() {
    holds(|tree| walls::only_in(tree, "fuser", FUSE));
}

#[test]
fn nothing_is_asynchronous_outside_of_storage() {
    for (target, files) in ASYNCHRONOUS {
        holds(|tree| walls::only_in(tree, target, files));
    }
}

#[test]
fn pure_modules_know_no_files() {
    holds(|tree| walls::pure(tree, PURE));
}

#[test]
fn volumes_come_from_the_waist() {
    holds(|tree| walls::waist(tree, VOLUME_MAKERS));
    holds(|tree| code::volume_calls(tree, VOLUME_CALLERS));
}

#[test]
fn unsafe_code_stays_where_it_is_proved() {
    holds(|tree| code::unsafe_code(tree, UNSAFE));
}

#[test]
fn one_way_leads_to_the_terminal() {
    holds(|tree| code::streams(tree, STREAMS));
}

#[test]
fn threads_are_started_where_a_refusal_is_an_error() {
    holds(|tree| code::threads(tree, THREADS));
}

#[test]
fn comments_are_narrow() {
    holds(|tree| text::widths(tree, 120));
}

#[test]
fn public_documentation_names_its_subject() {
    holds(docs::beginnings);
}

#[test]
fn nothing_is_left_undone() {
    holds(text::undone);
}

#[test]
fn modules_have_one_style_and_few_are_at_the_top() {
    holds(|tree| text::places(tree, 22));
}

#[test]
fn results_hold_no_results() {
    holds(code::nested_results);
}
