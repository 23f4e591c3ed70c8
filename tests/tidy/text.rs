//! Rules of a file's lines, and of where files are.

use std::collections::BTreeSet;

use crate::tree::Tree;

/// A file can be read in one go: at most `most` lines.
pub(crate) fn lengths(tree: &Tree, most: usize) -> Vec<String> {
    let lengths = tree.files.iter().map(|file| (&file.path, file.text.lines().count()));
    lengths.filter(|(_, lines)| *lines > most).map(|(path, lines)| format!("{path}: {lines} lines")).collect()
}

/// Comments are as narrow as the code, which rustfmt keeps within `most` columns: it does not touch comments.
pub(crate) fn widths(tree: &Tree, most: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in &tree.files {
        let mut in_block = false;
        for (index, line) in file.text.lines().enumerate() {
            in_block |= line.trim_start().starts_with("/*");
            let columns = line.chars().count();
            if columns > most && (in_block || has_comment(line)) {
                wrong.push(format!("{}:{}: a comment of {columns} columns", file.path, index + 1));
            }
            in_block &= !line.contains("*/");
        }
    }
    wrong
}

/// Whether a comment is on this line, rather than two slashes in a string.
fn has_comment(line: &str) -> bool {
    line.match_indices("//").any(|(at, _)| line[..at].matches('"').count().is_multiple_of(2))
}

/// Nothing is left undone. The words are put together here, so that this file does not hold them.
pub(crate) fn undone(tree: &Tree) -> Vec<String> {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
    ];
    let mut wrong = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            let found = words.iter().filter(|word| line.contains(**word));
            wrong.extend(found.map(|word| format!("{}:{}: {word}", file.path, index + 1)));
        }
    }
    wrong
}

/// A module with modules inside is `x/mod.rs`: no `x.rs` stands beside a folder `x`. Directly in `src` are at most
/// `most` modules and folders.
pub(crate) fn places(tree: &Tree, most: usize) -> Vec<String> {
    let beside = |path: &str| {
        let folder = format!("{}/", path.trim_end_matches(".rs"));
        tree.files.iter().any(|file| file.path.starts_with(&folder))
    };
    let sources = || tree.files.iter().filter_map(|file| file.path.strip_prefix("src/"));
    let split = sources().map(|name| format!("src/{name}")).filter(|path| beside(path));
    let mut wrong: Vec<String> = split.map(|path| format!("{path}: stands beside a folder of its name")).collect();
    let entries: BTreeSet<&str> = sources().filter_map(|name| name.split('/').next()).collect();
    if entries.len() > most {
        wrong.push(format!("src: {} modules and folders", entries.len()));
    }
    wrong
}
