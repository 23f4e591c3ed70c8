//! The classes of a plan: how many samples are positive, missing and uncertain, and which have other values.

use crate::base::num::counted;
use crate::dataset::MissingLabel;
use crate::error::shown;
use crate::plan::Plan;

/// The labels of one class over all samples.
struct Class<'a> {
    name: &'a str,
    /// The number of samples whose label is 1.
    positive: usize,
    /// The number of labels that the table lacks.
    missing: usize,
    /// What became of these, behind a comma.
    treated: &'static str,
    /// The number of samples whose label is -1: uncertain, as CheXpert and others write it.
    uncertain: usize,
    /// The labels that are none of these, and not 0.
    others: Vec<f32>,
}

/// A list of all classes with their counts of positive samples, behind a warning if values are neither 0 nor 1. The
/// list is empty for shards on disk, whose labels are not read. -1 stands for uncertain; `missing` is what became of
/// labels that are missing.
pub(super) fn describe(plan: &Plan, missing: MissingLabel) -> String {
    let classes = classes(plan, missing);
    if classes.is_empty() {
        return String::new();
    }
    let samples = plan.dataset.samples.len();
    let samples = counted(samples, "sample", "samples");
    let mut text = warning(&classes).map_or_else(String::new, |warning| format!("Warning      {warning}\n"));
    text.push_str(&format!("Positives    of {samples}, by class\n"));
    for class in classes {
        text.push_str(&format!("  {:9}  {}{}\n", class.positive, shown(class.name), class.besides()));
    }
    text
}

/// A warning about classes with other values than 0 and 1: a column of numbers that is no class looks so.
fn warning(classes: &[Class<'_>]) -> Option<String> {
    let found: Vec<_> = classes.iter().filter_map(|class| Some((class.name, class.others()?))).collect();
    let (name, others) = found.first()?;
    Some(format!(
        "values other than 0, 1 and -1 in {} of {} (for example '{name}': {others}); remove columns that are no \
         classes from the label table",
        found.len(),
        counted(classes.len(), "class", "classes"),
        name = shown(name),
    ))
}

impl Class<'_> {
    /// The counts of the samples that are neither positive nor negative, in parentheses; nothing where there is none.
    fn besides(&self) -> String {
        let count = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        let missing = format!("missing{}", self.treated);
        let counts = [count(self.missing, &missing), count(self.uncertain, "uncertain"), self.others()];
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) }
    }

    /// The number and the range of the other values, in words; `None` if there are none.
    fn others(&self) -> Option<String> {
        let lowest = self.others.iter().copied().reduce(f32::min)?;
        let highest = self.others.iter().copied().reduce(f32::max)?;
        let count = counted(self.others.len(), "value", "values");
        Some(if lowest == highest {
            format!("{count}: {lowest}")
        } else {
            format!("{count} from {lowest} to {highest}")
        })
    }
}

fn classes(plan: &Plan, missing: MissingLabel) -> Vec<Class<'_>> {
    let rows: Vec<&[f32]> =
        plan.dataset.samples.iter().filter_map(|sample| Some(sample.study()?.labels.as_slice())).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let names = plan.dataset.label_names.iter().enumerate();
    let treated = match missing {
        MissingLabel::Zero => ", taken as 0",
        MissingLabel::Exclude => ", their samples left out",
        MissingLabel::Nan | MissingLabel::Error => "",
    };
    names
        .map(|(at, name)| {
            let labels = || rows.iter().map(|labels| labels[at]);
            let is_other = |label: &f32| !label.is_nan() && ![0.0, 1.0, -1.0].contains(label);
            Class {
                name,
                positive: labels().filter(|label| *label == 1.0).count(),
                missing: plan.dataset.missing_labels.get(at).copied().unwrap_or(0),
                treated,
                uncertain: labels().filter(|label| *label == -1.0).count(),
                others: labels().filter(is_other).collect(),
            }
        })
        .collect()
}
