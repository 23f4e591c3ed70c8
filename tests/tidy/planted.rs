//! Each rule refuses a small source that breaks it, for the right reason, and lets one pass that nearly does.

use crate::tree::Tree;
use crate::{code, docs, text, walls};

type Sources = [(&'static str, &'static str)];

fn tree(sources: &Sources) -> Tree {
    Tree::new(sources.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

/// One violation is found, and it says `reason`.
fn refused(rule: impl Fn(&Tree) -> Vec<String>, sources: &Sources, reason: &str) {
    let wrong = rule(&tree(sources));
    assert!(
        matches!(wrong.as_slice(), [one] if one.contains(reason)),
        "{reason:?} is wanted of {sources:?}: {wrong:?}"
    );
}

fn passes(rule: impl Fn(&Tree) -> Vec<String>, sources: &Sources) {
    let wrong = rule(&tree(sources));
    assert!(wrong.is_empty(), "{sources:?}: {wrong:?}");
}

#[test]
fn long_files() {
    let rule = |tree: &Tree| text::lengths(tree, 2);
    refused(rule, &[("tests/a.rs", "//\n//\n//\n")], "tests/a.rs: 3 lines");
    passes(rule, &[("tests/a.rs", "//\n//\n")]);
}

#[test]
fn long_functions() {
    let rule = |tree: &Tree| code::functions(tree, 3);
    let long = "pub async fn f(\n    a: u8,\n) {\n}\n";
    refused(rule, &[("src/a.rs", long)], "src/a.rs:1: f has 4 lines");
    refused(rule, &[("src/a.rs", "trait T {\n    fn g() {\n\n\n    }\n}")], "src/a.rs:2: g has 4 lines");
    refused(rule, &[("src/a.rs", "impl A {\n    const fn g() {\n\n\n    }\n}")], "src/a.rs:2: g has 4 lines");
    passes(
        rule,
        &[("src/a.rs", "/// Documented.\n#[inline]\n\n\nfn f() {\n\n}\ntrait T {\n    fn g(\n\n\n\n    );\n}")],
    );
}

#[test]
fn circles_in_a_room() {
    let circle = |uses: &'static str| {
        let b = ("src/room/b.rs", "use crate::room::a::A;\npub struct B(A);");
        refused(
            walls::circles,
            &[("src/room/a.rs", uses), b, ("src/room/mod.rs", "mod a;\nmod b;\npub use b::B;")],
            "a -> b",
        );
    };
    circle("use crate::room::b;");
    circle("use crate::{error::Error, room::b::B as Other};");
    circle("use super::b::*;");
    circle("fn f(b: super::b::B) {}");
    circle("fn f() { assert_eq!(1, self::super::b::f()) }");
    circle("macro_rules! m { () => { use $crate::room::{b::B}; } }");
    circle("#[derive(crate::room::b::B)]\nstruct A;");
    circle("use crate::room;\nfn f() { room::b::f() }");
    circle("mod inner { use super::super::b::B; }");
    // What the parent only re-exports is the sibling's.
    circle("use super::B;");
    circle("use super::*;\nfn f(b: &B) {}");
    circle("use crate::room as r;\nimpl r::B for A {}");
}

#[test]
fn what_is_no_circle() {
    let passing = |uses: &'static str| {
        let b = ("src/room/b.rs", "use crate::room::a::A;\npub struct B(A);");
        let parent = "mod a;\nmod b;\npub use a::A;\npub use b::B;\npub struct Own;\nfn f() { a::f() }";
        passes(walls::circles, &[("src/room/a.rs", uses), b, ("src/room/mod.rs", parent)]);
    };
    passing("//! As [`crate::room::b::B`] does.\n/// [`super::b::f`]\npub struct A;");
    passing("#[cfg(test)]\nmod tests {\n    use super::super::b::B;\n}");
    passing("#[cfg(all(test, unix))]\nfn f() { super::b::f() }");
    passing("fn f() -> &'static str { \"crate::room::b\" }");
    passing("use super::Own;\npub(super) fn f(own: super::Own) {}");
    passing("use other::b;\nfn f() { b::f() }");
    passing("use ::room::b::B;");
    let tests = ("src/room/tests.rs", "use super::b::B;");
    let files =
        [("src/room/b.rs", "use super::tests::A;"), ("src/room/mod.rs", "#[cfg(test)]\nmod tests;\nmod b;"), tests];
    passes(walls::circles, &files);
    let declared = ("src/room/a.rs", "#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;");
    passes(
        walls::circles,
        &[declared, ("src/room/a_tests.rs", "use super::b::B;"), ("src/room/b.rs", "use super::a_tests::A;")],
    );
}

#[test]
fn circles_between_rooms() {
    let deep = [
        ("src/one/mod.rs", "mod x;\npub mod y;"),
        ("src/one/x.rs", "use crate::two::y::Y;"),
        ("src/one/y.rs", "pub struct Y;"),
        ("src/two/mod.rs", "mod x;\npub mod y;"),
        ("src/two/x.rs", "use crate::one::y::Y;"),
        ("src/two/y.rs", "pub struct Y;"),
    ];
    refused(
        walls::circles,
        &deep,
        "src: a circle of imports: one -> two (src/one/x.rs:1), two -> one (src/two/x.rs:1)",
    );
    let three = [("src/a.rs", "use crate::b;"), ("src/b.rs", "use crate::c;"), ("src/c.rs", "use crate::a;")];
    refused(walls::circles, &three, "c -> a");
    passes(walls::circles, &deep[..4]);
    passes(walls::circles, &three[..2]);
}

#[test]
fn rooms_above() {
    let files =
        [("src/high.rs", "use crate::low::A;"), ("src/low.rs", "pub struct A;"), ("src/lib.rs", "mod high;\nmod low;")];
    let rule = |tree: &Tree| walls::rooms(tree, &[("low", &[]), ("high", &["low"])]);
    passes(rule, &files);
    let up = ("src/low.rs", "pub struct A;\nfn f() { crate::high::f() }");
    refused(rule, &[files[0], up, files[2]], "src/low.rs:2: low must not import high");
    let new = [files[0], files[1], files[2], ("src/new/mod.rs", "")];
    refused(rule, &new, "new: not in the table");
    refused(rule, &[("src/high.rs", ""), files[1], files[2]], "high: may import low, and does not");
    refused(|tree| walls::rooms(tree, &[("high", &["low"]), ("low", &[])]), &files, "does not stand before it");
    refused(
        |tree| walls::rooms(tree, &[("low", &[]), ("high", &["low"]), ("gone", &[])]),
        &files,
        "gone: in the table",
    );
    // The program itself names the library by its name.
    let main = [files[0], files[1], files[2], ("src/main.rs", "fn main() { ctwds_fs::high::f() }")];
    refused(
        |tree| walls::rooms(tree, &[("low", &[]), ("high", &["low"]), ("main", &[])]),
        &main,
        "main must not import high",
    );
}

#[test]
fn walls_between_modules() {
    let rule = |tree: &Tree| walls::walls(tree, &[("verify", "plan::layout")]);
    let plan = ("src/plan/mod.rs", "pub mod layout;\npub use layout::Layout;\npub struct Plan;");
    let layout = ("src/plan/layout.rs", "pub struct Layout;");
    let verify = |uses| [("src/verify/mod.rs", "mod walk;"), ("src/verify/walk.rs", uses), plan, layout];
    for uses in [
        "use crate::plan::{Plan, layout};",
        "use crate::plan::Layout;",
        "use crate::plan;\nfn f(of: plan::Layout) {}",
        "use crate::{plan as p};\nfn f() { p::layout::f() }",
        "use crate::plan::*;\nfn f(of: Layout) {}",
    ] {
        refused(rule, &verify(uses), "verify must not import plan::layout");
    }
    passes(rule, &verify("use crate::plan::Plan;\nuse crate::plan::layouts::X;\nstruct Layout;\nfn f(of: Layout) {}"));
    refused(rule, &[plan, layout], "verify: has a wall, and is not there");
}

#[test]
fn fuse_elsewhere() {
    let rule = |tree: &Tree| walls::only_in(tree, "fuser", &["src/fs/fuse.rs"]);
    let speaker = ("src/fs/fuse.rs", "use fuser::{Config, Errno};");
    passes(
        rule,
        &[speaker, ("src/fs/mod.rs", "//! [`fuser::Errno`]\nmod fuse;\nfn f() { fuse::f(\"fuser::Errno\") }")],
    );
    for uses in [
        "use fuser;",
        "use {std::io, fuser as f};",
        "fn f(by: ::fuser::Errno) {}",
        "fn f() { panic!(\"{}\", fuser::X) }",
    ] {
        refused(rule, &[speaker, ("src/fs/mod.rs", uses)], "src/fs/mod.rs:1: uses fuser, and is not listed");
    }
    refused(rule, &[("src/fs/fuse.rs", "struct Nothing;")], "src/fs/fuse.rs: is listed");
}

#[test]
fn files_in_pure_modules() {
    let rule = |tree: &Tree| walls::pure(tree, &["src/plan/layout.rs"]);
    let pure = |uses| [("src/plan/layout.rs", uses)];
    passes(rule, &[("src/plan/layout.rs", "use crate::fs;\nuse std::io;"), ("src/fs.rs", "use std::fs;")]);
    for uses in ["use std::{fs::File, io};", "use std as s;\nfn f() { s::fs::read() }", "fn f() { std::fs::read(x) }"] {
        refused(rule, &pure(uses), "a pure module uses std::fs");
    }
    // An import of the parent is the child's too.
    let parent = ("src/plan/mod.rs", "mod layout;\nuse std::fs::File;");
    refused(rule, &[parent, ("src/plan/layout.rs", "use super::File;")], "uses std::fs");
    refused(rule, &pure("use rustix::fs::Mode;"), "uses rustix::fs");
    refused(rule, &[parent], "src/plan/layout.rs: is listed as pure");
}

#[test]
fn volumes_around_the_waist() {
    let rule = |tree: &Tree| walls::waist(tree, &["src/plan/mod.rs"]);
    let kinds =
        "pub enum Volume { Npz(NpzVolume) }\npub struct NpzVolume { pub path: u8 }\nfn f() { NpzVolume { path: 1 }; }";
    let volume = ("src/volume/mod.rs", kinds);
    let plan = ("src/plan/mod.rs", "use crate::volume::NpzVolume;\nfn f() { NpzVolume { path: 1 } }");
    let other = |uses| [volume, plan, ("src/fs/mod.rs", uses)];
    let about = "use crate::volume::{NpzVolume, Volume};\n\
                 fn f(v: Volume) { match v { Volume::Npz(NpzVolume { path }) => path } }";
    passes(rule, &other(about));
    passes(rule, &other("enum Found { Volume(u8) }\nfn f() { Found::Volume(1) }"));
    for makes in [
        "use crate::volume::Volume;\nfn f() { Volume::Npz(x) }",
        "use crate::volume;\nfn f() { volume::NpzVolume { path: 1 } }",
        "use crate::volume::NpzVolume as N;\nfn f() { N { path: 1 } }",
        "use crate::volume::Volume;\nfn f() { vec![Volume::Npz(x)] }",
    ] {
        refused(rule, &other(makes), "src/fs/mod.rs:2: makes a Volume");
    }
    refused(rule, &[volume, ("src/plan/mod.rs", "")], "src/plan/mod.rs: is listed");
}

#[test]
fn plans_asked_for_volumes() {
    let rule = |tree: &Tree| code::volume_calls(tree, &["src/shard/"]);
    let listed = ("src/shard/read.rs", "fn f() { plan.volume(1); }");
    passes(rule, &[listed, ("src/fs/mod.rs", "fn f() { plan.volume; volume(1); }")]);
    passes(rule, &[listed, ("src/fs/mod.rs", "#[cfg(test)]\nmod tests { fn f() { plan.volume(1); } }")]);
    refused(rule, &[listed, ("src/fs/mod.rs", "fn f() {\n    plan\n        .volume(1);\n}")], "src/fs/mod.rs:3: asks");
    refused(rule, &[listed, ("src/fs/mod.rs", "fn f() { vec![(plan.volume(1), 2)]; }")], "src/fs/mod.rs:1: asks");
    refused(rule, &[("src/shard/read.rs", "")], "src/shard/: is listed");
}

#[test]
fn unsafe_elsewhere() {
    let rule = |tree: &Tree| code::unsafe_code(tree, &["src/a.rs"]);
    let listed = ("src/a.rs", "unsafe fn f() {}");
    passes(rule, &[listed, ("src/b.rs", "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]\nfn f() { g(\"unsafe \") }")]);
    for code in [
        "fn f() { unsafe{ g() } }",
        "unsafe\nimpl Send for A {}",
        "fn f() { vec![unsafe { g() }] }",
        "#[unsafe(no_mangle)]\nfn f() {}",
    ] {
        refused(rule, &[listed, ("src/b.rs", code)], "src/b.rs:1: unsafe, and not listed");
    }
    refused(rule, &[("src/a.rs", "fn f() {}")], "src/a.rs: is listed");
}

#[test]
fn wide_comments() {
    let rule = |tree: &Tree| text::widths(tree, 12);
    refused(rule, &[("fuzz/fuzz_targets/a.rs", "//! 45678901³")], "a.rs:1: a comment of 13 columns");
    refused(rule, &[("src/a.rs", "fn f() {} // 3")], "src/a.rs:1: a comment of 14 columns");
    refused(rule, &[("src/a.rs", "/*\n  23456789 123\n*/")], "src/a.rs:2: a comment of 14 columns");
    passes(rule, &[("src/a.rs", "// 45678901²\nconst A: &str = \"https://a\";\nfn long_name_without_comment() {}")]);
}

#[test]
fn beginnings_of_documentation() {
    for text in [
        "//! Its bytes.",
        "/// The same, shuffled.\npub fn f() {}",
        "///\n/// It is.\npub(crate) struct A;",
        "/// Why.\npub(super) type A = u8;",
        "pub struct A {\n    /// Theirs.\n    pub a: u8,\n}",
        "pub enum A {\n    /// So many more.\n    B,\n}",
        "pub enum A {\n    B {\n        /// Whether it is full.\n        full: bool,\n    },\n}",
        "pub trait A {\n    /// All of it\n    fn a();\n}",
        "impl A {\n    /// They are.\n    pub fn a() {}\n}",
        "mod inner {\n    /// These.\n    pub(super) const A: u8 = 1;\n}",
        "#[doc = \"None of those.\"]\npub static A: u8 = 1;",
        "/// Of these, the first.\nmod inner {}",
    ] {
        refused(docs::beginnings, &[("src/a.rs", text)], "documentation begins with");
    }
    passes(
        docs::beginnings,
        &[(
            "src/a.rs",
            "//! Items.\n\n/// The bytes. It is full.\n/// Its end.\npub fn f() {}\n/// Its own.\nfn private() {}\n\
             /// Itself\npub struct A {\n    /// Its a.\n    a: u8,\n}\n/// Whether a shard has it.\npub struct B;\n\
             #[cfg(test)]\nmod tests {\n    //! Its.\n    /// It.\n    pub fn f() {}\n}\n// It is.\npub fn g() {}",
        )],
    );
    passes(docs::beginnings, &[("tests/a.rs", "/// Its own.\npub fn f() {}")]);
}

#[test]
fn undone() {
    let words =
        [concat!("// TO", "DO"), concat!("// FIX", "ME"), concat!("// XX", "X"), concat!("fn f() { to", "do!() }")];
    for text in words.into_iter().chain([concat!("fn f() { unimpl", "emented!() }")]) {
        let (_, word) = text.rsplit_once(' ').filter(|_| text.starts_with("//")).unwrap_or(("", "!("));
        refused(text::undone, &[("tests/a.rs", text)], word);
    }
    passes(text::undone, &[("src/a.rs", "// to do\nfn todo() {}")]);
}

#[test]
fn places() {
    let rule = |tree: &Tree| text::places(tree, 2);
    refused(rule, &[("src/a.rs", "mod b;"), ("src/a/b.rs", "")], "src/a.rs: stands beside a folder");
    refused(rule, &[("src/x/a.rs", "mod b;"), ("src/x/a/b.rs", "")], "src/x/a.rs: stands beside a folder");
    refused(rule, &[("src/a.rs", ""), ("src/b.rs", ""), ("src/c/mod.rs", "")], "src: 3 modules and folders");
    passes(rule, &[("src/a/mod.rs", ""), ("src/a/b.rs", ""), ("src/ab.rs", ""), ("tests/a.rs", "")]);
}

#[test]
fn results_in_results() {
    for text in ["fn f() -> Result<Result<u8, A>, B> {}", "type A = io::Result<\n    std::result::Result<u8, A>>;"] {
        refused(code::nested_results, &[("src/a.rs", text)], "a Result in a Result");
    }
    passes(
        code::nested_results,
        &[("src/a.rs", "fn f(of: Result<u8, Result<u8, A>>) -> Result<Option<Results<u8>>, A> {}")],
    );
}

#[test]
fn streams_beside_the_way_to_the_terminal() {
    let rule = |tree: &Tree| code::streams(tree, &["src/a.rs"]);
    let listed = ("src/a.rs", "use std::io;\nfn f() { io::stdout().flush(); }");
    for text in [
        "fn f() { println!(); }",
        "fn f() { g(|| std::eprintln!(\"{}\", 1)); }",
        "fn f() { let x = std::io::stderr(); }",
        "use std::io::{Write, stdout};\n",
        "fn f() { log::info!(\"{}\", { print!(\"a\") }); }",
    ] {
        refused(rule, &[listed, ("src/b.rs", text)], "is the way to the terminal");
    }
    refused(rule, &[("src/a.rs", "fn f() { io::stdout(); println!(); }")], "println");
    refused(rule, &[("src/a.rs", "fn f() {}")], "uses no stream");
    let passing = "// println!\nfn f(c: Command) { c.stdout(x).stderr(y); let print = 1; print(\"println!\"); }";
    passes(rule, &[listed, ("src/b.rs", passing), ("tests/c.rs", "fn f() { println!(); }")]);
}

#[test]
fn threads_that_panic_where_none_can_be_had() {
    let rule = |tree: &Tree| code::threads(tree, &["src/a.rs"]);
    let listed = ("src/a.rs", "fn f(b: Builder) { b.spawn(g); }");
    for text in [
        "fn f() { std::thread::spawn(g); }",
        "use std::thread;\nfn f() { thread::spawn(|| 1); }",
        "fn f() { thread::scope(|scope| { scope.spawn(g); }) }",
        "fn f(s: S) { b.spawn_scoped(s, g); }",
    ] {
        refused(rule, &[listed, ("src/b.rs", text)], "base/parallel.rs starts threads");
    }
    refused(rule, &[("src/a.rs", "fn f() {}")], "starts no thread");
    let passing = "fn f(c: Command) { c.spawn(); parallel::spawn(\"a\", g); }\n\
                   #[cfg(test)]\nmod tests { fn f() { std::thread::spawn(g); } }";
    passes(rule, &[listed, ("src/b.rs", passing)]);
}
