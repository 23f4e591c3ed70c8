//! The classes of a plan: how many samples are positive, and which values are neither 0 nor 1.

use crate::error::shown;
use crate::plan::Plan;

/// The labels of one class over all samples.
struct Class<'a> {
    name: &'a str,
    /// The number of samples whose label is 1.
    positive: usize,
    /// The labels that are neither 0 nor 1.
    others: Vec<f32>,
}

/// A list of all classes with their counts of positive samples, behind a warning if values are neither 0 nor 1. The
/// list is empty for shards on disk, whose labels are not read.
pub(super) fn describe(plan: &Plan) -> String {
    let classes = classes(plan);
    if classes.is_empty() {
        return String::new();
    }
    let samples = plan.dataset.samples.len();
    let mut text = warning(&classes).map_or_else(String::new, |warning| format!("Warning      {warning}\n"));
    text.push_str(&format!("Positives    of {samples} samples, by class\n"));
    for class in classes {
        let others = class.others().map_or_else(String::new, |others| format!(" ({others})"));
        text.push_str(&format!("  {:9}  {}{others}\n", class.positive, shown(class.name)));
    }
    text
}

/// A warning about classes with other values than 0 and 1: a column of numbers that is no class looks so.
fn warning(classes: &[Class<'_>]) -> Option<String> {
    let found: Vec<_> = classes.iter().filter_map(|class| Some((class.name, class.others()?))).collect();
    let (name, others) = found.first()?;
    Some(format!(
        "{} of {} classes have values other than 0 and 1 (for example '{name}': {others}); remove columns that are no \
         classes from the label table",
        found.len(),
        classes.len(),
        name = shown(name),
    ))
}

impl Class<'_> {
    /// The number and the range of the other values, in words; `None` if there are none.
    fn others(&self) -> Option<String> {
        let lowest = self.others.iter().copied().reduce(f32::min)?;
        let highest = self.others.iter().copied().reduce(f32::max)?;
        Some(format!("{} values from {lowest} to {highest}", self.others.len()))
    }
}

fn classes(plan: &Plan) -> Vec<Class<'_>> {
    let rows: Vec<&[f32]> =
        plan.dataset.samples.iter().filter_map(|sample| Some(sample.study()?.labels.as_slice())).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let names = plan.dataset.label_names.iter().enumerate();
    names
        .map(|(at, name)| Class {
            name,
            positive: rows.iter().filter(|labels| labels[at] == 1.0).count(),
            others: rows.iter().map(|labels| labels[at]).filter(|label| *label != 0.0 && *label != 1.0).collect(),
        })
        .collect()
}
