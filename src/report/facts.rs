//! What a plan says of the data set before a voxel is read: labels, shapes, spacings, sizes, and who is left out.

use std::collections::BTreeMap;

use super::{Request, place};
use crate::dataset::Sample;
use crate::formats::pyjson;
use crate::plan::Plan;
use crate::plan::members::Member;

/// The most frequent shapes and reasons that are listed.
const LISTED: usize = 8;
/// The name of a spacing that is not known.
const UNKNOWN: &str = "unknown";
/// Studies that stand for those of one reason.
const NAMED: usize = 3;

/// How often a class is positive.
#[derive(Debug)]
pub(super) struct Class {
    /// The name of the class.
    pub(super) name: String,
    /// The samples whose label is 1.
    pub(super) positive: usize,
    /// The samples whose label is not there.
    pub(super) missing: usize,
    /// The samples whose label is -1: uncertain.
    pub(super) uncertain: usize,
}

/// Something that several samples have in common.
#[derive(Debug)]
pub(super) struct Group {
    /// The property that is common to them.
    pub(super) name: String,
    /// The number of samples.
    pub(super) count: usize,
    /// The first of them.
    pub(super) studies: Vec<String>,
}

/// The classes in their order.
pub(super) fn classes(plan: &Plan) -> Vec<Class> {
    let names = &plan.dataset.label_names;
    let mut classes: Vec<Class> =
        names.iter().map(|name| Class { name: name.clone(), positive: 0, missing: 0, uncertain: 0 }).collect();
    for sample in &plan.dataset.samples {
        for (class, label) in classes.iter_mut().zip(labels(plan, sample)) {
            class.positive += usize::from(label == 1.0);
            class.missing += usize::from(label.is_nan());
            class.uncertain += usize::from(label == -1.0);
        }
    }
    classes
}

/// The labels of a sample.
pub(super) fn labels(plan: &Plan, sample: &Sample) -> Vec<f32> {
    if let Some(study) = sample.study() {
        return study.labels.clone();
    }
    // They stand at the end of their member, behind a header in one of the profiles.
    let payload = plan.members.payload(Member::Labels, sample);
    let start = payload.len().saturating_sub(4 * plan.dataset.label_names.len());
    payload[start..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The names of the classes that are positive for a sample.
pub(super) fn positives(plan: &Plan, sample: &Sample) -> Vec<String> {
    let labels = labels(plan, sample).into_iter().zip(&plan.dataset.label_names);
    labels.filter(|(label, _)| *label == 1.0).map(|(_, name)| name.clone()).collect()
}

/// The shape of a sample's volume, as its shard holds it.
pub(super) fn shape(plan: &Plan, sample: &Sample) -> [u64; 3] {
    if let Some(study) = sample.study() {
        return study.recipe.shape(study.array.shape());
    }
    let json = pyjson::loads(&plan.members.payload(Member::Json, sample)).unwrap_or_default();
    [0, 1, 2].map(|axis| json["volume_shape"][axis].as_u64().unwrap_or(0))
}

/// The most frequent shapes of the files' arrays.
pub(super) fn shapes(plan: &Plan) -> Vec<Group> {
    let shape = |sample: &Sample| {
        let [one, two, three] = sample.study().map_or_else(|| shape(plan, sample), |study| study.array.shape());
        format!("{one} × {two} × {three}")
    };
    groups(plan.dataset.samples.iter().map(|sample| (shape(sample), sample.study_id.as_str())))
}

/// The most frequent spacings of height, width and depth, in mm, and the number of samples whose spacing is not known.
pub(super) fn spacings(plan: &Plan, request: &Request) -> (Vec<Group>, usize) {
    let spacing = |sample: &Sample| {
        let spacing = match sample.study() {
            Some(study) => study.meta.geometry().spacing(),
            None => place::spacing(plan, sample, request),
        };
        spacing.map_or_else(|| UNKNOWN.into(), |[h, w, d]| format!("{h:.3} × {w:.3} × {d:.3}"))
    };
    let all: Vec<(String, &str)> =
        plan.dataset.samples.iter().map(|sample| (spacing(sample), sample.study_id.as_str())).collect();
    let unknown = all.iter().filter(|(name, _)| name == UNKNOWN).count();
    (groups(all.into_iter()), unknown)
}

/// The volumes that are left out, and the studies that a table does not know, by reason.
pub(super) fn left_out(plan: &Plan) -> Vec<Group> {
    let dataset = &plan.dataset;
    let unmatched = dataset.unmatched.iter().map(|(study, tables)| (format!("not in {tables}"), study.as_str()));
    groups(dataset.left_out.iter().map(|one| (one.reason.clone(), one.study_id.as_str())).chain(unmatched))
}

/// Puts together what has one name, the most frequent first.
fn groups<'a>(named: impl Iterator<Item = (String, &'a str)>) -> Vec<Group> {
    let mut found: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for (name, study) in named {
        let (count, studies) = found.entry(name).or_default();
        *count += 1;
        if studies.len() < NAMED {
            studies.push(study.to_owned());
        }
    }
    let mut groups: Vec<Group> =
        found.into_iter().map(|(name, (count, studies))| Group { name, count, studies }).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count)); // stable: else by name
    let rest = groups.split_off(groups.len().min(LISTED));
    if !rest.is_empty() {
        let count = rest.iter().map(|group| group.count).sum();
        groups.push(Group { name: format!("{} others", rest.len()), count, studies: Vec::new() });
    }
    groups
}
