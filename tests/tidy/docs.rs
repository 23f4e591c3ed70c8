//! The rule of how public documentation begins.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Fields, ImplItem, Item, Meta, TraitItem, Visibility};

use crate::tree::{Tree, is_test, text_of};

/// Beginnings that refer to something outside of the comment, or that leave out what the comment is about.
const BEGINNINGS: &str = "All of it, All of them, All of these, All of those, And, Both of them, But, Each of them, \
    He, Hers, His, It, Its, None, Of it, Of them, Of these, Of those, One of them, One of these, Or, She, So many, \
    Some of them, That, The latter, The other, The others, The same, Their, Theirs, Them, These, They, This, Those, \
    Where in it, Where., Who., Why.";

/// A question about a pronoun leaves out its subject too: "Whether it is full". "Whether the shard is full" names it.
const QUESTIONS: &str =
    "How, How far, How long, How many, How much, What, When, Where, Whether, Which, Who, Whose, Why";
const PRONOUNS: &str = "he, his, it, its, of it, of them, she, that, their, them, they, those";

/// A reader of one page does not see what stood before it: documentation of what more than one module may use, and of
/// modules, names its subject: it begins with none of [`BEGINNINGS`], and with none of [`QUESTIONS`] about one of
/// [`PRONOUNS`].
pub(crate) fn beginnings(tree: &Tree) -> Vec<String> {
    let questions = QUESTIONS.split(", ").flat_map(|ask| PRONOUNS.split(", ").map(move |of| format!("{ask} {of}")));
    let beginnings: Vec<String> = BEGINNINGS.split(", ").map(str::to_owned).chain(questions).collect();
    let mut wrong = Vec::new();
    for (file, _) in tree.modules() {
        let mut docs = Docs { found: Vec::new() };
        docs.take(&file.syntax.attrs);
        docs.visit_file(&file.syntax);
        for (line, text) in docs.found {
            if let Some(beginning) = beginnings.iter().find(|beginning| begins(&text, beginning)) {
                wrong.push(format!("{}:{line}: documentation begins with {beginning:?}: {text}", file.path));
            }
        }
    }
    wrong
}

/// Whether a text begins with these words, and not only with a longer one ("It" and "Items").
fn begins(text: &str, words: &str) -> bool {
    text.strip_prefix(words).is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

/// Collects the first line of each comment, with its number.
struct Docs {
    found: Vec<(usize, String)>,
}

impl Docs {
    fn take(&mut self, attributes: &[Attribute]) {
        let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => {
                Some((attribute.span().start().line, text_of(&pair.value)?.trim().to_owned()))
            }
            _ => None,
        });
        self.found.extend(lines.into_iter().find(|(_, text)| !text.is_empty()));
    }

    fn fields(&mut self, fields: &Fields, all: bool) {
        fields.iter().filter(|field| all || is_public(&field.vis)).for_each(|field| self.take(&field.attrs));
    }
}

fn is_public(visibility: &Visibility) -> bool {
    !matches!(visibility, Visibility::Inherited)
}

impl<'ast> Visit<'ast> for Docs {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, visibility): (&[Attribute], Option<&Visibility>) = match item {
            Item::Const(item) => (&item.attrs, Some(&item.vis)),
            Item::Enum(item) => (&item.attrs, Some(&item.vis)),
            Item::Fn(item) => (&item.attrs, Some(&item.vis)),
            Item::Static(item) => (&item.attrs, Some(&item.vis)),
            Item::Struct(item) => (&item.attrs, Some(&item.vis)),
            Item::Trait(item) => (&item.attrs, Some(&item.vis)),
            Item::Type(item) => (&item.attrs, Some(&item.vis)),
            Item::Union(item) => (&item.attrs, Some(&item.vis)),
            Item::Use(item) => (&item.attrs, Some(&item.vis)),
            Item::Mod(item) => (&item.attrs, None),
            Item::Impl(item) => (&item.attrs, Some(&Visibility::Inherited)),
            _ => return,
        };
        if is_test(attributes) {
            return;
        }
        if visibility.is_none_or(is_public) {
            self.take(attributes);
            match item {
                Item::Enum(item) => {
                    for variant in &item.variants {
                        self.take(&variant.attrs);
                        self.fields(&variant.fields, true);
                    }
                }
                Item::Struct(item) => self.fields(&item.fields, false),
                Item::Trait(item) => item.items.iter().for_each(|inner| self.take(trait_attributes(inner))),
                _ => {}
            }
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        match item {
            ImplItem::Fn(item) if is_public(&item.vis) && !is_test(&item.attrs) => self.take(&item.attrs),
            ImplItem::Const(item) if is_public(&item.vis) => self.take(&item.attrs),
            _ => {}
        }
    }
}

fn trait_attributes(item: &TraitItem) -> &[Attribute] {
    match item {
        TraitItem::Const(item) => &item.attrs,
        TraitItem::Fn(item) => &item.attrs,
        TraitItem::Type(item) => &item.attrs,
        _ => &[],
    }
}
