//! Rules of what may refer to what.

use std::collections::{BTreeMap, BTreeSet};

use crate::imports::{Reference, references};
use crate::tree::Tree;

/// Modules that need each other cannot be understood one after the other.
///
/// Looked at folder by folder: what is directly inside of a module counts with all that is below it, so a circle
/// through two rooms, or through two folders of a room, is found however deep its ends are. A module and what is inside
/// of it belong together, so references between these two do not count: a child uses what its parent's `mod.rs`
/// defines, and the parent calls its children. What a parent only re-exports is a reference to the sibling that defines
/// it.
pub(crate) fn circles(tree: &Tree) -> Vec<String> {
    let mut folders: BTreeMap<Vec<String>, Edges> = BTreeMap::new();
    for reference in references(tree) {
        for module in &reference.modules {
            let shared = module.iter().zip(reference.from).take_while(|(a, b)| a == b).count();
            let (Some(to), Some(from)) = (module.get(shared), reference.from.get(shared)) else { continue };
            let edges = folders.entry(module[..shared].to_vec()).or_default();
            edges.entry((from.clone(), to.clone())).or_insert_with(|| reference.place());
        }
    }
    let circles = folders.iter().flat_map(|(folder, edges)| {
        let name = if folder.is_empty() { "src".to_owned() } else { folder.join("::") };
        in_circles(edges).into_iter().map(move |circle| {
            let inside = |(from, to): &(String, String)| circle.contains(from) && circle.contains(to);
            let uses = edges.iter().filter(|(edge, _)| inside(edge));
            let uses: Vec<String> = uses.map(|((from, to), place)| format!("{from} -> {to} ({place})")).collect();
            format!("{name}: a circle of imports: {}", uses.join(", "))
        })
    });
    circles.collect()
}

/// Who refers to whom, and where first.
type Edges = BTreeMap<(String, String), String>;

/// The groups of names of which each leads to each.
fn in_circles(edges: &Edges) -> BTreeSet<BTreeSet<String>> {
    let reached = |start: &String| {
        let mut found = BTreeSet::new();
        let mut open = vec![start];
        while let Some(from) = open.pop() {
            open.extend(edges.keys().filter(|(a, b)| a == from && found.insert(b.clone())).map(|(_, b)| b));
        }
        found
    };
    let all: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|(from, _)| (from, reached(from))).collect();
    let circle = |from: &String| {
        let there = all[from].iter().filter(|to| all.get(to).is_some_and(|back| back.contains(from)));
        there.cloned().collect::<BTreeSet<String>>()
    };
    all.keys().map(|from| circle(from)).filter(|circle| !circle.is_empty()).collect()
}

/// Each room of `src`, from the lowest on, with the rooms that it may import. They stand before it, so the table itself
/// has no circle; and each is used, so the table shows the program as it is.
pub(crate) fn rooms(tree: &Tree, table: &[(&str, &[&str])]) -> Vec<String> {
    let existing: BTreeSet<&str> =
        tree.modules().filter_map(|(_, module)| module.first()).map(String::as_str).collect();
    let references = references(tree);
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut wrong = Wrong::default();
    for reference in &references {
        let Some(from) = reference.from.first() else { continue };
        for to in reference.modules.iter().filter_map(|module| module.first()).filter(|to| *to != from) {
            used.insert((from, to));
            if !table.iter().any(|(room, below)| room == from && below.contains(&to.as_str())) {
                wrong.note(reference, format!("{from} must not import {to}"));
            }
        }
    }
    let unlisted = existing.iter().filter(|room| !table.iter().any(|(name, _)| name == *room));
    let mut wrong: Vec<String> =
        unlisted.map(|room| format!("{room}: not in the table of rooms")).chain(wrong.lines()).collect();
    for (index, (room, below)) in table.iter().enumerate() {
        if !existing.contains(room) {
            wrong.push(format!("{room}: in the table of rooms, and not there"));
        }
        for other in *below {
            if !table[..index].iter().any(|(name, _)| name == other) {
                wrong.push(format!("{room}: may import {other}, which does not stand before it in the table"));
            }
            if !used.contains(&(room, other)) {
                wrong.push(format!("{room}: may import {other}, and does not"));
            }
        }
    }
    wrong
}

/// Pairs of modules of which the first, with all below it, must not refer to the second or anything below it.
pub(crate) fn walls(tree: &Tree, table: &[(&str, &str)]) -> Vec<String> {
    let exists = |path: &str| tree.modules().any(|(_, module)| module.join("::") == path);
    let names: BTreeSet<&str> = table.iter().flat_map(|(below, above)| [*below, *above]).collect();
    let unknown =
        names.into_iter().filter(|name| !exists(name)).map(|name| format!("{name}: has a wall, and is not there"));
    let mut wrong = Wrong::default();
    for reference in references(tree) {
        for (below, above) in
            table.iter().filter(|(below, above)| is_in(&reference, below) && reference.leads_to(above))
        {
            wrong.note(&reference, format!("{below} must not import {above}"));
        }
    }
    unknown.chain(wrong.lines()).collect()
}

fn is_in(reference: &Reference<'_>, module: &str) -> bool {
    module.split("::").enumerate().all(|(index, name)| reference.from.get(index).is_some_and(|from| from == name))
}

/// `target`, such as `fuser`, is referred to in these files only, and in each of them.
pub(crate) fn only_in(tree: &Tree, target: &str, files: &[&str]) -> Vec<String> {
    let uses = |reference: &Reference<'_>| reference.leads_to(target);
    allowed(&references(tree), uses, &format!("uses {target}"), files)
}

/// The waist: values that make a volume's bytes (`Volume`, `NpzVolume`, `ShardVolume`) come into being in these files
/// only, besides the room `volume` itself.
pub(crate) fn waist(tree: &Tree, files: &[&str]) -> Vec<String> {
    let makes = |reference: &Reference<'_>| {
        let named = reference.path.iter().any(|name| name.ends_with("Volume"));
        reference.makes && named && reference.leads_to("volume") && !is_in(reference, "volume")
    };
    allowed(&references(tree), makes, "makes a Volume", files)
}

/// Files where a reference is found must be listed, and listed files must have one.
fn allowed(
    references: &[Reference<'_>],
    is_found: impl Fn(&Reference<'_>) -> bool,
    what: &str,
    files: &[&str],
) -> Vec<String> {
    let mut wrong = Wrong::default();
    let mut unused: BTreeSet<&str> = files.iter().copied().collect();
    for reference in references.iter().filter(|reference| is_found(reference)) {
        unused.remove(reference.file.path.as_str());
        if !files.contains(&reference.file.path.as_str()) {
            wrong.note(reference, format!("{what}, and is not listed"));
        }
    }
    wrong.lines().chain(unused.into_iter().map(|file| format!("{file}: is listed, but nothing in it {what}"))).collect()
}

/// Modules that know no files: what they answer depends on their arguments alone.
pub(crate) fn pure(tree: &Tree, files: &[&str]) -> Vec<String> {
    let missing = files.iter().filter(|file| !tree.files.iter().any(|other| other.path == **file));
    let missing = missing.map(|file| format!("{file}: is listed as pure, and is not there"));
    let mut wrong = Wrong::default();
    for reference in references(tree).iter().filter(|reference| files.contains(&reference.file.path.as_str())) {
        let of_files = ["std::fs", "std::os::unix::fs", "rustix::fs"];
        for touched in of_files.into_iter().filter(|name| reference.leads_to(name)) {
            wrong.note(reference, format!("a pure module uses {touched}"));
        }
    }
    missing.chain(wrong.lines()).collect()
}

/// What is wrong with a reference; of a file, only where it is wrong first.
#[derive(Default)]
struct Wrong(BTreeMap<(String, String), usize>);

impl Wrong {
    fn note(&mut self, reference: &Reference<'_>, what: String) {
        let line = self.0.entry((reference.file.path.clone(), what)).or_insert(reference.line);
        *line = reference.line.min(*line);
    }

    fn lines(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|((path, what), line)| format!("{path}:{line}: {what}"))
    }
}
