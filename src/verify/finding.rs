//! What was found to be wrong with a folder of shards, and how bad it is.

use std::fmt::Display;

use serde::Serialize;

/// What a finding, or all of them, come to; a later one outweighs an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong.
    Fine,
    /// Something that should have been looked at could not be.
    Unchecked,
    /// Shards or samples are missing.
    Incomplete,
    /// Something is wrong.
    Damaged,
}

/// One thing that is wrong, missing, or could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it comes to.
    pub verdict: Verdict,
    /// The shard, the member or the sample.
    pub place: String,
    /// What it is.
    pub what: String,
}

impl Finding {
    pub(super) fn new(verdict: Verdict, place: impl Display, what: impl Into<String>) -> Self {
        Self { verdict, place: place.to_string(), what: what.into() }
    }

    pub(super) fn damaged(place: impl Display, what: impl Into<String>) -> Self {
        Self::new(Verdict::Damaged, place, what)
    }
}
