//! What each module refers to: every path in its imports, code, attributes and macro calls, followed through imports
//! and re-exports to the module that defines what is meant. Documentation and code for tests are left out.

use std::collections::{HashMap, HashSet};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemMod, ItemUse, Meta, TraitItem, UseTree};

use crate::tree::{File, Tree, is_test, text_of};

/// The crate's name in paths of its own programs (`src/main.rs`).
const CRATE: &str = "ctwds_fs";

/// Imports may lead to imports; more steps than this are a circle of names.
const MAX_STEPS: usize = 16;

/// A path that a module's code contains.
pub(crate) struct Reference<'a> {
    pub(crate) file: &'a File,
    pub(crate) line: usize,
    /// The module of the file, without those inside of the file.
    pub(crate) from: &'a [String],
    /// Modules of the crate, each with a file of its own, that the path leads through: the one that is named and, if it
    /// re-exports the item, the one that defines it. Empty for another crate's item.
    pub(crate) modules: Vec<Vec<String>>,
    /// The full path: that of the crate begins with `crate`.
    pub(crate) path: Vec<String>,
    /// Whether the path is an expression, names the type of a struct expression or stands in a macro call, so that it
    /// can make a value.
    pub(crate) makes: bool,
}

impl Reference<'_> {
    /// Where the reference stands, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.file.path, self.line)
    }

    /// Whether the path leads to `target` or what is below it: `std::fs`, `plan::layout` (without `crate`).
    pub(crate) fn leads_to(&self, target: &str) -> bool {
        let target: Vec<&str> = target.split("::").collect();
        let begins = |path: &[String]| path.len() >= target.len() && path.iter().zip(&target).all(|(a, b)| a == b);
        let path = if self.path[0] == "crate" { &self.path[1..] } else { &self.path[..] };
        begins(path) || self.modules.iter().any(|module| begins(module))
    }
}

/// A path as it is written.
struct Written {
    segments: Vec<String>,
    line: usize,
    makes: bool,
    /// Whether it stands in a `use`.
    imports: bool,
}

/// A module, or a module inside of a file.
#[derive(Default)]
struct Scope {
    /// The names that `use` brings in, with the paths as they are written.
    imported: HashMap<String, Vec<String>>,
    /// The modules of which everything is brought in.
    globs: Vec<Vec<String>>,
    /// The names that are defined here.
    defined: HashSet<String>,
}

/// All references of the program's modules.
pub(crate) fn references(tree: &Tree) -> Vec<Reference<'_>> {
    let mut names = Names::default();
    let mut found = Vec::new();
    for (file, module) in tree.modules() {
        names.files.insert(module.to_vec());
        let mut collector = Collector { names: &mut names, scope: module.to_vec(), written: Vec::new(), makes: false };
        collector.names.scopes.entry(module.to_vec()).or_default();
        collector.visit_file(&file.syntax);
        found.push((file, module, collector.written));
    }
    let mut references = Vec::new();
    for (file, from, written) in found {
        for (scope, Written { segments, line, makes, imports }) in written {
            let mut modules = Vec::new();
            let path = names.follow(names.absolute(&scope, &segments, 0), &mut modules, 0);
            // A name alone that nothing explains is a variable, or one that every module has.
            if !imports && path.len() == 1 && path == segments {
                continue;
            }
            modules.retain(|module| module != from);
            references.push(Reference { file, line, from, modules, path, makes });
        }
    }
    references
}

#[derive(Default)]
struct Names {
    scopes: HashMap<Vec<String>, Scope>,
    /// The modules that have files of their own.
    files: HashSet<Vec<String>>,
}

impl Names {
    /// The full path of what is written as `segments` in `scope`, before re-exports are followed.
    fn absolute(&self, scope: &[String], segments: &[String], steps: usize) -> Vec<String> {
        let within = |module: &[String], rest: &[String]| {
            let crate_itself = ["crate".to_owned()];
            crate_itself.iter().chain(module).chain(rest).cloned().collect::<Vec<_>>()
        };
        let (first, rest) = (segments[0].as_str(), &segments[1..]);
        match first {
            "" => return rest.to_vec(),
            "crate" | CRATE => return within(&[], rest),
            "self" | "super" => {
                let ups =
                    segments.iter().skip_while(|name| *name == "self").take_while(|name| *name == "super").count();
                let rest = segments.iter().skip_while(|name| *name == "self" || *name == "super");
                return within(&scope[..scope.len().saturating_sub(ups)], &rest.cloned().collect::<Vec<_>>());
            }
            _ => {}
        }
        let Some(names) = self.scopes.get(scope).filter(|_| steps < MAX_STEPS) else { return segments.to_vec() };
        if let Some(import) = names.imported.get(first) {
            // `use fuser;` and `use entry::entry;` bring in a name that is its own beginning.
            let start = match import[0] == first {
                true if names.defined.contains(first) => within(scope, import),
                true => import.clone(),
                false => self.absolute(scope, import, steps + 1),
            };
            return [&start[..], rest].concat();
        }
        if names.defined.contains(first) {
            return within(scope, segments);
        }
        let glob = names.globs.iter().map(|glob| self.absolute(scope, glob, steps + 1)).find(|glob| {
            let module = glob.get(1..).filter(|_| glob[0] == "crate").and_then(|module| self.scopes.get(module));
            module.is_some_and(|names| names.has(first))
        });
        glob.map_or_else(|| segments.to_vec(), |glob| [&glob[..], segments].concat())
    }

    /// The path to what a path means, through the imports of the modules that it names. `modules` gets these modules,
    /// as far as they have files, and the one that defines what is meant.
    fn follow(&self, path: Vec<String>, modules: &mut Vec<Vec<String>>, steps: usize) -> Vec<String> {
        if path.first().is_none_or(|first| first != "crate") {
            return path;
        }
        let inside = &path[1..];
        let longest = |known: &dyn Fn(&[String]) -> bool| (0..=inside.len()).rev().find(|&len| known(&inside[..len]));
        if let Some(len) = longest(&|module| self.files.contains(module)) {
            modules.push(inside[..len].to_vec());
        }
        let Some(len) = longest(&|module| self.scopes.contains_key(module)) else { return path };
        let (module, rest) = inside.split_at(len);
        let Some(name) = rest.first().filter(|name| steps < MAX_STEPS && !self.scopes[module].defined.contains(*name))
        else {
            return path;
        };
        if !self.scopes[module].has(name) && self.scopes[module].globs.is_empty() {
            return path;
        }
        let next = self.absolute(module, rest, steps + 1);
        // What no import explains is not followed: a name that this reading of the source does not know.
        if next == path || next == rest && !self.scopes[module].imported.contains_key(name) {
            return path;
        }
        self.follow(next, modules, steps + 1)
    }
}

impl Scope {
    fn has(&self, name: &str) -> bool {
        self.defined.contains(name) || self.imported.contains_key(name)
    }
}

/// Collects the names and paths of a file, module by module.
struct Collector<'a> {
    names: &'a mut Names,
    scope: Vec<String>,
    written: Vec<(Vec<String>, Written)>,
    makes: bool,
}

impl Collector<'_> {
    fn write(&mut self, segments: Vec<String>, line: usize, imports: bool) {
        if segments.first().is_some_and(|first| first != "Self") {
            self.written.push((self.scope.clone(), Written { segments, line, makes: self.makes, imports }));
        }
    }

    fn here(&mut self) -> &mut Scope {
        self.names.scopes.entry(self.scope.clone()).or_default()
    }

    /// The imports of a `use`; `prefix` is what stands before the braces.
    fn import(&mut self, tree: &UseTree, prefix: &[String]) {
        let line = tree.span().start().line;
        let joined =
            |name: &syn::Ident| if name == "self" { prefix.to_vec() } else { [prefix, &[name.to_string()]].concat() };
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &[prefix, &[path.ident.to_string()]].concat()),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.import(item, prefix)),
            UseTree::Name(name) => {
                let path = joined(&name.ident);
                self.here().imported.insert(path.last().unwrap().clone(), path.clone());
                self.write(path, line, true);
            }
            UseTree::Rename(renamed) => {
                let path = joined(&renamed.ident);
                self.here().imported.insert(renamed.rename.to_string(), path.clone());
                self.write(path, line, true);
            }
            UseTree::Glob(_) => {
                self.here().globs.push(prefix.to_vec());
                self.write(prefix.to_vec(), line, true);
            }
        }
    }

    /// Paths in the arguments of a macro or of an attribute, which have no syntax that is known.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.scan(group.stream()),
                TokenTree::Ident(first) => {
                    let mut segments = vec![first.to_string()];
                    while is_colons(&tokens[at + 1..]) {
                        let Some(TokenTree::Ident(name)) = tokens.get(at + 3) else { break };
                        segments.push(name.to_string());
                        at += 3;
                    }
                    let line = first.span().start().line;
                    match tokens.get(at + 3) {
                        Some(TokenTree::Group(group)) if is_colons(&tokens[at + 1..]) && is_braces(group) => {
                            at += 3;
                            self.scan_group(&segments, group.stream(), line);
                        }
                        _ => self.write(segments, line, false),
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The paths of a `use` with braces inside of a macro.
    fn scan_group(&mut self, prefix: &[String], group: TokenStream, line: usize) {
        let mut nested =
            Collector { names: &mut *self.names, scope: self.scope.clone(), written: Vec::new(), makes: self.makes };
        nested.scan(group);
        for (_, inner) in nested.written {
            self.write([prefix, &inner.segments[..]].concat(), line, false);
        }
    }
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    let colon = |token: &TokenTree| matches!(token, TokenTree::Punct(sign) if sign.as_char() == ':');
    let joint = |token: &TokenTree| matches!(token, TokenTree::Punct(sign) if sign.spacing() == Spacing::Joint);
    matches!(tokens, [first, second, ..] if colon(first) && joint(first) && colon(second))
}

fn is_braces(group: &proc_macro2::Group) -> bool {
    group.delimiter() == Delimiter::Brace
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = parts(item);
        if is_test(attributes) {
            return;
        }
        if let Some(name) = name {
            self.here().defined.insert(name.to_string());
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if !matches!(item, TraitItem::Fn(function) if is_test(&function.attrs)) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.content.is_some() {
            self.scope.push(module.ident.to_string());
            self.here();
            visit::visit_item_mod(self, module);
            self.scope.pop();
        } else {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let prefix = if item.leading_colon.is_some() { vec![String::new()] } else { Vec::new() };
        self.import(&item.tree, &prefix);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if path.leading_colon.is_some() {
            segments.insert(0, String::new());
        }
        self.write(segments, path.span().start().line, false);
        let makes = std::mem::replace(&mut self.makes, false);
        visit::visit_path(self, path);
        self.makes = makes;
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let makes = std::mem::replace(&mut self.makes, true);
        visit::visit_expr_path(self, path);
        self.makes = makes;
    }

    fn visit_expr_struct(&mut self, made: &'ast syn::ExprStruct) {
        let makes = std::mem::replace(&mut self.makes, true);
        self.visit_path(&made.path);
        self.makes = makes;
        made.fields.iter().for_each(|field| self.visit_field_value(field));
        made.rest.iter().for_each(|rest| self.visit_expr(rest));
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        let makes = std::mem::replace(&mut self.makes, true);
        self.scan(called.tokens.clone());
        self.makes = makes;
    }

    /// `pub(super)` and `pub(in …)` use nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.scan(list.tokens.clone()),
            // `#[serde(with = "crate::x")]` is a list; of single values only the documentation is common.
            Meta::NameValue(pair) if text_of(&pair.value).is_none() => self.visit_expr(&pair.value),
            _ => {}
        }
    }
}

/// The attributes of an item, and the name that it defines.
fn parts(item: &Item) -> (&[Attribute], Option<&syn::Ident>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(&item.ident)),
        Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        Item::Mod(item) => (&item.attrs, Some(&item.ident)),
        Item::Static(item) => (&item.attrs, Some(&item.ident)),
        Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        Item::Type(item) => (&item.attrs, Some(&item.ident)),
        Item::Union(item) => (&item.attrs, Some(&item.ident)),
        Item::Impl(item) => (&item.attrs, None),
        Item::Use(item) => (&item.attrs, None),
        Item::ForeignMod(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}
