//! How a volume lies: which of its axes leads down, across and along the body, and how far apart its voxels are.

use serde_json::Value;

use crate::dataset::{Origin, Sample, Study};
use crate::formats::npz::Direction;
use crate::formats::{nifti, pyjson};
use crate::plan::Plan;
use crate::plan::members::Member;
use crate::volume::{Axes, Dialect, Geometry, Kind, Recipe};

use super::Request;

/// The axis of the world that each axis of the pictures shows: down it is front to back, across right to left, and
/// through the slices up.
const WORLD: [usize; 3] = [1, 0, 2];
/// Whether a picture shows an axis of the world against it: the front is up, the right is on the left.
const AGAINST: [bool; 3] = [true, true, false];

/// How a volume lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    /// For height, width and depth of the pictures, the axis of the volume.
    pub(super) axes: [usize; 3],
    /// Whether height, width or depth run against that axis.
    pub(super) flipped: [bool; 3],
    /// The spacing of height, width and depth in mm; `None` if it is not known.
    pub(super) spacing: Option<[f64; 3]>,
    /// Whether the order of the axes is known, or else taken to be height, width, depth.
    pub(super) has_known_axes: bool,
    /// Whether the file says how the patient lies.
    pub(super) is_turned: bool,
}

impl Place {
    /// The place of a sample's volume.
    pub(super) fn new(plan: &Plan, sample: &Sample, request: &Request) -> Self {
        let order = order(sample, request.axes);
        // In the volume's own order, whatever the pictures make of it.
        let spacing = spacing(plan, sample, request).map(|hwd| order.order().map(|axis| hwd[axis]));
        let directions = directions(plan, sample);
        let (axes, flipped) = match directions {
            Some(directions) => turned(directions),
            None => (order.hwd([0, 1, 2]), [false; 3]),
        };
        Self {
            axes,
            flipped,
            spacing: spacing.map(|mm| axes.map(|axis| mm[axis])),
            has_known_axes: sample.study().is_some() || sample.kind() != Kind::Stored || directions.is_some(),
            is_turned: directions.is_some(),
        }
    }
}

/// The order of the axes of a sample's volume.
fn order(sample: &Sample, asked: Option<Axes>) -> Axes {
    match sample.kind() {
        Kind::Rescaled | Kind::Preprocessed => Axes::Hwd,
        Kind::Stored => asked.unwrap_or_else(|| sample.dialect().map_or(Axes::Hwd, Dialect::axes)),
    }
}

/// The axes of the pictures, of a volume whose axes lead to these directions.
fn turned(directions: [Direction; 3]) -> ([usize; 3], [bool; 3]) {
    let axes = WORLD.map(|world| directions.iter().position(|found| found.world == world).unwrap_or(world));
    let mut flipped = AGAINST;
    for (flipped, axis) in flipped.iter_mut().zip(axes) {
        *flipped ^= directions[axis].is_reversed;
    }
    (axes, flipped)
}

/// The spacing of height, width and depth of a sample's volume, in mm.
pub(super) fn spacing(plan: &Plan, sample: &Sample, request: &Request) -> Option<[f64; 3]> {
    match (&sample.origin, sample.kind()) {
        (Origin::Study(study), Kind::Preprocessed) if has_wanted_spacing(study) => Some(request.spacing),
        (Origin::Study(study), _) => study.meta.geometry().spacing(),
        (Origin::Finished(_), kind) => {
            let json = pyjson::loads(&plan.members.payload(Member::Json, sample)).ok()?;
            let of_table = || {
                let (xy_spacing, z_spacing) = (json["XYSpacing"].as_str()?, json["ZSpacing"].as_f64()?);
                Geometry { slope: 1.0, intercept: 0.0, xy_spacing, z_spacing }.spacing()
            };
            // Stored axes have the affine's order, and preprocessed ones that of the pictures.
            of_table().or_else(|| of_affine(affine(&json)?).filter(|_| kind == Kind::Preprocessed))
        }
    }
}

/// The three rows of the affine of a sample's JSON, if it has one.
fn affine(json: &Value) -> Option<[[f64; 4]; 3]> {
    let mut affine = [[0.0; 4]; 3];
    for (row, values) in affine.iter_mut().enumerate() {
        for (column, value) in values.iter_mut().enumerate() {
            *value = json["affine"][row][column].as_f64()?;
        }
    }
    Some(affine)
}

/// The spacing that an affine has along its array's axes.
fn of_affine(affine: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    let along = [0, 1, 2].map(|axis| affine.iter().map(|row| row[axis] * row[axis]).sum::<f64>().sqrt());
    along.iter().all(|mm| mm.is_finite() && *mm > 0.0).then_some(along)
}

/// Whether a preprocessed volume has the spacing that was asked for: it was resampled to it, or was so before.
fn has_wanted_spacing(study: &Study) -> bool {
    let is_resampled = matches!(&study.recipe, Recipe::Preprocessed(steps) if steps.is_resampled);
    is_resampled || study.dialect != Some(Dialect::Native)
}

/// The directions of the body that a volume's axes lead to, if its file says so.
fn directions(plan: &Plan, sample: &Sample) -> Option<[Direction; 3]> {
    let Some(study) = sample.study() else {
        let json = pyjson::loads(&plan.members.payload(Member::Json, sample)).ok()?;
        return nifti::directions(affine(&json)?);
    };
    let of_file = study.array.nifti.as_ref()?;
    let affine = study.array.placed().map(|placed| placed.affine).or(of_file.affine)?;
    let of_array = nifti::directions(affine)?;
    Some(match &study.recipe {
        Recipe::Stored => of_array,
        Recipe::Rescaled { axes, .. } => axes.hwd(of_array),
        Recipe::Preprocessed(steps) => steps.axes.hwd(of_array),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_up_and_the_right_is_on_the_left() {
        let direction = |world, is_reversed| Direction { world, is_reversed };
        // RAS: the axes lead to the right, to the front, and up.
        let ras = [direction(0, false), direction(1, false), direction(2, false)];
        assert_eq!(turned(ras), ([1, 0, 2], [true, true, false]));
        // PLS: already as a picture has it.
        let pls = [direction(1, true), direction(0, true), direction(2, false)];
        assert_eq!(turned(pls), ([0, 1, 2], [false, false, false]));
        // ILP: the slices lead down.
        let ilp = [direction(2, true), direction(0, true), direction(1, true)];
        assert_eq!(turned(ilp), ([2, 1, 0], [false, false, true]));
    }
}
