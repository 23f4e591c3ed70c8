//! How much a command says besides its result: `-q` and `-v` of every command.

use std::ffi::OsStr;

use clap::{Arg, ArgAction, ArgMatches};

use super::headings::GENERAL;

/// How much a command says on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loudness {
    /// Whether only warnings and errors are said, without progress.
    pub is_quiet: bool,
    /// How many levels of the log there are in addition: 1 for what is done, 2 for all.
    pub more: u8,
}

impl Loudness {
    /// The flags, which may stand before the name of a command as well (`cli::normalized` moves them behind it).
    pub(super) fn arguments() -> [Arg; 2] {
        let quiet = Arg::new("quiet").short('q').long("quiet").action(ArgAction::SetTrue).overrides_with("quiet");
        let verbose = Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count);
        [
            quiet.conflicts_with("verbose").help("Say only warnings and errors, and show no progress"),
            verbose.help("Log more, such as the flags of ctwds.toml; twice, all, such as each read of a mount"),
        ]
        .map(|arg| arg.help_heading(GENERAL))
    }

    /// Whether an argument is one of the flags, or several letters of them: `-q`, `-vv`, `--verbose`.
    pub(super) fn is_flag(arg: &OsStr) -> bool {
        let Some(arg) = arg.to_str() else { return false };
        let letters = arg.strip_prefix('-').filter(|letters| !letters.is_empty());
        ["--quiet", "--verbose"].contains(&arg) || letters.is_some_and(|all| all.chars().all(|one| "qv".contains(one)))
    }

    /// What the arguments ask for.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let mut given = matches;
        while let Some((_, deeper)) = given.subcommand() {
            given = deeper;
        }
        let is_quiet = given.try_get_one("quiet").ok().flatten().copied().unwrap_or(false);
        let more = given.try_get_one("verbose").ok().flatten().copied().unwrap_or(0);
        Self { is_quiet, more }
    }
}
