//! `ctwds-fs reclaim`: removes the NPZ files that finished shards make superfluous.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use bytesize::ByteSize;

use super::events;
use super::interrupt::{self, stop_on_signals};
use super::plans::SCANNERS;
use super::progress::{Bar, ScanDisplay};
use super::shared::{self, FAILED};
use super::terminal::{print, say, say_in_line};
use crate::base::num::counted;
use crate::base::parallel::available_cores;
use crate::cli::{ReclaimArgs, default_cache_size};
use crate::error::{Error, Result};
use crate::reclaim::{Reclaim, ReclaimOutcome, Survey};
use crate::volume::{Kind, VoxelFormat};

/// The word that the user has to type before anything is removed.
const WORD: &str = "delete";

pub(super) fn run(args: &ReclaimArgs) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Off); // each file is listed once, at the end
    if args.delete && !args.yes && !std::io::stdin().is_terminal() {
        return Err(Error::Refused(
            "nothing was removed: there is no terminal to ask on; --yes removes without asking".into(),
        ));
    }
    let (mut config, options) = args.dataset.resolve(None)?;
    let display = ScanDisplay::new();
    config.progress = display.progress();
    let reclaim = Reclaim::open(&args.shards, &config, options, SCANNERS, args.delete)?;
    drop(display);
    let survey = reclaim.survey();
    announce(args, &reclaim, survey);
    if args.delete && !args.yes && survey.files > 0 {
        ask()?;
    }
    let workers = args.num_workers.map_or_else(available_cores, usize::from);
    let stop = stop_on_signals()?; // between two files
    let bar = Bar::new(args.json);
    bar.begin("comparing shards with source files", survey.to_read);
    let outcome = reclaim.run(workers, default_cache_size(), &stop, &|bytes| bar.advance(bytes));
    bar.clear();
    report(args, &outcome?)
}

/// Prints what would be lost, before anything is removed.
fn announce(args: &ReclaimArgs, reclaim: &Reclaim, survey: Survey) {
    let (folder, shards) = (reclaim.root().display(), args.shards.display());
    let (files, bytes) = (counted(survey.files, "source file", "source files"), ByteSize(survey.bytes));
    say(format_args!("{folder}: {files} ({bytes}) with volumes in {shards}"));
    if survey.files == 0 {
        return;
    }
    let format = reclaim.shards().voxel_format();
    let (name, steps) = match reclaim.shards().kind() {
        Kind::Stored => ("the arrays", ""),
        Kind::Rescaled => ("HU", ""),
        Kind::Preprocessed => ("preprocessed volumes", ": clipped, resampled, cropped and padded"),
    };
    let window = format.window().map_or_else(String::new, |[low, high]| {
        format!(", and of values below {low} or above {high} that they are outside of this window")
    });
    say(format_args!(
        "Removing source files cannot be undone. The shards hold {name} as {}{steps}{window}. The {} values, and shards of \
         other options, cannot be made from them again.",
        format.name(),
        if format == VoxelFormat::Float32 { "original" } else { "float32" },
    ));
    if survey.nifti > 0 {
        say(format_args!(
            "{} of the files are NIfTI: the orientation and the extensions of their headers stand in no shard.",
            survey.nifti
        ));
    }
    if !args.delete {
        say("This is a dry run: everything is compared, and nothing is removed without --delete.");
    }
}

/// Asks the user to type [`WORD`].
///
/// # Errors
/// [`Error::Refused`] if something else was typed, [`Error::System`] if the answer cannot be read.
fn ask() -> Result<()> {
    say_in_line(format_args!("Type {WORD} to remove the source files of all shards that are right: "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Error::system("read the answer from standard input", error))?;
    if answer.trim() == WORD { Ok(()) } else { Err(Error::Refused("nothing was removed".into())) }
}

fn report(args: &ReclaimArgs, outcome: &ReclaimOutcome) -> Result<ExitCode> {
    let printed = print(if args.json { events::end(outcome)? } else { describe(args, outcome) }, "print the outcome");
    if !args.json {
        say_what_stays(outcome);
    }
    printed?;
    if outcome.interrupted {
        return Ok(ExitCode::from(interrupt::exit_code()));
    }
    let is_whole = outcome.refused.is_empty() && outcome.kept.is_empty();
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What was removed or can be, for people.
fn describe(args: &ReclaimArgs, outcome: &ReclaimOutcome) -> String {
    let (files, bytes, shards) = (outcome.files, ByteSize(outcome.bytes), args.shards.display());
    let what = if outcome.deleted { "removed: freed" } else { "can be removed: would free" };
    let earlier = outcome.removed_earlier;
    let counted_files = counted(files, "source file", "source files");
    let mut text = format!("{shards}: {counted_files} {what} {bytes}; {earlier} removed earlier\n");
    if outcome.not_in_shards > 0 {
        let count = outcome.not_in_shards;
        let count = counted(count, "sample", "samples");
        text.push_str(&format!("left out of the shards: {count}, of which the source files stay\n"));
    }
    if !outcome.deleted && files > 0 {
        text.push_str("Nothing was removed. The same command with --delete compares again and removes them.\n");
    }
    text
}

fn say_what_stays(outcome: &ReclaimOutcome) {
    if !outcome.refused.is_empty() {
        let count = counted(outcome.refused.len(), "shard", "shards");
        say(format_args!("ctwds-fs: error: {count} in doubt; none of the source files of these is removed:"));
        let lines = outcome.refused.iter().map(|refused| format!("{}: {}", refused.shard, refused.reason));
        say_in_line(shared::cut(lines));
    }
    if !outcome.kept.is_empty() {
        let count = counted(outcome.kept.len(), "source file", "source files");
        say(format_args!("ctwds-fs: error: kept: {count}, although the shards hold the volumes:"));
        let lines = outcome.kept.iter().map(|kept| format!("{}: {}", kept.path.display(), kept.reason));
        say_in_line(shared::cut(lines));
    }
    if outcome.interrupted {
        say(
            "ctwds-fs: error: interrupted; files that were removed are in finished shards, run the same command to continue",
        );
    }
}
