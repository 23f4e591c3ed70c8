//! Interpolation along one axis, as PyTorch's `interpolate` does it (`mode="linear", align_corners=False`, and
//! `"nearest-exact"`), followed by crop and padding. Pure.

/// The interpolation, crop and padding along one axis.
#[derive(Debug)]
pub(super) struct Axis {
    /// The number of voxels of the source.
    pub source: usize,
    /// The number of voxels of the result, padding included.
    pub len: usize,
    /// The number of voxels of padding before the first other voxel.
    pub before: usize,
    /// The neighbours in the source of each voxel that is not padding.
    pub neighbours: Vec<Neighbours>,
}

/// The two voxels of the source that a voxel is interpolated from, and their weights. A weight of 0 counts: PyTorch
/// multiplies by it, which makes NaN of a NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Neighbours {
    /// The index of the lower neighbour.
    pub lower: usize,
    /// The index of the upper neighbour: the next one; `lower` at the end of the axis, or if it is not resampled.
    pub upper: usize,
    /// The weight of the upper neighbour; that of the lower one is 1 less this.
    pub weight: f32,
}

impl Neighbours {
    /// Whether the voxel is one of the source as it is.
    fn is_one(&self) -> bool {
        self.weight == 0.0 && self.lower == self.upper
    }
}

impl Axis {
    /// An axis of `source` voxels that is resampled to `resampled` voxels by interpolation, then cropped or padded
    /// around the middle to `len`.
    pub(super) fn linear(source: usize, resampled: usize, len: usize) -> Self {
        // The scale in f32 and the rest in f64: the weights are then those of PyTorch 1.13 to the bit, read out of it
        // with volumes of one voxel. All in f32, they would be off by 2e-6, and so would be steep edges.
        let neighbours_of = |at: usize| {
            let scale = f64::from(source as f32 / resampled as f32);
            let place = (scale * (at as f64 + 0.5) - 0.5).max(0.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `source`")]
            let lower = (place as usize).min(source - 1);
            #[expect(clippy::cast_possible_truncation, reason = "rounded once, here")]
            let weight = (place - lower as f64).clamp(0.0, 1.0) as f32;
            // As PyTorch, which multiplies by no weight along an axis that keeps its length.
            let upper = if source == resampled { lower } else { (lower + 1).min(source - 1) };
            Neighbours { lower, upper, weight }
        };
        Self::with(source, resampled, len, neighbours_of)
    }

    /// An axis as [`Self::linear`] has it, of which each voxel is the nearest one of the source.
    pub(super) fn nearest(source: usize, resampled: usize, len: usize) -> Self {
        // All in f32, as PyTorch 1.13 on a processor: its places near the middle between two voxels are these to the
        // bit. In f64, every seventh pair of sizes had a voxel that differs.
        let nearest = |at: usize| {
            let scale = source as f32 / resampled as f32;
            let place = (scale * (at as f32 + 0.5) - 0.5).max(0.0) + 0.5;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `source`")]
            let lower = (place as usize).min(source - 1);
            Neighbours { lower, upper: lower, weight: 0.0 }
        };
        Self::with(source, resampled, len, nearest)
    }

    /// The axis whose voxels before crop and padding have these neighbours. Of n = `resampled` and t = `len`, the
    /// voxels from max((n − t) / 2, 0) on are left, with (t − n) / 2 voxels of padding before them.
    fn with(source: usize, resampled: usize, len: usize, neighbours: impl Fn(usize) -> Neighbours) -> Self {
        let start = resampled.saturating_sub(len) / 2;
        let count = resampled.min(len);
        let before = len.saturating_sub(resampled) / 2;
        Self { source, len, before, neighbours: (start..start + count).map(neighbours).collect() }
    }

    /// The range of source voxels that have a weight.
    pub(super) fn window(&self) -> std::ops::RangeInclusive<usize> {
        let first = self.neighbours.first().map_or(0, |voxel| voxel.lower);
        first..=self.neighbours.last().map_or(0, |voxel| voxel.upper)
    }
}

/// Interpolates a row along its axis; `out` has a value for each voxel that is not padding. Where nothing is resampled,
/// values stay as they are: an infinity times a weight of 0 would be NaN.
pub(super) fn along(row: &[f32], neighbours: &[Neighbours], out: &mut [f32]) {
    if neighbours.iter().all(Neighbours::is_one) {
        return out.iter_mut().zip(neighbours).for_each(|(out, voxel)| *out = row[voxel.lower]);
    }
    for (out, voxel) in out.iter_mut().zip(neighbours) {
        *out = row[voxel.lower] * (1.0 - voxel.weight) + row[voxel.upper] * voxel.weight;
    }
}

/// Interpolates between two rows or planes, of which `get` gives each by its index.
pub(super) fn between<'a>(voxel: Neighbours, get: impl Fn(usize) -> &'a [f32], out: &mut [f32]) {
    let (lower, upper, weight) = (get(voxel.lower), get(voxel.upper), voxel.weight);
    if voxel.is_one() {
        return out.copy_from_slice(lower);
    }
    let rest = 1.0 - weight;
    for ((out, lower), upper) in out.iter_mut().zip(lower).zip(upper) {
        *out = lower * rest + upper * weight;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_voxel_is_within_the_source_and_they_ascend(source in 1usize..700, resampled in 1usize..900, len in 1usize..900) {
            let axis = Axis::linear(source, resampled, len);
            prop_assert_eq!(axis.neighbours.len(), resampled.min(len));
            prop_assert!(axis.before + axis.neighbours.len() <= axis.len);
            for pair in axis.neighbours.windows(2) {
                prop_assert!(pair[0].lower <= pair[1].lower && pair[0].upper <= pair[1].upper);
            }
            prop_assert!(axis.neighbours.iter().all(|voxel| voxel.upper < source && voxel.upper <= voxel.lower + 1));
        }

        #[test]
        fn a_constant_stays_and_nothing_leaves_the_range(
            row in prop::collection::vec(-1000f32..1000.0, 1..80), resampled in 1usize..200,
        ) {
            let axis = Axis::linear(row.len(), resampled, resampled);
            let mut out = vec![0.0; resampled];
            along(&row, &axis.neighbours, &mut out);
            let (least, most) = row.iter().fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
            prop_assert!(out.iter().all(|x| *x >= least - 1e-3 && *x <= most + 1e-3));
            along(&vec![42.0; row.len()], &axis.neighbours, &mut out);
            prop_assert!(out.iter().all(|x| (*x - 42.0).abs() < 1e-4));
        }

        #[test]
        fn a_ramp_is_reproduced_inside(source in 2usize..300, resampled in 2usize..400) {
            let axis = Axis::linear(source, resampled, resampled);
            let row: Vec<f32> = (0u16..).take(source).map(f32::from).collect();
            let mut out = vec![0.0; resampled];
            along(&row, &axis.neighbours, &mut out);
            for (at, x) in (0u32..).zip(&out) {
                let scale = source as f64 / resampled as f64;
                let place = scale * (f64::from(at) + 0.5) - 0.5;
                if place >= 0.0 && place <= source as f64 - 1.0 {
                    prop_assert!((f64::from(*x) - place).abs() < 1e-3, "{at}: {x} {place}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_resampled_stays_as_it_is() {
        let row = [f32::INFINITY, -0.0, f32::NEG_INFINITY, f32::NAN, 3.5];
        let mut out = [0.0; 5];
        along(&row, &Axis::linear(5, 5, 5).neighbours, &mut out);
        assert_eq!(out.map(f32::to_bits), row.map(f32::to_bits));
        between(Axis::linear(5, 5, 5).neighbours[2], |_| &row, &mut out);
        assert_eq!(out.map(f32::to_bits), row.map(f32::to_bits));
    }

    #[test]
    fn a_weight_of_zero_counts() {
        // A third of the voxels: each lies on one of the source, beside which stands NaN.
        let row = [0.0, 1.0, f32::NAN, 0.0, 2.0, 0.0];
        let axis = Axis::linear(6, 2, 2);
        assert_eq!(axis.neighbours.iter().map(|voxel| voxel.weight).collect::<Vec<_>>(), [0.0, 0.0]);
        let mut out = [0.0; 2];
        along(&row, &axis.neighbours, &mut out);
        assert!(out[0].is_nan() && out[1] == 2.0);
        between(axis.neighbours[0], |at| &row[at..=at], &mut out[..1]);
        assert!(out[0].is_nan());
    }

    #[test]
    fn crop_and_padding_are_around_the_middle() {
        let axis = Axis::linear(7, 7, 4);
        assert_eq!((axis.neighbours[0].lower, axis.before, axis.neighbours.len()), (1, 0, 4));
        let axis = Axis::linear(3, 3, 8);
        assert_eq!((axis.neighbours[0].lower, axis.before, axis.neighbours.len()), (0, 2, 3));
    }
}
