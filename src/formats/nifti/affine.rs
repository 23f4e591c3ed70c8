//! The matrix from a file's voxels to the body, and the directions that the axes lead to by it, as nibabel finds them
//! (`get_best_affine`, `io_orientation`). Pure.

use crate::formats::npz::{Direction, Turn};

/// The upper three rows of a matrix of four: from the indexes of a voxel to mm to the right, to the front, and up.
pub(super) type Affine = [[f64; 4]; 3];

/// The rotation and the place of a header's quaternion.
pub(super) struct Quaternion {
    /// The components b, c, d.
    pub(super) vector: [f64; 3],
    /// The spacing along the axes.
    pub(super) spacing: [f64; 3],
    /// Whether the third axis is mirrored (qfac).
    pub(super) is_mirrored: bool,
    /// The place of the first voxel.
    pub(super) place: [f64; 3],
    /// How much the squares of the vector may exceed 1 by rounding.
    pub(super) tolerance: f64,
}

impl Quaternion {
    /// The matrix.
    ///
    /// # Errors
    /// The vector is longer than 1, and so no rotation.
    pub(super) fn affine(&self) -> Result<Affine, String> {
        let [x, y, z] = self.vector;
        let rest = 1.0 - (x * x + y * y + z * z);
        let w = match rest {
            rest if rest.abs() < self.tolerance => 0.0,
            rest if rest >= 0.0 => rest.sqrt(),
            _ => return Err("the quaternion of its header is no rotation".into()),
        };
        let s = 2.0 / (w * w + x * x + y * y + z * z);
        let [sx, sy, sz] = [x * s, y * s, z * s];
        let rotation = [
            [1.0 - (y * sy + z * sz), x * sy - w * sz, x * sz + w * sy],
            [x * sy + w * sz, 1.0 - (x * sx + z * sz), y * sz - w * sx],
            [x * sz - w * sy, y * sz + w * sx, 1.0 - (x * sx + y * sy)],
        ];
        let [i, j, k] = self.spacing;
        let lengths = [i, j, if self.is_mirrored { -k } else { k }];
        Ok([0, 1, 2].map(|row| {
            let of = |axis: usize| rotation[row][axis] * lengths[axis];
            [of(0), of(1), of(2), self.place[row]]
        }))
    }
}

/// The matrix of a header without one: the first axis leads to the left, and the middle of the volume is at 0.
pub(super) fn centred(shape: [u64; 3], spacing: [f64; 3]) -> Affine {
    let lengths = [-spacing[0], spacing[1], spacing[2]];
    let mut affine = [[0.0; 4]; 3];
    for axis in 0..3 {
        affine[axis][axis] = lengths[axis];
        affine[axis][3] = -((shape[axis] - 1) as f64 / 2.0) * lengths[axis];
    }
    affine
}

/// The matrix of the turned array; `shape` is that in the file.
pub(super) fn turned(affine: Affine, turn: Turn, shape: [u64; 3]) -> Affine {
    affine.map(|row| {
        let mut of_array = [0.0, 0.0, 0.0, row[3]];
        for (at, axis) in turn.axes.into_iter().enumerate() {
            let last = (shape[axis] - 1) as f64;
            of_array[at] = if turn.flipped[at] { 0.0 - row[axis] } else { row[axis] + 0.0 };
            of_array[3] += if turn.flipped[at] { row[axis] * last } else { 0.0 };
        }
        of_array
    })
}

/// The direction that each axis leads to: that of the rotation which is nearest to the matrix, without its shear. An
/// axis that leads more clearly to one of them chooses before the others. `None` if an axis leads nowhere, or two lead
/// the same way: then rounding would decide.
pub(crate) fn directions(affine: Affine) -> Option<[Direction; 3]> {
    /// Differences below it are rounding: at 45° the first axis of the world counts.
    const EQUAL: f64 = 1e-10;
    let mut columns = nearest_rotation(affine)?;
    let strongest = |column: [f64; 3]| column.into_iter().map(f64::abs).fold(0.0, f64::max);
    let mut order = [0, 1, 2];
    let strengths = columns.map(strongest);
    // Three axes: from the strongest on, of equals the first.
    for _ in 0..2 {
        for at in 0..2 {
            if strengths[order[at + 1]] > strengths[order[at]] + EQUAL {
                order.swap(at, at + 1);
            }
        }
    }
    let mut found = [None; 3];
    for axis in order {
        let column = columns[axis];
        let most = strongest(column);
        let world = column.iter().position(|value| value.abs() >= most - EQUAL)?;
        found[axis] = Some(Direction { world, is_reversed: column[world] < 0.0 });
        columns.iter_mut().for_each(|column| column[world] = 0.0);
    }
    match found {
        [Some(a), Some(b), Some(c)] => Some([a, b, c]),
        _ => None,
    }
}

/// The columns of the orthogonal matrix that is nearest to the axes' directions: of the polar decomposition, by
/// Jacobi's one-sided rotations. `None` if the axes do not span the space, for rounding.
fn nearest_rotation(affine: Affine) -> Option<[[f64; 3]; 3]> {
    let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    // Unit columns; those of length 0 stay.
    let mut columns = [0, 1, 2].map(|axis| {
        let column = [0, 1, 2].map(|row: usize| affine[row][axis]);
        let length = dot(column, column).sqrt();
        column.map(|value| if length == 0.0 { value } else { value / length })
    });
    let mut right = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..30 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            let (a, b, c) = (dot(columns[p], columns[p]), dot(columns[q], columns[q]), dot(columns[p], columns[q]));
            if c.abs() <= f64::EPSILON * (a * b).sqrt() {
                continue;
            }
            let slope = (b - a) / (2.0 * c);
            let tan = slope.signum() / (slope.abs() + (1.0 + slope * slope).sqrt());
            let cos = 1.0 / (1.0 + tan * tan).sqrt();
            for matrix in [&mut columns, &mut right] {
                let (x, y) = (matrix[p], matrix[q]);
                matrix[p] = [0, 1, 2].map(|row: usize| cos * (x[row] - tan * y[row]));
                matrix[q] = [0, 1, 2].map(|row: usize| cos * (tan * x[row] + y[row]));
            }
        }
    }
    let lengths = columns.map(|column| dot(column, column).sqrt());
    /// Of unit columns in float32 that should be in one plane.
    const LEAST: f64 = 1e-6;
    if lengths.into_iter().any(|length| length <= LEAST) {
        return None;
    }
    let mut rotation = [[0.0; 3]; 3];
    for at in 0..3 {
        for axis in 0..3 {
            for row in 0..3 {
                rotation[axis][row] += columns[at][row] / lengths[at] * right[at][axis];
            }
        }
    }
    Some(rotation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directions of a matrix with these columns, in letters.
    fn letters(columns: [[f64; 3]; 3]) -> Option<String> {
        let affine = [0, 1, 2].map(|row: usize| [columns[0][row], columns[1][row], columns[2][row], 5.0]);
        directions(affine).map(|found| crate::formats::npz::Orientation::Along(found).to_string())
    }

    /// As `nibabel.aff2axcodes` answers.
    #[test]
    fn axes_lead_where_nibabel_says() {
        let c = 0.5f64.sqrt();
        for (columns, expected) in [
            ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "RAS"),
            ([[0.0, -3.0, 0.0], [0.0, 0.0, 2.0], [0.7, 0.0, 0.0]], "PSR"),
            // At 45°, whichever comes first.
            ([[c, c, 0.0], [-c, c, 0.0], [0.0, 0.0, 1.0]], "RAS"),
            ([[c, c, 0.0], [c, -c, 0.0], [0.0, 0.0, -1.0]], "RPI"),
            // The second axis leads to the front more clearly than the first does.
            ([[0.6, 0.8, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]], "RAS"),
            // Sheared: the nearest rotation counts, not the column alone.
            ([[1.0, 0.0, 0.0], [0.9, 0.8, 0.0], [0.0, 0.0, 1.0]], "RAS"),
        ] {
            assert_eq!(letters(columns).as_deref(), Some(expected), "{columns:?}");
        }
        assert_eq!(letters([[1.0, 0.0, 0.0], [0.0; 3], [0.0, 0.0, 1.0]]), None);
        assert_eq!(letters([[1.0, 0.5, 0.0], [-2.0, -1.0, 0.0], [0.0, 0.0, 1.0]]), None);
        assert_eq!(letters([[0.0; 3]; 3]), None);
    }
}
