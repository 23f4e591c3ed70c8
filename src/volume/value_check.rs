//! The value check: whether the first values of a volume have the unit that its recipe assumes.
//!
//! CT-RATE was published twice: with raw values, and with HU already; both as `data` of f32, and the table's slope and
//! intercept fit the first only. Applied to the second they shift everything by a thousand HU, and nothing fails.

use std::fs::File;
use std::path::Path;

use super::cast::{Linear, widen};
use super::kind::Recipe;
use super::scratch::Scratch;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::npz::{Array, Payload};

/// The bytes that are looked at: four rows of a 512 × 512 × 512 volume, or four slices, which hold air around the
/// patient.
const LOOK: usize = 4 << 20;
/// The range of air and lung, in HU.
const AIR: std::ops::RangeInclusive<f32> = -1100.0..=-850.0;
/// The lowest value that a scanner measures, in HU; some pad the corners of a slice with lower ones.
const LOWEST: f32 = -1500.0;
/// The share of the values that is no accident.
const SHARE: f64 = 0.02;
/// The largest magnitude that passes for HU / 1000 within ±1.
const NORMALIZED: f32 = 1.5;

/// A contradiction between the values of a volume and its recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueMismatch {
    /// The values are HU already, and slope and intercept would shift them.
    AlreadyHu,
    /// The values are not HU / 1000, as the dialect says.
    NotNormalized,
}

/// Checks the first values of a volume against its recipe. `None` where they agree, or where the values show nothing.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. A damaged volume is no error here: reading it fails later.
pub fn check_values(path: &Path, array: &Array, recipe: &Recipe) -> Result<Option<ValueMismatch>> {
    let (slope, intercept, is_normalized) = match recipe {
        Recipe::Stored => return Ok(None),
        Recipe::Rescaled { slope, intercept, axes } => (*slope, *intercept, *axes == super::Axes::Dhw),
        Recipe::Preprocessed(steps) => (steps.slope, steps.intercept, steps.axes == super::Axes::Dhw),
    };
    #[expect(clippy::cast_possible_truncation, reason = "as the volume's own map is computed")]
    let (slope, intercept) = (slope as f32, intercept as f32);
    let (mut large, mut air, mut lost) = (0u32, 0u32, 0u32);
    let seen = look(path, array, |x| {
        large += u32::from(x.abs() > NORMALIZED);
        air += u32::from(AIR.contains(&x));
        // Padding of -2000 is below everything once mapped, but it is no air before.
        lost += u32::from(AIR.contains(&x) && x * slope + intercept < LOWEST);
    });
    let count = match seen {
        Err(Error::Malformed { .. }) => return Ok(None),
        count => count? as f64,
    };
    let share = |found: u32| f64::from(found) / count;
    if is_normalized {
        return Ok((share(large) > SHARE).then_some(ValueMismatch::NotNormalized));
    }
    Ok((share(air) > SHARE && share(lost) > share(air) / 2.0).then_some(ValueMismatch::AlreadyHu))
}

/// Calls `see` for each of the first values and returns their number. It reads them in pieces, and so takes no memory
/// beyond the scratch buffers.
fn look(path: &Path, array: &Array, mut see: impl FnMut(f32)) -> Result<usize> {
    const PIECE: usize = 16 << 10;
    let file = File::open(path).map_err(|error| Error::io(path, "open the file", error))?;
    let element = array.header.element.size();
    let count = to_usize(array.header.payload_len().unwrap_or(0)).min(LOOK) / element;
    Scratch::with(|scratch| {
        let mut payload = Payload::open(path, &file, array, &mut scratch.inflater)?;
        let mut values = [0.0; PIECE];
        let mut left = count;
        while left > 0 {
            let values = &mut values[..left.min(PIECE)];
            let bytes = &mut scratch.chunk[..values.len() * element]; // at most 8 a value: it has as many
            payload.read_exact(bytes)?;
            let identity = Linear { slope: 1.0, intercept: 0.0 };
            widen(array.header.element, array.header.big_endian, bytes, identity, values);
            values.iter().for_each(|x| see(*x));
            left -= values.len();
        }
        Ok(count)
    })
}
