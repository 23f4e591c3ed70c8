//! The reason why something could not be read: what is wrong with it, or what this process lacks.

use std::fmt::{self, Display, Formatter};
use std::io;

use crate::error::{is_limit, reason};

/// The reason why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// A clause for people.
    pub reason: String,
    /// Whether this process lacks memory or descriptors, so that nothing is known about what was to be read.
    pub is_limit: bool,
    /// Whether the time to wait for it was over before it came.
    pub is_late: bool,
}

impl Unread {
    /// Puts `what` before the reason.
    pub(super) fn behind(self, what: impl Display) -> Self {
        Self { reason: format!("{what}: {}", self.reason), ..self }
    }

    /// Several reasons as one.
    pub(super) fn all(reasons: &[Self]) -> Self {
        let reason = reasons.iter().map(|one| &*one.reason).collect::<Vec<_>>().join("; ");
        let [is_limit, is_late] =
            [|one: &Self| one.is_limit, |one: &Self| one.is_late].map(|is| reasons.iter().any(is));
        Self { reason, is_limit, is_late }
    }
}

impl Display for Unread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<&io::Error> for Unread {
    fn from(error: &io::Error) -> Self {
        Self { reason: reason(error), is_limit: is_limit(error), is_late: error.kind() == io::ErrorKind::TimedOut }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

impl From<String> for Unread {
    fn from(reason: String) -> Self {
        Self { reason, is_limit: false, is_late: false }
    }
}

impl From<&str> for Unread {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}
