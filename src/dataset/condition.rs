//! Conditions on labels: `Lung nodule == 1 and not (Emphysema == 1 or 'Hiatal hernia' > 0)`. Pure.
//!
//! A recursive descent by hand: names hold spaces without quotes, which grammars of parser crates do not make shorter.

use std::fmt::{self, Debug};
use std::str::FromStr;

/// The most parentheses and `not` within each other: recursion of this depth is safe on any stack.
const MAX_DEPTH: usize = 100;

/// A condition whose classes are looked up when the label table is known.
#[derive(Clone)]
pub struct Condition {
    text: String,
    root: Node<Name>,
}

/// Writes the condition as the user wrote it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.text, f)
    }
}

/// A condition on the values of a row, in the order of the class names that it was bound to.
#[derive(Debug)]
pub(super) struct Bound(Node<usize>);

#[derive(Clone, Debug)]
enum Node<N> {
    Any(Vec<Node<N>>),
    All(Vec<Node<N>>),
    Not(Box<Node<N>>),
    Compare(Term<N>, Comparison, Term<N>),
}

#[derive(Clone, Debug)]
enum Term<N> {
    /// A number in float32, as labels are.
    Number(f32),
    Class(N),
}

#[derive(Clone, Debug, PartialEq)]
struct Name {
    text: String,
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let root = parser.any()?;
        parser.skip_spaces();
        if parser.at < text.len() {
            return Err(parser.expected("'and', 'or' or the end"));
        }
        Ok(Self { text: text.to_owned(), root })
    }
}

impl Condition {
    /// The numbers of the rows of labels that fulfil the condition, from 0 on; a row has a value for each of `classes`.
    ///
    /// # Errors
    /// The message for a name that is no class, or that two classes have.
    pub fn chosen<'a>(
        &self,
        classes: &[String],
        rows: impl IntoIterator<Item = &'a [f32]>,
    ) -> Result<Vec<usize>, String> {
        let bound = self.bind(classes)?;
        Ok((0..).zip(rows).filter(|(_, labels)| bound.holds(labels)).map(|(number, _)| number).collect())
    }

    /// Looks the condition's class names up in `classes`, the columns of the label table.
    ///
    /// # Errors
    /// The message for a name that is no class, or that two columns have; it shows the place in the condition, and the
    /// classes that there are.
    pub(super) fn bind(&self, classes: &[String]) -> Result<Bound, String> {
        let find = |name: &Name| {
            let found: Vec<usize> = (0..classes.len()).filter(|at| classes[*at] == name.text).collect();
            match found[..] {
                [at] => Ok(at),
                [] => {
                    let meant = nearest(&name.text, classes);
                    let meant = meant.map_or_else(String::new, |class| format!(" (did you mean '{class}'?)"));
                    let all = classes.join(", ");
                    let what = format!("there is no class '{}'{meant}; the classes are: {all}", name.text);
                    Err(point(&self.text, name.at, &what))
                }
                _ => Err(point(&self.text, name.at, &format!("the label table has '{}' twice", name.text))),
            }
        };
        Ok(Bound(self.root.bound(&find)?))
    }
}

impl Bound {
    /// Whether a row of labels fulfils the condition.
    pub(super) fn holds(&self, labels: &[f32]) -> bool {
        self.0.holds(labels)
    }
}

impl Node<Name> {
    fn bound(&self, find: &impl Fn(&Name) -> Result<usize, String>) -> Result<Node<usize>, String> {
        let all = |nodes: &[Self]| nodes.iter().map(|node| node.bound(find)).collect::<Result<Vec<_>, _>>();
        let term = |term: &Term<Name>| match term {
            Term::Number(value) => Ok(Term::Number(*value)),
            Term::Class(name) => find(name).map(Term::Class),
        };
        Ok(match self {
            Self::Any(nodes) => Node::Any(all(nodes)?),
            Self::All(nodes) => Node::All(all(nodes)?),
            Self::Not(node) => Node::Not(Box::new(node.bound(find)?)),
            Self::Compare(left, comparison, right) => Node::Compare(term(left)?, *comparison, term(right)?),
        })
    }
}

impl Node<usize> {
    fn holds(&self, labels: &[f32]) -> bool {
        let value = |term: &Term<usize>| match term {
            Term::Number(value) => *value,
            Term::Class(at) => labels[*at],
        };
        match self {
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(labels)),
            Self::All(nodes) => nodes.iter().all(|node| node.holds(labels)),
            Self::Not(node) => !node.holds(labels),
            Self::Compare(left, comparison, right) => comparison.holds(value(left), value(right)),
        }
    }
}

impl Comparison {
    /// All comparisons with their signs; a sign that begins with another one stands before that.
    const ALL: [(&str, Self); 6] = [
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<=", Self::LessOrEqual),
        (">=", Self::GreaterOrEqual),
        ("<", Self::Less),
        (">", Self::Greater),
    ];

    #[expect(clippy::float_cmp, reason = "labels are compared as they are")]
    fn holds(self, left: f32, right: f32) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Node<Name>, String> {
        let mut nodes = vec![self.all()?];
        while self.keyword("or") {
            nodes.push(self.all()?);
        }
        Ok(Node::Any(nodes))
    }

    fn all(&mut self) -> Result<Node<Name>, String> {
        let mut nodes = vec![self.one()?];
        while self.keyword("and") {
            nodes.push(self.one()?);
        }
        Ok(Node::All(nodes))
    }

    fn one(&mut self) -> Result<Node<Name>, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(point(self.text, self.at, "too many parentheses or 'not' within each other"));
        }
        let node = if self.keyword("not") {
            Node::Not(Box::new(self.one()?))
        } else if self.sign("(") {
            let node = self.any()?;
            if !self.sign(")") {
                return Err(self.expected("'and', 'or' or ')'"));
            }
            node
        } else {
            let left = self.term()?;
            let comparison = Comparison::ALL.into_iter().find(|(sign, _)| self.sign(sign));
            let Some((_, comparison)) = comparison else {
                return Err(self.expected("a comparison (==, !=, <, <=, > or >=)"));
            };
            Node::Compare(left, comparison, self.term()?)
        };
        self.depth -= 1;
        Ok(node)
    }

    /// A number, or the name of a class: in quotes, or words up to a sign or keyword.
    fn term(&mut self) -> Result<Term<Name>, String> {
        self.skip_spaces();
        let at = self.at;
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|first| "'\"`".contains(*first)) {
            let Some((name, _)) = rest[1..].split_once(quote) else {
                return Err(point(self.text, at, "this quote is not closed"));
            };
            self.at += name.len() + 2;
            return Ok(Term::Class(Name { text: name.to_owned(), at }));
        }
        let mut words = Vec::new();
        while let Some(word) = self.word().filter(|word| !is_keyword(word)) {
            self.at += word.len();
            words.push(word);
            self.skip_spaces();
        }
        match words[..] {
            [] => Err(self.expected("the name of a class or a number")),
            [word] if is_number(word) => match word.parse() {
                Ok(value) => Ok(Term::Number(value)),
                Err(_) => Err(point(self.text, at, "not a number; a class of this name needs quotes")),
            },
            _ => Ok(Term::Class(Name { text: words.join(" "), at })),
        }
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        self.skip_spaces();
        let found = self.word().filter(|word| word.eq_ignore_ascii_case(keyword));
        self.at += found.map_or(0, str::len);
        found.is_some()
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.skip_spaces();
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    /// The word that begins here.
    fn word(&self) -> Option<&'a str> {
        let ends = |c: char| c.is_whitespace() || "()<>=!'\"`".contains(c);
        let rest = self.rest();
        Some(&rest[..rest.find(ends).unwrap_or(rest.len())]).filter(|word| !word.is_empty())
    }

    fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, what: &str) -> String {
        let is_assignment = self.rest().starts_with('=') && !self.rest().starts_with("==");
        let hint = if is_assignment { " (equality is ==)" } else { "" };
        point(self.text, self.at, &format!("expected {what}{hint}"))
    }
}

/// The class that was probably meant by `name`: one that holds it, or that differs in up to a third of it.
fn nearest<'a>(name: &str, classes: &'a [String]) -> Option<&'a String> {
    let name = name.to_lowercase();
    let distance = |class: &String| {
        let class = class.to_lowercase();
        if !name.is_empty() && class.contains(&name) { 0 } else { strsim::damerau_levenshtein(&name, &class) }
    };
    let (distance, class) =
        classes.iter().map(|class| (distance(class), class)).min_by_key(|(distance, _)| *distance)?;
    (distance <= name.chars().count() / 3).then_some(class)
}

fn is_keyword(word: &str) -> bool {
    ["and", "or", "not"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Whether a word is meant as a number: not `inf` or `nan`, which no label is.
fn is_number(word: &str) -> bool {
    let digits = word.trim_start_matches(['-', '+', '.']);
    digits.starts_with(|first: char| first.is_ascii_digit())
}

/// The text, and below it an arrow to the place and what is wrong there.
fn point(text: &str, at: usize, what: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("\n  {line}\n  {}^ {what}", " ".repeat(text[..at].chars().count()))
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
