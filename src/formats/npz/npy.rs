//! The NPY header: dtype, array order and shape. Nothing in it is executed and nothing is guessed.
//!
//! Source: NumPy's `numpy/lib/format.py`. Versions 1 to 3 differ in the width of the length field and in the text
//! encoding.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The element types that become voxels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Element {
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 32-bit integer.
    I32,
}

impl Element {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 => 8,
        }
    }
}

/// The content of an array's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayHeader {
    /// The element type.
    pub element: Element,
    /// Whether elements are stored with the most significant byte first.
    pub big_endian: bool,
    /// Whether the first axis varies fastest.
    pub fortran_order: bool,
    /// The extents of the axes, in NumPy's order.
    pub shape: Vec<u64>,
    /// The number of bytes before the first element, from the start of the NPY data.
    pub header_len: u64,
}

impl ArrayHeader {
    /// The payload's length in bytes; `None` if it does not fit 64 bits.
    pub fn payload_len(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.element.size() as u64, |product, &n| product.checked_mul(n))
    }

    /// The dtype as NumPy spells it, for messages and the plan's digest (`<f4`, `|i1`).
    pub fn descr(&self) -> String {
        let (kind, size) = match self.element {
            Element::F16 | Element::F32 | Element::F64 => ('f', self.element.size()),
            Element::I8 | Element::I16 | Element::I32 => ('i', self.element.size()),
            Element::U8 | Element::U16 => ('u', self.element.size()),
        };
        let order = match (size, self.big_endian) {
            (1, _) => '|',
            (_, true) => '>',
            (_, false) => '<',
        };
        format!("{order}{kind}{size}")
    }
}

/// The reason why a header was not understood; the text names the value found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// The bytes end before the header does: the number of bytes that are needed.
    Short(usize),
    /// The bytes are no NPY header, or the array is not supported: the reason.
    Bad(String),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(needed) => write!(f, "the array's header is cut short ({needed} bytes are needed)"),
            Self::Bad(reason) => f.write_str(reason),
        }
    }
}

/// The bytes of the longest header that is read. NumPy itself refuses longer headers by default (`max_header_size`); a
/// plain array's takes 118 bytes.
pub(super) const MAX_HEADER: usize = 10_000;

/// Reads the NPY header at the start of `bytes`, which may be longer.
///
/// # Errors
/// [`HeaderError::Short`] if more bytes are needed, [`HeaderError::Bad`] for everything else.
pub(crate) fn parse(bytes: &[u8]) -> Result<ArrayHeader, HeaderError> {
    let bad = |reason: &str| HeaderError::Bad(reason.into());
    if bytes.len() < 12 {
        return Err(HeaderError::Short(12));
    }
    if &bytes[..6] != b"\x93NUMPY" {
        return Err(bad("the array does not begin with NumPy's magic bytes"));
    }
    let (start, len) = match bytes[6] {
        1 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        2 | 3 => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
        version => return Err(HeaderError::Bad(format!("NPY format version {version} is not supported (1 to 3 are)"))),
    };
    if len > MAX_HEADER {
        return Err(HeaderError::Bad(format!(
            "the array's header has {len} bytes (at most {MAX_HEADER} are accepted)"
        )));
    }
    let text = bytes.get(start..start + len).ok_or(HeaderError::Short(start + len))?;
    let text = std::str::from_utf8(text).map_err(|_| bad("the array's header is not text"))?;
    let mut fields = Literal { rest: text };
    let header = fields
        .dict()
        .ok_or_else(|| HeaderError::Bad(format!("the array's header cannot be read: {:?}", text.trim_end())))??;
    Ok(ArrayHeader { header_len: (start + len) as u64, ..header })
}

fn element(descr: &str) -> Result<(Element, bool), HeaderError> {
    let unsupported =
        || HeaderError::Bad(format!("dtype '{descr}' is not supported (f2, f4, f8, i1, u1, i2, u2, i4 are)"));
    let kind = descr.get(1..).ok_or_else(unsupported)?;
    let big_endian = match &descr[..1] {
        "<" | "|" | "=" => false,
        ">" => true,
        _ => return Err(unsupported()),
    };
    let element = match kind {
        "f2" => Element::F16,
        "f4" => Element::F32,
        "f8" => Element::F64,
        "i1" => Element::I8,
        "u1" => Element::U8,
        "i2" => Element::I16,
        "u2" => Element::U16,
        "i4" => Element::I32,
        "O" => {
            return Err(HeaderError::Bad(
                "an object array (pickled data, never executed here) cannot be a volume".into(),
            ));
        }
        _ => return Err(unsupported()),
    };
    Ok((element, big_endian && element.size() > 1))
}

/// A parser of the Python literal in a header: one dict of a string, a bool and a tuple. Each of its functions returns
/// `None` if the text is no such literal.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    fn dict(&mut self) -> Option<Result<ArrayHeader, HeaderError>> {
        let (mut descr, mut order, mut shape) = (None, None, None);
        self.take('{')?;
        while !self.try_take('}') {
            let key = self.string()?;
            self.take(':')?;
            let repeated = match key {
                "descr" if self.peek()? == '[' => {
                    return Some(Err(HeaderError::Bad("a structured array cannot be a volume".into())));
                }
                "descr" => descr.replace(self.string()?).is_some(),
                "fortran_order" => order.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.tuple()?).is_some(),
                _ => true,
            };
            if repeated {
                return None;
            }
            if !self.try_take(',') {
                self.take('}')?;
                break;
            }
        }
        let (descr, fortran_order, shape) = (descr?, order?, shape?);
        if !self.rest.trim().is_empty() {
            return None;
        }
        Some(element(descr).map(|(element, big_endian)| ArrayHeader {
            element,
            big_endian,
            fortran_order,
            shape,
            header_len: 0,
        }))
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
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

    fn string(&mut self) -> Option<&'a str> {
        let quote = self.peek().filter(|c| matches!(c, '\'' | '"'))?;
        let (text, rest) = self.rest[1..].split_once(quote)?;
        self.rest = rest;
        (!text.contains('\\')).then_some(text)
    }

    fn boolean(&mut self) -> Option<bool> {
        self.peek()?;
        let value = self.rest.starts_with("True");
        self.rest = self.rest.strip_prefix(if value { "True" } else { "False" })?;
        Some(value)
    }

    fn tuple(&mut self) -> Option<Vec<u64>> {
        self.take('(')?;
        let mut values = Vec::new();
        while !self.try_take(')') {
            self.peek()?;
            let digits = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            values.push(self.rest[..digits].parse().ok()?);
            self.rest = self.rest[digits..].strip_prefix('L').unwrap_or(&self.rest[digits..]); // Python 2's long
            if !self.try_take(',') {
                self.take(')')?;
                break;
            }
        }
        (values.len() <= 32).then_some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(version: u8, text: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend(u16::try_from(text.len()).unwrap().to_le_bytes()),
            _ => bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn versions_orders_and_shapes() {
        let text = "{'descr': '<f4', 'fortran_order': True, 'shape': (512, 512, 261), }      \n";
        for version in 1..=3 {
            let header = parse(&npy(version, text)).unwrap();
            assert_eq!((header.element, header.big_endian, header.fortran_order), (Element::F32, false, true));
            assert_eq!(header.shape, [512, 512, 261]);
            assert_eq!(header.header_len, npy(version, text).len() as u64);
            assert_eq!(header.payload_len(), Some(512 * 512 * 261 * 4));
        }
        let scalar = parse(&npy(1, "{'descr': '|i1', 'fortran_order': False, 'shape': ()}")).unwrap();
        assert_eq!((scalar.shape.len(), scalar.payload_len(), scalar.descr()), (0, Some(1), "|i1".into()));
        let long = parse(&npy(1, "{\"shape\": (3L,), 'fortran_order': False, 'descr': '>u2'}")).unwrap();
        assert_eq!((long.shape, long.big_endian), (vec![3], true));
    }

    #[test]
    fn refusals_name_the_reason() {
        let reason = |text: &str| parse(&npy(1, text)).unwrap_err().to_string();
        assert!(reason("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}").contains("object array"));
        assert!(reason("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}").contains("structured"));
        assert!(reason("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}").contains("'<c8' is not supported"));
        assert!(reason("{'descr': '<f4', 'fortran_order': False}").contains("cannot be read"));
        assert!(reason("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}").contains("cannot be read"));
        assert!(reason("{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': ()}").contains("cannot be read"));
        assert_eq!(parse(&npy(1, "{}")[..11]), Err(HeaderError::Short(12)));
        assert!(matches!(parse(&npy(4, "{}")), Err(HeaderError::Bad(_))));
    }
}
