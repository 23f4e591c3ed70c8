//! Rebuilding the manifest and the journal from the shards on disk and the headers of the NPZ files, where they were
//! lost.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::bad_samples::{self, BadSamples};
use super::control::{Control, Observer};
use super::index_files;
use super::request::ManifestOutcome;
use super::target::Target;
use crate::base::durable::publish;
use crate::base::files::{self, size};
use crate::base::num::to_usize;
use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::formats::tar::{self, MemberHeader};
use crate::output::journal::{FinishedShard, Journals, Line, Run, SkippedSample, append};
use crate::output::manifest;
use crate::output::part_lock::lock_part;
use crate::output::partition::Part;
use crate::output::place::Place;
use crate::plan::layout::Content;
use crate::plan::{Plan, ShardId, shard_ids};
use crate::shard::ShardSet;

/// Rebuilds the manifest and the indexes of `folder` from its shards, and records the shards that no journal knew.
/// `workers` threads read shards; `stop` ends the work early; `observer` gets the progress.
///
/// A shard counts if all of it but the voxels is the plan's, and its SHA-256 is the recorded one where there is one.
/// Samples that the shards do not hold are left out.
///
/// # Errors
/// [`Error::Refused`] if a run goes on, the shards are compressed, or `stop` was set; [`Error::Io`] if a file cannot be
/// read or written.
pub fn rebuild(
    set: ShardSet,
    folder: &Path,
    workers: usize,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<ManifestOutcome> {
    fs::metadata(folder).map_err(|error| Error::io(folder, "look into the folder", error))?;
    let mut journal = lock_part(folder, Part::WHOLE)?;
    let journals = Journals::read(folder)?;
    if journals.codec().is_some() {
        return Err(Error::Refused(format!(
            "{}: the folder holds compressed shards; the same materialize that made them writes their manifest again",
            folder.display()
        )));
    }
    let asked = set.shared_plan();
    let ids: Vec<ShardId> = shard_ids(asked.shards.len()).collect();
    let rebuild = Rebuild { folder, asked: &asked, journals: &journals, control: Control { stop, observer } };
    let absent = match separate(try_map(&ids, workers, |id| rebuild.absent(*id))?) {
        Ok(absent) => absent.into_iter().flatten().collect(),
        Err(wrong) => return Ok(ManifestOutcome::Incomplete(wrong)),
    };
    let set = set.with_plan(bad_samples::without(&asked, &absent).into_owned())?;
    observer.recheck(ids.len(), set.plan().shard_bytes());
    let checked = try_map(&ids, workers, |id| {
        let checked = rebuild.check(&set, *id)?;
        observer.read(set.len(*id).unwrap_or(0));
        Ok::<_, Error>(checked)
    })?;
    rebuild.control.check_stop()?;
    let digests = match separate(checked) {
        Ok(digests) => digests,
        Err(wrong) => return Ok(ManifestOutcome::Incomplete(wrong)),
    };
    let lines = rebuild.lines(&set, &absent, &digests);
    append(&mut journal, &lines).map_err(|error| Error::io(folder, "record the shards", error))?;
    let remarks = index_files::write(&Place::on_disk(folder), set.plan(), Part::WHOLE)?;
    publish(folder, manifest::NAME, &manifest::render(set.plan(), |id| Some(&digests[id as usize])))?;
    Ok(ManifestOutcome::Written { shards: digests.len(), remarks })
}

/// What was found out about a shard's file.
enum Checked<T> {
    /// The file can be the shard.
    Right(T),
    /// The file is not the shard: a line of text that says why.
    Wrong(String),
}

/// The findings about all shards if all are right, else what is wrong.
fn separate<T>(all: Vec<Checked<T>>) -> std::result::Result<Vec<T>, Vec<String>> {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for checked in all {
        match checked {
            Checked::Right(found) => right.push(found),
            Checked::Wrong(reason) => wrong.push(reason),
        }
    }
    if wrong.is_empty() { Ok(right) } else { Err(wrong) }
}

/// What a rebuild works on.
struct Rebuild<'a> {
    folder: &'a Path,
    /// The plan that was asked for.
    asked: &'a Plan,
    /// Content of the folder's journals.
    journals: &'a Journals,
    control: Control<'a>,
}

impl Rebuild<'_> {
    /// The planned samples that a shard's file does not hold, by its headers.
    fn absent(&self, id: ShardId) -> Result<Checked<Vec<(usize, SkippedSample)>>> {
        let (plan, name) = (self.asked, Plan::shard_name(id));
        let path = self.folder.join(&name);
        let Some(len) = size(&path)? else { return Ok(Checked::Wrong(format!("{name}: the file is not there"))) };
        let file = files::open(&path).map_err(|error| Error::io(&path, "open the shard", error))?;
        let keys = match keys(&file, len) {
            Ok(keys) => keys,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(Checked::Wrong(format!("{name}: {error}")));
            }
            Err(error) => return Err(Error::io(&path, "read the shard's headers", error)),
        };
        let known = self.journals.finished(id).map(|finished| &*finished.left_out).unwrap_or_default();
        let samples = plan.shards[id as usize].samples.clone();
        let missing = samples.filter(|index| !keys.contains(&plan.key(&plan.dataset.samples[*index])));
        let skipped = missing.map(|index| {
            let sample = &plan.dataset.samples[index];
            let recorded = known.iter().find(|skipped| skipped.study_id == sample.study_id).cloned();
            let unknown = || {
                let reason = "the shard does not hold it (found by manifest rebuild)".to_owned();
                SkippedSample::new(sample.study_id.clone(), reason, sample.file_id())
            };
            (index, recorded.unwrap_or_else(unknown))
        });
        Ok(Checked::Right(skipped.collect()))
    }

    /// Compares a shard's file with the plan of `set` and with the journal: its SHA-256, or how it differs.
    fn check(&self, set: &ShardSet, id: ShardId) -> Result<Checked<String>> {
        let name = Plan::shard_name(id);
        let path = self.folder.join(&name);
        let planned = set.len(id).unwrap_or(0);
        let found = size(&path)?.unwrap_or(0);
        if found != planned {
            return Ok(Checked::Wrong(format!("{name}: it has {found} bytes, {planned} are planned")));
        }
        let file = files::open(&path).map_err(|error| Error::io(&path, "open the shard", error))?;
        for (extent, _) in set.plan().locate(id, 0, u64::MAX) {
            if matches!(extent.content, Content::Payload(member) if member.member.has_voxels()) {
                continue;
            }
            let planned = set.read(id, extent.start, to_usize(extent.len))?;
            let mut found = vec![0; planned.len()];
            file.read_exact_at(&mut found, extent.start).map_err(|error| Error::io(&path, "read the shard", error))?;
            if found != planned {
                let end = extent.start + extent.len;
                let reason = format!("{name}: bytes {} to {end} are not those of the plan", extent.start);
                return Ok(Checked::Wrong(reason));
            }
        }
        let sha256 = Place::on_disk(self.folder).sha256(&name, found, self.control.stop)?;
        let known = self.journals.finished(id);
        let known = known.filter(|known| self.asked.shard_digest(id).is_some_and(|digest| known.is_of(digest)));
        Ok(match known {
            Some(known) if known.size == found && known.sha256 != sha256 => {
                Checked::Wrong(format!("{name}: its bytes are not those that were recorded when it was finished"))
            }
            _ => Checked::Right(sha256),
        })
    }

    /// The lines for the journal: a run, and the shards that the journal does not have as they are. `digests` are the
    /// SHA-256 of the shards' files, by number.
    fn lines(&self, set: &ShardSet, absent: &BadSamples, digests: &[String]) -> Vec<Line> {
        let run = self.journals.last_run + 1;
        let (plan_digest, unrecorded) = (self.asked.digest.clone(), Vec::new());
        let shards = shard_ids(digests.len()).end;
        let mut lines = vec![Line::Run(Run { run, plan_digest, codec: None, shards, unrecorded })];
        let target = Target { run, set, asked: self.asked, skipped: absent };
        for (id, sha256) in (0..).zip(digests) {
            let finished = target.finished(id, set.len(id).unwrap_or(0), sha256.clone());
            let is_same = |known: &FinishedShard| {
                known.made_of == finished.made_of && known.source_times == finished.source_times
            };
            if !self.journals.finished(id).is_some_and(is_same) {
                lines.push(Line::Finished(finished));
            }
        }
        lines
    }
}

/// The keys of the samples in a tar file, by its headers.
fn keys(file: &File, len: u64) -> io::Result<HashSet<String>> {
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
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        keys.extend(name.split('.').next().map(str::to_owned));
        at += tar::BLOCK + size + tar::padding(size);
    }
    Ok(keys)
}
