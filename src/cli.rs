//! The command line: parsing and resolution into the configurations of the library.

use std::ffi::OsString;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::builder::RangedU64ValueParser;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::dataset::{self, MissingMeta};
use crate::error::{Error, Result};
use crate::members::Format;
use crate::plan::Options;
use crate::volume::Overflow;

/// CT volumes in NPZ files as WebDataset shards: mounted and made on demand, or written to disk.
#[derive(Debug, Parser)]
#[command(name = "ctwds-fs", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what would be built: samples, shards, bytes, and who is left out and why
    Plan(PlanArgs),
    /// Show the shards as a folder, made on demand; returns when they can be opened
    Mount(MountArgs),
    /// Write the shards and manifest.json to a folder; run again to continue
    Materialize(MaterializeArgs),
    /// Show how a mount is doing
    Status(StatusArgs),
    /// End a mount
    Unmount(UnmountArgs),
    /// Measure NPZ, mount and materialised shards on your data and machine, and say what is fastest
    Bench(BenchArgs),
}

/// The data set and everything that determines the shards' bytes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data set")]
pub struct DatasetArgs {
    /// Folder of the NPZ volumes (*.npz, */*.npz or */*/*.npz)
    #[arg(long, value_name = "DIR")]
    pub data_folder: PathBuf,
    /// CSV with VolumeName, Findings_EN, Impressions_EN
    #[arg(long, value_name = "CSV")]
    pub reports_file: PathBuf,
    /// CSV with VolumeName, RescaleSlope, RescaleIntercept, XYSpacing, ZSpacing
    #[arg(long, value_name = "CSV")]
    pub meta_file: PathBuf,
    /// CSV with VolumeName and one column a class
    #[arg(long, value_name = "CSV")]
    pub labels_file: PathBuf,
    /// Samples in a shard
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    pub samples_per_shard: u32,
    /// Only the first N volumes that the tables know
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Only the first 100 of them
    #[arg(long, conflicts_with = "limit")]
    pub test_mode: bool,
    /// The array in the NPZ files [default: data, volume, arr_0, or the only one of three dimensions]
    #[arg(long, value_name = "NAME")]
    pub array: Option<String>,
    /// Members: .bin/.json/.txt/.labels, or .volume.npy/.meta.json/.report.txt/.labels.npy
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Values beyond float16 (±65504)
    #[arg(long, value_enum, default_value_t)]
    pub overflow: Overflow,
    /// Text in place of a missing report field ("nan" reproduces the original converter)
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub missing_text: String,
    /// Samples whose metadata is incomplete: leave out, or keep with NaN
    #[arg(long, value_enum, default_value_t)]
    pub missing_meta: MissingMeta,
    /// Stop at a malformed volume instead of leaving it out
    #[arg(long)]
    pub strict: bool,
    /// Look into every NPZ again, also those that have not changed since the last time
    #[arg(long)]
    pub rescan: bool,
}

impl DatasetArgs {
    /// The library's form of them.
    pub fn resolve(&self) -> (dataset::Config, Options) {
        let config = dataset::Config {
            data_folder: self.data_folder.clone(),
            reports_file: self.reports_file.clone(),
            meta_file: self.meta_file.clone(),
            labels_file: self.labels_file.clone(),
            array: self.array.clone(),
            limit: if self.test_mode { Some(100) } else { self.limit },
            strict: self.strict,
            missing_text: self.missing_text.clone(),
            missing_meta: self.missing_meta,
            scan_cache: cache_folder(),
            rescan: self.rescan,
            // Opening a file on a network waits for the server; 32 at once took 40,000 files from 7 s to 2 s.
            threads: 32,
        };
        let options =
            Options { samples_per_shard: self.samples_per_shard, format: self.format, overflow: self.overflow };
        (config, options)
    }
}

/// The user's folder for what can be made again.
fn cache_folder() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = given.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(cache.join("ctwds-fs"))
}

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// `mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// An empty folder outside the data folder
    pub mountpoint: PathBuf,
    /// Memory for decoded volumes, such as 8GiB [default: a quarter of what the process may use]
    #[arg(long, value_name = "BYTES")]
    pub cache_size: Option<ByteSize>,
    /// Decoder threads [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Volumes made ready ahead of each reader [default: one more than the decoder threads]
    #[arg(long, value_name = "N")]
    pub read_ahead: Option<u16>,
    /// Whether the kernel keeps what it reads: fast when read again, costly when read once
    /// [auto: on if the shards fit half of the memory]
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub page_cache: PageCache,
    /// Folder in which `materialize` writes, or wrote, these shards: finished ones are read from there
    #[arg(long, value_name = "DIR")]
    pub materialized: Option<PathBuf>,
    /// Let other users read the mount too
    #[arg(long)]
    pub allow_other: bool,
    /// Stay in the foreground until unmounted
    #[arg(long)]
    pub foreground: bool,
    /// Where the mount logs [default: the user's state folder; the terminal with --foreground]
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Set for the process that becomes the daemon: it reports on standard input when the mount is ready
    #[arg(long, hide = true)]
    pub daemon: bool,
}

/// Whether shards go through the kernel's page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PageCache {
    /// If all shards together fit half of the memory that the process may use.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never: reading once is cheaper, and reading again may decode again.
    Off,
}

impl PageCache {
    /// Whether it is used for shards of so many bytes in all.
    pub fn is_on(self, shard_bytes: u64) -> bool {
        match self {
            Self::Auto => shard_bytes <= crate::memory::available() / 2,
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// `materialize`.
#[derive(Debug, Args)]
pub struct MaterializeArgs {
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Folder for the shards; created if missing
    #[arg(long, value_name = "DIR")]
    pub output_dir: PathBuf,
    /// Shards written at a time, and decoder threads [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub num_workers: Option<u16>,
}

/// `unmount`.
#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Where the shards are mounted
    pub mountpoint: PathBuf,
    /// Detach it although files are open: who has them reads on, and the mount ends with the last of them
    #[arg(long, conflicts_with = "force")]
    pub lazy: bool,
    /// End it although files are open: who has them gets errors
    #[arg(long)]
    pub force: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the shards are mounted
    pub mountpoint: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Volumes to measure: the first N
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one())]
    pub samples: usize,
    /// Numbers of readers (DataLoader workers)
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2, 4], value_parser = at_least_one())]
    pub readers: Vec<usize>,
    /// Numbers of volumes that the mount makes ready ahead of each reader [default: 0, 1, the mount's default, its double]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub read_ahead: Vec<usize>,
    /// Runs of each combination
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    pub runs: usize,
    /// Leave files in the kernel's page cache between runs
    #[arg(long)]
    pub warm: bool,
    /// Python with NumPy, for the NPZ row
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub python: PathBuf,
    /// Folder for a mountpoint and the shards of the measured samples [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// As for mount
    #[arg(long, value_name = "BYTES")]
    pub cache_size: Option<ByteSize>,
    /// Decoder threads [default: the cores that the process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// As for mount
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub page_cache: PageCache,
    /// Print the raw measurements as JSON
    #[arg(long)]
    pub json: bool,
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// The flags of the data set among a command's arguments, for another command; without those named in `except`.
pub fn dataset_flags(args: impl IntoIterator<Item = OsString>, except: &[&str]) -> Vec<OsString> {
    let matches = Cli::command().get_matches_from(args.into_iter().map(with_dashes));
    let Some((_, given)) = matches.subcommand() else { return Vec::new() };
    let all = DatasetArgs::augment_args(clap::Command::new("data set"));
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

/// Parses the arguments; flags may be written with underscores, as the original scripts have them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Cli {
    Cli::parse_from(args.into_iter().map(with_dashes))
}

fn with_dashes(arg: OsString) -> OsString {
    let Some(flag) = arg.to_str().filter(|arg| arg.starts_with("--")) else { return arg };
    match flag.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
        None => flag.replace('_', "-").into(),
    }
}

/// The memory for volumes where the user named none: a quarter of what the process may use.
pub fn default_cache_size() -> u64 {
    crate::memory::available() / 4
}

/// Checks the size that the user gave.
///
/// # Errors
/// It is zero.
pub fn cache_size(given: Option<ByteSize>) -> Result<u64> {
    match given {
        Some(ByteSize(0)) => Err(Error::Refused("--cache-size must be more than 0, such as 8GiB".into())),
        Some(ByteSize(bytes)) => Ok(bytes),
        None => Ok(default_cache_size()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_set_flags_are_handed_on_as_they_were_given() {
        let args = "ctwds-fs bench --data_folder d --reports-file=r --meta-file m --labels-file l --limit 3 --strict \
                    --missing-text=-x --runs 2 --format npy";
        let flags = dataset_flags(args.split_whitespace().map(OsString::from), &["limit"]);
        let expected = "--data-folder=d --reports-file=r --meta-file=m --labels-file=l --format=npy --missing-text=-x \
                        --strict";
        assert_eq!(flags, expected.split_whitespace().map(OsString::from).collect::<Vec<_>>());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
        );
        let Command::Materialize(args) = cli.command else { panic!("not materialize") };
        assert_eq!(args.dataset.data_folder.to_str(), Some("a_b"));
        assert_eq!(args.dataset.reports_file.to_str(), Some("r_1.csv"));
        assert_eq!((args.num_workers, args.dataset.resolve().0.limit), (Some(8), Some(100)));
    }
}
