//! The value check: whether the values of volumes are what their recipes take them for. It runs before anything is made
//! of the volumes.

use std::collections::{BTreeMap, HashMap};

use crate::base::parallel::{available_cores, try_map};
use crate::dataset::Sample;
use crate::error::Result;
use crate::plan::Plan;
use crate::volume::{KindOptions, Recipe, Rescale, ValueMismatch, check_values};

/// The most volumes that are checked of one slope and intercept.
const OF_EACH: usize = 8;
/// The most volumes that are checked in all.
const IN_ALL: usize = 48;
/// The number of studies that are named in the message.
const NAMED: usize = 5;

/// Checks volumes spread over the data set. If values contradict a recipe, a sentence says how, and what the user can
/// do.
///
/// # Errors
/// [`crate::error::Error::Io`] or [`crate::error::Error::Malformed`] if a volume cannot be read.
pub(super) fn find(plan: &Plan, asked: &KindOptions) -> Result<Option<String>> {
    let looked_at: Vec<&Sample> = choose(plan, asked);
    let mismatches = try_map(&looked_at, available_cores(), |sample| match sample.study() {
        Some(study) => check_values(&plan.dataset.root.join(&sample.path), &study.array, &study.recipe),
        None => Ok(None),
    })?;
    let mut found: BTreeMap<ValueMismatch, Vec<&Sample>> = BTreeMap::new();
    for (sample, mismatch) in looked_at.iter().zip(mismatches) {
        if let Some(mismatch) = mismatch {
            found.entry(mismatch).or_default().push(sample);
        }
    }
    let Some((mismatch, samples)) = found.into_iter().next() else { return Ok(None) };
    let names: Vec<&str> = samples.iter().take(NAMED).map(|sample| sample.study_id.as_str()).collect();
    let more = if samples.len() > NAMED { ", …" } else { "" };
    let who = format!("{} of {} volumes looked at ({}{more})", samples.len(), looked_at.len(), names.join(", "));
    Ok(Some(match mismatch {
        ValueMismatch::AlreadyHu => format!(
            "{who} hold HU already, which the slope and intercept of the metadata table would shift; \
             --rescale none takes the values as they are, --rescale table applies the table all the same"
        ),
        ValueMismatch::NotNormalized => {
            format!("{who} hold values beyond ±1.5, which are not HU / 1000; --dialect hu or native says what they are")
        }
    }))
}

/// The volumes to check: some of each slope and intercept, spread over the data set; none if the user has decided what
/// the values are.
fn choose<'a>(plan: &'a Plan, asked: &KindOptions) -> Vec<&'a Sample> {
    if asked.dialect.is_some() || asked.rescale != Rescale::Auto {
        return Vec::new();
    }
    let mut groups: HashMap<String, Vec<&Sample>> = HashMap::new();
    for sample in &plan.dataset.samples {
        let (slope, intercept, axes) = match sample.study().map_or(&Recipe::Stored, |study| &study.recipe) {
            Recipe::Stored => continue,
            Recipe::Rescaled { slope, intercept, axes } => (slope, intercept, axes),
            Recipe::Preprocessed(steps) => (&steps.slope, &steps.intercept, &steps.axes),
        };
        groups.entry(format!("{slope} {intercept} {axes:?}")).or_default().push(sample);
    }
    let mut groups: Vec<Vec<&Sample>> = groups.into_values().collect();
    groups.sort_by_key(|group| group[0].slot);
    let spread = |group: &Vec<&'a Sample>| -> Vec<&'a Sample> {
        let count = group.len().min(OF_EACH);
        (0..count).map(|n| group[n * group.len() / count]).collect()
    };
    groups.iter().flat_map(spread).take(IN_ALL).collect()
}
