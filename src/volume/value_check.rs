//! The value check: whether the first values of a volume have the unit that its recipe assumes.
//!
//! CT-RATE was published twice: with raw values, and with HU already; both as `data` of f32, and the table's slope and
//! intercept fit the first only. Applied to the second they shift everything by a thousand HU, and nothing fails.

use std::ops::{Range, RangeInclusive};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cast::widen;
use super::dialect::Dialect;
use super::kind::Geometry;
use super::scratch::Scratch;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::npz::{Array, Payload};
use crate::storage::Store;

/// The bytes that are looked at: four rows of a 512 × 512 × 512 volume, or four slices, which hold air around the
/// patient.
const LOOK: usize = 4 << 20;
/// The range of air and lung, in HU.
const AIR: RangeInclusive<f32> = -1100.0..=-850.0;
/// The range of fat and soft tissue, in HU.
const TISSUE: RangeInclusive<f32> = -200.0..=300.0;
/// The lowest value that a scanner measures, in HU; some pad the corners of a slice with lower ones.
const LOWEST: f32 = -1500.0;
/// The share of the values that is no accident.
const SHARE: f64 = 0.02;
/// The largest magnitude that passes for HU / 1000 within ±1.
const NORMALIZED: f32 = 1.5;

/// What the first values of a volume show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Values {
    /// Nothing: they may be either.
    Unclear,
    /// Stored values, of which slope and intercept make HU: some are air then and some soft tissue, none is below both.
    Stored,
    /// HU already, which slope and intercept would shift.
    AlreadyHu,
    /// No HU / 1000, as the array's dialect says.
    NotNormalized,
}

/// Looks at the first values of an array: whether they are what its dialect and the metadata table say. The loader does
/// the same (`look_at`), and must, so that both answer alike.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. A damaged volume is no error here: reading it fails later.
pub fn check_values(
    (store, path): (&dyn Store, &Path),
    array: &Array,
    dialect: Option<Dialect>,
    geometry: Geometry<'_>,
) -> Result<Values> {
    let seen = match dialect {
        Some(Dialect::Hu) => return Ok(Values::Unclear), // there is nothing that would shift them
        Some(Dialect::Normalized) => normalized((store, path), array),
        Some(Dialect::Native) | None => native((store, path), array, geometry.slope, geometry.intercept),
    };
    match seen {
        Err(Error::Malformed { .. }) => Ok(Values::Unclear),
        seen => seen,
    }
}

/// The range of the first values of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The lowest value.
    pub low: f32,
    /// The highest value.
    pub high: f32,
    /// Whether all of them are whole numbers.
    pub is_whole: bool,
}

impl Span {
    /// The range that holds both.
    pub fn and(self, other: Self) -> Self {
        let is_whole = self.is_whole && other.is_whole;
        Self { low: self.low.min(other.low), high: self.high.max(other.high), is_whole }
    }
}

/// Looks at the range of the first values of an array; `None` where they cannot be unpacked.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn span((store, path): (&dyn Store, &Path), array: &Array) -> Result<Option<Span>> {
    let mut found = Span { low: f32::INFINITY, high: f32::NEG_INFINITY, is_whole: true };
    let seen = look((store, path), array, |x| found = found.and(Span { low: x, high: x, is_whole: x.fract() == 0.0 }));
    match seen {
        Ok(_) => Ok((found.low <= found.high).then_some(found)),
        Err(Error::Malformed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn normalized((store, path): (&dyn Store, &Path), array: &Array) -> Result<Values> {
    let mut large = 0;
    let count = look((store, path), array, |x| large += usize::from(x.abs() > NORMALIZED))?;
    Ok(if is_share(large, count) { Values::NotNormalized } else { Values::Unclear })
}

#[expect(clippy::cast_possible_truncation, reason = "as the volume's own map is computed")]
fn native((store, path): (&dyn Store, &Path), array: &Array, slope: f64, intercept: f64) -> Result<Values> {
    let (slope, intercept) = (slope as f32, intercept as f32);
    if !slope.is_finite() || !intercept.is_finite() {
        return Ok(Values::Unclear);
    }
    let (mut air, mut lost, mut mapped_air, mut mapped_tissue, mut below) = (0, 0, 0, 0, 0);
    let count = look((store, path), array, |x| {
        let hu = x * slope + intercept;
        air += usize::from(AIR.contains(&x));
        // Padding of -2000 is below everything once mapped, but it is no air before.
        lost += usize::from(AIR.contains(&x) && hu < LOWEST);
        mapped_air += usize::from(AIR.contains(&hu));
        mapped_tissue += usize::from(TISSUE.contains(&hu));
        below += usize::from(x >= LOWEST && hu < LOWEST);
    })?;
    Ok(if is_share(air, count) && 2 * lost > air {
        Values::AlreadyHu
    } else if is_share(mapped_air, count) && is_share(mapped_tissue, count) && !is_share(below, count) {
        Values::Stored
    } else {
        Values::Unclear
    })
}

/// Whether as many of the values as `found` are no accident.
fn is_share(found: usize, count: usize) -> bool {
    found as f64 / count as f64 > SHARE
}

/// Calls `see` for each of the first values and returns their number. It reads them in pieces, and so takes no memory
/// beyond the scratch buffers.
fn look((store, path): (&dyn Store, &Path), array: &Array, mut see: impl FnMut(f32)) -> Result<usize> {
    const PIECE: usize = 16 << 10;
    let array = &array.as_in_file(); // turned, the first values may be the file's last
    let file = store.open(path).map_err(|error| Error::io(path, "open the file", error))?;
    let element = array.header.element.size();
    let count = to_usize(array.header.payload_len().unwrap_or(0)).min(LOOK) / element;
    let Range { start, end } = array.member.in_file();
    let before = array.header.header_len + array.bytes_before();
    file.will_read(start..end.min(start + before + LOOK as u64)); // packed bytes are fewer
    Scratch::with(path, |scratch| {
        let mut payload = Payload::open(path, &*file, array, &mut scratch.inflater)?;
        let mut values = [0.0; PIECE];
        let mut left = count;
        while left > 0 {
            let values = &mut values[..left.min(PIECE)];
            let bytes = &mut scratch.chunk[..values.len() * element]; // at most 8 a value: it has as many
            payload.read_exact(bytes)?;
            widen(array.header.element, array.header.big_endian, bytes, None, values);
            values.iter().for_each(|x| see(*x));
            left -= values.len();
        }
        Ok(count)
    })
}
