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
mod place;
mod seen;
mod values;
mod volume;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::num::counted;
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

/// The beginning of every page, by which one is known.
pub const BEGINNING: &[u8] = b"<!doctype html>\n<!-- A page of ctwds-fs report. -->\n";

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
    /// What the values of the volumes show that the user should know.
    pub warning: Option<String>,
    /// What `bench --json` printed.
    pub bench: Option<serde_json::Value>,
}

/// A volume that could not be read.
struct Unread {
    study_id: String,
    reason: String,
}

/// What the values of a volume are, if it could be made.
enum Looked {
    Sound(VolumeValues),
    Unread(String),
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
    unread: Vec<Unread>,
}

/// A page that was made.
#[derive(Debug)]
pub struct Page {
    /// The page as HTML.
    pub html: String,
    /// The volumes that were looked at.
    pub volumes: usize,
    /// How many of these could not be read: the page lists them.
    pub unread: usize,
}

/// Reads the sampled volumes, and makes the page. `begin` is called with the number of volumes that are read, `advance`
/// after each.
///
/// # Errors
/// The reason why nothing more can be read, such as a lack of memory; [`Error::Interrupted`] if `stop` was set. What
/// concerns one volume stands on the page.
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
    let mut seen: Vec<Seen> = Vec::new();
    let mut left = chosen.as_slice();
    while seen.len() < SHOWN && !left.is_empty() {
        let (next, rest) = left.split_at(left.len().min(SHOWN - seen.len()));
        left = rest;
        let numbered: Vec<(usize, usize)> = (seen.len()..).zip(next.iter().copied()).collect();
        let looked = try_map(&numbered, request.threads, |(number, index)| {
            go_on()?;
            let steps = if *number < WALKED.0 { WALKED.1 } else { 0 };
            let looked = match seen::look(&set, *index, request, steps) {
                Err(error) if concerns_one(&error) => None, // found once more below, where all are looked at
                looked => Some(looked?),
            };
            advance();
            Ok(looked)
        })?;
        for (one, of_one) in looked.into_iter().flatten() {
            seen.push(one);
            rounding.add(&of_one);
        }
    }
    let mut in_order = chosen;
    in_order.sort_unstable();
    let looked = try_map(&in_order, request.threads, |index| {
        go_on()?;
        let looked = match values::of_volume(&set, *index) {
            Err(error) if concerns_one(&error) => Looked::Unread(error.to_string()),
            values => Looked::Sound(values?),
        };
        advance();
        Ok((*index, looked))
    })?;
    let detail = seen::draw(&mut seen, request.threads)?;
    let mut report = Report { plan, request, seen, detail, values: Vec::new(), rounding, unread: Vec::new() };
    for (index, looked) in looked {
        match looked {
            Looked::Sound(values) => report.values.push((index, values)),
            Looked::Unread(reason) => {
                report.unread.push(Unread { study_id: plan.dataset.samples[index].study_id.clone(), reason });
            }
        }
    }
    Ok(Page { html: page::render(&report)?, volumes: in_order.len(), unread: report.unread.len() })
}

/// Whether an error is that of one file, beside which the others can be read.
fn concerns_one(error: &Error) -> bool {
    matches!(error, Error::Malformed { .. } | Error::Changed { .. } | Error::Io { .. }) && !error.is_limit()
}

/// The volumes that are looked at, in a seeded order.
fn choose(plan: &Plan, request: &Request) -> Vec<usize> {
    let count = u32::try_from(plan.dataset.samples.len()).unwrap_or(u32::MAX);
    shuffle::order(request.seed, 0, count).iter().take(request.samples).map(|index| *index as usize).collect()
}

impl Report<'_> {
    /// The histograms of the volumes that are read alike, those of the most volumes first; the rest as one.
    fn histograms(&self) -> Vec<(String, Histogram)> {
        let mut groups: BTreeMap<String, (usize, Histogram)> = BTreeMap::new();
        for (index, values) in &self.values {
            let name = hu::Reading::new(self.plan, &self.plan.dataset.samples[*index]).name;
            let (count, histogram) = groups.entry(name).or_default();
            *count += 1;
            histogram.add(&values.histogram);
        }
        let mut groups: Vec<(String, (usize, Histogram))> = groups.into_iter().collect();
        groups.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count)); // stable: else by name
        let rest = groups.split_off(groups.len().min(charts::COLOURS - 1));
        if !rest.is_empty() {
            let mut others = (0, Histogram::default());
            rest.iter().for_each(|(_, (count, histogram))| {
                others.0 += count;
                others.1.add(histogram);
            });
            groups.push((format!("{} others", rest.len()), others));
        }
        let volumes = |count| counted(count, "volume", "volumes");
        groups
            .into_iter()
            .map(|(name, (count, histogram))| (format!("{name} ({})", volumes(count)), histogram))
            .collect()
    }

    /// Whether it is known of all volumes what makes HU of their values.
    fn are_hu(&self) -> bool {
        self.values.iter().all(|(index, _)| hu::Reading::new(self.plan, &self.plan.dataset.samples[*index]).is_known)
    }
}
