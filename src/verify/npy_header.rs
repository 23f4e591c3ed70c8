//! The header of an array in NPY, read token by token, by code of its own.

use std::io::Read;

/// The types of elements that are compared, with their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementType {
    /// IEEE floats of 2, 4 or 8 bytes.
    Float(usize),
    /// Signed integers of 1 to 8 bytes.
    Signed(usize),
    /// Unsigned integers of 1 to 8 bytes.
    Unsigned(usize),
    /// A byte that is 0 for false.
    Truth,
}

/// The header of an array.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceHeader {
    /// The type of the elements.
    pub element: ElementType,
    /// Whether the most significant byte of an element comes first.
    pub is_big_endian: bool,
    /// Whether the first axis varies fastest.
    pub is_fortran: bool,
    /// Lengths of the axes, in voxels.
    pub shape: Vec<usize>,
}

/// A piece of a header's text.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Text(String),
    Word(String),
    Mark(char),
}

/// Reads the header of an array, up to its first element.
///
/// # Errors
/// The reason why the header, or the array, is not read.
pub(super) fn read(file: &mut dyn Read) -> Result<SourceHeader, String> {
    let mut exactly = |count: usize| -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; count];
        file.read_exact(&mut bytes).map_err(|error| format!("the array's header cannot be read: {error}"))?;
        Ok(bytes)
    };
    let magic = exactly(8)?;
    if &magic[..6] != b"\x93NUMPY" {
        return Err("the array does not begin as NPY".into());
    }
    let width = if magic[6] == 1 { 2 } else { 4 };
    let length = exactly(width)?.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
    if length > 1 << 20 {
        return Err(format!("the array's header claims {length} bytes"));
    }
    let text = String::from_utf8_lossy(&exactly(length)?).into_owned();
    parse(&text).ok_or_else(|| format!("the array's header is not understood: {:?}", text.trim_end()))
}

fn parse(text: &str) -> Option<SourceHeader> {
    let tokens = tokens(text)?;
    let [Token::Mark('{'), inside @ .., Token::Mark('}')] = &tokens[..] else { return None };
    let (mut descr, mut is_fortran, mut shape) = (None, None, None);
    for entry in entries(inside) {
        match entry {
            [] => {} // behind the last comma
            [Token::Text(key), Token::Mark(':'), value @ ..] => match &**key {
                "descr" => descr = Some(element(&joined(value)?)?),
                "fortran_order" => is_fortran = Some(value.contains(&Token::Word("True".into()))),
                "shape" => shape = Some(lengths(value)?),
                _ => return None,
            },
            _ => return None,
        }
    }
    let (element, is_big_endian) = descr?;
    Some(SourceHeader { element, is_big_endian, is_fortran: is_fortran?, shape: shape? })
}

/// The entries of a dict: what stands between the commas outside of all brackets.
fn entries(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    tokens
        .split(|token| {
            match token {
                Token::Mark('(' | '[') => depth += 1,
                Token::Mark(')' | ']') => depth -= 1,
                _ => {}
            }
            depth == 0 && *token == Token::Mark(',')
        })
        .collect()
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '#' => while rest.next_if(|next| *next != '\n').is_some() {},
            '\'' | '"' => {
                // A prefix says that the text is Unicode or raw, which is the same for a dtype.
                tokens.pop_if(|token| matches!(token, Token::Word(word) if ["u", "U", "r", "R"].contains(&&**word)));
                tokens.push(Token::Text(quoted(next, &mut rest)?));
            }
            _ if next.is_ascii_alphanumeric() => {
                let mut word = String::from(next);
                while let Some(next) = rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            '\\' if rest.next_if_eq(&'\n').is_some() => {} // the line goes on
            _ if next.is_ascii_whitespace() => {}
            _ => tokens.push(Token::Mark(next)),
        }
    }
    Some(tokens)
}

/// The text behind an opening quote; the quotes may be three.
fn quoted(quote: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut end = String::from(quote);
    if rest.next_if_eq(&quote).is_some() {
        if rest.next_if_eq(&quote).is_none() {
            return Some(String::new());
        }
        end = end.repeat(3);
    }
    let mut text = String::new();
    while !text.ends_with(&end) {
        text.push(match rest.next()? {
            '\\' => match rest.next()? {
                'x' => char::from_u32(rest.next()?.to_digit(16)? << 4 | rest.next()?.to_digit(16)?)?,
                '\n' => continue, // the line goes on
                plain => plain,
            },
            plain => plain,
        });
    }
    text.truncate(text.len() - end.len());
    Some(text)
}

/// Texts in a row, which are one; none if there is anything else but parentheses.
fn joined(tokens: &[Token]) -> Option<String> {
    let pieces = tokens.iter().filter(|token| !matches!(token, Token::Mark('(' | ')')));
    pieces.map(|token| if let Token::Text(text) = token { Some(&**text) } else { None }).collect()
}

/// The numbers of a shape; those of Python 2 end with `L`.
fn lengths(tokens: &[Token]) -> Option<Vec<usize>> {
    let mut lengths = Vec::new();
    for token in tokens {
        match token {
            Token::Word(word) if word == "L" => {}
            Token::Word(word) => {
                let digits = word.trim_end_matches('L').replace('_', "").to_lowercase();
                let based = [("0x", 16), ("0o", 8), ("0b", 2)];
                let found = based.iter().find_map(|(prefix, base)| Some((digits.strip_prefix(prefix)?, *base)));
                let (digits, base) = found.unwrap_or((&digits, 10));
                lengths.push(if digits == "true" { 1 } else { usize::from_str_radix(digits, base).ok()? });
            }
            Token::Mark('(' | ')' | ',' | '+') => {}
            _ => return None,
        }
    }
    Some(lengths)
}

/// The type of elements that a dtype's text stands for, and whether it says big-endian.
fn element(descr: &str) -> Option<(ElementType, bool)> {
    use ElementType::{Float, Signed, Truth, Unsigned};
    let orders = ['<', '>', '=', '|'];
    let plain = descr.trim_start_matches(orders);
    // One of the type is the type: its byte order may stand on both sides of the count.
    let plain = plain.strip_prefix('1').map_or(plain, |rest| rest.trim_start_matches(' ').trim_start_matches(orders));
    let element = match plain {
        "e" | "half" => Float(2),
        "f" | "single" => Float(4),
        "d" | "double" | "float" | "float_" => Float(8),
        "b" | "byte" => Signed(1),
        "B" | "ubyte" => Unsigned(1),
        "h" | "short" => Signed(2),
        "H" | "ushort" => Unsigned(2),
        "i" | "intc" => Signed(4),
        "I" | "uintc" => Unsigned(4),
        "l" | "q" | "p" | "int" | "int_" | "int0" | "intp" | "long" | "longlong" => Signed(8),
        "L" | "Q" | "P" | "uint" | "uint0" | "uintp" | "ulong" | "ulonglong" => Unsigned(8),
        "?" | "b1" | "bool" | "bool_" | "bool8" => Truth,
        _ => {
            // A letter and bytes, or a word and bits.
            let end = plain.find(|next: char| !next.is_ascii_lowercase())?;
            let number: usize = plain[end..].trim().trim_start_matches('+').parse().ok()?;
            match (&plain[..end], number) {
                ("f", 2 | 4 | 8) => Float(number),
                ("i", 1 | 2 | 4 | 8) => Signed(number),
                ("u", 1 | 2 | 4 | 8) => Unsigned(number),
                ("b", 1) => Truth,
                ("float", 16 | 32 | 64) => Float(number / 8),
                ("int", 8 | 16 | 32 | 64) => Signed(number / 8),
                ("uint", 8 | 16 | 32 | 64) => Unsigned(number / 8),
                _ => return None,
            }
        }
    };
    Some((element, descr.contains('>')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_in_many_spellings() {
        let expected =
            |element, is_big_endian| SourceHeader { element, is_big_endian, is_fortran: false, shape: vec![2, 30, 4] };
        for (descr, shape, element, is_big_endian) in [
            ("'<f4'", "(2, 30, 4)", ElementType::Float(4), false),
            ("u'>f8'", "(2L, 30L, 4L,)", ElementType::Float(8), true),
            ("('=f' '4')", "(0x2, 3_0, 4 L)", ElementType::Float(4), false),
            ("'''float16'''", "(2,30, # depth\n4)", ElementType::Float(2), false),
            ("\"\\x3cu1\"", "(2, 30, 4)", ElementType::Unsigned(1), false),
            ("R'|b1'", "(2, 30, 4)", ElementType::Truth, false),
            ("'i +8'", "(2, 30, 4)", ElementType::Signed(8), false),
            ("'1 >f4'", "(2, 30, 4)", ElementType::Float(4), true),
            ("'>1u2'", "(2, 30, 4)", ElementType::Unsigned(2), true),
        ] {
            let text = format!("{{ 'shape':{shape},\"descr\" : {descr}, 'fortran_order': False }}");
            assert_eq!(parse(&text), Some(expected(element, is_big_endian)), "{text}");
        }
        for wrong in ["'<f16'", "'O'", "[('a', '<f4')]", "'<c8'"] {
            let text = format!("{{'descr': {wrong}, 'fortran_order': False, 'shape': (2, 3, 4), }}");
            assert_eq!(parse(&text), None, "{text}");
        }
    }
}
