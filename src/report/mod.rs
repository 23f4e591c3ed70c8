//! A page that shows a data set and what its shards hold: slices of some volumes beside their sources, how often which
//! HU occur, labels, shapes, and who is left out.
//!
//! Voxels of shards come from [`crate::shard`]; those of sources are the same recipe in float32 ([`crate::volume`]), so
//! that a difference is what the voxels' dtype costs. The page needs no other file and no network.

mod charts;
mod facts;
mod hu;
mod page;
mod picture;
mod seen;
mod values;
mod volume;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::plan::{Plan, shuffle};
use crate::shard::{Serving, ShardSet};
use crate::volume::Axes;
use picture::Detail;
use seen::Seen;
use values::{Histogram, Rounding, VolumeValues};

/// The volumes that are shown as pictures.
const SHOWN: usize = 8;
/// The volumes of these that can be walked through, and the slices of each.
const WALKED: (usize, usize) = (2, 32);

/// The options of a report.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number of volumes whose values are counted, at most.
    pub samples: usize,
    /// The seed by which volumes are chosen.
    pub seed: u64,
    /// The number of threads.
    pub threads: usize,
    /// The memory for volumes, in bytes.
    pub cache_bytes: u64,
    /// The order of the arrays' axes, where the user named it.
    pub axes: Option<Axes>,
    /// The spacing of preprocessed volumes, in mm.
    pub spacing: [f64; 3],
    /// Whether the texts of the samples stand on the page.
    pub with_reports: bool,
    /// What `verify --json` printed.
    pub verify: Option<serde_json::Value>,
    /// What `bench --json` printed.
    pub bench: Option<serde_json::Value>,
}

/// A volume that is damaged.
struct Damaged {
    study_id: String,
    reason: String,
}

/// What the values of a volume are, if it could be made.
enum Looked {
    Sound(VolumeValues),
    Damaged(String),
}

/// All that is on the page.
struct Report<'a> {
    plan: &'a Plan,
    request: &'a Request,
    seen: Vec<Seen>,
    detail: Detail,
    /// What the values of each sampled volume are, by slot.
    values: Vec<(usize, VolumeValues)>,
    rounding: Rounding,
    damaged: Vec<Damaged>,
}

/// A page that was made.
#[derive(Debug)]
pub struct Page {
    /// The page as HTML.
    pub html: String,
    /// The volumes that were looked at.
    pub volumes: usize,
    /// How many of these are damaged: the page lists them.
    pub damaged: usize,
}

/// Reads the sampled volumes, and makes the page. `begin` is called with the number of volumes that are read, `advance`
/// after each.
///
/// # Errors
/// The error of a volume that cannot be read, but for a damaged one; [`Error::Interrupted`] if `stop` was set.
pub fn render(
    plan: Plan,
    request: &Request,
    stop: &AtomicBool,
    begin: impl Fn(usize),
    advance: impl Fn() + Sync,
) -> Result<Page> {
    let serving =
        Serving { cache_bytes: request.cache_bytes, threads: request.threads, read_ahead: 0, read_once: true };
    let set = ShardSet::new(plan, serving)?;
    let plan = set.plan();
    let chosen = choose(plan, request);
    begin(chosen.len() + chosen.len().min(SHOWN));
    let go_on = || match stop.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted("no page was written; run the same command again")),
        false => Ok(()),
    };
    let mut rounding = Rounding::default();
    let mut seen = Vec::new();
    for index in &chosen {
        if seen.len() == SHOWN {
            break;
        }
        go_on()?;
        let steps = if seen.len() < WALKED.0 { WALKED.1 } else { 0 };
        match seen::look(&set, *index, request, steps, &mut rounding) {
            Err(Error::Malformed { .. }) => continue, // found once more below, where all are looked at
            result => seen.push(result?),
        }
        advance();
    }
    let mut in_order = chosen;
    in_order.sort_unstable();
    let looked = try_map(&in_order, request.threads, |index| {
        go_on()?;
        let looked = match values::of_volume(&set, *index) {
            Err(Error::Malformed { reason, .. }) => Looked::Damaged(reason),
            values => Looked::Sound(values?),
        };
        advance();
        Ok((*index, looked))
    })?;
    let detail = seen::draw(&mut seen, request.threads)?;
    let mut report = Report { plan, request, seen, detail, values: Vec::new(), rounding, damaged: Vec::new() };
    for (index, looked) in looked {
        match looked {
            Looked::Sound(values) => report.values.push((index, values)),
            Looked::Damaged(reason) => {
                report.damaged.push(Damaged { study_id: plan.dataset.samples[index].study_id.clone(), reason });
            }
        }
    }
    Ok(Page { html: page::render(&report)?, volumes: in_order.len(), damaged: report.damaged.len() })
}

/// The volumes that are looked at, in a seeded order.
fn choose(plan: &Plan, request: &Request) -> Vec<usize> {
    let count = u32::try_from(plan.dataset.samples.len()).unwrap_or(u32::MAX);
    shuffle::order(request.seed, 0, count).iter().take(request.samples).map(|index| *index as usize).collect()
}

impl Report<'_> {
    /// The histograms of the volumes by slope and intercept of their rows, and what these do; one of all for finished
    /// shards.
    fn histograms(&self) -> Vec<(String, Histogram)> {
        let mut groups: BTreeMap<String, Histogram> = BTreeMap::new();
        for (index, values) in &self.values {
            let name = hu::group(self.plan, &self.plan.dataset.samples[*index]);
            groups.entry(name).or_default().add(&values.histogram);
        }
        groups.into_iter().collect()
    }
}
