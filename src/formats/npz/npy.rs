//! The NPY header: dtype, array order and shape. Nothing in it is executed and nothing is guessed.
//!
//! Source: NumPy's `numpy/lib/format.py`. Versions 1 to 3 differ in the width of the length field and in the text
//! encoding.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::literal::{self, Value};

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
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// True or false, in a byte: 0 is false, and every other value is true, as for NumPy.
    Bool,
}

impl Element {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// NumPy's name of the dtype.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::Bool => "bool",
        }
    }

    /// The dtype as NumPy spells it in headers (`<f4`, `|i1`).
    pub fn descr(self, big_endian: bool) -> String {
        let size = self.size();
        let kind = match self {
            Self::F16 | Self::F32 | Self::F64 => 'f',
            Self::I8 | Self::I16 | Self::I32 | Self::I64 => 'i',
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => 'u',
            Self::Bool => 'b',
        };
        let order = match (size, big_endian) {
            (1, _) => '|',
            (_, true) => '>',
            (_, false) => '<',
        };
        format!("{order}{kind}{size}")
    }

    /// Whether the elements are floats; else they are integers or booleans.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
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
        self.element.descr(self.big_endian)
    }
}

/// The reason why a header was not understood; the text names the value found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// The bytes end before the header does: the number of bytes that are needed.
    Short(usize),
    /// The bytes are no NPY header: the reason.
    Bad(String),
    /// The header of an array that cannot be a volume because of its dtype.
    Dtype {
        /// The extents of the array's axes.
        shape: Vec<u64>,
        /// Whether the dtype is one of numbers, as far as its text tells.
        is_number: bool,
        /// The reason why no volume has this dtype.
        reason: String,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(needed) => write!(f, "the array's header is cut short ({needed} bytes are needed)"),
            Self::Bad(reason) | Self::Dtype { reason, .. } => f.write_str(reason),
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
        1 if bytes[7] == 0 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        2 | 3 if bytes[7] == 0 => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
        version => {
            let minor = bytes[7];
            return Err(HeaderError::Bad(format!(
                "NPY format version {version}.{minor} is not supported (1.0, 2.0 and 3.0 are); save it with np.save"
            )));
        }
    };
    if len > MAX_HEADER {
        return Err(HeaderError::Bad(format!(
            "the array's header has {len} bytes (at most {MAX_HEADER} are accepted)"
        )));
    }
    let text = bytes.get(start..start + len).ok_or(HeaderError::Short(start + len))?;
    let text = std::str::from_utf8(text).map_err(|_| bad("the array's header is not text"))?;
    // As `numpy.load` reads it, which takes the integers of Python 2 up to version 2.
    let fields = literal::parse(text, bytes[6] < 3).and_then(fields);
    let Some(Fields { descr, fortran_order, shape }) = fields else {
        return Err(HeaderError::Bad(format!("the array's header cannot be read: {:?}", text.trim_end())));
    };
    let found = match &descr {
        Value::Text(descr) => element(descr),
        _ => Err("a structured array cannot be a volume; save one of its fields".into()),
    };
    let (element, big_endian) = match found {
        Ok(found) => found,
        Err(reason) => return Err(HeaderError::Dtype { shape, is_number: is_number(&descr), reason }),
    };
    Ok(ArrayHeader { element, big_endian, fortran_order, shape, header_len: (start + len) as u64 })
}

/// The three entries of a header.
struct Fields {
    descr: Value,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// The entries of a header's dict, of equal keys the last one, as in Python; `None` if it is no header.
fn fields(header: Value) -> Option<Fields> {
    let Value::Dict(entries) = header else { return None };
    let (mut descr, mut order, mut shape) = (None, None, None);
    for (key, value) in entries {
        match key {
            Value::Text(key) if key == "descr" => descr = Some(value),
            Value::Text(key) if key == "fortran_order" => order = Some(value),
            Value::Text(key) if key == "shape" => shape = Some(value),
            _ => return None,
        }
    }
    let (Value::Bool(fortran_order), Value::Tuple(axes)) = (order?, shape?) else { return None };
    let length = |axis: Value| match axis {
        Value::Int(length) => Some(length),
        Value::Bool(length) => Some(length.into()), // an integer for Python
        _ => None,
    };
    let shape: Vec<u64> = axes.into_iter().map(length).collect::<Option<_>>()?;
    (shape.len() <= 32).then_some(Fields { descr: descr?, fortran_order, shape })
}

/// Whether a dtype that no volume has is one of numbers (complex ones, say), for all that its text tells.
fn is_number(descr: &Value) -> bool {
    const OTHERS: [&str; 6] = ["object", "str", "bytes", "void", "datetime", "timedelta"];
    let Value::Text(descr) = descr else { return false };
    let code = descr.trim_start_matches(['<', '>', '=', '|']);
    !code.starts_with(['O', 'S', 'U', 'V', 'M', 'm', 'a']) && !OTHERS.iter().any(|name| code.starts_with(name))
}

/// The element type and the byte order (big-endian or not) that a dtype's text stands for: an optional byte order, then
/// a letter, or a letter and a number of bytes; or a name; and a count of 1 before it. As `numpy.dtype` reads it on a
/// 64-bit Linux.
///
/// # Errors
/// The reason why no volume has this dtype.
fn element(descr: &str) -> Result<(Element, bool), String> {
    let (order, code) = uncounted(descr).unwrap_or_else(|| split_order(descr));
    let name = if order.is_none() { named(code) } else { None };
    let element = name.or_else(|| lettered(code)).or_else(|| sized(code)).ok_or_else(|| match code {
        "O" | "O8" | "object" | "object_" => {
            "an object array (pickled data, never executed here) cannot be a volume; save it as float32".into()
        }
        "g" | "f16" | "f12" | "float128" | "float96" | "longdouble" | "longfloat" => format!(
            "dtype '{descr}' (longdouble) is not supported, as its bytes depend on the machine; save it as float64"
        ),
        _ => format!(
            "dtype '{descr}' is not supported: booleans, integers and floats of up to 8 bytes are; save it as one"
        ),
    })?;
    Ok((element, order == Some('>') && element.size() > 1))
}

/// The byte order at the beginning of a text, and the rest.
fn split_order(text: &str) -> (Option<char>, &str) {
    match text.chars().next() {
        Some(order @ ('<' | '>' | '=' | '|')) => (Some(order), &text[1..]),
        _ => (None, text),
    }
}

/// The byte order and the rest of a dtype's text that begins with a count of 1 (`1<f4`, `>1f4`), which NumPy takes for
/// none; `None` if it begins otherwise.
fn uncounted(descr: &str) -> Option<(Option<char>, &str)> {
    let (before, rest) = split_order(descr);
    let (behind, code) = split_order(rest.strip_prefix('1')?.trim_start_matches(' '));
    let native = |order| if order == '=' { '<' } else { order };
    let agree = before.is_none_or(|before| behind.is_none_or(|behind| native(before) == native(behind)));
    // Read by other code of NumPy's than a text without a count: it takes fewer spellings.
    let is_plain = code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'?');
    (agree && is_plain).then_some((behind.or(before), code))
}

/// The element type of a dtype's name, of NumPy 1 or 2.
fn named(name: &str) -> Option<Element> {
    Some(match name {
        "half" | "float16" => Element::F16,
        "single" | "float32" => Element::F32,
        "double" | "float" | "float_" | "float64" => Element::F64,
        "byte" | "int8" => Element::I8,
        "ubyte" | "uint8" => Element::U8,
        "short" | "int16" => Element::I16,
        "ushort" | "uint16" => Element::U16,
        "intc" | "int32" => Element::I32,
        "uintc" | "uint32" => Element::U32,
        "int" | "int_" | "int0" | "intp" | "long" | "longlong" | "int64" => Element::I64,
        "uint" | "uint0" | "uintp" | "ulong" | "ulonglong" | "uint64" => Element::U64,
        "bool" | "bool_" | "bool8" => Element::Bool,
        _ => return None,
    })
}

/// The element type of a letter, which is that of a type of C.
fn lettered(letter: &str) -> Option<Element> {
    Some(match letter {
        "e" => Element::F16,
        "f" => Element::F32,
        "d" => Element::F64,
        "b" => Element::I8,
        "B" => Element::U8,
        "h" => Element::I16,
        "H" => Element::U16,
        "i" => Element::I32,
        "I" => Element::U32,
        "l" | "q" | "p" => Element::I64,
        "L" | "Q" | "P" => Element::U64,
        "?" => Element::Bool,
        _ => return None,
    })
}

/// The element type of a letter and a number of bytes, which NumPy reads as C's `strtol` does: `f4`, `f04`, `f +4`.
fn sized(code: &str) -> Option<Element> {
    let bytes = code.get(1..)?.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let bytes = bytes.strip_prefix('+').unwrap_or(bytes);
    let bytes: u32 = bytes.bytes().all(|byte| byte.is_ascii_digit()).then(|| bytes.parse().ok())??;
    Some(match (&code[..1], bytes) {
        ("f", 2) => Element::F16,
        ("f", 4) => Element::F32,
        ("f", 8) => Element::F64,
        ("i", 1) => Element::I8,
        ("u", 1) => Element::U8,
        ("i", 2) => Element::I16,
        ("u", 2) => Element::U16,
        ("i", 4) => Element::I32,
        ("u", 4) => Element::U32,
        ("i", 8) => Element::I64,
        ("u", 8) => Element::U64,
        ("b", 1) => Element::Bool,
        _ => return None,
    })
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
        for (descr, right) in [("1<f4", "<f4"), (">1f4", ">f4"), ("=1 <u2", "<u2"), ("1float", "<f8"), ("|1?", "|b1")] {
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,)}}");
            assert_eq!(parse(&npy(1, &text)).unwrap().descr(), right, "{descr}");
        }
        for descr in ["2<f4", "11f4", "01f4", "<1>f4", "1< f4", "1f +4", "1int_", ">1float32", "1", "+1f4"] {
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,)}}");
            assert!(parse(&npy(1, &text)).is_err(), "{descr}");
        }
        let long = parse(&npy(1, "{\"shape\": (3L,), 'fortran_order': False, 'descr': '>u2'}")).unwrap();
        assert_eq!((long.shape, long.big_endian), (vec![3], true));
    }

    #[test]
    fn refusals_name_the_reason() {
        let reason = |text: &str| parse(&npy(1, text)).unwrap_err().to_string();
        assert!(reason("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}").contains("object array"));
        assert!(reason("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}").contains("structured"));
        assert!(reason("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}").contains("'<c8' is not supported"));
        assert!(reason("{'descr': '<f16', 'fortran_order': False, 'shape': (1,)}").contains("longdouble"));
        assert!(reason("{'descr': '<f4', 'fortran_order': False}").contains("cannot be read"));
        assert!(reason("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}").contains("cannot be read"));
        assert!(reason("{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': ()}").contains("cannot be read"));
        let two_axes = parse(&npy(1, "{'descr': '<c8', 'fortran_order': False, 'shape': (1, 2)}"));
        assert!(matches!(two_axes, Err(HeaderError::Dtype { shape, is_number: true, .. }) if shape == [1, 2]));
        for (descr, is_number) in [("<c8", true), ("<f16", true), ("<U3", false), ("|O", false), ("<M8[s]", false)] {
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (3,)}}");
            let expected =
                matches!(parse(&npy(1, &text)), Err(HeaderError::Dtype { is_number: found, .. }) if found == is_number);
            assert!(expected, "{descr}");
        }
        assert_eq!(parse(&npy(1, "{}")[..11]), Err(HeaderError::Short(12)));
        assert!(matches!(parse(&npy(4, "{}")), Err(HeaderError::Bad(_))));
    }
}
