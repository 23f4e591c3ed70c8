//! The spacing of a volume in another array of its NPZ file.

use std::path::Path;

use half::f16;
use serde::{Deserialize, Serialize};

use super::choose::{named, names};
use super::directory::{Listed, WindowedFile};
use super::{ArrayHeader, Element, read_header, unpacked_head};
use crate::base::num::to_usize;
use crate::error::{Error, Result};

/// The spacing that an array of an NPZ file gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spacing {
    /// The name of the array.
    pub array: String,
    /// The three numbers in mm, in the array's order; each is finite and above 0.
    pub mm: [f64; 3],
}

/// Reads the array `name`, which must hold three numbers above 0.
///
/// # Errors
/// [`Error::Io`] if reading failed, [`Error::Malformed`] if there is no such array, or it holds no spacing.
pub(super) fn read(path: &Path, windows: &WindowedFile<'_>, listed: &[Listed], name: &str) -> Result<Spacing> {
    let wrong =
        |what: String| Error::malformed(path, format!("{what}; --spacing-array names the array of the spacing"));
    let member = named(path, listed, name)?;
    let member = member.ok_or_else(|| match names(listed) {
        none if none.is_empty() => wrong(format!("there is no array '{name}' beside the volume")),
        names => wrong(format!("there is no array '{name}' (arrays found: {names})")),
    })?;
    let header = read_header(path, windows, member).map_err(|unread| unread.of(path, member))?;
    let (shape, element) = (&header.shape, header.element.size());
    if shape.iter().product::<u64>() != 3 || member.len != header.header_len + 3 * element as u64 {
        return Err(wrong(format!("array '{name}' has shape {shape:?}, and a spacing has three numbers")));
    }
    let bytes = unpacked_head(path, windows, member, to_usize(member.len))?;
    if bytes.len() as u64 != member.len || Some(crc32fast::hash(&bytes)) != member.crc {
        return Err(Error::malformed(path, format!("array '{name}' has another CRC-32 than the zip directory says")));
    }
    let numbers = bytes[to_usize(header.header_len)..].chunks_exact(element).map(|bytes| number(&header, bytes));
    let mut mm = [0.0; 3];
    mm.iter_mut().zip(numbers).for_each(|(mm, number)| *mm = number);
    if mm.iter().all(|mm| mm.is_finite() && *mm > 0.0) {
        Ok(Spacing { array: name.to_owned(), mm })
    } else {
        Err(wrong(format!("array '{name}' holds {mm:?}, and a spacing is above 0 mm")))
    }
}

/// The value of an element as float64.
fn number(header: &ArrayHeader, bytes: &[u8]) -> f64 {
    let mut little = [0; 8];
    let len = bytes.len();
    little[..len].copy_from_slice(bytes);
    if header.big_endian {
        little[..len].reverse();
    }
    let [a, b, c, d, ..] = little;
    match header.element {
        Element::F16 => f16::from_le_bytes([a, b]).to_f64(),
        Element::F32 => f32::from_le_bytes([a, b, c, d]).into(),
        Element::F64 => f64::from_le_bytes(little),
        Element::I8 => i8::from_le_bytes([a]).into(),
        Element::I16 => i16::from_le_bytes([a, b]).into(),
        Element::I32 => i32::from_le_bytes([a, b, c, d]).into(),
        Element::I64 => i64::from_le_bytes(little) as f64,
        Element::U8 => a.into(),
        Element::U16 => u16::from_le_bytes([a, b]).into(),
        Element::U32 => u32::from_le_bytes([a, b, c, d]).into(),
        Element::U64 => u64::from_le_bytes(little) as f64,
        Element::Bool => u8::from(a != 0).into(),
    }
}
