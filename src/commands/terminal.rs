//! The one way to standard output and standard error; nothing else in the program writes there, besides the log and the
//! progress bar, which ignore what goes wrong.
//!
//! A result goes to standard output ([`print()`]): a script relies on it, so that it is an error if it cannot be
//! written.
//! Messages and progress go to standard error ([`say`]): nobody may be there to read them, and that changes nothing.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::os::fd::BorrowedFd;
use std::process::Stdio;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::cli::Loudness;
use crate::error::{Error, Result, shown_lines};

/// How messages begin that say what they are.
const PREFIX: &str = "ctwds-fs: ";

/// Writes a result for people to standard output, as [`print_exactly`] does, with what a terminal would obey escaped.
///
/// # Errors
/// As [`print_exactly`].
pub(super) fn print(result: impl AsRef<str>, doing: &'static str) -> Result<()> {
    print_exactly(shown_lines(result.as_ref()).as_bytes(), doing)
}

/// Writes a result to standard output; `doing` names it in the error, as a verb phrase ("print the plan"). A reader
/// that stops early (`| head`) is no error. The caller has made its work safe before.
///
/// # Errors
/// [`Error::System`] if the result cannot be written.
pub(super) fn print_exactly(result: &[u8], doing: &'static str) -> Result<()> {
    stream(result, doing).map(drop)
}

/// Writes a piece of a result to standard output, as [`print_exactly`] does; false if the reader has stopped, so that
/// no more need be written.
///
/// # Errors
/// As [`print_exactly`].
pub(super) fn stream(piece: &[u8], doing: &'static str) -> Result<bool> {
    match write_all(rustix::stdio::stdout(), piece) {
        Ok(()) => Ok(true),
        Err(Errno::PIPE) => Ok(false),
        Err(error) => {
            let remedy = "what the command has done stays done; send standard output elsewhere";
            Err(Error::system_with_remedy(doing, error, remedy))
        }
    }
}

/// Whether standard output is a terminal, where bytes that are no text would control it.
pub(super) fn is_seen() -> bool {
    rustix::stdio::stdout().is_terminal()
}

/// How much is said: a value of [`Loudness`], set once.
static LOUDNESS: OnceLock<Loudness> = OnceLock::new();

/// Sets how much is said. Only the first call counts.
pub(super) fn set_loudness(loudness: Loudness) {
    let _ = LOUDNESS.set(loudness);
}

/// How much is to be said.
pub(super) fn loudness() -> Loudness {
    LOUDNESS.get().copied().unwrap_or_default()
}

/// Writes a message and a line end to standard error, as far as that can be written: a warning or an error, or what
/// belongs to one, or what a user must have seen.
pub(super) fn say(message: impl Display) {
    say_in_line(format_args!("{message}\n"));
}

/// Writes a message as [`say`] does, which is of use, but not needed: not with `--quiet`.
pub(super) fn tell(message: impl Display) {
    if !loudness().is_quiet {
        say(message);
    }
}

/// Writes a text to standard error without a line end, as far as that can be written: a question, or whole lines.
pub(super) fn say_in_line(text: impl Display) {
    // In one piece, so that lines of several threads or processes do not mix.
    let text = text.to_string();
    let text = shown_lines(&text);
    let stderr = rustix::stdio::stderr();
    let coloured = has_colours(stderr).then(|| coloured(&text)).flatten();
    let _ = write_all(stderr, coloured.as_deref().unwrap_or(&text).as_bytes());
}

/// Standard error in place of the standard output of a command that is started: what it prints is for people, where
/// this process prints for programs.
pub(super) fn aside() -> Stdio {
    io::stderr().into()
}

/// Whether what is written here has colours: on a terminal that knows them, unless `NO_COLOR` is set to anything.
fn has_colours(stream: BorrowedFd<'_>) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// A message whose word "error" or "warning" has a colour; `None` for other messages.
fn coloured(text: &str) -> Option<String> {
    let rest = text.strip_prefix(PREFIX)?;
    [("error:", "1;31"), ("warning:", "1;33")].iter().find_map(|(word, colour)| {
        let rest = rest.strip_prefix(word)?;
        Some(format!("{PREFIX}\u{1b}[{colour}m{word}\u{1b}[0m{rest}"))
    })
}

/// Shows what the parser of the command line has to say: a fault on standard error, or the help or the version, which
/// are results.
///
/// # Errors
/// [`Error::System`] if a result cannot be written.
pub(super) fn show_parsed(parsed: &clap::Error) -> Result<()> {
    let is_fault = parsed.use_stderr();
    let (stderr, stdout) = (rustix::stdio::stderr(), rustix::stdio::stdout());
    let stream = if is_fault { stderr } else { stdout };
    // Not by the parser's own printing: that one has colours on a dumb terminal wherever `CI` is set (anstream 1.0).
    let text = parsed.render();
    let text = if has_colours(stream) { text.ansi().to_string() } else { text.to_string() };
    match write_all(stream, text.as_bytes()) {
        Err(error) if !is_fault && error != Errno::PIPE => Err(Error::system("print the help", error)),
        _ => Ok(()),
    }
}

/// Writes all bytes. The standard library's own streams take a descriptor that is closed, or open for reading only, for
/// one that was written to.
fn write_all(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another program that has the same pipe or terminal has made it non-blocking.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(stream, PollFlags::OUT)], None)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::coloured;

    #[test]
    fn the_word_that_says_what_it_is_has_a_colour() {
        let red = "ctwds-fs: \u{1b}[1;31merror:\u{1b}[0m a.npz: error: b\n";
        assert_eq!(coloured("ctwds-fs: error: a.npz: error: b\n").as_deref(), Some(red));
        assert!(coloured("ctwds-fs: warning: x").is_some_and(|text| text.contains("33mwarning:")));
        assert_eq!(coloured("shard-000000.tar: error:"), None);
    }
}
