//! Whether a volume's values are what its recipe takes them for, by a look at the first of them.
//!
//! CT-RATE was published twice: with raw values, and with HU already; both as `data` of f32, and the table's slope and
//! intercept fit the first only. Applied to the second they shift everything by a thousand HU, and nothing fails.

use std::fs::File;
use std::path::Path;

use super::cast::{Linear, widen};
use super::kind::Recipe;
use crate::error::{Error, Result};
use crate::npz::{Array, INPUT_LEN, Payload};
use crate::num::to_usize;

/// Bytes that are looked at: four rows of a 512 × 512 × 512 volume, or four slices, which hold air around the patient.
const LOOK: usize = 4 << 20;
/// Air and lung in HU.
const AIR: std::ops::RangeInclusive<f32> = -1100.0..=-850.0;
/// Below this is nothing that a scanner measures; some pad the corners of a slice with it.
const NOTHING: f32 = -1500.0;
/// A share of the values that is no accident.
const SHARE: f64 = 0.02;
/// Beyond this, values are not HU / 1000 within ±1.
const NORMALIZED: f32 = 1.5;

/// What is wrong with the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// They are HU already, and would be shifted.
    AlreadyHu,
    /// They are not HU / 1000.
    NotNormalized,
}

/// Looks at the first values of a volume. `None` where they are as they should be, or say nothing.
///
/// # Errors
/// As reading a volume fails, except that a damaged one is left to whoever reads it.
pub fn doubt(path: &Path, array: &Array, recipe: &Recipe) -> Result<Option<Doubt>> {
    let (slope, intercept, is_normalized) = match recipe {
        Recipe::Stored => return Ok(None),
        Recipe::Rescaled { slope, intercept, axes } => (*slope, *intercept, *axes == super::Axes::Dhw),
        Recipe::Preprocessed(steps) => (steps.slope, steps.intercept, steps.axes == super::Axes::Dhw),
    };
    let values = match first_values(path, array) {
        Err(Error::Malformed { .. }) => return Ok(None),
        values => values?,
    };
    let share = |is: &dyn Fn(f32) -> bool| values.iter().filter(|x| is(**x)).count() as f64 / values.len() as f64;
    if is_normalized {
        return Ok((share(&|x| x.abs() > NORMALIZED) > SHARE).then_some(Doubt::NotNormalized));
    }
    #[expect(clippy::cast_possible_truncation, reason = "as the volume's own map is computed")]
    let (slope, intercept) = (slope as f32, intercept as f32);
    let air = share(&|x| AIR.contains(&x));
    // Padding of -2000 is below everything once mapped, but it is no air before.
    let air_lost = share(&|x| AIR.contains(&x) && x * slope + intercept < NOTHING);
    Ok((air > SHARE && air_lost > air / 2.0).then_some(Doubt::AlreadyHu))
}

fn first_values(path: &Path, array: &Array) -> Result<Vec<f32>> {
    let file = File::open(path).map_err(|error| Error::io(path, "open the file", error))?;
    let element = array.header.element.size();
    let len = to_usize(array.header.payload_len().unwrap_or(0)).min(LOOK / element * element);
    let mut input = vec![0; INPUT_LEN];
    // Of f64, for its alignment.
    let mut words = vec![0f64; len.div_ceil(size_of::<f64>())];
    let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..len];
    Payload::open(path, &file, array, &mut input)?.read_exact(bytes)?;
    let mut values = vec![0.0; len / element];
    let identity = Linear { slope: 1.0, intercept: 0.0 };
    widen(array.header.element, array.header.big_endian, bytes, identity, &mut values);
    Ok(values)
}
