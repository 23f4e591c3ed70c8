//! The manifest and the record made again from the shards on disk and the sources' headers, where they were lost.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::job::sha256;
use super::{Incomplete, Observer, check_stop, index_files};
use crate::base::durable::publish;
use crate::base::files::size;
use crate::base::num::to_usize;
use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::formats::tar::{self, MemberHeader};
use crate::output::journal::{Finished, Line, Record, Run, Skipped, append};
use crate::output::manifest;
use crate::output::part_lock::lock_part;
use crate::output::partition::Part;
use crate::plan::layout::Content;
use crate::plan::members::VOLUME;
use crate::plan::{Plan, ShardId};
use crate::shard::ShardSet;

/// Makes the manifest and the indexes of `folder` again, and records what no record knew. A shard counts if all of it but the voxels is
/// the plan's, and its SHA-256 the recorded one where there is one; samples that it does not hold are left out. The
/// number of shards, or what is wrong with them.
///
/// # Errors
/// [`Error::Refused`] if a run goes on, or `stop` was set; [`Error::Io`].
pub fn rebuild(
    set: ShardSet,
    folder: &Path,
    workers: usize,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<std::result::Result<usize, Incomplete>> {
    fs::metadata(folder).map_err(|error| Error::io(folder, "look into the folder", error))?;
    let mut journal = lock_part(folder, Part::WHOLE)?;
    let record = Record::read(folder)?;
    if record.codec().is_some() {
        return Err(Error::Refused(format!(
            "{}: the folder holds compressed shards; the same materialize that made them writes their manifest again",
            folder.display()
        )));
    }
    let asked = set.shared_plan();
    let ids: Vec<ShardId> = (0..ShardId::try_from(asked.shards.len()).unwrap_or(ShardId::MAX)).collect();
    let found = try_map(&ids, workers, |id| absent(folder, &asked, &record, *id))?;
    let (mut left_out, mut wrong) = (BTreeMap::new(), Vec::new());
    for absent in found {
        match absent {
            Ok(samples) => left_out.extend(samples),
            Err(reason) => wrong.push(reason),
        }
    }
    if !wrong.is_empty() {
        return Ok(Err(wrong));
    }
    let set = set.with_plan(super::without(&asked, &left_out).into_owned())?;
    observer.recheck(ids.len(), set.plan().shard_bytes());
    let checked = try_map(&ids, workers, |id| {
        let sha256 = check(folder, &set, &asked, &record, *id, stop)?;
        observer.read(set.len(*id).unwrap_or(0));
        Ok::<_, Error>(sha256)
    })?;
    check_stop(stop)?;
    let wrong: Vec<String> = checked.iter().filter_map(|sha256| sha256.as_ref().err().cloned()).collect();
    if !wrong.is_empty() {
        return Ok(Err(wrong));
    }
    let digests: Vec<String> = checked.into_iter().flatten().collect();
    let run = record.last_run + 1;
    let shards = ShardId::try_from(digests.len()).unwrap_or(ShardId::MAX);
    let mut lines =
        vec![Line::Run(Run { run, plan_digest: asked.digest.clone(), codec: None, shards, strangers: Vec::new() })];
    for (id, sha256) in (0..).zip(&digests) {
        let digest = |plan: &Plan| plan.shard_digest(id).unwrap_or_default().to_owned();
        let made_of = digest(set.plan());
        if record.finished(id).is_none_or(|known| known.made_of != made_of) {
            lines.push(Line::Finished(Finished {
                run,
                name: Plan::shard_name(id),
                size: set.len(id).unwrap_or(0),
                sha256: sha256.clone(),
                made_of,
                planned: digest(&asked),
                left_out: left_out
                    .range(asked.shards[id as usize].samples.clone())
                    .map(|(_, skipped)| skipped.clone())
                    .collect(),
            }));
        }
    }
    append(&mut journal, &lines).map_err(|error| Error::io(folder, "record the shards", error))?;
    index_files::write(folder, set.plan(), Part::WHOLE)?;
    publish(folder, manifest::NAME, &manifest::render(set.plan(), |id| Some(&digests[id as usize])))?;
    Ok(Ok(digests.len()))
}

/// The planned samples that a shard's file does not hold, or why it is not the shard.
fn absent(
    folder: &Path,
    plan: &Plan,
    record: &Record,
    id: ShardId,
) -> Result<std::result::Result<Vec<(usize, Skipped)>, String>> {
    let name = Plan::shard_name(id);
    let path = folder.join(&name);
    let Some(len) = size(&path)? else { return Ok(Err(format!("{name}: the file is not there"))) };
    let file = File::open(&path).map_err(|error| Error::io(&path, "open the shard", error))?;
    let keys = match keys(&file, len) {
        Ok(keys) => keys,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(Err(format!("{name}: {error}"))),
        Err(error) => return Err(Error::io(&path, "read the shard's headers", error)),
    };
    let known = record.finished(id).map(|finished| &*finished.left_out).unwrap_or_default();
    let samples = plan.shards[id as usize].samples.clone();
    let missing = samples.filter(|index| !keys.contains(&plan.key(&plan.dataset.samples[*index])));
    let skipped = missing.map(|index| {
        let sample = &plan.dataset.samples[index];
        let recorded = known.iter().find(|skipped| skipped.study_id == sample.study_id).cloned();
        let unknown = || {
            let reason = "the shard does not hold it (found by manifest rebuild)".to_owned();
            Skipped::new(sample.study_id.clone(), reason, sample.file_id())
        };
        (index, recorded.unwrap_or_else(unknown))
    });
    Ok(Ok(skipped.collect()))
}

/// The keys in a tar file, by its headers.
fn keys(file: &File, len: u64) -> std::io::Result<HashSet<String>> {
    let mut keys = HashSet::new();
    let mut at = 0;
    while at + tar::BLOCK <= len {
        let mut header = [0; 512];
        file.read_exact_at(&mut header, at)?;
        if header == [0; 512] {
            break;
        }
        let MemberHeader { name, size } = tar::parse(&header).ok_or_else(|| {
            let reason = format!("there is no tar header at byte {at}");
            std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
        })?;
        keys.extend(name.split('.').next().map(str::to_owned));
        at += tar::BLOCK + size + tar::padding(size);
    }
    Ok(keys)
}

/// The SHA-256 of a shard's file, or how it differs from the plan of `set` or from its record.
fn check(
    folder: &Path,
    set: &ShardSet,
    asked: &Plan,
    record: &Record,
    id: ShardId,
    stop: &AtomicBool,
) -> Result<std::result::Result<String, String>> {
    let name = Plan::shard_name(id);
    let path = folder.join(&name);
    let planned = set.len(id).unwrap_or(0);
    let found = size(&path)?.unwrap_or(0);
    if found != planned {
        return Ok(Err(format!("{name}: it has {found} bytes, {planned} are planned")));
    }
    let file = File::open(&path).map_err(|error| Error::io(&path, "open the shard", error))?;
    for (extent, _) in set.plan().locate(id, 0, u64::MAX) {
        if matches!(extent.content, Content::Payload(member) if member.member == VOLUME) {
            continue;
        }
        let planned = set.read(id, extent.start, to_usize(extent.len))?;
        let mut found = vec![0; planned.len()];
        file.read_exact_at(&mut found, extent.start).map_err(|error| Error::io(&path, "read the shard", error))?;
        if found != planned {
            let end = extent.start + extent.len;
            return Ok(Err(format!("{name}: bytes {} to {end} are not those of the plan", extent.start)));
        }
    }
    let sha256 = sha256(&path, stop)?;
    let known = record.finished(id).filter(|known| asked.shard_digest(id).is_some_and(|digest| known.is_of(digest)));
    Ok(match known {
        Some(known) if known.size == found && known.sha256 != sha256 => {
            Err(format!("{name}: its bytes are not those that were recorded when it was finished"))
        }
        _ => Ok(sha256),
    })
}
