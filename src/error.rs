//! The error type of the whole program: what failed, in which file, and the remedy.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The reason why an operation failed. It can be cloned, because one failed decode answers every reader that waits for
/// it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a file or folder (missing file, EIO, no space, no permission).
    #[error("{path}: cannot {doing}: {source}", path = path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// The attempted operation, as a verb phrase ("read the zip directory").
        doing: &'static str,
        /// The operating system's reason.
        source: Arc<io::Error>,
    },
    /// The operating system refused something that concerns no file: memory, a thread, a signal, a process.
    #[error("cannot {doing}: {source}{}", after_semicolon(*remedy))]
    System {
        /// The attempted operation, as a verb phrase ("start 8 decoder threads").
        doing: Cow<'static, str>,
        /// The operating system's reason.
        source: Arc<io::Error>,
        /// The remedy, as a clause ("lower --cache-size"), if there is one.
        remedy: Option<&'static str>,
    },
    /// A source file whose content is not what its format demands, or that this program does not support.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The NPZ file.
        path: PathBuf,
        /// The fault, and where in the file it is.
        reason: String,
    },
    /// A source file is no longer the one that was planned.
    #[error("{path}: the file has changed since it was planned ({detail}); mount or plan again", path = path.display())]
    Changed {
        /// The NPZ file.
        path: PathBuf,
        /// The property that differs.
        detail: String,
    },
    /// A table that cannot be used as it is.
    #[error("{path}: {reason}", path = path.display())]
    Table {
        /// The CSV file.
        path: PathBuf,
        /// The fault, with line and column.
        reason: String,
    },
    /// A request of the user that cannot be fulfilled; the text names the remedy.
    #[error("{0}")]
    Refused(String),
    /// A wrong command line, whatever the data is.
    #[error("{0}\n\nFor more information, try '--help'.")]
    Usage(String),
    /// A bug, such as a decoder that panicked. It is reported, so that no reader waits for ever.
    #[error("internal error: {0}; please report it")]
    Internal(String),
    /// A name that is not in the mount.
    #[error("no such file in the mount")]
    NotFound,
    /// An attempt to change the mount, which is read-only.
    #[error("the mount is read-only")]
    ReadOnly,
}

impl Error {
    /// Wraps an operating-system error with the path and the attempted operation.
    pub fn io(path: &Path, doing: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), doing, source: Arc::new(source) }
    }

    /// Wraps an operating-system error that concerns no file with the attempted operation.
    pub fn system(doing: impl Into<Cow<'static, str>>, source: impl Into<io::Error>) -> Self {
        Self::System { doing: doing.into(), source: Arc::new(source.into()), remedy: None }
    }

    /// Wraps an operating-system error that concerns no file, with what the user can do about it.
    pub fn system_with_remedy(
        doing: impl Into<Cow<'static, str>>,
        source: impl Into<io::Error>,
        remedy: &'static str,
    ) -> Self {
        Self::System { doing: doing.into(), source: Arc::new(source.into()), remedy: Some(remedy) }
    }

    /// The error of a source file with wrong content.
    pub fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.into() }
    }

    /// The error of a table that cannot be used.
    pub fn table(path: &Path, reason: impl Into<String>) -> Self {
        Self::Table { path: path.to_owned(), reason: reason.into() }
    }
}

fn after_semicolon(remedy: Option<&'static str>) -> String {
    remedy.map_or_else(String::new, |remedy| format!("; {remedy}"))
}

/// The result of an operation that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_says_what_was_done_why_it_failed_and_the_remedy() {
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let plain = Error::system("start 8 decoder threads", source());
        assert_eq!(plain.to_string(), "cannot start 8 decoder threads: permission denied");
        let with_remedy = Error::system_with_remedy("get memory", source(), "lower --cache-size");
        assert_eq!(with_remedy.to_string(), "cannot get memory: permission denied; lower --cache-size");
    }
}
