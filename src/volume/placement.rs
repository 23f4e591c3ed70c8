//! Where a volume's voxels are in the body, after all its steps. Pure.

use super::axes::Axes;
use super::kind::{Preprocess, Recipe};
use crate::formats::npz::Array;

/// The matrix from the indexes of a voxel of the volume to mm in the body, to the right, to the front, and up; `None`
/// if the user did not ask for an orientation. Columns are those of the volume's axes, and the place of its first
/// voxel.
pub fn affine(recipe: &Recipe, array: &Array) -> Option<[[f64; 4]; 4]> {
    let affine = array.placed()?.affine;
    let rows = match recipe {
        Recipe::Stored => affine,
        Recipe::Rescaled { axes, .. } => affine.map(|row| in_order(*axes, row)),
        Recipe::Preprocessed(steps) => affine.map(|row| preprocessed(steps, array.shape(), in_order(steps.axes, row))),
    };
    let [x, y, z] = rows;
    Some([x, y, z, [0.0, 0.0, 0.0, 1.0]])
}

/// A row for height, width and depth, of one for the array's axes.
fn in_order(axes: Axes, [a, b, c, place]: [f64; 4]) -> [f64; 4] {
    let [height, width, depth] = axes.hwd([a, b, c]);
    [height, width, depth, place]
}

/// A row after resampling, crop and padding. Voxels have their places at their middles: of n voxels that become m,
/// number r lies at n / m · (r + 1/2) − 1/2.
fn preprocessed(steps: &Preprocess, source: [u64; 3], row: [f64; 4]) -> [f64; 4] {
    let source = steps.axes.hwd(source);
    let mut result = row;
    for axis in 0..3 {
        let (resampled, len) = (steps.resampled[axis], steps.shape[axis]);
        let scale = source[axis] as f64 / resampled as f64;
        // The number, after resampling, of the volume's first voxel: below 0 where that is padding.
        let first = (resampled.saturating_sub(len) / 2) as f64 - (len.saturating_sub(resampled) / 2) as f64;
        result[axis] = row[axis] * scale;
        result[3] += row[axis] * (scale * (first + 0.5) - 0.5);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_moves_voxels_to_where_they_were() {
        let steps = |resampled, shape| Preprocess {
            slope: 1.0,
            intercept: 0.0,
            clip: [0.0, 1.0],
            resampled,
            is_resampled: true,
            divisor: 1.0,
            shape,
            pad_value: 0.0,
            axes: Axes::Hwd,
        };
        let row = [2.0, 0.0, 0.0, 10.0];
        // As it is; half as many voxels: the first lies between the first two; a voxel is cropped; two are padding.
        for (resampled, len, expected) in
            [(8, 8, [2.0, 10.0]), (4, 4, [4.0, 11.0]), (8, 5, [2.0, 12.0]), (8, 12, [2.0, 6.0])]
        {
            let found = preprocessed(&steps([resampled, 1, 1], [len, 1, 1]), [8, 1, 1], row);
            assert_eq!([found[0], found[3]], expected, "{resampled} {len}");
        }
        assert_eq!(in_order(Axes::Dhw, [1.0, 2.0, 3.0, 4.0]), [2.0, 3.0, 1.0, 4.0]);
    }
}
