//! The record of an output folder: which shards are finished, and what they were made of. A journal a part; each line
//! was durable before the next.
//!
//! Runs are numbered through all journals of a folder. Runs of parts that share a shard never go on at once, and each
//! reads all journals first: so of the lines about a shard, that of the highest run, and its last, is the truth.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::file_id::FileId;
use crate::error::{Error, Result};
use crate::formats::codec::Codec;
use crate::output::partition::Part;
use crate::plan::{Plan, ShardId};

/// The folder of what is about the shards and none of them; hidden, so that a glob of `*.tar` does not see it.
pub const STATUS_DIR: &str = ".ctwds";
/// The names of the journals.
const JOURNAL: (&str, &str) = ("journal", "jsonl");

/// A line of a journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A run begins to write its part.
    Run(Run),
    /// What was recorded of a shard no longer counts: this run makes it again.
    Again {
        /// The run's number.
        run: u64,
        /// The file's name.
        name: String,
    },
    /// A shard is finished.
    Finished(Finished),
}

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its number: higher than that of every run whose lines it could read.
    pub run: u64,
    /// The digest of its plan, for people.
    pub plan_digest: String,
    /// How its volumes are compressed, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
    /// The shards of its plan.
    pub shards: u32,
    /// Those of them that were there before any run is known to have written them: they may be anybody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strangers: Vec<ShardId>,
}

/// A finished shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// The run that made it.
    pub run: u64,
    /// The file's name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of the file, in hexadecimal.
    pub sha256: String,
    /// The digest of what the file was made of.
    pub made_of: String,
    /// The digest of what it was to be made of; another one if samples are left out.
    pub planned: String,
    /// The samples that could not be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Skipped>,
}

/// A sample that a shard was made without.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// The study.
    pub study_id: String,
    /// Why it could not be made.
    pub reason: String,
    /// Bytes of the NPZ then.
    pub source_size: u64,
    /// Its modification time then, in nanoseconds since 1970.
    pub source_mtime_ns: i64,
}

impl Skipped {
    /// A sample that could not be made from a file in this state.
    pub fn new(study_id: String, reason: String, source: &FileId) -> Self {
        Self { study_id, reason, source_size: source.size, source_mtime_ns: mtime(source) }
    }

    /// Whether the file is still as it was, so that making the sample would fail again.
    pub fn still_holds(&self, source: &FileId) -> bool {
        self.source_size == source.size && self.source_mtime_ns == mtime(source)
    }
}

fn mtime(source: &FileId) -> i64 {
    i64::try_from(source.mtime_ns).unwrap_or(i64::MAX)
}

/// What all journals of a folder say.
#[derive(Debug, Default)]
pub struct Record {
    /// The highest number of a run.
    pub last_run: u64,
    /// The runs that were begun.
    begun: Vec<(Part, Run)>,
    /// The last word on each shard: that it is finished, or made again.
    shards: BTreeMap<ShardId, (u64, Option<Finished>)>,
}

impl Record {
    /// Reads the record of an output folder; empty if there is none. Lines that a crash cut short are passed over.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut record = Self::default();
        for (part, path) in journals(folder)? {
            match fs::read(&path) {
                Ok(text) => record.add(part, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(&path, "read the record of finished shards", error)),
            }
        }
        Ok(record)
    }

    /// What one journal of a whole conversion says.
    pub fn parse(journal: &[u8]) -> Self {
        let mut record = Self::default();
        record.add(Part::WHOLE, journal);
        record
    }

    fn add(&mut self, part: Part, journal: &[u8]) {
        let whole = journal.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        for line in whole.filter_map(|line| serde_json::from_slice(line).ok()) {
            match line {
                Line::Run(run) => {
                    self.last_run = self.last_run.max(run.run);
                    self.begun.push((part, run));
                }
                Line::Again { run, name } => self.note(run, &name, None),
                Line::Finished(finished) => {
                    let (run, name) = (finished.run, finished.name.clone());
                    self.note(run, &name, Some(finished));
                }
            }
        }
    }

    fn note(&mut self, run: u64, name: &str, finished: Option<Finished>) {
        self.last_run = self.last_run.max(run);
        let Some(id) = Plan::shard_named(name) else { return };
        if self.shards.get(&id).is_none_or(|(known, _)| *known <= run) {
            self.shards.insert(id, (run, finished));
        }
    }

    /// What is recorded of a finished shard.
    pub fn finished(&self, id: ShardId) -> Option<&Finished> {
        self.shards.get(&id)?.1.as_ref()
    }

    /// All finished shards, in no order.
    pub fn all_finished(&self) -> impl Iterator<Item = (ShardId, &Finished)> {
        self.shards.iter().filter_map(|(id, (_, finished))| Some((*id, finished.as_ref()?)))
    }

    /// How the volumes of the finished shards are compressed, if they are: runs of different codecs do not mix.
    pub fn codec(&self) -> Option<Codec> {
        self.begun.iter().max_by_key(|(_, run)| run.run)?.1.codec
    }

    /// Whether no run has begun here.
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.shards.is_empty()
    }

    /// Whether a recorded run was to write this shard, so that a file of its name is no stranger's.
    pub fn is_ours(&self, id: ShardId) -> bool {
        let wrote = |(part, run): &(Part, Run)| id < run.shards && part.has(id) && !run.strangers.contains(&id);
        self.shards.contains_key(&id) || self.begun.iter().any(wrote)
    }
}

impl Finished {
    /// Whether the file is this shard, of a plan that gives it this digest: whole, or without samples that could not be
    /// made.
    pub fn is_of(&self, digest: &str) -> bool {
        self.made_of == digest || self.planned == digest
    }
}

/// Where the journal of a part of an output folder is.
pub fn journal(folder: &Path, part: Part) -> PathBuf {
    folder.join(STATUS_DIR).join(part.file_name(JOURNAL))
}

/// Appends lines to a journal, each on its own whatever a crash left before them; durable when it returns.
///
/// # Errors
/// They cannot be written.
pub fn append(journal: &mut File, lines: &[impl Serialize]) -> io::Result<()> {
    let end = journal.metadata()?.len();
    let mut text = Vec::new();
    if end > 0 {
        let mut last = [0];
        journal.read_exact_at(&mut last, end - 1)?;
        if last != *b"\n" {
            text.push(b'\n');
        }
    }
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    journal.write_all(&text)?;
    journal.sync_data()
}

/// The journals of an output folder.
///
/// # Errors
/// [`Error::Io`] if the folder is there and cannot be listed.
pub fn journals(folder: &Path) -> Result<Vec<(Part, PathBuf)>> {
    let status = folder.join(STATUS_DIR);
    let failed = |error| Error::io(&status, "list the records of finished shards", error);
    let entries = match fs::read_dir(&status) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Some(part) = entry.file_name().to_str().and_then(|name| Part::of_file(name, JOURNAL)) {
            found.push((part, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(run: u64, sha256: &str) -> Vec<u8> {
        let name = Plan::shard_name(1);
        let digest = || "digest".to_owned();
        let (made_of, planned, left_out) = (digest(), digest(), Vec::new());
        line(&Line::Finished(Finished { run, name, size: 1, sha256: sha256.into(), made_of, planned, left_out }))
    }

    fn line(line: &Line) -> Vec<u8> {
        let mut text = serde_json::to_vec(line).unwrap();
        text.push(b'\n');
        text
    }

    /// The record of two journals.
    fn read(whole: &[Vec<u8>], part: &[Vec<u8>]) -> Record {
        let mut record = Record::default();
        record.add(Part::WHOLE, &whole.concat());
        record.add(Part::new(1, 2).unwrap(), &part.concat());
        record
    }

    fn digest(record: &Record) -> Option<&str> {
        record.finished(1).map(|finished| &*finished.sha256)
    }

    #[test]
    fn the_latest_run_has_the_last_word_wherever_it_stands() {
        assert_eq!(digest(&read(&[finished(2, "b"), finished(3, "c")], &[finished(1, "a")])), Some("c"));
        assert_eq!(digest(&read(&[finished(2, "b")], &[finished(3, "c"), finished(3, "d")])), Some("d"));
        let again = |run| line(&Line::Again { run, name: Plan::shard_name(1) });
        assert_eq!(digest(&read(&[again(4)], &[finished(3, "c")])), None);
        assert_eq!(digest(&read(&[again(2)], &[finished(3, "c")])), Some("c"));
        assert_eq!(read(&[again(7)], &[]).last_run, 7);
    }

    #[test]
    fn a_line_that_was_cut_short_does_not_count() {
        let text = [finished(1, "a"), finished(2, "b")].concat();
        for length in 0..text.len() {
            let record = read(&[text[..length].to_vec()], &[]);
            let expected = (length >= finished(1, "a").len()).then_some("a");
            assert_eq!(digest(&record), expected, "{length} bytes");
        }
    }

    #[test]
    fn what_a_run_was_to_write_is_ours() {
        let run = |strangers| Run { run: 1, plan_digest: String::new(), codec: None, shards: 6, strangers };
        let ours = |runs: &[Vec<u8>]| (0..8).filter(|id| read(&[], runs).is_ours(*id)).collect::<Vec<_>>();
        let [first, second] = [vec![3, 5], vec![3]].map(|strangers| line(&Line::Run(run(strangers))));
        assert_eq!(ours(std::slice::from_ref(&first)), [1]);
        assert_eq!(ours(&[first, second]), [1, 5]);
    }
}
