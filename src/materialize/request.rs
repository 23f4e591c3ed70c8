//! What a caller asks for, and what the caller gets.

use crate::error::Error;
use crate::formats::codec::Codec;
use crate::output::journal::SkippedSample;
use crate::output::partition::Part;
use crate::output::place::Place;

/// What becomes of a shard with a sample that cannot be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// The shard is not written, and the run fails when all others are.
    #[default]
    Fail,
    /// The shard is written with that sample's slot empty, as if the sample were excluded, and the manifest says so.
    Skip,
}

/// Which shards to write, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The output folder.
    pub out: &'a Place,
    /// Number of shards that are written at a time.
    pub workers: usize,
    /// How the volumes are compressed; `None` for plain shards. With a codec, each worker keeps the compressed member
    /// that it is making in memory.
    pub codec: Option<Codec>,
    /// The part whose shards are written.
    pub part: Part,
    /// What becomes of shards with samples that cannot be made.
    pub on_error: OnError,
    /// Whether finished shards are read again and compared with the journal.
    pub recheck: bool,
    /// Whether unfinished files of other hosts are removed, too.
    pub clean: bool,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Number of shards that this run wrote.
    pub written: usize,
    /// Number of shards that an earlier run had finished.
    pub kept: usize,
    /// Shards that could not be made, by their names, with the reasons; a shard may have several.
    pub failed: Vec<(String, Error)>,
    /// Samples that finished shards are without, each with the name of its shard.
    pub skipped: Vec<(String, SkippedSample)>,
    /// Name of the file that lists the samples that cannot be made, if there are any.
    pub quarantine: Option<String>,
    /// Whether this was a part, and every part has a manifest now.
    pub may_merge: bool,
    /// Remarks on files that a user has changed, and on unfinished files that another process may be writing: a line of
    /// text for each.
    pub remarks: Vec<String>,
}

/// Whether the manifest of the whole could be written.
#[derive(Debug)]
pub enum ManifestOutcome {
    /// The manifest is written.
    Written {
        /// Number of shards that the manifest lists.
        shards: usize,
        /// Remarks on files that a user has changed: a line of text for each.
        remarks: Vec<String>,
    },
    /// Nothing is written because shards are missing or wrong: one line of text for each.
    Incomplete(Vec<String>),
}
