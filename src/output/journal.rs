//! The journals of an output folder: which shards are finished, and what they were made of. Each part of a conversion
//! has a journal of its own; each line was durable before the next one was written.
//!
//! Runs are numbered through all journals of a folder. Runs of parts that share a shard never go on at once, and each
//! reads all journals first. So of all lines about a shard, the last line of the highest run is the one that counts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::beneath;
use crate::base::file_id::FileId;
use crate::error::{Error, Result};
use crate::formats::codec::Codec;
use crate::output::partition::Part;
#[cfg(doc)]
use crate::output::source_times;
use crate::plan::{Plan, ShardId};

/// The folder of files that are about the shards and are no shards; hidden, so that a glob of `*.tar` does not see it.
pub const STATUS_DIR: &str = ".ctwds";
/// Stem and extension of a journal's file name, for [`Part::file_name`].
const JOURNAL: (&str, &str) = ("journal", "jsonl");

/// A line of a journal, in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A run begins to write its part.
    Run(Run),
    /// Earlier lines about a shard no longer count: this run makes the shard again.
    Again {
        /// Number of the run.
        run: u64,
        /// File name of the shard.
        name: String,
    },
    /// A shard is finished.
    Finished(FinishedShard),
}

/// How the volumes of a run are compressed, as a journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RecordedCodec {
    /// In a way that this version knows.
    Known(Codec),
    /// In one that a later version has added: a run must not be taken for one of plain shards because of that.
    Later(String),
}

/// A run that writes shards.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Number of the run: higher than that of every run whose lines this run could read.
    pub run: u64,
    /// Digest of the run's plan, for people.
    pub plan_digest: String,
    /// How the volumes are compressed; `None` for plain shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<RecordedCodec>,
    /// Number of shards of the run's plan, other parts included.
    pub shards: u32,
    /// Shards whose files were there although no journal named a run that wrote them: anything may have written these.
    #[serde(default, rename = "strangers", skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<ShardId>,
}

/// A finished shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinishedShard {
    /// Number of the run that made the shard.
    pub run: u64,
    /// File name.
    pub name: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Digest of what the file was made of.
    pub made_of: String,
    /// Digest of what the file was to be made of; differs from `made_of` if samples were skipped.
    pub planned: String,
    /// The times of the sources that have no checksum, as [`source_times::of_shard`] gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_times: Option<String>,
    /// Samples that could not be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<SkippedSample>,
}

/// A sample that a shard was made without.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SkippedSample {
    /// Study of the sample.
    pub study_id: String,
    /// Reason why the sample could not be made.
    pub reason: String,
    /// Size of the NPZ at that time, in bytes.
    pub source_size: u64,
    /// Modification time of the NPZ at that time, in nanoseconds since 1970.
    pub source_mtime_ns: i64,
}

impl SkippedSample {
    /// A sample that could not be made from a file in the state `source`.
    pub fn new(study_id: String, reason: String, source: &FileId) -> Self {
        Self { study_id, reason, source_size: source.size, source_mtime_ns: mtime(source) }
    }

    /// Whether the file still has the size and time that it had when the sample failed, so that it would fail again.
    pub fn would_fail_again(&self, source: &FileId) -> bool {
        self.source_size == source.size && self.source_mtime_ns == mtime(source)
    }
}

fn mtime(source: &FileId) -> i64 {
    i64::try_from(source.mtime_ns).unwrap_or(i64::MAX)
}

/// The content of all journals of an output folder.
#[derive(Debug, Default)]
pub struct Journals {
    /// The highest number of a run; 0 if there was none.
    pub last_run: u64,
    /// The runs that were begun, each with its part.
    runs: Vec<(Part, Run)>,
    /// The line about each shard that counts: its run, and what was finished; `None` if the run makes the shard again.
    shards: BTreeMap<ShardId, (u64, Option<FinishedShard>)>,
}

impl Journals {
    /// Reads the journals of an output folder; empty if there are none. Lines that a crash cut short are passed over.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut journals = Self::default();
        for (part, path) in paths(folder)? {
            match beneath::read(folder, &Path::new(STATUS_DIR).join(name(part))) {
                Ok(text) => journals.add(part, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(&path, "read the record of finished shards", error)),
            }
        }
        Ok(journals)
    }

    /// The content of one journal, that of a whole conversion.
    pub fn parse(journal: &[u8]) -> Self {
        let mut journals = Self::default();
        journals.add(Part::WHOLE, journal);
        journals
    }

    /// Adds the content of a part's journal.
    pub(super) fn add(&mut self, part: Part, journal: &[u8]) {
        let whole = journal.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        for line in whole.filter_map(|line| serde_json::from_slice(line).ok()) {
            match line {
                Line::Run(run) => {
                    self.last_run = self.last_run.max(run.run);
                    self.runs.push((part, run));
                }
                Line::Again { run, name } => self.add_shard(run, &name, None),
                Line::Finished(finished) => {
                    let (run, name) = (finished.run, finished.name.clone());
                    self.add_shard(run, &name, Some(finished));
                }
            }
        }
    }

    fn add_shard(&mut self, run: u64, name: &str, finished: Option<FinishedShard>) {
        self.last_run = self.last_run.max(run);
        let Some(id) = Plan::shard_named(name) else { return };
        if self.shards.get(&id).is_none_or(|(known, _)| *known <= run) {
            self.shards.insert(id, (run, finished));
        }
    }

    /// What is recorded of a shard, if it is finished.
    pub fn finished(&self, id: ShardId) -> Option<&FinishedShard> {
        self.shards.get(&id)?.1.as_ref()
    }

    /// All finished shards, in no order.
    pub fn all_finished(&self) -> impl Iterator<Item = (ShardId, &FinishedShard)> {
        self.shards.iter().filter_map(|(id, (_, finished))| Some((*id, finished.as_ref()?)))
    }

    /// How the volumes of the finished shards are compressed; `None` for plain shards. Runs of different codecs never
    /// write to the same folder.
    pub fn codec(&self) -> Option<&RecordedCodec> {
        self.runs.iter().max_by_key(|(_, run)| run.run)?.1.codec.as_ref()
    }

    /// Whether no run has begun in the folder.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.shards.is_empty()
    }

    /// Whether a run that is recorded was to write this shard, so that a file of its name is that run's.
    pub fn is_recorded(&self, id: ShardId) -> bool {
        let wrote = |(part, run): &(Part, Run)| id < run.shards && part.has(id) && !run.unrecorded.contains(&id);
        self.shards.contains_key(&id) || self.runs.iter().any(wrote)
    }
}

impl FinishedShard {
    /// Whether the file is that of a plan in which the shard has this digest: whole, or without samples that could not
    /// be made.
    pub fn is_of(&self, digest: &str) -> bool {
        self.made_of == digest || self.planned == digest
    }

    /// Whether the sources without a checksum have the times that they had, as far as both are known: `now` is what
    /// [`source_times::of_shard`] gives.
    pub fn has_times(&self, now: Option<&str>) -> bool {
        self.source_times.as_deref().zip(now).is_none_or(|(then, now)| then == now)
    }
}

/// The file name of the journal of a part.
pub fn name(part: Part) -> String {
    part.file_name(JOURNAL)
}

/// The part whose journal has this file name.
pub fn part_of(name: &str) -> Option<Part> {
    Part::of_file(name, JOURNAL)
}

/// Appends lines to a journal, after a line break if a crash left half a line there. The lines are durable when this
/// returns.
///
/// # Errors
/// The lines cannot be written.
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

/// The paths of all journals of an output folder, each with its part; none if there is no such folder.
///
/// # Errors
/// [`Error::Io`] if the folder is there and cannot be listed.
pub fn paths(folder: &Path) -> Result<Vec<(Part, PathBuf)>> {
    let status = folder.join(STATUS_DIR);
    let failed = |error| Error::io(&status, "list the records of finished shards", error);
    let names = match beneath::folder(folder, Path::new(STATUS_DIR)).and_then(|folder| folder.names()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let part = |name: OsString| Some((part_of(name.to_str()?)?, status.join(&name)));
    let mut found: Vec<(Part, PathBuf)> = names.into_iter().filter_map(part).collect();
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
        let (sha256, source_times) = (sha256.into(), None);
        line(&Line::Finished(FinishedShard { run, name, size: 1, sha256, made_of, planned, source_times, left_out }))
    }

    fn line(line: &Line) -> Vec<u8> {
        let mut text = serde_json::to_vec(line).unwrap();
        text.push(b'\n');
        text
    }

    /// The content of two journals.
    fn read(whole: &[Vec<u8>], part: &[Vec<u8>]) -> Journals {
        let mut journals = Journals::default();
        journals.add(Part::WHOLE, &whole.concat());
        journals.add(Part::new(1, 2).unwrap(), &part.concat());
        journals
    }

    fn digest(journals: &Journals) -> Option<&str> {
        journals.finished(1).map(|finished| &*finished.sha256)
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
            let journals = read(&[text[..length].to_vec()], &[]);
            let expected = (length >= finished(1, "a").len()).then_some("a");
            assert_eq!(digest(&journals), expected, "{length} bytes");
        }
    }

    #[test]
    fn a_later_versions_codec_is_no_plain_one() {
        let run =
            |codec: &str| format!("{{\"run\":{{\"run\":1,\"plan_digest\":\"\",{codec}\"shards\":6}}}}\n").into_bytes();
        let codec = |text: &str| read(&[run(text)], &[]).codec().cloned();
        assert_eq!(codec(""), None);
        let known = RecordedCodec::Known(Codec::try_from("predict+zstd:3".to_owned()).unwrap());
        assert_eq!(codec("\"codec\":\"predict+zstd:3\","), Some(known.clone()));
        assert_eq!(serde_json::to_string(&known).unwrap(), "\"predict+zstd:3\"");
        assert_eq!(codec("\"codec\":\"other+zstd:3\","), Some(RecordedCodec::Later("other+zstd:3".into())));
    }

    #[test]
    fn what_a_run_was_to_write_is_recorded() {
        let run = |unrecorded| Run { run: 1, plan_digest: String::new(), codec: None, shards: 6, unrecorded };
        let recorded = |runs: &[Vec<u8>]| (0..8).filter(|id| read(&[], runs).is_recorded(*id)).collect::<Vec<_>>();
        let [first, second] = [vec![3, 5], vec![3]].map(|unrecorded| line(&Line::Run(run(unrecorded))));
        assert!(String::from_utf8_lossy(&first).contains(r#""strangers":[3,5]"#), "the name in the file stays");
        assert_eq!(recorded(std::slice::from_ref(&first)), [1]);
        assert_eq!(recorded(&[first, second]), [1, 5]);
    }
}
