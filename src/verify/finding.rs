//! Faults of a folder of shards, and their severity.

use std::fmt::Display;

use serde::Serialize;

/// The judgement of one finding, or of a whole folder; a later variant outweighs an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong.
    Fine,
    /// Something that should have been checked could not be checked.
    Unchecked,
    /// Shards or samples are missing.
    Incomplete,
    /// Something is wrong.
    Damaged,
}

/// One thing that is wrong, missing, or could not be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The judgement of this finding.
    pub verdict: Verdict,
    /// The shard, member or sample that is concerned.
    pub place: String,
    /// A sentence for people that says what is wrong.
    pub what: String,
}

impl Finding {
    /// A finding of any verdict about `place`.
    pub(super) fn new(verdict: Verdict, place: impl Display, what: impl Into<String>) -> Self {
        Self { verdict, place: place.to_string(), what: what.into() }
    }

    /// A finding of the verdict [`Verdict::Damaged`] about `place`.
    pub(super) fn damaged(place: impl Display, what: impl Into<String>) -> Self {
        Self::new(Verdict::Damaged, place, what)
    }
}
