//! The end of a conversion in parts: one manifest, and one list of samples that could not be made.

use std::collections::HashSet;
use std::path::Path;

use super::folder::quarantined;
use super::index_files;
use super::request::ManifestOutcome;
use crate::dataset::quarantine::{self, Quarantined};
use crate::error::{Error, Result};
use crate::output::manifest::{self, Manifest, Merged};
use crate::output::part_lock::lock_part;
use crate::output::partition::Part;
use crate::output::place::Place;
use crate::plan::Plan;

/// Merges the manifests of all parts in `folder` into the manifest of the whole, and their lists of bad samples into
/// one.
///
/// # Errors
/// [`Error::Refused`] if a run goes on, or the parts do not belong together; [`Error::Io`] if a file cannot be read or
/// written.
pub fn merge(place: &Place) -> Result<ManifestOutcome> {
    let folder = place.path();
    if place.sizes()?.is_empty() && place.objects().is_some() {
        // A bucket has no folders that could be missing.
        return Err(Error::Refused(format!("{}: there is nothing here; look at the address", folder.display())));
    }
    // In a bucket whoever takes the lock ends the runs that have it: see `is_still_whole`.
    let _lock = if place.objects().is_none() { Some(lock_part(folder, Part::WHOLE)?) } else { None };
    let names: Vec<String> = place.sizes()?.into_keys().collect();
    let mut parts = Vec::new();
    let mut bad = Vec::new();
    for name in names {
        let is_part = |kind| Part::of_file(&name, kind).is_some_and(|part| part != Part::WHOLE);
        if is_part(manifest::FILE) {
            let manifest = read(place, &name)?;
            parts.push((name, manifest));
        } else if is_part(quarantine::FILE) {
            bad.extend(quarantined(place, &name)?);
        }
    }
    let parts_found = parts.len();
    parts.sort_by(|(a, _), (b, _)| a.cmp(b));
    let merged = manifest::merge(parts);
    write_list(place, if let Merged::Whole(whole) = &merged { Some(whole) } else { None }, bad)?;
    let whole = match merged {
        Merged::Unlike(reason) => return Err(Error::Refused(format!("{}: {reason}", folder.display()))),
        Merged::Missing { of, shards } => {
            let line = |(part, missing): (u32, Vec<_>)| {
                let names: Vec<String> = missing.iter().map(|id| Plan::shard_name(*id)).collect();
                format!("part {part}/{of}: {}", names.join(", "))
            };
            return Ok(ManifestOutcome::Incomplete(shards.into_iter().map(line).collect()));
        }
        Merged::Whole(whole) => whole,
    };
    let missing = missing(place, &whole)?;
    if !missing.is_empty() {
        return Ok(ManifestOutcome::Incomplete(missing));
    }
    let remarks = index_files::write_common(place, &whole.listed(), whole.is_compressed())?;
    place.publish(manifest::NAME, &whole.render())?;
    if place.objects().is_some() && !is_still_whole(place, parts_found)? {
        place.remove(Path::new(manifest::NAME), "remove the manifest, because a part is being made again")?;
        let reason = "a part was begun again meanwhile; merge when it has ended";
        return Err(Error::Refused(format!("{}: {reason}", folder.display())));
    }
    Ok(ManifestOutcome::Written { shards: whole.shards.len(), remarks })
}

/// Whether all parts still have their manifests. A run that makes shards again removes that of its part first, and then
/// that of the whole: one that began while the parts were merged has removed the former, or will remove the latter.
fn is_still_whole(place: &Place, parts: usize) -> Result<bool> {
    let names = place.sizes()?.into_keys();
    let is_part = |name: &String| Part::of_file(name, manifest::FILE).is_some_and(|part| part != Part::WHOLE);
    Ok(names.filter(is_part).count() == parts)
}

/// The shards whose files are not there with the size that the manifest says: a line of text for each.
fn missing(place: &Place, whole: &Manifest) -> Result<Vec<String>> {
    let (mut missing, sizes) = (Vec::new(), place.sizes()?);
    for shard in &whole.shards {
        match place.size(&sizes, &shard.name)? {
            Some(size) if size == shard.size => {}
            Some(size) => missing.push(format!("{}: it has {size} bytes, {} in the manifest", shard.name, shard.size)),
            None => missing.push(format!("{}: the file is gone", shard.name)),
        }
    }
    Ok(missing)
}

/// Writes the list of bad samples: the rows `bad` of the parts' lists, and rows that stood there before. Of the latter,
/// only those stay whose samples the whole leaves out, because the list may be what excludes them; while parts are
/// missing (`whole` is `None`), all stay.
fn write_list(place: &Place, whole: Option<&Manifest>, mut bad: Vec<Quarantined>) -> Result<()> {
    let before = quarantined(place, quarantine::NAME)?;
    let listed: HashSet<String> = bad.iter().map(|row| row.study_id.clone()).collect();
    let left_out = whole.map(|whole| whole.left_out.iter().map(|one| &*one.study_id).collect::<HashSet<_>>());
    let is_out = |row: &Quarantined| left_out.as_ref().is_none_or(|left_out| left_out.contains(&*row.study_id));
    let excluded = |row: &&Quarantined| is_out(row) && !listed.contains(&row.study_id);
    bad.extend(before.iter().filter(excluded).cloned());
    bad.sort();
    bad.dedup();
    if bad == before {
        return Ok(());
    }
    if bad.is_empty() {
        return place.remove(Path::new(quarantine::NAME), "remove the list of samples that could not be made");
    }
    place.publish(quarantine::NAME, &quarantine::render(&bad))
}

/// Reads the manifest of a part.
fn read(place: &Place, name: &str) -> Result<Manifest> {
    let path = place.path().join(name);
    let text = place.read(Path::new(name)).map_err(|error| Error::io(&path, "read the part's manifest", error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::Refused(format!("{}: it is damaged ({error}); run its part again, which writes it anew", path.display()))
    })
}

/// Whether every part of the partition that `part` belongs to has written its manifest.
///
/// # Errors
/// [`Error::Io`] if the file system cannot tell.
pub(super) fn all_parts(place: &Place, part: Part) -> Result<bool> {
    let sizes = place.sizes()?;
    let manifests = (0..part.of()).filter_map(|index| Some(Part::new(index, part.of())?.file_name(manifest::FILE)));
    for name in manifests {
        if place.size(&sizes, &name)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
