//! The output folder: its lock, its journal of finished shards, and files that appear whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::index_files;
use super::leftovers::{self, Leftovers};
use super::new_shard::{NewShard, may_be_given_up};
use super::request::OnError;
use crate::base::durable::PartialFile;
use crate::base::lock::lock;
use crate::dataset::quarantine;
use crate::error::{Error, Result, later_version, shown};
use crate::formats::codec::Codec;
use crate::output::journal::{self, FinishedShard, Journals, Line, RecordedCodec, Run};
use crate::output::manifest;
use crate::output::object_journal::ObjectJournal;
use crate::output::part_lock::lock_part;
use crate::output::partition::Part;
use crate::output::place::{Guard, Place, Sizes};
use crate::output::source_times;
use crate::plan::{Plan, ShardId, shard_ids};

/// An output folder of which a part is locked for this process.
pub(super) struct OutputFolder {
    place: Place,
    part: Part,
    codec: Option<Codec>,
    journal: Journal,
    /// Content of the folder's journals when it was opened.
    earlier: Journals,
    /// Shards whose files no run is known to have written: they stay if they turn out to be right.
    unrecorded: BTreeSet<ShardId>,
    /// The part's unfinished files of other runs.
    leftovers: Leftovers,
}

/// The journal of a part, which is its lock as well.
enum Journal {
    /// On a disk: a file that grows, and that the kernel unlocks when the process ends.
    File(Mutex<File>),
    /// In a bucket.
    Object(Arc<ObjectJournal>),
}

impl Journal {
    /// Locks a part, creates the folder if it is missing, and reads the journals of all parts.
    ///
    /// # Errors
    /// [`Error::Refused`] if another run is at work on the part; [`Error::Io`].
    fn open(place: &Place, part: Part) -> Result<(Self, Journals)> {
        if place.objects().is_some() {
            return ObjectJournal::take(place, part).map(|(journal, found)| (Self::Object(Arc::new(journal)), found));
        }
        let file = lock_part(place.path(), part)?;
        Ok((Self::File(Mutex::new(file)), Journals::read(place.path())?))
    }
}

impl OutputFolder {
    /// Opens or creates the folder for a part of a plan whose volumes are compressed with `codec`, if any, and removes
    /// the unfinished files of the part that no process writes any more; with `clean`, those of other hosts as well.
    ///
    /// # Errors
    /// [`Error::Refused`] if another run is at work on the part, or the folder holds shards of another plan or codec;
    /// [`Error::Io`].
    pub(super) fn open(place: &Place, part: Part, codec: Option<Codec>, plan: &Plan, clean: bool) -> Result<Self> {
        let (journal, earlier) = Journal::open(place, part)?;
        let codec = match earlier.all_finished().next() {
            None => codec,
            Some(_) => codec_of_begun(place.path(), earlier.codec(), codec)?,
        };
        let unrecorded = unrecorded(place, plan, codec, &earlier)?;
        if !unrecorded.is_empty() {
            log::debug!("{}: no record of {} of the shards", place.path().display(), unrecorded.len());
        }
        let (leftovers, place) = match &journal {
            Journal::File(_) => (leftovers::remove(place.path(), part, clean)?, place.clone()),
            // Unfinished uploads are known to the journal.
            Journal::Object(journal) => (Leftovers::default(), place.guarded_by(journal.clone())),
        };
        let folder = Self { place, part, codec, journal, earlier, unrecorded, leftovers };
        folder.place.sync(Path::new(""))?;
        folder.place.sync(Path::new(journal::STATUS_DIR))?;
        Ok(folder)
    }

    /// The folder itself.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Path of the folder.
    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }

    /// How the volumes of its shards are compressed; `None` for plain shards. Filters are those that the folder was
    /// begun with.
    pub(super) fn codec(&self) -> Option<Codec> {
        self.codec
    }

    /// What is to be said of the unfinished files of other runs.
    pub(super) fn remarks_on_leftovers(&self) -> Vec<String> {
        match &self.journal {
            Journal::File(_) => self.leftovers.remarks(self.path()),
            Journal::Object(journal) => journal.remarks(),
        }
    }

    /// The error that is behind one of writing a shard: after another run has taken the part over, and has given up the
    /// uploads of this one, the storage only says that it does not know them.
    pub(super) fn why(&self, error: Error) -> Error {
        match (&self.journal, &error) {
            (Journal::Object(journal), Error::Io { source, .. }) if may_be_given_up(source) => match journal.check() {
                Err(lost @ Error::Refused(_)) => lost,
                _ => error,
            },
            _ => error,
        }
    }

    /// Whether the shard has a file that no run is known to have written.
    pub(super) fn is_unrecorded(&self, id: ShardId) -> bool {
        self.unrecorded.contains(&id)
    }

    /// The part's finished shards: those that are recorded as this plan's, and whose files have the recorded size. A
    /// shard without some samples counts if such samples are to be skipped and their NPZ files are as they were. None
    /// counts whose sources without a checksum have other times than they had.
    ///
    /// # Errors
    /// [`Error::Io`] if the file system cannot tell the size of a file.
    pub(super) fn finished(&self, plan: &Plan, on_error: OnError) -> Result<BTreeMap<ShardId, FinishedShard>> {
        let (mut all, sizes) = (BTreeMap::new(), self.place.sizes()?);
        for (id, shard) in (0..).zip(&plan.shards).filter(|(id, _)| self.part.has(*id)) {
            let (Some(found), Some(digest)) = (self.earlier.finished(id), plan.shard_digest(id)) else { continue };
            let samples = &plan.dataset.samples[shard.samples.clone()];
            let would_fail_again = |found: &FinishedShard| {
                found.left_out.iter().all(|skipped| {
                    let sample = samples.iter().find(|sample| sample.study_id == skipped.study_id);
                    sample.is_some_and(|sample| skipped.would_fail_again(sample.file_id()))
                })
            };
            let is_size = self.codec.is_some() || found.size == shard.layout.len();
            let is_whole = found.made_of == digest && is_size;
            let is_skipped = || on_error == OnError::Skip && found.planned == digest && would_fail_again(found);
            let has_times = || found.has_times(source_times::of_shard(plan, id).as_deref());
            let is_there = || Ok::<_, Error>(self.place.size(&sizes, &found.name)? == Some(found.size));
            if (is_whole || is_skipped()) && has_times() && is_there()? {
                all.insert(id, found.clone());
            }
        }
        Ok(all)
    }

    /// Refuses to begin if fewer than `needed` bytes are free. A bucket has no such bound.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Io`] if the file system cannot tell.
    pub(super) fn check_space(&self, needed: u64) -> Result<()> {
        if self.place.objects().is_some() {
            return Ok(());
        }
        let stat = rustix::fs::statvfs(self.path())
            .map_err(|error| Error::io(self.path(), "ask for free space", error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < needed {
            let (needed, free) = (bytesize::ByteSize(needed), bytesize::ByteSize(free));
            let folder = self.path().display();
            return Err(Error::Refused(format!(
                "{folder}: {needed} are needed and {free} are free; nothing was written"
            )));
        }
        Ok(())
    }

    /// A new shard of about `len` bytes, which nobody sees until it is published.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created; [`Error::Refused`] if another run has taken the part over.
    pub(super) fn create(&self, name: &str, len: u64) -> Result<NewShard> {
        match &self.journal {
            Journal::File(_) => PartialFile::create(self.path(), name).map(NewShard::File),
            Journal::Object(journal) => NewShard::upload(&self.place, journal, name, len),
        }
    }

    /// Writes a whole small file, atomically and durably.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub(super) fn publish(&self, name: &str, content: &[u8]) -> Result<()> {
        self.place.publish(name, content)
    }

    /// Begins to make the shards `missing`: removes manifests and indexes that describe them, and notes in the journal
    /// that earlier lines about them no longer count. Returns the number of the run, and what is to be said of removed
    /// files that a user had changed.
    ///
    /// # Errors
    /// [`Error::Io`] if one of these steps fails.
    pub(super) fn begin(&self, plan: &Plan, missing: &[ShardId]) -> Result<(u64, Vec<String>)> {
        let said = index_files::remove(&self.place, plan, missing, self.codec.is_some())?;
        for name in self.place.sizes()?.keys() {
            let part = Part::of_file(name, manifest::FILE);
            if part.is_some_and(|part| part.overlaps(self.part)) {
                self.place.remove(Path::new(name), "remove the old manifest")?;
            }
        }
        self.place.sync(Path::new(""))?;
        let (run, plan_digest) = (self.earlier.last_run + 1, plan.digest.clone());
        let shards = shard_ids(plan.shards.len()).end;
        let unrecorded = self.unrecorded.iter().copied().collect();
        let mut lines =
            vec![Line::Run(Run { run, plan_digest, codec: self.codec.map(RecordedCodec::Known), shards, unrecorded })];
        let recorded = missing.iter().filter(|id| self.earlier.finished(**id).is_some());
        lines.extend(recorded.map(|id| Line::Again { run, name: Plan::shard_name(*id) }));
        self.append(&lines)?;
        Ok((run, said))
    }

    /// Notes in the journal, durably, that a shard is finished.
    ///
    /// # Errors
    /// [`Error::Io`] if the journal cannot be written.
    pub(super) fn record(&self, finished: FinishedShard) -> Result<()> {
        self.append(&[Line::Finished(finished)])
    }

    fn append(&self, lines: &[Line]) -> Result<()> {
        let journal = match &self.journal {
            Journal::File(file) => file,
            Journal::Object(journal) => return journal.append(lines),
        };
        let path = self.path().join(journal::STATUS_DIR).join(journal::name(self.part));
        let written = journal::append(&mut lock(journal), lines);
        written.map_err(|error| Error::io(&path, "record what is finished", error))
    }

    /// The list of samples that cannot be made, as it is now; empty if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Table`] if the list cannot be read.
    pub(super) fn quarantined(&self) -> Result<Vec<quarantine::Quarantined>> {
        quarantined(&self.place, &self.part.file_name(quarantine::FILE))
    }

    /// Writes the list of samples that cannot be made, or removes it if `rows` is empty.
    ///
    /// # Errors
    /// [`Error::Io`] if the list cannot be written or removed.
    pub(super) fn quarantine(&self, rows: &[quarantine::Quarantined]) -> Result<()> {
        let name = self.part.file_name(quarantine::FILE);
        if !rows.is_empty() {
            return self.publish(&name, &quarantine::render(rows));
        }
        self.place.remove(Path::new(&name), "remove the list of samples that could not be made")
    }
}

/// The list of samples that cannot be made in a file of this name; empty if there is none.
///
/// # Errors
/// [`Error::Io`] or [`Error::Table`] if the list cannot be read.
pub(super) fn quarantined(place: &Place, name: &str) -> Result<Vec<quarantine::Quarantined>> {
    let content = place.read_if_there(Path::new(name), quarantine::READING)?;
    content.map_or_else(|| Ok(Vec::new()), |content| quarantine::parse(&place.path().join(name), content))
}

/// The shards of the folder that no run is known to have written. A folder of another plan is refused: one in which no
/// recorded shard is of this plan, one with shards that the plan does not have, or one with unrecorded shards of
/// another size.
fn unrecorded(place: &Place, plan: &Plan, codec: Option<Codec>, journals: &Journals) -> Result<BTreeSet<ShardId>> {
    let (folder, sizes): (&Path, Sizes) = (place.path(), place.sizes()?);
    let present: Vec<ShardId> = sizes.keys().filter_map(|name| Plan::shard_named(name)).collect();
    let mut recorded = present.iter().filter_map(|id| Some((id, journals.finished(*id)?))).peekable();
    let is_of_plan =
        |(id, found): (&ShardId, &FinishedShard)| plan.shard_digest(*id).is_some_and(|digest| found.is_of(digest));
    let is_other = recorded.peek().is_some() && !recorded.any(is_of_plan);
    if is_other || (present.is_empty() && journals.is_empty() && sizes.contains_key(manifest::NAME)) {
        return Err(other_plan(folder));
    }
    let mut unrecorded = BTreeSet::new();
    for id in present {
        let shard = plan.shards.get(id as usize).ok_or_else(|| other_plan(folder))?;
        if !journals.is_recorded(id) {
            match place.size(&sizes, &Plan::shard_name(id))? {
                Some(size) if codec.is_none() && size != shard.layout.len() => return Err(other_plan(folder)),
                Some(_) => drop(unrecorded.insert(id)),
                None => {}
            }
        }
    }
    Ok(unrecorded)
}

fn other_plan(folder: &Path) -> Error {
    Error::Refused(format!(
        "{}: the folder holds shards of another plan (other volumes, tables or options), or ones of which nothing is \
         recorded; choose an empty folder, or remove the old shards",
        folder.display()
    ))
}

/// The codec of the next shards of a folder, whose first ones have the codec `begun`: the same, and other filters than
/// today's if the folder has such.
fn codec_of_begun(folder: &Path, begun: Option<&RecordedCodec>, asked: Option<Codec>) -> Result<Option<Codec>> {
    let begun = match begun {
        None => None,
        Some(RecordedCodec::Known(codec)) => Some(*codec),
        Some(RecordedCodec::Later(codec)) => {
            let folder = folder.display();
            let unknown = later_version(format_args!("the codec {} of its shards", shown(codec)));
            return Err(Error::Refused(format!("{folder}: {unknown}, or choose another folder")));
        }
    };
    match (begun, asked) {
        (Some(begun), Some(asked)) if begun.level == asked.level => Ok(Some(begun)),
        (begun, asked) if begun == asked => Ok(asked),
        (begun, _) => Err(other_codec(folder, begun)),
    }
}

fn other_codec(folder: &Path, codec: Option<Codec>) -> Error {
    let how = codec.map_or_else(|| "plain shards".into(), |codec| format!("shards compressed with {codec}"));
    Error::Refused(format!(
        "{}: the folder holds {how}; give the same --compress to continue, or choose another folder",
        folder.display()
    ))
}
