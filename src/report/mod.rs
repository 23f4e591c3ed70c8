//! A page that shows a data set and what its shards hold: slices of some volumes beside their sources, how often which
//! HU occur, labels, shapes, and who is left out.
//!
//! Voxels of shards come from [`crate::shard`]; those of sources are the same recipe in float32 ([`crate::volume`]), so
//! that a difference is what the voxels' dtype costs. The page needs no other file and no network.

mod charts;
mod facts;
mod hu;
mod means;
mod page;
mod picture;
mod place;
mod seen;
mod summary;
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
use means::Means;
use picture::Detail;
use seen::Seen;
use values::{Histogram, Rounding, VolumeValues};
use volume::HuVolume;

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
    /// The number of threads, at most.
    pub threads: usize,
    /// The memory that this process may use, in bytes.
    pub memory: u64,
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
    index: usize,
    study_id: String,
    reason: String,
}

/// What was found of a sample's volume, or why it could not be read.
struct Looked {
    index: usize,
    found: std::result::Result<Found, String>,
}

/// What a volume holds.
struct Found {
    values: VolumeValues,
    /// Its pictures, and what rounding costs it, where it is shown.
    seen: Option<(Seen, Rounding)>,
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
    /// What the page says, as one object for programs.
    pub summary: serde_json::Value,
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
    let chosen = choose(&plan, request);
    let Means { threads, cache_bytes } = Means::new(&plan, request, &chosen)?;
    let set = ShardSet::new(plan, Serving { cache_bytes, threads, read_ahead: 0, read_once: true })?;
    begin(chosen.len());
    let look = |(index, steps): &(usize, Option<usize>)| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted("no page was written; run the same command again"));
        }
        match look(&set, *index, request, *steps) {
            Err(error) if concerns_one(&error) => Ok(Looked { index: *index, found: Err(error.to_string()) }),
            found => Ok(Looked { index: *index, found: Ok(found?) }),
        }
    };
    let mut looked: Vec<Looked> = try_map(&in_turn(&chosen), threads, |one| look(one).inspect(|_| advance()))?;
    show_others(&mut looked, &chosen, look)?;
    let mut report = Report::new(set.plan(), request);
    looked.into_iter().for_each(|one| report.add(one));
    report.detail = seen::draw(&mut report.seen, request.threads)?;
    report.values.sort_unstable_by_key(|(index, _)| *index);
    report.unread.sort_unstable_by_key(|unread| unread.index);
    let (html, summary) = (page::render(&report)?, summary::of(&report));
    Ok(Page { html, volumes: chosen.len(), unread: report.unread.len(), summary })
}

/// Looks at one volume: counts its values, and takes pictures of it where that is asked for.
fn look(set: &ShardSet, index: usize, request: &Request, steps: Option<usize>) -> Result<Found> {
    let volume = HuVolume::of_shard(set, index)?;
    let values = values::of_volume(&volume);
    let seen = steps.map(|steps| seen::look(set, index, (&volume, &values), request, steps)).transpose()?;
    Ok(Found { values, seen })
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

/// The volumes in the order in which they are looked at, each with the slices to walk through where it is shown: first
/// those that are shown, which take the longest; the others as they lie on the disk.
fn in_turn(chosen: &[usize]) -> Vec<(usize, Option<usize>)> {
    let (shown, others) = chosen.split_at(chosen.len().min(SHOWN));
    let steps = |at| if at < WALKED.0 { WALKED.1 } else { 0 };
    let shown = shown.iter().enumerate().map(|(at, index)| (*index, Some(steps(at))));
    let mut others: Vec<(usize, Option<usize>)> = others.iter().map(|index| (*index, None)).collect();
    others.sort_unstable();
    shown.chain(others).collect()
}

/// Shows other volumes in place of those that could not be read, as [`in_turn`] has them: the next ones in the order of
/// the seed.
fn show_others(
    looked: &mut [Looked],
    chosen: &[usize],
    look: impl Fn(&(usize, Option<usize>)) -> Result<Looked>,
) -> Result<()> {
    let (shown, others) = looked.split_at_mut(chosen.len().min(SHOWN));
    let unread = in_turn(chosen).into_iter().zip(shown).filter(|(_, looked)| looked.found.is_err());
    let mut steps = unread.map(|((_, steps), _)| steps).peekable();
    for index in chosen.iter().skip(SHOWN) {
        let Some(next) = steps.peek() else { break };
        let found = others.binary_search_by_key(index, |one| one.index).map(|at| &mut others[at]);
        if let Ok(other) = found
            && other.found.is_ok()
        {
            *other = look(&(*index, *next))?;
            if other.found.is_ok() {
                steps.next();
            }
        }
    }
    Ok(())
}

impl<'a> Report<'a> {
    /// A report of nothing.
    fn new(plan: &'a Plan, request: &'a Request) -> Self {
        let (seen, values, unread) = Default::default();
        Self { plan, request, seen, detail: picture::DETAILS[0], values, rounding: Rounding::default(), unread }
    }

    fn add(&mut self, Looked { index, found }: Looked) {
        match found {
            Ok(Found { values, seen }) => {
                self.values.push((index, values));
                if let Some((one, rounding)) = seen {
                    self.seen.push(one);
                    self.rounding.add(&rounding);
                }
            }
            Err(reason) => {
                let study_id = self.plan.dataset.samples[index].study_id.clone();
                self.unread.push(Unread { index, study_id, reason });
            }
        }
    }

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
