//! What the first values of a data set's volumes show: whether the metadata table's slope and intercept make HU of
//! them.
//!
//! Volumes of equal slope and intercept come from one way of exporting them, so that they are one group, of which a few
//! volumes are looked at. Readers follow the group's verdict, which the manifest has: no byte of a shard depends on it.
//! The loader makes the same groups and looks at the same volumes where it reads the NPZ files itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::Sample;
use crate::volume::{Rescale, Values};

/// The most volumes of a group that are looked at.
const OF_EACH: usize = 8;
/// The most volumes that are looked at in all.
const IN_ALL: usize = 48;
/// The number of studies that are named of those that show the same.
const NAMED: usize = 3;

/// The volumes of one slope and intercept, and what some of them show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueGroup {
    /// `RescaleSlope` of the metadata table, in HU per stored unit; NaN where it is missing.
    pub rescale_slope: f64,
    /// `RescaleIntercept` of the metadata table, in HU; NaN where it is missing.
    pub rescale_intercept: f64,
    /// The number of volumes of the group.
    pub volumes: usize,
    /// The number of volumes that were looked at; 0 where the user said what makes HU of the values.
    pub looked_at: usize,
    /// The volumes that hold HU, which the table would shift.
    pub already_hu: Found,
    /// The volumes that hold stored values, of which the table makes HU.
    pub stored: Found,
    /// The volumes that are not HU / 1000, although their array's name and type say so.
    pub not_normalized: Found,
    /// What makes HU of the group's values: the table, nothing, or the slope and intercept that the user gave.
    pub rescale: Rescale,
}

/// The volumes of a group that show the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The number of volumes.
    pub volumes: usize,
    /// The first studies of these, at most three.
    pub studies: Vec<String>,
}

impl Found {
    fn add(&mut self, sample: &Sample) {
        self.volumes += 1;
        if self.studies.len() < NAMED {
            self.studies.push(sample.study_id.clone());
        }
    }
}

impl ValueGroup {
    /// Whether some volumes hold HU and others stored values, so that no verdict is right for all.
    pub fn is_mixed(&self) -> bool {
        self.already_hu.volumes > 0 && self.stored.volumes > 0
    }

    /// The group of these samples, as `asked` decides it, or as the volumes that were looked at show it.
    fn new(samples: &[&Sample], looks: &[(&Sample, Values)], asked: Rescale) -> Self {
        let (rescale_slope, rescale_intercept) = slope_and_intercept(samples[0]);
        let [mut already_hu, mut stored, mut not_normalized] = <[Found; 3]>::default();
        for (sample, values) in looks {
            match values {
                Values::Unclear => {}
                Values::Stored => stored.add(sample),
                Values::AlreadyHu => already_hu.add(sample),
                Values::NotNormalized => not_normalized.add(sample),
            }
        }
        let rescale = match asked {
            Rescale::Auto if already_hu.volumes > 0 && stored.volumes == 0 => Rescale::None,
            Rescale::Auto => Rescale::Table,
            decided => decided,
        };
        let (volumes, looked_at) = (samples.len(), looks.len());
        Self { rescale_slope, rescale_intercept, volumes, looked_at, already_hu, stored, not_normalized, rescale }
    }
}

/// The groups of samples that are made from NPZ files, by their first slots. Where `asked` leaves it open what makes HU
/// of the values, `look` says what some volumes of each group show, spread over it.
///
/// # Errors
/// The first error of `look`, which gets all samples at once and gives a result for each.
pub fn groups<E>(
    samples: &[Sample],
    asked: Rescale,
    look: impl FnOnce(&[&Sample]) -> Result<Vec<Values>, E>,
) -> Result<Vec<ValueGroup>, E> {
    let mut by_values: BTreeMap<[u64; 2], Vec<&Sample>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.study().is_some()) {
        let (slope, intercept) = slope_and_intercept(sample);
        by_values.entry([slope, intercept].map(f64::to_bits)).or_default().push(sample);
    }
    let mut groups: Vec<Vec<&Sample>> = by_values.into_values().collect();
    groups.sort_by_key(|group| group[0].slot);
    let mut left = if asked == Rescale::Auto { IN_ALL } else { 0 };
    let mut chosen: Vec<Vec<&Sample>> = Vec::with_capacity(groups.len());
    for group in &groups {
        let count = group.len().min(OF_EACH);
        let spread: Vec<&Sample> = (0..count).map(|n| group[n * group.len() / count]).take(left).collect();
        left -= spread.len();
        chosen.push(spread);
    }
    let mut shown = look(&chosen.concat())?.into_iter();
    let judged = groups.iter().zip(&chosen).map(|(group, chosen)| {
        let looks: Vec<(&Sample, Values)> = chosen.iter().copied().zip(shown.by_ref()).collect();
        ValueGroup::new(group, &looks, asked)
    });
    Ok(judged.collect())
}

/// The table's values for a sample. Zero has one sign, and NaN one pattern, so that equal values are equal bits.
fn slope_and_intercept(sample: &Sample) -> (f64, f64) {
    let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
    sample
        .study()
        .map_or((f64::NAN, f64::NAN), |study| (one(study.meta.rescale_slope), one(study.meta.rescale_intercept)))
}
