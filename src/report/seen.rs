//! The volumes that are shown: which pictures there are of each, and how they get the room that a page has.

use std::sync::Arc;

use super::Request;
use super::facts;
use super::picture::{BOTH, DETAILS, DIFFERENCE, Detail, Fitted, Plane, Slice, Window};
use super::place::Place;
use super::values::{Rounding, VolumeValues};
use super::volume::{HuVolume, Laid};
use crate::base::parallel::try_map;
use crate::error::Result;
use crate::plan::members::Member;
use crate::shard::ShardSet;

/// The slices that are gathered at a time: what lies side by side in memory is read once for all of them.
const GATHERED: usize = 8;
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

/// Looks at one volume, which is here already and counted, with so many slices to walk through, and at what rounding
/// costs it. The pictures are not drawn yet.
///
/// # Errors
/// Its source cannot be made, or there is no memory for that.
pub(super) fn look(
    set: &ShardSet,
    index: usize,
    (volume, values): (&HuVolume, &VolumeValues),
    request: &Request,
    steps: usize,
) -> Result<(Seen, Rounding)> {
    let plan = set.plan();
    let sample = &plan.dataset.samples[index];
    let place = Place::new(plan, sample, request);
    let source = HuVolume::of_source(set, index)?;
    let (shard, source) = (volume.laid(place), source.as_ref().map(|source| source.laid(place)));
    let mut rounding = Rounding::default();
    if let Some(source) = &source {
        rounding.compare(&shard.voxels, &source.voxels, &values.histogram);
    }
    let depth = shard.slices_of(Plane::Axial);
    let seen = Seen {
        study_id: sample.study_id.clone(),
        shape: facts::shape(plan, sample),
        positives: facts::positives(plan, sample),
        text: request
            .with_reports
            .then(|| String::from_utf8_lossy(&plan.members.payload(Member::Text, sample)).into_owned()),
        pictures: middles(&shard, source.as_ref()),
        walk: walk(&shard, steps.min(depth)),
        depth,
        place,
    };
    Ok((seen, rounding))
}

/// The middle slices of a volume and its source.
fn middles(shard: &Laid<'_>, source: Option<&Laid<'_>>) -> Vec<Picture> {
    let mut all = Vec::new();
    for plane in Plane::ALL {
        let middle = [shard.slices_of(plane) / 2];
        for of_shard in shard.slices(plane, &middle) {
            let of_source = source.and_then(|source| source.slices(plane, &middle).pop());
            if let Some(of_source) = &of_source {
                all.extend(pictures(plane, "source", of_source, &BOTH));
            }
            all.extend(pictures(plane, "shard", &of_shard, &BOTH));
            if let Some(of_source) = &of_source {
                all.extend(pictures(plane, "difference × 50", &of_shard.difference(of_source), &[DIFFERENCE]));
            }
        }
    }
    all
}

/// So many axial slices, from the first to the last.
fn walk(shard: &Laid<'_>, steps: usize) -> Vec<(usize, Vec<Picture>)> {
    let last = shard.slices_of(Plane::Axial).saturating_sub(1);
    let numbers: Vec<usize> = (0..steps).map(|step| step * last / (steps.max(2) - 1)).collect();
    let of = |(number, slice): (&usize, Slice)| (number + 1, pictures(Plane::Axial, "shard", &slice, &BOTH).collect());
    let gathered = numbers.chunks(GATHERED);
    gathered.flat_map(|some| some.iter().zip(shard.slices(Plane::Axial, some)).map(of)).collect()
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
