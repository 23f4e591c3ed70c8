//! Rules of what the code of a file holds, tests included.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, GenericArgument, PathArguments, Signature, Type};

use crate::tree::{Tree, is_test};

/// A function fits on a screen: at most `most` lines from `fn` to its closing brace.
pub(crate) fn functions(tree: &Tree, most: usize) -> Vec<String> {
    struct Functions(Vec<(String, usize, usize)>);

    impl Functions {
        fn note(&mut self, signature: &Signature, block: &Block) {
            let from = signature.span().start().line;
            self.0.push((signature.ident.to_string(), from, block.span().end().line + 1 - from));
        }
    }

    impl<'ast> Visit<'ast> for Functions {
        fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
            self.note(&function.sig, &function.block);
            visit::visit_item_fn(self, function);
        }

        fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
            self.note(&function.sig, &function.block);
            visit::visit_impl_item_fn(self, function);
        }

        fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
            if let Some(block) = &function.default {
                self.note(&function.sig, block);
            }
            visit::visit_trait_item_fn(self, function);
        }
    }

    let mut wrong = Vec::new();
    for file in &tree.files {
        let mut functions = Functions(Vec::new());
        functions.visit_file(&file.syntax);
        let long = functions.0.into_iter().filter(|(_, _, lines)| *lines > most);
        wrong.extend(long.map(|(name, line, lines)| format!("{}:{line}: {name} has {lines} lines", file.path)));
    }
    wrong
}

/// `unsafe` stands in these files only, each with its proof, and in each of them.
pub(crate) fn unsafe_code(tree: &Tree, files: &[&str]) -> Vec<String> {
    fn first(tokens: TokenStream) -> Option<usize> {
        tokens.into_iter().find_map(|token| match token {
            TokenTree::Group(group) => first(group.stream()),
            TokenTree::Ident(word) if word == "unsafe" => Some(word.span().start().line),
            _ => None,
        })
    }
    let unread = |path: &str| panic!("{path}: no tokens");
    let found = tree.files.iter().filter_map(|file| {
        let tokens = file.text.parse().unwrap_or_else(|_| unread(&file.path));
        Some((file.path.as_str(), first(tokens)?))
    });
    let found: Vec<(&str, usize)> = found.collect();
    let unlisted = found.iter().filter(|(path, _)| !files.contains(path));
    let unlisted = unlisted.map(|(path, line)| format!("{path}:{line}: unsafe, and not listed"));
    let unused = files.iter().filter(|path| !found.iter().any(|(other, _)| other == *path));
    unlisted.chain(unused.map(|path| format!("{path}: is listed, and holds no unsafe code"))).collect()
}

/// What panics where a stream cannot be written (`println!`, `std::io::stdout`) stands, in the program, in these files
/// only, and a macro of that kind in none.
pub(crate) fn streams(tree: &Tree, files: &[&str]) -> Vec<String> {
    const MACROS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];
    const FUNCTIONS: [&str; 2] = ["stdout", "stderr"];

    fn find(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| &tokens[at]);
            let is =
                |token: Option<&TokenTree>, sign| matches!(token, Some(TokenTree::Punct(one)) if one.as_char() == sign);
            match token {
                TokenTree::Group(group) => find(group.stream(), found),
                TokenTree::Ident(name) => {
                    let (text, next) = (name.to_string(), tokens.get(at + 1));
                    // A method of that name, as of a child process, is something else.
                    let is_function = FUNCTIONS.contains(&&*text) && !is(before, '.');
                    if is_function || MACROS.contains(&&*text) && is(next, '!') {
                        found.push((name.span().start().line, text));
                    }
                }
                _ => {}
            }
        }
    }

    let mut wrong = Vec::new();
    let mut unused: BTreeSet<&str> = files.iter().copied().collect();
    for file in tree.files.iter().filter(|file| file.path.starts_with("src/")) {
        let mut found = Vec::new();
        find(file.text.parse().unwrap_or_else(|_| panic!("{}: no tokens", file.path)), &mut found);
        for (line, name) in found {
            let is_listed = FUNCTIONS.contains(&&*name) && files.contains(&&*file.path);
            unused.remove(&*file.path);
            if !is_listed {
                wrong.push(format!("{}:{line}: {name}: commands/terminal.rs is the way to the terminal", file.path));
            }
        }
    }
    wrong.extend(unused.into_iter().map(|path| format!("{path}: is listed, and uses no stream")));
    wrong
}

/// Threads are started, by the program, in these files only: the standard library's short ways panic where the system
/// gives no thread.
pub(crate) fn threads(tree: &Tree, files: &[&str]) -> Vec<String> {
    struct Starts(BTreeSet<usize>);

    impl<'ast> Visit<'ast> for Starts {
        fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
            if !is_test(&module.attrs) {
                visit::visit_item_mod(self, module);
            }
        }

        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            // A process is started by a method of that name too, which takes nothing.
            let is_start = call.method == "spawn" && !call.args.is_empty() || call.method == "spawn_scoped";
            if is_start {
                self.0.insert(call.method.span().start().line);
            }
            visit::visit_expr_method_call(self, call);
        }

        fn visit_path(&mut self, path: &'ast syn::Path) {
            let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            if matches!(&names[..], [.., kind, name] if kind == "thread" && name == "spawn") {
                self.0.insert(path.span().start().line);
            }
            visit::visit_path(self, path);
        }
    }

    let mut wrong = Vec::new();
    let mut unused: BTreeSet<&str> = files.iter().copied().collect();
    for (file, _) in tree.modules() {
        let mut starts = Starts(BTreeSet::new());
        starts.visit_file(&file.syntax);
        let is_listed = files.contains(&&*file.path);
        if is_listed && !starts.0.is_empty() {
            unused.remove(&*file.path);
        } else if !is_listed {
            wrong.extend(starts.0.iter().map(|line| format!("{}:{line}: base/parallel.rs starts threads", file.path)));
        }
    }
    wrong.extend(unused.into_iter().map(|path| format!("{path}: is listed, and starts no thread")));
    wrong
}

/// Two errors of one answer, in `Result<Result<…>>`, have no names; an enum gives them names.
pub(crate) fn nested_results(tree: &Tree) -> Vec<String> {
    struct Results(BTreeSet<usize>);

    impl<'ast> Visit<'ast> for Results {
        fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
            if segment.ident == "Result"
                && let PathArguments::AngleBracketed(arguments) = &segment.arguments
                && let Some(GenericArgument::Type(Type::Path(inner))) = arguments.args.first()
                && inner.path.segments.last().is_some_and(|inner| inner.ident == "Result")
            {
                self.0.insert(segment.span().start().line);
            }
            visit::visit_path_segment(self, segment);
        }
    }

    let mut wrong = Vec::new();
    for file in &tree.files {
        let mut results = Results(BTreeSet::new());
        results.visit_file(&file.syntax);
        wrong.extend(results.0.into_iter().map(|line| format!("{}:{line}: a Result in a Result", file.path)));
    }
    wrong
}

/// The waist: a plan's `volume` is asked for, by the program, in files whose path begins with one of these only, and
/// there.
pub(crate) fn volume_calls(tree: &Tree, allowed: &[&str]) -> Vec<String> {
    struct Calls(BTreeSet<usize>);

    impl<'ast> Visit<'ast> for Calls {
        fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
            if !is_test(&module.attrs) {
                visit::visit_item_mod(self, module);
            }
        }

        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            if call.method == "volume" {
                self.0.insert(call.method.span().start().line);
            }
            visit::visit_expr_method_call(self, call);
        }

        fn visit_macro(&mut self, called: &'ast syn::Macro) {
            self.0.extend(calls(called.tokens.clone()));
        }
    }

    /// Lines with `.volume(` among the arguments of a macro.
    fn calls(tokens: TokenStream) -> Vec<usize> {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let nested = tokens.iter().flat_map(|token| match token {
            TokenTree::Group(group) => calls(group.stream()),
            _ => Vec::new(),
        });
        let here = tokens.windows(3).filter_map(|tokens| match tokens {
            [TokenTree::Punct(dot), TokenTree::Ident(name), TokenTree::Group(_)]
                if dot.as_char() == '.' && name == "volume" =>
            {
                Some(name.span().start().line)
            }
            _ => None,
        });
        here.chain(nested).collect()
    }

    let mut wrong = Vec::new();
    let mut unused: BTreeSet<&str> = allowed.iter().copied().collect();
    for (file, _) in tree.modules() {
        let mut calls = Calls(BTreeSet::new());
        calls.visit_file(&file.syntax);
        match allowed.iter().find(|begin| file.is_below(begin)) {
            Some(begin) if !calls.0.is_empty() => _ = unused.remove(begin),
            Some(_) => {}
            None => wrong.extend(calls.0.iter().map(|line| format!("{}:{line}: asks a plan for a volume", file.path))),
        }
    }
    wrong.extend(unused.into_iter().map(|begin| format!("{begin}: is listed, but asks no plan for a volume")));
    wrong
}
