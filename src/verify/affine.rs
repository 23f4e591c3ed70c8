//! Where the voxels of a sample are in the body, computed anew: the matrix of the NIfTI header, read field by field,
//! and single voxels followed back through all steps to the file. The `affine` of the JSON must lead to the same
//! places.

use std::path::Path;

use serde_json::Value;

use super::expected::{hwd, source_place};
use super::nifti::{self, Place};
use super::unread::Unread;
use crate::base::num::to_usize;
use crate::dataset::Study;
use crate::storage::Store;
use crate::volume::Recipe;

/// The largest distance between two places that are one, in mm.
const SAME: f64 = 1e-3;
/// The least part of an axis's length that leads to where the user asked it to lead.
const LEADS: f64 = 0.1;

/// Compares the affine of a sample's JSON with the header of its source, for a volume of the `shape`; a sentence says
/// what is wrong.
///
/// # Errors
/// Why the header cannot be read.
pub(super) fn check(
    json: &Value,
    (store, path): (&dyn Store, &Path),
    study: &Study,
    shape: [usize; 3],
) -> Result<Option<String>, Unread> {
    if study.array.placed().is_none() {
        let is_there = json.get("affine").is_some_and(|_| study.fields.iter().all(|field| field.name != "affine"));
        return Ok(is_there.then(|| "its JSON has an affine, and the flags do not ask for one (--orientation)".into()));
    }
    let Some(found) = json.get("affine").and_then(matrix) else {
        return Ok(Some("its JSON has no affine, which --orientation asks for, of four rows of four numbers".into()));
    };
    if found[3] != [0.0, 0.0, 0.0, 1.0] {
        return Ok(Some(format!("the last row of its affine is {:?}", found[3])));
    }
    let place = nifti::place(store, path)?;
    let turn = study.array.turned_axes().unwrap_or(([0, 1, 2], [false; 3]));
    for (at, (direction, is_against)) in study.array.asked_directions().into_iter().flatten().enumerate() {
        let along = column(&place, turn.0[at]).map(|part| if turn.1[at] { -part } else { part });
        let leads = if is_against { -along[direction] } else { along[direction] };
        if leads < LEADS * along.into_iter().map(|part| part * part).sum::<f64>().sqrt() {
            return Ok(Some(format!(
                "by the header of its source, axis {at} leads to {along:?} (right, front, up), and not where \
                 --orientation asks"
            )));
        }
    }
    for corner in 0..8usize {
        let voxel = [0, 1, 2].map(|axis| if corner >> axis & 1 == 1 { (shape[axis] - 1) as f64 } else { 0.0 });
        let says =
            [0, 1, 2].map(|row: usize| (0..3).map(|axis| found[row][axis] * voxel[axis]).sum::<f64>() + found[row][3]);
        let right = world(&place, in_file(&place, study, turn, voxel));
        let distance = (0..3).map(|row| (says[row] - right[row]).powi(2)).sum::<f64>().sqrt();
        // Not a number is no place, either.
        if distance.is_nan() || distance > SAME {
            return Ok(Some(format!(
                "by its affine, voxel {voxel:?} lies at {says:?} mm, and at {right:?} mm by the header of its source"
            )));
        }
    }
    Ok(None)
}

/// A matrix of four rows of four numbers.
fn matrix(json: &Value) -> Option<[[f64; 4]; 4]> {
    let row = |row: &Value| -> Option<[f64; 4]> {
        let numbers: Option<Vec<f64>> = row.as_array()?.iter().map(Value::as_f64).collect();
        numbers?.try_into().ok()
    };
    let rows: Option<Vec<[f64; 4]>> = json.as_array()?.iter().map(row).collect();
    rows?.try_into().ok()
}

/// The step in mm along an axis of the file.
fn column(place: &Place, axis: usize) -> [f64; 3] {
    place.affine.map(|row| row[axis])
}

/// The place in mm of an index in the file, which may lie between voxels.
fn world(place: &Place, index: [f64; 3]) -> [f64; 3] {
    place.affine.map(|row| row[0] * index[0] + row[1] * index[1] + row[2] * index[2] + row[3])
}

/// The index in the file of a voxel of the sample: back through crop and padding, resampling, the order of the axes,
/// and the orientation.
fn in_file(place: &Place, study: &Study, turn: ([usize; 3], [bool; 3]), voxel: [f64; 3]) -> [f64; 3] {
    let in_array = match &study.recipe {
        Recipe::Stored => voxel,
        Recipe::Rescaled { axes, .. } => source_place(*axes, voxel),
        Recipe::Preprocessed(steps) => {
            let turned = [0, 1, 2].map(|at| place.shape[turn.0[at]]);
            let from = hwd(steps.axes, turned);
            let back = [0, 1, 2].map(|axis| {
                let (made, kept) = (to_usize(steps.resampled[axis]), to_usize(steps.shape[axis]));
                // The middle stays the middle; an odd rest is cut off, or added, at the end.
                let cut = if made >= kept { ((made - kept) / 2) as f64 } else { -(((kept - made) / 2) as f64) };
                (voxel[axis] + cut + 0.5) * (from[axis] as f64 / made as f64) - 0.5
            });
            source_place(steps.axes, back)
        }
    };
    let mut index = [0.0; 3];
    for ((axis, is_backwards), at) in turn.0.into_iter().zip(turn.1).zip(in_array) {
        index[axis] = if is_backwards { (place.shape[axis] - 1) as f64 - at } else { at };
    }
    index
}
