//! The end of a conversion in parts: one manifest, and one list of samples that could not be made.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::index_files;
use super::request::ManifestOutcome;
use crate::base::durable::publish;
use crate::base::files::{self, file_name, list, remove, size};
use crate::dataset::quarantine::{self, Quarantined};
use crate::error::{Error, Result};
use crate::output::manifest::{self, Manifest, Merged};
use crate::output::part_lock::lock_part;
use crate::output::partition::Part;
use crate::plan::Plan;

/// Merges the manifests of all parts in `folder` into the manifest of the whole, and their lists of bad samples into
/// one.
///
/// # Errors
/// [`Error::Refused`] if a run goes on, or the parts do not belong together; [`Error::Io`] if a file cannot be read or
/// written.
pub fn merge(folder: &Path) -> Result<ManifestOutcome> {
    let _lock = match fs::metadata(folder) {
        Ok(_) => lock_part(folder, Part::WHOLE)?,
        Err(error) => return Err(Error::io(folder, "look into the folder", error)),
    };
    let mut parts = Vec::new();
    let mut bad = Vec::new();
    for path in list(folder)? {
        let name = file_name(&path);
        let is_part = |kind| Part::of_file(&name, kind).is_some_and(|part| part != Part::WHOLE);
        if is_part(manifest::FILE) {
            parts.push((name, read(&path)?));
        } else if is_part(quarantine::FILE) {
            bad.extend(quarantine::read(&path)?);
        }
    }
    parts.sort_by(|(a, _), (b, _)| a.cmp(b));
    let merged = manifest::merge(parts);
    write_list(folder, if let Merged::Whole(whole) = &merged { Some(whole) } else { None }, bad)?;
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
    let missing = missing(folder, &whole)?;
    if !missing.is_empty() {
        return Ok(ManifestOutcome::Incomplete(missing));
    }
    let remarks = index_files::write_common(folder, &whole.listed(), whole.is_compressed())?;
    publish(folder, manifest::NAME, &whole.render())?;
    Ok(ManifestOutcome::Written { shards: whole.shards.len(), remarks })
}

/// The shards whose files are not there with the size that the manifest says: a line of text for each.
fn missing(folder: &Path, whole: &Manifest) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for shard in &whole.shards {
        match size(&folder.join(&shard.name))? {
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
fn write_list(folder: &Path, whole: Option<&Manifest>, mut bad: Vec<Quarantined>) -> Result<()> {
    let path = folder.join(quarantine::NAME);
    let before = if size(&path)?.is_some() { quarantine::read(&path)? } else { Vec::new() };
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
        return remove(&path, "remove the list of samples that could not be made");
    }
    publish(folder, quarantine::NAME, &quarantine::render(&bad))
}

/// Reads the manifest of a part.
fn read(path: &Path) -> Result<Manifest> {
    let text = files::read(path).map_err(|error| Error::io(path, "read the part's manifest", error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::Refused(format!("{}: it is damaged ({error}); run its part again, which writes it anew", path.display()))
    })
}

/// Whether every part of the partition that `part` belongs to has written its manifest.
///
/// # Errors
/// [`Error::Io`] if the file system cannot tell.
pub(super) fn all_parts(folder: &Path, part: Part) -> Result<bool> {
    for index in 0..part.of() {
        let Some(other) = Part::new(index, part.of()) else { continue };
        if size(&folder.join(other.file_name(manifest::FILE)))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
