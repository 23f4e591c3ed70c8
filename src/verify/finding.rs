//! Faults of a folder of shards, and their severity.

use std::fmt::Display;

use serde::Serialize;

use super::unread::Unread;

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
    /// Whether this process lacks memory or descriptors, so that nothing was checked.
    #[serde(skip)]
    pub is_limit: bool,
}

impl Finding {
    /// A finding of any verdict about `place`.
    pub(super) fn new(verdict: Verdict, place: impl Display, what: impl Into<String>) -> Self {
        Self { verdict, place: place.to_string(), what: what.into(), is_limit: false }
    }

    /// A finding of the verdict [`Verdict::Unchecked`] about `place`; `doing` says what could not be done.
    pub(super) fn unread(place: impl Display, doing: &str, unread: impl Into<Unread>) -> Self {
        let Unread { reason, is_limit, .. } = unread.into();
        Self { is_limit, ..Self::new(Verdict::Unchecked, place, format!("{doing}: {reason}")) }
    }

    /// A finding about `place` that is damaged, unless this process lacks the memory to look into it.
    pub(super) fn damaged_or_unread(place: impl Display, what: Unread) -> Self {
        if what.is_limit {
            return Self::unread(place, "it cannot be looked into", what);
        }
        Self::damaged(place, what.reason)
    }

    /// A finding of the verdict [`Verdict::Damaged`] about `place`.
    pub(super) fn damaged(place: impl Display, what: impl Into<String>) -> Self {
        Self::new(Verdict::Damaged, place, what)
    }
}
