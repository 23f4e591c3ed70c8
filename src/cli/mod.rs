//! The command line: how it is parsed, and resolved into the configurations of the library.

mod bench;
mod cache;
mod cat;
mod complete;
mod config;
mod dataset;
mod dataset_file;
mod dataset_store;
mod demo;
mod estimate;
mod headings;
mod help;
mod init;
mod input_paths;
mod loudness;
mod manifest;
mod materialize;
mod mount;
mod numbers;
mod plan;
mod reclaim;
mod report;
mod run;
mod shell;
mod storage;
mod table_columns;
mod verify;

use std::ffi::OsString;
use std::sync::OnceLock;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use bench::BenchArgs;
pub use cache::{CacheArgs, CacheCommand};
pub use cat::CatArgs;
pub use complete::{Completed, complete};
pub use dataset::DatasetArgs;
pub use dataset_file::NAME as DATASET_FILE;
pub use demo::DemoArgs;
pub use estimate::EstimateArgs;
pub use help::examples;
pub use init::InitArgs;
pub use loudness::Loudness;
pub use manifest::{ManifestArgs, ManifestCommand};
pub use materialize::MaterializeArgs;
pub use mount::{MountArgs, PageCache, StatusArgs, UnmountArgs, cache_size, default_cache_size, disk_cache_size};
pub use plan::PlanArgs;
pub use reclaim::ReclaimArgs;
pub use report::ReportArgs;
pub use run::RunArgs;
pub use shell::{CompletionsArgs, ManArgs};
pub use storage::{ShardsArgs, StorageArgs};
pub use verify::VerifyArgs;

/// CT volumes in NPZ, NPY and NIfTI files as WebDataset shards: mounted and made on demand, or written to disk.
#[derive(Debug, Parser)]
#[command(name = "ctwds-fs", version)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// The flags that say how much the command says.
    #[arg(skip)]
    pub loudness: Loudness,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at a folder of volumes and the tables beside it, and write ctwds.toml
    Init(InitArgs),
    /// Show what would be built: samples, shards, bytes, and who is left out and why
    Plan(PlanArgs),
    /// Show the shards as a folder, made on demand; returns when they can be opened
    Mount(MountArgs),
    /// Run a command with the shards mounted for it alone; the mount ends with it
    Run(RunArgs),
    /// Write the shards and manifest.json to a folder; run again to continue
    Materialize(MaterializeArgs),
    /// Write one shard to standard output: for readers of a pipe, where nothing can be mounted
    Cat(CatArgs),
    /// Join the manifests of parts, or make one again from the shards
    Manifest(ManifestArgs),
    /// Show or empty a disk cache (mount --disk-cache)
    Cache(CacheArgs),
    /// Show how a mount is doing
    Status(StatusArgs),
    /// End a mount
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    /// Check shards, mounted or on disk: in themselves, against the manifest, and against their sources
    Verify(VerifyArgs),
    /// Remove the source files whose volumes finished shards hold; says only what it would do without --delete
    Reclaim(ReclaimArgs),
    /// Write a small data set, and show with it what the program does
    Demo(DemoArgs),
    /// Measure source files, mount and materialised shards on your data and machine, and say what is fastest
    Bench(BenchArgs),
    /// Write a page that shows the data set: slices beside their sources, HU, labels, and who is left out
    Report(ReportArgs),
    /// Print what makes a shell complete commands and options
    Completions(CompletionsArgs),
    /// Write manual pages, one of each command
    Man(ManArgs),
}

/// The arguments of the process, with those that the environment and the file of the data set added.
static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Keeps the completed arguments of the process for [`arguments`]. Only the first call counts.
pub fn keep_arguments(completed: &Completed) {
    let _ = ARGUMENTS.set(completed.args.clone());
}

/// The arguments of the process, completed where [`keep_arguments`] was called: for processes that it starts.
pub fn arguments() -> impl Iterator<Item = OsString> {
    ARGUMENTS.get().cloned().unwrap_or_else(|| std::env::args_os().collect()).into_iter()
}

/// Parses the arguments of the process. Flags may be written with underscores, as in the original scripts.
///
/// # Errors
/// The parser's message if the arguments are wrong; or its help or version, if these are asked for.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args = normalized(args);
    let mut root = command();
    let mut matches = root.try_get_matches_from_mut(&args).map_err(|error| with_place(error, &args))?;
    storage::check_addresses(&mut root, &matches)?;
    let loudness = Loudness::of(&matches);
    let parsed = Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command()))?;
    Ok(Cli { loudness, ..parsed })
}

/// The command line's definition, with its help arranged.
pub fn command() -> clap::Command {
    help::arrange(Cli::command())
}

/// The arguments with dashes in place of underscores in flags, and with the flags of the loudness behind the command
/// where they stand before it, so that everybody finds the command first.
fn normalized(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = with_dashes(args).collect();
    let (root, mut at) = (Cli::command(), 1);
    let (mut command, mut moved) = (&root, Vec::new());
    while let Some(arg) = args.get(at).filter(|_| command.has_subcommands()) {
        if let Some(deeper) = command.find_subcommand(arg) {
            (command, at) = (deeper, at + 1);
        } else if Loudness::is_flag(arg) {
            moved.push(args.remove(at));
        } else {
            break;
        }
    }
    args.splice(at.min(args.len())..at.min(args.len()), moved);
    args
}

/// An error that says where an option belongs which stands before the command.
fn with_place(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let first = args.iter().skip(1).find(|arg| !Loudness::is_flag(arg));
    let first = first.and_then(|arg| arg.to_str()).filter(|arg| arg.starts_with("--"));
    if let Some(flag) = first.filter(|_| error.kind() == ErrorKind::UnknownArgument) {
        let name = flag.split('=').next().unwrap_or_default();
        let has =
            |command: &clap::Command| command.get_arguments().any(|arg| arg.get_long() == name.strip_prefix("--"));
        let root = Cli::command();
        let having: Vec<&clap::Command> = root.get_subcommands().filter(|command| has(command)).collect();
        let meant = having.iter().find(|command| args.iter().any(|arg| arg == command.get_name()));
        if let Some(command) = meant.or(having.first()) {
            let tip = format!("options stand behind the command, as in `ctwds-fs {} {name}`", command.get_name());
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
    }
    error
}

/// The arguments with dashes in place of underscores in flags; arguments after "--" belong to another program.
fn with_dashes(args: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut before_command = true;
    args.into_iter().map(move |arg| {
        before_command &= arg != "--";
        if before_command { flag_with_dashes(arg) } else { arg }
    })
}

fn flag_with_dashes(arg: OsString) -> OsString {
    let Some(flag) = arg.to_str().filter(|arg| arg.starts_with("--")) else { return arg };
    match flag.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
        None => flag.replace('_', "-").into(),
    }
}

/// The flags of the data set among the arguments of a command, as `--name=value`, for another command. The arguments
/// whose ids are in `except` are left out.
pub fn dataset_flags(args: impl IntoIterator<Item = OsString>, except: &[&str]) -> Vec<OsString> {
    flags_among(args, &DatasetArgs::augment_args(clap::Command::new("data set")), except)
}

/// The flags of object storage among the arguments of a command, as `--name=value`, for another command.
pub fn storage_flags(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    flags_among(args, &StorageArgs::augment_args(clap::Command::new("storage")), &[])
}

fn flags_among(args: impl IntoIterator<Item = OsString>, all: &clap::Command, except: &[&str]) -> Vec<OsString> {
    let matches = command().get_matches_from(normalized(args));
    let Some((_, given)) = matches.subcommand() else { return Vec::new() };
    let mut flags = Vec::new();
    for arg in all.get_arguments() {
        let id = arg.get_id().as_str();
        let (Some(ValueSource::CommandLine), Some(name)) = (given.value_source(id), arg.get_long()) else { continue };
        if except.contains(&id) {
            continue;
        }
        if !arg.get_action().takes_values() {
            flags.push(format!("--{name}").into());
            continue;
        }
        for value in given.get_raw(id).into_iter().flatten() {
            let mut flag = OsString::from(format!("--{name}="));
            flag.push(value);
            flags.push(flag);
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bytesize::ByteSize;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn what_is_run_is_left_as_it_is() {
        let args = "ctwds-fs run --data_folder a --at b_c --cache_size 1GiB -- python t.py --batch_size 4 -- --at x";
        let Command::Run(args) = parse(args.split(' ').map(OsString::from)).unwrap().command else { panic!("not run") };
        assert_eq!(args.mount.mountpoint().unwrap(), PathBuf::from("b_c"));
        assert_eq!(args.mount.cache_size, Some(ByteSize::gib(1)));
        assert_eq!(args.command, ["python", "t.py", "--batch_size", "4", "--", "--at", "x"]);
    }

    #[test]
    fn loudness_may_stand_before_the_command() {
        let parsed = |args: &str| parse(args.split(' ').map(OsString::from));
        let loudness = |args: &str| parsed(args).unwrap_or_else(|error| panic!("{args}: {error}")).loudness;
        assert!(loudness("ctwds-fs -q plan").is_quiet && loudness("ctwds-fs --quiet manifest merge x").is_quiet);
        assert!(loudness("ctwds-fs manifest -q merge x").is_quiet && loudness("ctwds-fs -v status -v").more == 2);
        assert_eq!(loudness("ctwds-fs -vv run --at x -- sh -q"), Loudness { is_quiet: false, more: 2 });
        assert!(
            parsed("ctwds-fs -q plan -v").is_err() && parsed("ctwds-fs -q").is_err() && parsed("ctwds-fs").is_err()
        );
        for (args, tip) in [
            (
                "ctwds-fs --data-folder=npz cat 3",
                "options stand behind the command, as in `ctwds-fs cat --data-folder`",
            ),
            ("ctwds-fs --output-dir out", "as in `ctwds-fs materialize --output-dir`"),
        ] {
            let misplaced = parsed(args).unwrap_err().to_string();
            assert!(misplaced.contains(tip), "{misplaced}");
        }
        assert!(!parsed("ctwds-fs --none plan").unwrap_err().to_string().contains("behind"));
    }

    #[test]
    fn underscores_are_dashes_in_flags_only() {
        let cli = parse(
            [
                "ctwds-fs",
                "materialize",
                "--data_folder",
                "a_b",
                "--reports_file=r_1.csv",
                "--meta_file",
                "m",
                "--labels_file",
            ]
            .into_iter()
            .chain(["l", "--output_dir", "out_1", "--samples_per_shard", "50", "--num_workers", "8", "--test_mode"])
            .map(OsString::from),
        )
        .unwrap();
        let Command::Materialize(args) = cli.command else { panic!("not materialize") };
        let config = args.dataset.resolve(None).unwrap().0;
        assert_eq!(config.data_folder.to_str(), Some("a_b"));
        assert_eq!(config.reports_files, [PathBuf::from("r_1.csv")]);
        assert_eq!((args.num_workers, config.limit), (Some(8), Some(100)));
    }

    #[test]
    fn data_set_flags_are_handed_on_as_they_were_given() {
        let args = "ctwds-fs bench --data_folder d --reports-file=r --meta-file m --labels-file l --limit 3 --strict \
                    --missing-text=-x --runs 2 --format npy";
        let flags = dataset_flags(args.split_whitespace().map(OsString::from), &["limit"]);
        let expected = "--data-folder=d --reports-file=r --meta-file=m --labels-file=l --missing-text=-x --strict \
                        --format=npy";
        assert_eq!(flags, expected.split_whitespace().map(OsString::from).collect::<Vec<_>>());
    }
}
