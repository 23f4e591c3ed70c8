//! The Python literals of an NPY header: strings, integers, `True`, `False`, `None`, tuples, lists and dicts, in every
//! spelling of Python 2 and 3. Nothing is executed.

/// Deeper nesting is no header; Python itself gives up at 100 to 200 brackets.
const MAX_DEPTH: usize = 32;

/// A value that a literal stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A string without a prefix, or with `u` or `r`.
    Text(String),
    /// An integer that is not negative.
    Int(u64),
    /// `True` or `False`.
    Bool(bool),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A dict, in the order of the text.
    Dict(Vec<(Value, Value)>),
    /// Anything else that a header may hold (a list of fields, `None`).
    Other,
}

/// The value of a text that is one literal; `None` if it is not. `longs` says that integers may end with `L`, as those
/// of Python 2 do.
pub(super) fn parse(text: &str, longs: bool) -> Option<Value> {
    if text.contains('\0') {
        return None; // Python parses no such text
    }
    let mut parser = Parser { rest: text, longs, depth: 0 };
    let value = parser.value()?;
    parser.skip_blanks();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
    longs: bool,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            '{' => self.nested(Self::dict),
            '(' => self.nested(Self::tuple),
            '[' => self.nested(|parser| {
                parser.items(']').map(|_| Value::Other) // fields of a structured array
            }),
            '0'..='9' => self.integer(),
            '+' => {
                self.take('+')?;
                let is_signed = self.peek()? == '+';
                self.value().filter(|value| matches!(value, Value::Int(_)) && !is_signed)
            }
            '\'' | '"' => self.text(),
            _ => self.word(),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<Value>) -> Option<Value> {
        self.depth += 1;
        self.rest = &self.rest[1..];
        let value = (self.depth <= MAX_DEPTH).then(|| read(self)).flatten()?;
        self.depth -= 1;
        Some(value)
    }

    fn dict(&mut self) -> Option<Value> {
        let mut entries = Vec::new();
        while !self.try_take('}') {
            let key = self.value()?;
            self.take(':')?;
            entries.push((key, self.value()?));
            if !self.try_take(',') {
                self.take('}')?;
                break;
            }
        }
        Some(Value::Dict(entries))
    }

    /// A tuple, or a value in parentheses.
    fn tuple(&mut self) -> Option<Value> {
        let (mut items, comma) = self.items(')')?;
        let is_value = items.len() == 1 && !comma;
        if is_value { items.pop() } else { Some(Value::Tuple(items)) }
    }

    /// The values up to a closing bracket, and whether a comma stands behind the last one.
    fn items(&mut self, end: char) -> Option<(Vec<Value>, bool)> {
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.try_take(end) {
            items.push(self.value()?);
            comma = self.try_take(',');
            if !comma {
                self.take(end)?;
                break;
            }
        }
        Some((items, comma))
    }

    fn integer(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (mut word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if self.longs {
            match word.strip_suffix('L') {
                Some(number) => word = number,
                None => _ = self.try_take('L'),
            }
        }
        let (digits, radix) = match word.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => (&word[2..], 16),
            Some("0o") => (&word[2..], 8),
            Some("0b") => (&word[2..], 2),
            // Python 2's octal numbers are an error in Python 3.
            _ if word.len() > 1 && word.starts_with('0') && word.contains(|c| !matches!(c, '0' | '_')) => return None,
            _ => (word, 10),
        };
        let spelled = !digits.ends_with('_') && !digits.contains("__");
        spelled.then(|| u64::from_str_radix(&digits.replace('_', ""), radix).ok())?.map(Value::Int)
    }

    /// `True`, `False`, `None`, or a string with a prefix.
    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphabetic())?;
        let (word, rest) = self.rest.split_at(end);
        if rest.starts_with(['\'', '"']) {
            return self.text();
        }
        self.rest = rest;
        match word {
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            "None" => Some(Value::Other),
            _ => None,
        }
    }

    /// A string, or several in a row, which are one.
    fn text(&mut self) -> Option<Value> {
        let mut text = String::new();
        loop {
            let start = self.rest.find(['\'', '"'])?;
            let is_raw = match &*self.rest[..start].to_ascii_lowercase() {
                "" | "u" => false,
                "r" => true,
                _ => return None, // bytes, or what is no literal
            };
            self.rest = &self.rest[start..];
            self.quoted(is_raw, &mut text)?;
            let next = self.peek();
            let length = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(0);
            if next.is_none() || !self.rest[length..].starts_with(['\'', '"']) {
                return Some(Value::Text(text));
            }
        }
    }

    /// A string from its first quote on, appended to `text`.
    fn quoted(&mut self, is_raw: bool, text: &mut String) -> Option<()> {
        let quote = if self.rest.starts_with("'''") || self.rest.starts_with("\"\"\"") { 3 } else { 1 };
        let (quote, mut rest) = self.rest.split_at(quote);
        while !rest.starts_with(quote) {
            let mut characters = rest.chars();
            match characters.next()? {
                '\n' if quote.len() == 1 => return None,
                '\\' if is_raw => return None, // no dtype has one
                '\\' => match characters.next()? {
                    '\n' => {} // the line goes on
                    plain @ ('\\' | '\'' | '"') => text.push(plain),
                    'x' => {
                        let code = u8::from_str_radix(characters.as_str().get(..2)?, 16).ok()?;
                        characters.nth(1);
                        text.push(char::from(code));
                    }
                    _ => return None,
                },
                plain => text.push(plain),
            }
            rest = characters.as_str();
        }
        self.rest = &rest[quote.len()..];
        Some(())
    }

    /// Skips blanks and comments, and a backslash where the line goes on.
    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            let next_line = self.rest.strip_prefix("\\\n").filter(|next| !next.is_empty());
            match (next_line, self.rest.strip_prefix('#')) {
                (Some(next), _) => self.rest = next,
                (_, Some(comment)) => self.rest = comment.find('\n').map_or("", |end| &comment[end..]),
                _ => return,
            }
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.rest.chars().next()
    }

    fn try_take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        found
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.try_take(wanted).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_every_spelling() {
        let text = |text: &str| Some(Value::Text(text.into()));
        let pair = Some(Value::Tuple(vec![Value::Int(2), Value::Int(30)]));
        for (source, value) in [
            ("'<f4'", text("<f4")),
            (" u\"<f4\" \n", text("<f4")),
            ("R'<f4'", text("<f4")),
            ("'''<f4'''", text("<f4")),
            ("'<' \"f\"\nu'4'", text("<f4")),
            ("('<f4')", text("<f4")),
            (r"'\x3cf\'\\4'", text(r"<f'\4")),
            ("(2, 30)", pair.clone()),
            ("(2L,30L,)", pair.clone()),
            ("( 0x2 # two\n, 3_0 L )", pair.clone()),
            ("(+2, + 30)", pair.clone()),
            ("(2,\\\n 30)", pair.clone()),
            ("(0b10, 0o36)", pair),
            ("'<\\\nf4'", text("<f4")),
            ("()", Some(Value::Tuple(vec![]))),
            ("((7))", Some(Value::Int(7))),
            ("00", Some(Value::Int(0))),
            ("[('a', '<f4', (2,))]", Some(Value::Other)),
            ("{'a': True, }", Some(Value::Dict(vec![(Value::Text("a".into()), Value::Bool(true))]))),
        ] {
            assert_eq!(parse(source, true), value, "{source}");
        }
        assert_eq!(parse("(2L, 30)", false), None);
    }

    #[test]
    fn what_is_no_literal() {
        for source in [
            "",
            "'",
            "'a",
            "'a\n'",
            "b'a'",
            "f'a'",
            r"'\N'",
            r"'\x4'",
            "(1",
            "1)",
            "(1 2)",
            "01",
            "1__0",
            "1_",
            "-1",
            "++1",
            "+True",
            "+'1'",
            "1 \\",
            "1 \\\n",
            "1 # \0",
            "1.5",
            "1e3",
            "0x",
            "{'a'}",
            "__import__('os')",
            "true",
            "'a' b",
            "99999999999999999999",
            "{'a': 1, 'b'",
            "'é",
        ] {
            assert_eq!(parse(source, true), None, "{source}");
        }
        assert_eq!(parse(&"(".repeat(10_000), true), None);
    }
}
