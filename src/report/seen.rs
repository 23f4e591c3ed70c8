//! The volumes that are shown: which pictures there are of each, and how they get the room that a page has.

use std::sync::Arc;

use super::Request;
use super::facts;
use super::picture::{BOTH, DETAILS, DIFFERENCE, Detail, Fitted, Plane, Slice, Window};
use super::place::Place;
use super::values::Rounding;
use super::volume::HuVolume;
use crate::base::parallel::try_map;
use crate::error::Result;
use crate::plan::members::Member;
use crate::shard::ShardSet;

/// The room of all pictures of a page, in bytes: 5 MB without what a page of long lists takes.
const ROOM: usize = 4_500_000;

/// A volume that is shown.
pub(super) struct Seen {
    /// The study.
    pub(super) study_id: String,
    /// The shape of the volume, as its shard holds it.
    pub(super) shape: [u64; 3],
    /// The names of the classes that are positive.
    pub(super) positives: Vec<String>,
    /// The text, if it was asked for.
    pub(super) text: Option<String>,
    /// The middle slices.
    pub(super) pictures: Vec<Picture>,
    /// Axial slices of the shard's volume, from the first to the last: the number of each from 1 on, and its pictures
    /// in each window.
    pub(super) walk: Vec<(usize, Vec<Picture>)>,
    /// The number of axial slices.
    pub(super) depth: usize,
    /// How the volume lies.
    pub(super) place: Place,
}

/// One picture of a volume's slice.
pub(super) struct Picture {
    /// The name of the plane.
    pub(super) plane: &'static str,
    /// What is seen: the source, the shard, or their difference.
    pub(super) subject: &'static str,
    /// The range of HU from black to white.
    pub(super) window: Window,
    /// The picture as an address; empty until it is drawn.
    pub(super) uri: String,
    fitted: Arc<Fitted>,
}

/// Looks at one volume, with so many slices to walk through, and at what rounding costs it. The pictures are not drawn
/// yet.
///
/// # Errors
/// The volume cannot be made, or there is no memory for it.
pub(super) fn look(set: &ShardSet, index: usize, request: &Request, steps: usize) -> Result<(Seen, Rounding)> {
    let plan = set.plan();
    let sample = &plan.dataset.samples[index];
    let place = Place::new(plan, sample, request);
    let shard = HuVolume::of_shard(set, index, place)?;
    let source = HuVolume::of_source(set, index, place)?;
    let mut rounding = Rounding::default();
    if let Some(source) = &source {
        rounding.compare(&shard, source);
    }
    let mut middles = Vec::new();
    for plane in Plane::ALL {
        let middle = shard.slices(plane) / 2;
        let of_shard = shard.slice(plane, middle);
        let of_source = source.as_ref().map(|source| source.slice(plane, middle));
        if let Some(of_source) = &of_source {
            middles.extend(pictures(plane, "source", of_source, &BOTH));
        }
        middles.extend(pictures(plane, "shard", &of_shard, &BOTH));
        if let Some(of_source) = &of_source {
            middles.extend(pictures(plane, "difference × 50", &of_shard.difference(of_source), &[DIFFERENCE]));
        }
    }
    let depth = shard.slices(Plane::Axial);
    let steps = steps.min(depth);
    let at = |step: usize| step * (depth - 1) / (steps.max(2) - 1); // from the first to the last
    let of = |at| pictures(Plane::Axial, "shard", &shard.slice(Plane::Axial, at), &BOTH).collect();
    let seen = Seen {
        study_id: sample.study_id.clone(),
        shape: facts::shape(plan, sample),
        positives: facts::positives(plan, sample),
        text: request
            .with_reports
            .then(|| String::from_utf8_lossy(&plan.members.payload(Member::Text, sample)).into_owned()),
        pictures: middles,
        walk: (0..steps).map(|step| (at(step) + 1, of(at(step)))).collect(),
        depth,
        place,
    };
    Ok((seen, rounding))
}

/// The pictures of a slice in each window.
fn pictures<'a>(
    plane: Plane,
    subject: &'static str,
    slice: &Slice,
    windows: &'a [Window],
) -> impl Iterator<Item = Picture> + use<'a> {
    let fitted = Arc::new(Fitted::new(slice));
    windows.iter().map(move |window| Picture {
        plane: plane.name(),
        subject,
        window: *window,
        uri: String::new(),
        fitted: Arc::clone(&fitted),
    })
}

/// Draws all pictures with as much detail as they have room for, and says how much that is: noise takes room.
///
/// # Errors
/// None in fact: the pictures are written into memory.
pub(super) fn draw(seen: &mut [Seen], threads: usize) -> Result<Detail> {
    let (mut detail, mut uris) = (DETAILS[0], Vec::new());
    for less in DETAILS {
        let pictures: Vec<&Picture> = seen.iter().flat_map(Seen::all).collect();
        detail = less;
        uris = try_map(&pictures, threads, |picture| picture.fitted.data_uri(picture.window, detail))?;
        if uris.iter().map(String::len).sum::<usize>() <= ROOM {
            break;
        }
    }
    let pictures =
        seen.iter_mut().flat_map(|one| one.pictures.iter_mut().chain(one.walk.iter_mut().flat_map(|(_, slice)| slice)));
    pictures.zip(uris).for_each(|(picture, uri)| picture.uri = uri);
    Ok(detail)
}

impl Seen {
    fn all(&self) -> impl Iterator<Item = &Picture> {
        self.pictures.iter().chain(self.walk.iter().flat_map(|(_, slice)| slice))
    }
}
