//! The Rust files of the project, parsed, with the module that each one is.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, Meta};

/// A file of Rust.
pub(crate) struct File {
    /// The path from the project's folder on, such as `src/cache/mod.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
    /// The module's path in the crate; `None` for a file outside of `src`, and for one that only tests compile.
    pub(crate) module: Option<Vec<String>>,
}

impl File {
    /// Whether the file lies below `folder`.
    pub(crate) fn is_below(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

/// Files that rules are applied to.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// All Rust files below `src`, `tests` and `fuzz/fuzz_targets`.
    pub(crate) fn of_project() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for folder in ["src", "tests", "fuzz/fuzz_targets"] {
            walk(root, &root.join(folder), &mut found);
        }
        Self::new(found)
    }

    /// Parses files, given by path and text.
    ///
    /// # Panics
    /// If one is not Rust.
    pub(crate) fn new(mut texts: Vec<(String, String)>) -> Self {
        texts.sort();
        let mut files: Vec<File> = texts
            .into_iter()
            .map(|(path, text)| {
                let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
                File { module: module_of(&path), path, text, syntax }
            })
            .collect();
        let tests: HashSet<String> = files.iter().flat_map(test_files).collect();
        for file in &mut files {
            let folder_of_tests = |test: &String| file.path.starts_with(&format!("{}/", test.trim_end_matches(".rs")));
            if tests.contains(&file.path) || tests.iter().any(folder_of_tests) {
                file.module = None;
            }
        }
        Self { files }
    }

    /// The files that the program is built of: those below `src` that are not only for tests.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (&File, &[String])> {
        self.files.iter().filter_map(|file| Some((file, file.module.as_deref()?)))
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// `src/cache/mod.rs` is `cache`, `src/cache/entry.rs` is `cache::entry`, `src/lib.rs` is the crate itself.
fn module_of(path: &str) -> Option<Vec<String>> {
    let stem = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    Some(if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() })
}

/// The files of the modules that this one declares for tests only: `#[cfg(test)] mod tests;`.
fn test_files(file: &File) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let inner = match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
    };
    let declared = file.syntax.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => Some(module),
        _ => None,
    });
    declared
        .flat_map(|module| match value(&module.attrs, "path") {
            Some(path) => vec![format!("{folder}/{path}")],
            None => vec![format!("{inner}/{}.rs", module.ident), format!("{inner}/{}/mod.rs", module.ident)],
        })
        .collect()
}

/// The text of an attribute such as `#[path = "text"]`.
pub(crate) fn value(attributes: &[Attribute], name: &str) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident(name) => text_of(&pair.value),
        _ => None,
    })
}

/// The text of a literal string.
pub(crate) fn text_of(value: &syn::Expr) -> Option<String> {
    match value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

/// Whether what has these attributes is compiled for tests only: `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => list.path.is_ident("cfg") && needs_test(list.tokens.clone()),
        Meta::NameValue(_) => false,
    })
}

/// Whether a condition of `cfg` holds in tests only: `test` alone, or as one of those of an `all`.
fn needs_test(condition: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = condition.into_iter().collect();
    match tokens.as_slice() {
        [TokenTree::Ident(name)] => name == "test",
        [TokenTree::Ident(name), TokenTree::Group(group)] if name == "all" => {
            let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
            let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(sign) if sign.as_char() == ',');
            tokens.split(is_comma).any(|part| needs_test(part.iter().cloned().collect()))
        }
        _ => false,
    }
}
