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
mod values;
mod volume;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::parallel::try_map;
use crate::dataset::Sample;
use crate::error::{Error, Result};
use crate::plan::{Plan, shuffle};
use crate::shard::{Serving, ShardSet};
use crate::volume::Axes;
use picture::{DIFFERENCE, LUNG, MEDIASTINUM, Plane};
use values::{Histogram, Rounding, VolumeValues};
use volume::{HuVolume, Place};

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

/// The pictures of one slice: of the source and of the shard in both windows, and their difference.
struct Pictures {
    plane: &'static str,
    source: Option<[String; 2]>,
    shard: [String; 2],
    difference: Option<String>,
}

/// A volume that is shown.
struct Shown {
    study_id: String,
    shape: [u64; 3],
    positives: Vec<String>,
    text: Option<String>,
    pictures: Vec<Pictures>,
    /// Axial slices of the shard's volume, from the first to the last, in both windows.
    walk: Vec<[String; 2]>,
}

/// All that is on the page.
struct Report<'a> {
    plan: &'a Plan,
    request: &'a Request,
    shown: Vec<Shown>,
    /// What the values of each sampled volume are, by slot.
    values: Vec<(usize, VolumeValues)>,
    rounding: Rounding,
}

/// Reads the sampled volumes, and returns the page as HTML. `begin` is called with the number of volumes that are read,
/// `advance` after each.
///
/// # Errors
/// The error of a volume that cannot be made or read; [`Error::Interrupted`] if `stop` was set.
pub fn render(
    plan: Plan,
    request: &Request,
    stop: &AtomicBool,
    begin: impl Fn(usize),
    advance: impl Fn() + Sync,
) -> Result<String> {
    let serving =
        Serving { cache_bytes: request.cache_bytes, threads: request.threads, read_ahead: 0, read_once: true };
    let set = ShardSet::new(plan, serving)?;
    let plan = set.plan();
    let chosen = choose(plan, request);
    let pictured = &chosen[..chosen.len().min(SHOWN)];
    begin(chosen.len() + pictured.len());
    let go_on = || match stop.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted("no page was written; run the same command again")),
        false => Ok(()),
    };
    let mut rounding = Rounding::default();
    let mut shown = Vec::new();
    for (number, index) in pictured.iter().enumerate() {
        go_on()?;
        let steps = if number < WALKED.0 { WALKED.1 } else { 0 };
        shown.push(show(&set, *index, request, steps, &mut rounding)?);
        advance();
    }
    let mut in_order = chosen.clone();
    in_order.sort_unstable();
    let counted = try_map(&in_order, request.threads, |index| {
        go_on()?;
        let values = values::of_volume(&set, *index)?;
        advance();
        Ok((*index, values))
    })?;
    page::render(&Report { plan, request, shown, values: counted, rounding })
}

/// The volumes that are looked at, in a seeded order.
fn choose(plan: &Plan, request: &Request) -> Vec<usize> {
    let count = u32::try_from(plan.dataset.samples.len()).unwrap_or(u32::MAX);
    shuffle::order(request.seed, 0, count).iter().take(request.samples).map(|index| *index as usize).collect()
}

/// The pictures of one volume, with so many slices to walk through.
fn show(set: &ShardSet, index: usize, request: &Request, steps: usize, rounding: &mut Rounding) -> Result<Shown> {
    let plan = set.plan();
    let sample = &plan.dataset.samples[index];
    let place = place(sample, request);
    let shard = HuVolume::of_shard(set, index, place)?;
    let source = HuVolume::of_source(set, index, place)?;
    if let Some(source) = &source {
        rounding.compare(&shard, source);
    }
    let depth = shard.slices(Plane::Axial);
    let walk = (0..steps.min(depth)).map(|step| both(&shard, Plane::Axial, step * depth / steps.min(depth)));
    let walk = walk.collect::<Result<_>>()?;
    let middle = |plane| shard.slices(plane) / 2;
    let of_shard = Plane::ALL.map(|plane| both(&shard, plane, middle(plane)));
    let of_source = source.as_ref().map(|source| Plane::ALL.map(|plane| both(source, plane, middle(plane))));
    let middles = Plane::ALL.map(middle);
    let difference = source.map(|source| shard.difference(&source));
    let mut of_source = of_source.map(IntoIterator::into_iter);
    let mut pictures = Vec::new();
    for ((plane, of_shard), middle) in Plane::ALL.into_iter().zip(of_shard).zip(middles) {
        pictures.push(Pictures {
            plane: plane.name(),
            source: of_source.as_mut().and_then(Iterator::next).transpose()?,
            shard: of_shard?,
            difference: difference
                .as_ref()
                .map(|volume| picture::data_uri(&volume.slice(plane, middle), DIFFERENCE))
                .transpose()?,
        });
    }
    Ok(Shown {
        study_id: sample.study_id.clone(),
        shape: facts::shape(plan, sample),
        positives: facts::positives(plan, sample),
        text: request.with_reports.then(|| text(plan, sample)),
        pictures,
        walk,
    })
}

/// A slice in both windows.
fn both(volume: &HuVolume, plane: Plane, at: usize) -> Result<[String; 2]> {
    let slice = volume.slice(plane, at);
    Ok([picture::data_uri(&slice, LUNG)?, picture::data_uri(&slice, MEDIASTINUM)?])
}

fn place(sample: &Sample, request: &Request) -> Place {
    let geometry = sample.study().map(|study| study.meta.geometry());
    volume::place(sample, geometry, request.axes, request.spacing)
}

fn text(plan: &Plan, sample: &Sample) -> String {
    String::from_utf8_lossy(&plan.members.payload(crate::plan::members::Member::Text, sample)).into_owned()
}

impl Report<'_> {
    /// The histograms of the volumes by slope and intercept of their rows, and of all where there is one such pair.
    fn histograms(&self) -> Vec<(String, Histogram)> {
        let mut groups: BTreeMap<String, Histogram> = BTreeMap::new();
        for (index, values) in &self.values {
            let sample = &self.plan.dataset.samples[*index];
            let name = sample.study().map_or_else(
                || "finished shards".into(),
                |study| format!("slope {}, intercept {}", study.meta.rescale_slope, study.meta.rescale_intercept),
            );
            groups.entry(name).or_default().add(&values.histogram);
        }
        groups.into_iter().collect()
    }
}
