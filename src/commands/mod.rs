//! The commands: each calls the library and speaks to the user.

mod bench;
mod cache;
mod cat;
mod classes;
mod columns;
mod daemon;
mod demo;
mod estimate;
mod events;
mod init;
mod interrupt;
mod log_file;
mod manifest;
mod materialize;
mod mount;
mod plan;
mod plans;
mod progress;
mod reclaim;
mod report;
mod run;
mod shared;
mod shell;
mod sources;
mod split;
mod status;
mod terminal;
mod unmount;
mod value_check;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGABRT, SIGXFSZ};

use crate::base::limits;
use crate::base::signals::is_ignored;
use crate::bench::NOTHING_KEPT;
use crate::cli::{self, Cli, Command};
use crate::error::{Error, Result, shown};
pub use plans::plan_of;
use shared::FAILED;
use terminal::say;

/// The exit code of usage errors, as the parser of the command line has it.
const USAGE: u8 = 2;

/// Parses the arguments of the process, runs their command, prints its error, and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    prepare().and_then(|()| run_arguments(args)).unwrap_or_else(|error| {
        say(format_args!("ctwds-fs: error: {error}"));
        ExitCode::from(match error {
            Error::Usage(_) => USAGE,
            Error::Interrupted(_) => interrupt::exit_code(),
            _ => FAILED,
        })
    })
}

/// Parses the arguments, with those that the environment and the file of the data set add, and runs their command.
fn run_arguments(args: impl IntoIterator<Item = OsString>) -> Result<ExitCode> {
    // Without a current folder there is no file in it.
    let here = std::env::current_dir().unwrap_or_default();
    let completed = cli::complete(args, |name| std::env::var_os(name), &here)?;
    cli::keep_arguments(&completed);
    let parsed = match cli::parse(completed.args) {
        Ok(cli) => {
            terminal::set_loudness(cli.loudness);
            let serves = match &cli.command {
                Command::Mount(args) => args.daemon || args.foreground,
                Command::Run(args) => args.mount.daemon,
                _ => false,
            };
            if cli.loudness.more > 0 {
                // Of which the flag makes more; the first call counts.
                daemon::log_to_terminal(if serves { log::LevelFilter::Info } else { log::LevelFilter::Off });
            }
            let added = completed.added.iter().map(|added| added.to_string_lossy()).collect::<Vec<_>>().join(" ");
            let added = shown(&added);
            if !added.is_empty() {
                log::info!("flags of {} and CTWDS_ variables: {added}", cli::DATASET_FILE);
            }
            let ended = run_command(cli);
            if matches!(ended, Err(Error::Usage(_))) && !added.is_empty() {
                say(format_args!("ctwds-fs: of {} or CTWDS_ variables: {added}", cli::DATASET_FILE));
            }
            return ended;
        }
        Err(parsed) => parsed,
    };
    terminal::show_parsed(&parsed)?;
    if !parsed.use_stderr() {
        return Ok(ExitCode::SUCCESS);
    }
    if !completed.added.is_empty() {
        let added: Vec<_> = completed.added.iter().map(|added| added.to_string_lossy()).collect();
        say(format_args!("ctwds-fs: of {} or CTWDS_ variables: {}", cli::DATASET_FILE, added.join(" ")));
    }
    Ok(ExitCode::from(USAGE))
}

/// Makes the limits of this process end a command with a message, not with a signal.
///
/// # Errors
/// The limits leave too little to work with, or signals cannot be handled.
fn prepare() -> Result<()> {
    limits::check_address_space()?;
    limits::share_one_heap();
    let failed = |error| Error::system("handle signals", error);
    // A file that may not grow (`ulimit -f`) is then an error of the write. A handler, unlike ignoring the signal, is
    // not inherited by the command of `run`.
    if !is_ignored(SIGXFSZ) {
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    }
    // The standard library says how much memory it did not get, and aborts.
    signal_hook::flag::register_conditional_shutdown(SIGABRT, FAILED.into(), Arc::new(AtomicBool::new(true)))
        .map_err(failed)?;
    Ok(())
}

/// What is kept of a command that is ended at once, and how to go on; `None` for those that end in an order of their
/// own from the beginning on, and for those that take a moment.
fn kept(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Init(_) => "nothing was written; run the same command again",
        Command::Plan(_) => "nothing was changed; run the same command again",
        Command::Mount(args) if args.foreground => "nothing is mounted; run the same command again",
        Command::Materialize(_) => {
            "this run has written nothing; finished shards of earlier ones are kept, run the same command to continue"
        }
        Command::Cat(_) => "the shard is not whole: throw away what was written of it, and run the same command again",
        Command::Manifest(_) => "the manifest is not written, and no shard was changed; run the same command again",
        Command::Cache(_) => "the disk cache may have lost some of its volumes; `ctwds-fs cache ls` tells",
        Command::Status(_) => "no mount was changed",
        Command::Unmount(_) => "the mount may go on: `ctwds-fs status` tells",
        Command::Verify(_) => "nothing was changed, and no result is kept; run the same command again",
        Command::Reclaim(_) => "nothing was removed; run the same command again",
        Command::Demo(_) => "what was written stays: remove the folder before the next demonstration",
        Command::Bench(_) => NOTHING_KEPT,
        Command::Report(_) => "no page was written; run the same command again",
        Command::Mount(_) | Command::Run(_) | Command::Completions(_) | Command::Man(_) => return None,
    })
}

fn run_command(cli: Cli) -> Result<ExitCode> {
    if let Some(kept) = kept(&cli.command) {
        interrupt::end_at_once(kept);
    }
    match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Mount(args) => mount::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Materialize(args) => materialize::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Manifest(args) => manifest::run(&args),
        Command::Unmount(args) => unmount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Reclaim(args) => reclaim::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}
