//! The error type of the whole program: what failed, in which file, and the remedy.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

/// The reason why an operation failed. It can be cloned, because one failed decode answers every reader that waits for
/// it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a file or folder (missing file, EIO, no space, no permission).
    #[error("{path}: cannot {doing}: {source}{}", behind(source), path = shown(path))]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// The attempted operation, as a verb phrase ("read the zip directory").
        doing: &'static str,
        /// The operating system's reason.
        source: Arc<io::Error>,
    },
    /// The operating system refused something that concerns no file: memory, a thread, a signal, a process.
    #[error("cannot {doing}: {source}{}{}", behind(source), after_semicolon(*remedy))]
    System {
        /// The attempted operation, as a verb phrase ("start 8 decoder threads").
        doing: Cow<'static, str>,
        /// The operating system's reason.
        source: Arc<io::Error>,
        /// The remedy, as a clause ("lower --cache-size"), if there is one.
        remedy: Option<&'static str>,
    },
    /// A source file whose content is not what its format demands, or that this program does not support.
    #[error("{path}: {reason}", path = shown(path))]
    Malformed {
        /// The NPZ file.
        path: PathBuf,
        /// The fault, and where in the file it is.
        reason: String,
    },
    /// A source file is no longer the one that was planned.
    #[error("{path}: the file has changed since it was planned ({detail}); mount or plan again", path = shown(path))]
    Changed {
        /// The NPZ file.
        path: PathBuf,
        /// The property that differs.
        detail: String,
    },
    /// A table that cannot be used as it is.
    #[error("{path}: {reason}", path = shown(path), reason = shown(reason))]
    Table {
        /// The CSV file.
        path: PathBuf,
        /// The fault, with line and column.
        reason: String,
    },
    /// A request of the user that cannot be fulfilled; the text names the remedy.
    #[error("{0}")]
    Refused(String),
    /// The user, or the system, has ended the work before it was done; the text says what is kept and how to go on.
    #[error("interrupted; {0}")]
    Interrupted(&'static str),
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

    /// Whether this process, or the machine, lacks memory or descriptors: see [`is_limit`].
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Io { source, .. } | Self::System { source, .. } if is_limit(source))
    }

    /// The error of a table that cannot be used.
    pub fn table(path: &Path, reason: impl Into<String>) -> Self {
        Self::Table { path: path.to_owned(), reason: reason.into() }
    }
}

/// A name from a file system or a table as a message shows it: on one line, and with every character that a terminal
/// would obey, or that would change the order of the text, in Rust's notation (`\n`, `\u{1b}`).
pub fn shown<'a>(name: &'a (impl AsRef<OsStr> + ?Sized)) -> Cow<'a, str> {
    let text = name.as_ref().to_string_lossy();
    if !text.contains(is_hidden) {
        return text;
    }
    let escaped = |c: char| if is_hidden(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// A message of several lines as a terminal may get it: as [`shown`], with the line ends kept.
pub fn shown_lines(message: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| c != '\n' && is_hidden(c);
    if !message.contains(is_hidden) {
        return Cow::Borrowed(message);
    }
    let escaped = |c: char| if is_hidden(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(message.chars().map(escaped).collect())
}

/// Whether a character does something else than to show itself: controls, marks of direction, separators of lines.
pub fn is_hidden(c: char) -> bool {
    let is_mark =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_mark(c)
}

/// The clause for what this version does not know, because a later one has it: `what` is that, as a noun phrase ("the
/// filter predict3").
pub fn later_version(what: impl fmt::Display) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{what} is not known to ctwds-fs {version}: a later version wrote it; install that version of ctwds-fs")
}

/// The operating system's reason for a message that is no [`Error`], with what stands behind it.
pub fn reason(source: &io::Error) -> String {
    format!("{source}{}", behind(source))
}

/// Whether an error is that this process, or the machine, lacks memory or descriptors: it says nothing about the file
/// that was to be read.
pub fn is_limit(source: &io::Error) -> bool {
    let number = number(source);
    source.kind() == io::ErrorKind::OutOfMemory || matches!(number, Some(Errno::MFILE | Errno::NFILE))
}

/// The operating system's number of an error.
fn number(source: &io::Error) -> Option<Errno> {
    source.raw_os_error().map(Errno::from_raw_os_error)
}

/// The limit, or the dead mount, that stands behind the operating system's reason, where that does not say it, in
/// brackets.
fn behind(source: &io::Error) -> &'static str {
    match (source.kind(), number(source)) {
        // The second one where a request was under way when the process ended.
        (io::ErrorKind::NotConnected | io::ErrorKind::ConnectionAborted, _) => {
            " (the process behind a mount on this path is gone: `ctwds-fs unmount` of the mountpoint clears it, and \
             `ctwds-fs mount` mounts again)"
        }
        (_, Some(Errno::MFILE)) => " (ulimit -n: raise the limit, or lower --threads or --num-workers)",
        (_, Some(Errno::NFILE)) => " (sysctl fs.file-max: the machine's limit of open files)",
        (io::ErrorKind::OutOfMemory, _) => {
            " (out of memory, or of address space by ulimit -v: raise the limit, or lower --cache-size, --threads or \
             --num-workers)"
        }
        (io::ErrorKind::FileTooLarge, _) => {
            " (ulimit -f, or the file system's own limit: raise it, or write elsewhere)"
        }
        _ => "",
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
    fn a_name_stays_on_its_line() {
        let name = "a\nctwds-fs: error\u{1b}[2J\u{202e}\r\u{85}\t\u{2028}é漢.npz";
        let text = shown(name);
        assert_eq!(text, "a\\nctwds-fs: error\\u{1b}[2J\\u{202e}\\r\\u{85}\\t\\u{2028}é漢.npz");
        let message = Error::malformed(Path::new(name), "damaged").to_string();
        assert_eq!(message, format!("{text}: damaged"));
        assert_eq!(shown_lines("a\nb\u{1b}"), "a\nb\\u{1b}");
        assert!(matches!(shown(Path::new("plain é")), Cow::Borrowed(_)));
    }

    #[test]
    fn a_limit_is_named() {
        let text = |code: i32| Error::io(Path::new("f"), "write", io::Error::from_raw_os_error(code)).to_string();
        for (code, limit) in [(libc::EMFILE, "ulimit -n"), (libc::ENOMEM, "ulimit -v"), (libc::EFBIG, "ulimit -f")] {
            assert!(text(code).contains(limit), "{}", text(code));
        }
        assert!(text(libc::ENOSPC).contains("No space left on device"));
        assert!(!text(libc::EIO).contains("limit"));
        for code in [libc::ENOTCONN, libc::ECONNABORTED] {
            assert!(text(code).contains("`ctwds-fs unmount`"), "{}", text(code));
        }
        assert!(Error::system("map", io::Error::from_raw_os_error(libc::ENOMEM)).to_string().contains("ulimit -v"));
    }

    #[test]
    fn a_system_error_says_what_was_done_why_it_failed_and_the_remedy() {
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let plain = Error::system("start 8 decoder threads", source());
        assert_eq!(plain.to_string(), "cannot start 8 decoder threads: permission denied");
        let with_remedy = Error::system_with_remedy("get memory", source(), "lower --cache-size");
        assert_eq!(with_remedy.to_string(), "cannot get memory: permission denied; lower --cache-size");
    }
}
