//! The end of a conversion in parts: one manifest, and one list of samples that could not be made.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::index_files;
use crate::base::durable::publish;
use crate::base::files::{file_name, list, remove, size};
use crate::dataset::quarantine::{self, Quarantined};
use crate::error::{Error, Result};
use crate::output::indexes::ListedShard;
use crate::output::manifest::{self, Manifest, Merged};
use crate::output::part_lock::lock_part;
use crate::output::partition::Part;
use crate::plan::Plan;

/// What is not there yet, a line each.
pub type Incomplete = Vec<String>;

/// Joins the manifests of all parts in `folder` to the manifest of the whole, and their lists of bad samples. The number
/// of shards, or what is missing.
///
/// # Errors
/// [`Error::Refused`] if a run goes on, or the parts do not belong together; [`Error::Io`].
pub fn merge(folder: &Path) -> Result<std::result::Result<usize, Incomplete>> {
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
            return Ok(Err(shards.into_iter().map(line).collect()));
        }
        Merged::Whole(whole) => whole,
    };
    let mut missing = Vec::new();
    for shard in &whole.shards {
        match size(&folder.join(&shard.name))? {
            Some(size) if size == shard.size => {}
            Some(size) => missing.push(format!("{}: it has {size} bytes, {} in the manifest", shard.name, shard.size)),
            None => missing.push(format!("{}: the file is gone", shard.name)),
        }
    }
    if missing.is_empty() {
        if !whole.is_compressed() {
            let listed = |shard: &manifest::Shard| ListedShard {
                name: shard.name.clone(),
                samples: shard.samples.len(),
                bytes: shard.size,
            };
            index_files::write_common(folder, &whole.shards.iter().map(listed).collect::<Vec<_>>())?;
        }
        publish(folder, manifest::NAME, &whole.render())?;
        return Ok(Ok(whole.shards.len()));
    }
    Ok(Err(missing))
}

/// Writes the list of bad samples: those of the parts, and of what it said before those that the whole leaves out, because
/// it may be what excludes them; all of it while parts are missing.
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

fn read(path: &Path) -> Result<Manifest> {
    let text = fs::read(path).map_err(|error| Error::io(path, "read the part's manifest", error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::Refused(format!("{}: it is damaged ({error}); run its part again, which writes it anew", path.display()))
    })
}

/// Whether every part of the partition of `part` has written its manifest.
pub(super) fn all_parts(folder: &Path, part: Part) -> Result<bool> {
    for index in 0..part.of() {
        let Some(other) = Part::new(index, part.of()) else { continue };
        if size(&folder.join(other.file_name(manifest::FILE)))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
