//! `ctwds-fs verify --sources`: finds the volumes that cannot be read, before anything is made of them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::events;
use super::plans::make_new_plan;
use super::progress::Bar;
use super::terminal::print;
use crate::base::durable::publish_private;
use crate::base::files::file_name;
use crate::base::memory;
use crate::base::num::counted;
use crate::base::num::to_usize;
use crate::base::parallel::try_map;
use crate::cli::{VerifyArgs, default_cache_size};
use crate::dataset::quarantine::{self, Quarantined};
use crate::dataset::{Dataset, LeftOut};
use crate::error::{Error, Result, shown};
use crate::formats::npz::{Array, ArrayChoice};
use crate::formats::volume_file;
use crate::plan::layout::Content;
use crate::plan::{Plan, ShardId};
use crate::shard::{Serving, ShardSet};
use crate::storage::Store;
use crate::verify::{Silence, SourceVolume, Verdict, readable};

/// Bytes of a volume that are read at a time.
const READ: u64 = 4 << 20;

/// The report of `verify --sources`, as text and as JSON.
#[derive(Serialize)]
struct SourcesReport {
    verdict: Verdict,
    /// Number of volumes that were read.
    volumes: usize,
    /// Volumes that cannot be made; the list has them and the rows of `--exclude`.
    bad: Vec<Quarantined>,
    /// Volumes that the operating system did not let be read, and why: they may be sound.
    unread: Vec<Quarantined>,
    /// Path of the list that was written.
    quarantine: PathBuf,
}

/// Reads all volumes of the data set, writes the list of those that cannot be made, and returns the verdict.
///
/// # Errors
/// The data set cannot be planned, the list cannot be written, or this process lacks memory or descriptors and no
/// volume is damaged.
pub(super) fn run(args: &VerifyArgs) -> Result<Verdict> {
    super::daemon::log_to_terminal(log::LevelFilter::Off); // each volume is listed once, at the end
    let plan = make_new_plan(&args.dataset, Some(&args.storage.options()))?;
    let workers = args.num_workers.map_or_else(|| Serving::usual_threads(&plan), usize::from);
    let excluded = args.dataset.exclude.as_deref().map(|list| quarantine::read_in(&*plan.dataset.store, list));
    let excluded = excluded.transpose()?.unwrap_or_default();
    let name = args.quarantine.clone().unwrap_or_else(|| quarantine::NAME.into());
    let mut checked = check_left_out(&plan.dataset, &args.dataset.array_choice(), &excluded, workers)?;
    let volumes = plan.dataset.samples.len() + checked.len();
    checked.extend(read_all(plan, workers, args.json)?);
    let (mut bad, mut unread, mut limited) = (Vec::new(), Vec::new(), None);
    for VolumeCheck { study_id, path, error } in checked {
        match error {
            None => {}
            Some(Error::Malformed { reason, .. }) => bad.push(Quarantined { study_id, path, reason }),
            Some(other) => {
                unread.push(Quarantined { study_id, path, reason: other.to_string() });
                limited = limited.or(Some(other).filter(Error::is_limit));
            }
        }
    }
    let verdict = match (bad.is_empty(), unread.is_empty()) {
        (false, _) => Verdict::Damaged,
        (true, false) => Verdict::Unchecked,
        (true, true) => Verdict::Fine,
    };
    let mut rows: BTreeMap<&str, &Quarantined> = excluded.iter().map(|row| (&*row.study_id, row)).collect();
    rows.extend(bad.iter().map(|row| (&*row.study_id, row)));
    let rows: Vec<Quarantined> = rows.into_values().cloned().collect();
    super::interrupt::finish(); // the list is written whole, and no part of it is left
    store(&name, &quarantine::render(&rows))?;
    let report = SourcesReport { verdict, volumes, bad, unread, quarantine: name };
    print(if args.json { events::end(&report)? } else { describe(&report) }, "print the report")?;
    // A limit of this process says nothing about the volumes.
    limited.filter(|_| verdict == Verdict::Unchecked).map_or(Ok(verdict), Err)
}

/// The result of reading a volume: the error, or none if the volume can be made.
struct VolumeCheck {
    study_id: String,
    /// Path of the NPZ file, relative to the data folder.
    path: String,
    error: Option<Error>,
}

/// Location of a volume of the plan in its shard.
struct VolumeRange {
    shard: ShardId,
    /// Index of the sample in the plan.
    sample: usize,
    /// Bytes of the volume in the shard.
    range: Range<u64>,
}

/// Reads all volumes of the plan as a mount does: the bytes, their CRC and the values.
fn read_all(plan: Plan, workers: usize, has_events: bool) -> Result<Vec<VolumeCheck>> {
    let serving = Serving { cache_bytes: default_cache_size(), threads: workers, read_ahead: 0, read_once: true };
    let bar = Bar::new(has_events);
    let set = ShardSet::new(plan, serving)?;
    let plan = set.plan();
    let mut volumes = Vec::new();
    for shard in plan.shard_ids() {
        for (extent, _) in plan.locate(shard, 0, u64::MAX) {
            if let Content::Payload(member) = extent.content
                && member.member.has_voxels()
            {
                let sample = plan.sample_index(shard, member);
                volumes.push(VolumeRange { shard, sample, range: extent.start..extent.start + extent.len });
            }
        }
    }
    bar.begin("volumes", volumes.iter().map(|volume| volume.range.end - volume.range.start).sum());
    let silence = Silence::new(workers);
    let checked = try_map(&volumes, workers, |volume| {
        let sample = &plan.dataset.samples[volume.sample];
        let path = sample.path.to_string_lossy().into_owned();
        let error = unless_silent(&silence, || read(&set, volume, &bar)).err();
        Ok(VolumeCheck { study_id: sample.study_id.clone(), path, error })
    });
    bar.clear();
    checked
}

/// Reads a volume, unless the storage has stopped to answer.
///
/// # Errors
/// [`Error::Refused`] if it has, and those of reading.
fn unless_silent(silence: &Silence, read: impl FnOnce() -> Result<()>) -> Result<()> {
    if silence.is_long() {
        let reason = "it was not read, because the storage had stopped to answer: verify again when it does";
        return Err(Error::Refused(reason.into()));
    }
    let read = read();
    silence.count(matches!(&read, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::TimedOut));
    read
}

/// Reads one volume to the end.
///
/// # Errors
/// The NPZ file cannot be read, or is damaged.
fn read(set: &ShardSet, volume: &VolumeRange, bar: &Bar) -> Result<()> {
    let cursor = Arc::new(set.cursor(volume.shard));
    let mut offset = volume.range.start;
    while offset < volume.range.end {
        let len = READ.min(volume.range.end - offset);
        set.read_with(&cursor, offset, to_usize(len))?;
        bar.advance(len);
        offset += len;
    }
    Ok(())
}

/// Reads the volumes that the plan leaves out. Some have headers that cannot be read; others only lack metadata, which
/// is no fault of the volume. Volumes that the user excluded are not read.
fn check_left_out(
    dataset: &Dataset,
    array: &ArrayChoice,
    excluded: &[Quarantined],
    workers: usize,
) -> Result<Vec<VolumeCheck>> {
    let is_excluded = |left_out: &&LeftOut| excluded.iter().any(|row| row.study_id == left_out.study_id);
    let left_out: Vec<&LeftOut> = dataset.left_out.iter().filter(|left_out| !is_excluded(left_out)).collect();
    let silence = Silence::new(workers);
    try_map(&left_out, workers, |left_out| {
        let path = dataset.root.join(&left_out.path);
        let error = unless_silent(&silence, || read_whole(&*dataset.store, &path, array)).err();
        let (study_id, path) = (left_out.study_id.clone(), left_out.path.clone());
        Ok(VolumeCheck { study_id, path, error })
    })
}

/// Reads the array of a file to its end by other code than that of the shards. Its content is at fault only where
/// neither memory nor the file's bytes are hard to get.
///
/// # Errors
/// [`Error::Malformed`] if the array is damaged, [`Error::Io`] if it could not be looked at.
fn read_whole(store: &dyn Store, path: &Path, choice: &ArrayChoice) -> Result<()> {
    let array = match store.is_remote(path) {
        true => {
            let object = store.open(path).map_err(|error| Error::io(path, "open the object", error))?;
            volume_file::inspect_file(path, &*object, choice)?
        }
        false => volume_file::inspect(path, choice)?,
    };
    let no_memory = |error| Error::io(path, "get memory to read the volume", error);
    memory::zeros::<u8>(to_usize(array.member.len)).map_err(no_memory)?;
    readable(store, path, &source_volume(&array))
}

/// The volume of an array, for other code than that of the shards.
fn source_volume(array: &Array) -> SourceVolume<'_> {
    let channel = array.part.map(|part| (part.is_last(), to_usize(part.asked.index)));
    SourceVolume { array: &array.member.name, channel, turn: array.turned_axes(), is_extra: false }
}

/// Writes the list whole or not at all, readable for the user only.
///
/// # Errors
/// The file cannot be written; a file of that name that existed before is kept.
fn store(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    publish_private(folder, &file_name(path), content)
}

/// The report for people.
fn describe(report: &SourcesReport) -> String {
    let (list, volumes) = (report.quarantine.display(), report.volumes);
    let mut text = String::new();
    for (title, rows) in [("cannot be made", &report.bad), ("could not be read (they may be sound)", &report.unread)] {
        if !rows.is_empty() {
            text.push_str(&format!("{} of {} {title}:\n", rows.len(), counted(volumes, "volume", "volumes")));
        }
        for row in rows {
            let (study, path, reason) = (shown(&row.study_id), shown(&row.path), shown(&row.reason));
            text.push_str(&format!("  {study} ({path}): {reason}\n"));
        }
    }
    text + &match report.bad.len() {
        0 if report.unread.is_empty() => {
            format!("{} read, and all can be made; {list} is written\n", counted(volumes, "volume", "volumes"))
        }
        0 => format!("{list} is written without them: run verify --sources again\n"),
        _ => format!("{list} is written: plan, mount and materialize leave these out with --exclude {list}\n"),
    }
}
