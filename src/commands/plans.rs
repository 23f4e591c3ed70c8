//! Plans of what the user named, for all commands and for callers in other languages, and what is said about them.

use std::ffi::OsString;
use std::time::Instant;

use super::progress::ScanDisplay;
use super::terminal::{loudness, say};
use super::value_check;
use crate::base::num::counted;
use crate::cli::{self, Command, DatasetArgs, ShardsArgs};
use crate::dataset::{Dataset, ScanProgress};
use crate::error::{Error, Result, shown};
use crate::output::archive;
use crate::plan::Plan;
use crate::storage::{self, StorageOptions};

/// The number of threads that look into shards: opening a file on a network waits for the server.
pub(super) const SCANNERS: usize = 32;

/// Takes a warning: one line, without an end.
type Warn<'a> = &'a mut dyn FnMut(&str);

/// Plans what these flags name: those of `ctwds-fs plan`, without the name of the program and of the command. Variables
/// of the environment and the file of the data set complete them, as on the command line.
///
/// # Errors
/// [`Error::Usage`] for wrong flags, and the errors of planning.
pub fn plan_of(flags: impl IntoIterator<Item = OsString>, mut warn: impl FnMut(&str)) -> Result<Plan> {
    let args = ["ctwds-fs", "plan"].map(OsString::from).into_iter().chain(flags);
    // Without a current folder there is no file in it.
    let here = std::env::current_dir().unwrap_or_default();
    let completed = cli::complete(args, |name| std::env::var_os(name), &here)?;
    let parsed = cli::parse(completed.args).map_err(|error| {
        let text = error.render().to_string();
        let reason = text.split("\n\n").next().unwrap_or_default();
        Error::Usage(reason.strip_prefix("error: ").unwrap_or(reason).to_owned())
    })?;
    match parsed.command {
        Command::Plan(args) => warned(&args.dataset, Some(&args.source), &mut warn, &ScanProgress::default()),
        _ => Err(Error::Internal("flags of a plan were those of another command".into())),
    }
}

/// Plans a data set, or the finished shards of `source`, and prints warnings.
///
/// # Errors
/// The errors of [`make_plan_unchecked`], and [`Error::Refused`] if volumes hold values of which no right volumes can
/// be made.
pub(super) fn make_plan(args: &DatasetArgs, source: Option<&ShardsArgs>) -> Result<Plan> {
    warned(args, source, &mut print, &ScanDisplay::new().progress())
}

/// Plans a data set, or the finished shards of `source`, and prints warnings; what the values of volumes show is for
/// the caller to judge.
///
/// # Errors
/// The data set or the shards cannot be used or read.
pub(super) fn make_plan_unchecked(args: &DatasetArgs, source: Option<&ShardsArgs>) -> Result<Plan> {
    unchecked(args, source, &mut print, &ScanDisplay::new().progress())
}

/// Plans a data set as [`make_plan`] does, and uses no saved plan: for commands that judge what was made. A table that
/// changed although no metadata show it must not make them call old values right. `storage` says how object storage is
/// asked; without it, all must be on a disk.
///
/// # Errors
/// The errors of [`make_plan`].
pub(super) fn make_new_plan(args: &DatasetArgs, storage: Option<&StorageOptions>) -> Result<Plan> {
    let (mut config, options) = args.resolve(storage)?;
    let display = ScanDisplay::new();
    config.progress = display.progress();
    let dataset = Dataset::scan(&config)?;
    let values = value_check::look(&dataset, &args.kind()?)?;
    let plan = Plan::new(dataset, options)?.with_values(Some(values));
    drop(display);
    tell_warnings(&plan, &mut print);
    check_values(args, plan, &mut print)
}

fn print(warning: &str) {
    say(format_args!("ctwds-fs: warning: {warning}"));
}

fn warned(args: &DatasetArgs, source: Option<&ShardsArgs>, warn: Warn<'_>, progress: &ScanProgress) -> Result<Plan> {
    let plan = unchecked(args, source, warn, progress)?;
    check_values(args, plan, warn)
}

fn unchecked(args: &DatasetArgs, source: Option<&ShardsArgs>, warn: Warn<'_>, progress: &ScanProgress) -> Result<Plan> {
    if let Some((folder, source)) = source.and_then(|source| Some((source.shards.as_ref()?, source))) {
        let store = storage::of(folder, &source.storage.options())?;
        return archive::plan(folder, store, SCANNERS, progress);
    }
    let asked = source.map(|source| source.storage.options());
    let (mut config, options) = args.resolve(asked.as_ref())?;
    config.progress = progress.clone();
    let begun = Instant::now();
    let kind = config.kind;
    let plan = Plan::load_or_make(&config, options, |dataset| value_check::look(dataset, &kind))?;
    progress.end();
    // A mount logs `Info` unasked, on the terminal until it is ready.
    let level = if loudness().more > 0 { log::Level::Info } else { log::Level::Debug };
    log::log!(
        level,
        "{}: planned {} in {}, in {:.1} s",
        shown(&plan.dataset.root),
        counted(plan.dataset.samples.len(), "sample", "samples"),
        counted(plan.shards.len(), "shard", "shards"),
        begun.elapsed().as_secs_f64()
    );
    tell_warnings(&plan, warn);
    Ok(plan)
}

fn tell_warnings(plan: &Plan, warn: Warn<'_>) {
    plan.dataset.warnings.iter().for_each(|warning| warn(&shown(warning)));
}

fn check_values(args: &DatasetArgs, plan: Plan, warn: Warn<'_>) -> Result<Plan> {
    match value_check::problem(&plan, &args.kind()?) {
        Some(problem) if problem.is_fatal => return Err(Error::Refused(problem.message)),
        Some(problem) => warn(&problem.message),
        None => {}
    }
    Ok(plan)
}
