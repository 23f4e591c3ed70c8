//! The value check: whether the values of volumes are what their recipes, and the readers of shards, take them for. It
//! runs before anything is made of the volumes.

use crate::base::num::counted;
use crate::base::parallel::{available_cores, try_map};
use crate::dataset::Dataset;
use crate::error::{Error, Result, shown};
use crate::plan::Plan;
use crate::plan::values::{Found, ValueGroup, groups};
use crate::volume::{KindOptions, Recipe, Values, check_values};

/// The HU between the lowest and the highest value below which 8 bits hold no CT: a window of soft tissue has 400.
const LEAST_SPAN: f64 = 300.0;

/// The threads that look at volumes of a bucket: each has up to 8 MiB in flight.
const LOOKERS: usize = 16;

/// Something that the values show and that the user should know.
pub(super) struct ValueProblem {
    /// A sentence that says what, and what the user can do.
    pub(super) message: String,
    /// Whether volumes would be made wrong, or cannot be read right, until the user decides.
    pub(super) is_fatal: bool,
}

/// Looks at the first values of some volumes of a data set.
///
/// # Errors
/// [`Error::Io`] if a volume cannot be read, for another reason than its disk.
pub(super) fn look(dataset: &Dataset, asked: &KindOptions) -> Result<Vec<ValueGroup>> {
    groups(&dataset.samples, asked.rescale, |chosen| {
        let is_remote = dataset.store.is_remote(&dataset.root);
        try_map(chosen, if is_remote { LOOKERS } else { available_cores() }, |sample| match sample.study() {
            Some(study) => {
                let path = dataset.root.join(&sample.path);
                match check_values((&*dataset.store, &path), &study.array, study.dialect, study.meta.geometry()) {
                    // As for a damaged volume: whoever reads all of it says which study it is.
                    Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EIO) => Ok(Values::Unclear),
                    values => values,
                }
            }
            None => Ok(Values::Unclear),
        })
    })
}

/// What the volumes of a plan show that contradicts what they are taken for in a kind. Of finished shards it is decided
/// already, and no flag could decide it again.
pub(super) fn problem(plan: &Plan, asked: &KindOptions) -> Option<ValueProblem> {
    plan.dataset.samples.first()?.study()?;
    let groups = plan.values.as_deref()?;
    let is_stored = asked.kind.keeps_values();
    if let Some(group) = groups.iter().find(|group| group.is_mixed()) {
        return Some(ValueProblem { message: mixed(group), is_fatal: true });
    }
    let looked_at = groups.iter().map(|group| group.looked_at).sum();
    if let Some(who) = who(groups.iter().map(|group| &group.already_hu), looked_at) {
        let what = format!("{who} hold HU already, which the slope and intercept of the metadata table would shift");
        let message = if is_stored {
            format!(
                "{what}; the shards hold them as they are, and manifest.json tells the loader not to shift them; \
                 --rescale none says so without this warning, --rescale table that the table holds all the same"
            )
        } else {
            format!(
                "{what}; --rescale none takes the values as they are, --rescale table applies the table all the same"
            )
        };
        return Some(ValueProblem { message, is_fatal: !is_stored });
    }
    let who = who(groups.iter().map(|group| &group.not_normalized), looked_at).filter(|_| asked.dialect.is_none());
    let what = "hold values beyond ±1.5, which are not HU / 1000; --dialect hu or native says what they are";
    who.map(|who| ValueProblem { message: format!("{who} {what}"), is_fatal: !is_stored }).or_else(|| grey_values(plan))
}

/// The warning about volumes of 8 bits that are taken for HU: these are mostly grey values of a window.
fn grey_values(plan: &Plan) -> Option<ValueProblem> {
    let slope_of = |recipe: &Recipe| match recipe {
        Recipe::Stored => None,
        Recipe::Rescaled { slope, .. } => Some(*slope),
        Recipe::Preprocessed(steps) => Some(steps.slope),
    };
    let mut grey = plan.dataset.samples.iter().filter(|sample| {
        let study = sample.study().filter(|study| study.array.header.element.size() == 1);
        let slope = study.and_then(|study| slope_of(&study.recipe));
        slope.is_some_and(|slope| slope.abs() * 255.0 < LEAST_SPAN)
    });
    let first = grey.next()?;
    let message = format!(
        "{} of 8 bits a voxel ({}) span less than {LEAST_SPAN} HU: these may be grey values of a \
         window; --rescale SLOPE,INTERCEPT makes HU of these",
        counted(grey.count() + 1, "volume", "volumes"),
        shown(&first.study_id)
    );
    Some(ValueProblem { message, is_fatal: false })
}

/// The message about a group that holds both.
fn mixed(group: &ValueGroup) -> String {
    let ValueGroup { rescale_slope, rescale_intercept, already_hu, stored, looked_at, .. } = group;
    format!(
        "of {looked_at} volumes looked at with slope {rescale_slope} and intercept {rescale_intercept}, {} hold HU \
         already ({}) and {} hold stored values ({}), so that one table is wrong for some; correct the table, or leave \
         out one sort (--studies, --exclude); --rescale none or table takes all alike",
        already_hu.volumes,
        names(already_hu),
        stored.volumes,
        names(stored),
    )
}

/// The volumes of all groups that show the same; `None` if there is none.
fn who<'a>(mut found: impl Iterator<Item = &'a Found> + Clone, looked_at: usize) -> Option<String> {
    let volumes = found.clone().map(|found| found.volumes).sum();
    let first = found.find(|found| found.volumes > 0)?;
    let all = Found { volumes, studies: first.studies.clone() };
    Some(format!("{volumes} of {looked_at} volumes looked at ({})", names(&all)))
}

/// The first studies, and whether there are more.
fn names(found: &Found) -> String {
    let more = if found.volumes > found.studies.len() { ", …" } else { "" };
    format!("{}{more}", shown(&found.studies.join(", ")))
}
