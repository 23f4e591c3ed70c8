//! The command line: parsing and resolution into the configurations of the library.

mod bench;
mod config;
mod dataset;
mod estimate;
mod manifest;
mod materialize;
mod reclaim;
mod run;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

pub use bench::{BenchArgs, dataset_flags};
pub use dataset::DatasetArgs;
pub use estimate::EstimateArgs;
pub use manifest::{ManifestArgs, ManifestCommand};
pub use materialize::MaterializeArgs;
pub use reclaim::ReclaimArgs;
pub use run::RunArgs;
pub use verify::VerifyArgs;

use crate::error::{Error, Result};

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
    /// Run a command with the shards mounted for it alone; the mount ends with it
    Run(RunArgs),
    /// Write the shards and manifest.json to a folder; run again to continue
    Materialize(MaterializeArgs),
    /// Join the manifests of parts, or make one again from the shards
    Manifest(ManifestArgs),
    /// Show how a mount is doing
    Status(StatusArgs),
    /// End a mount
    Unmount(UnmountArgs),
    /// Check shards, mounted or on disk: in themselves, against the manifest, and against the NPZ files
    Verify(VerifyArgs),
    /// Remove the NPZ files whose volumes finished shards hold; says only what it would do without --delete
    Reclaim(ReclaimArgs),
    /// Measure NPZ, mount and materialised shards on your data and machine, and say what is fastest
    Bench(BenchArgs),
}

/// Shards on disk in place of a data set.
#[derive(Clone, Debug, Args)]
pub struct ShardsArgs {
    /// Folder of finished shards, plain or compressed: they take the place of the NPZ files and the tables
    #[arg(long, value_name = "DIR", conflicts_with_all = dataset::ALL, help_heading = "Data set")]
    pub shards: Option<PathBuf>,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Or shards.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    /// And what the shards would take.
    #[command(flatten)]
    pub estimate: EstimateArgs,
}

/// `mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Or shards.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// An empty folder outside the data folder [default: the folder of the shard pattern in --config]
    pub mountpoint: Option<PathBuf>,
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
    /// Show the samples shuffled as well: epochs/000000/, epochs/000001/, … each with all of them in another order, the
    /// same on every machine with this seed
    #[arg(long, value_name = "S")]
    pub shuffle_seed: Option<u64>,
    /// Epochs that are shown [default: 10]
    #[arg(long, value_name = "N", requires = "shuffle_seed", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub epochs: Option<u32>,
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

impl MountArgs {
    /// Where to mount.
    ///
    /// # Errors
    /// Neither the command line nor the configuration says it.
    pub fn mountpoint(&self) -> Result<PathBuf> {
        match (&self.mountpoint, self.dataset.configured()?) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(configured)) => configured.mountpoint(),
            (None, None) => Err(Error::Usage("missing: the mountpoint; or --config and --split".into())),
        }
    }
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
            Self::Auto => shard_bytes <= crate::base::memory::available() / 2,
            Self::On => true,
            Self::Off => false,
        }
    }
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

/// Parses the arguments; flags may be written with underscores, as the original scripts have them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Cli {
    Cli::parse_from(with_dashes(args))
}

/// Our flags, that is: what stands after "--" is another program's.
fn with_dashes(args: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut is_ours = true;
    args.into_iter().map(move |arg| {
        is_ours &= arg != "--";
        if is_ours { flag_with_dashes(arg) } else { arg }
    })
}

fn flag_with_dashes(arg: OsString) -> OsString {
    let Some(flag) = arg.to_str().filter(|arg| arg.starts_with("--")) else { return arg };
    match flag.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
        None => flag.replace('_', "-").into(),
    }
}

/// The memory for volumes where the user named none: a quarter of what the process may use.
pub fn default_cache_size() -> u64 {
    crate::base::memory::available() / 4
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
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_run_is_left_as_it_is() {
        let args = "ctwds-fs run --data_folder a --at b_c --cache_size 1GiB -- python t.py --batch_size 4 -- --at x";
        let Command::Run(args) = parse(args.split(' ').map(OsString::from)).command else { panic!("not run") };
        assert_eq!(args.mount.mountpoint().unwrap(), PathBuf::from("b_c"));
        assert_eq!(args.mount.cache_size, Some(ByteSize::gib(1)));
        assert_eq!(args.command, ["python", "t.py", "--batch_size", "4", "--", "--at", "x"]);
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
        let config = args.dataset.resolve().unwrap().0;
        assert_eq!(config.data_folder.to_str(), Some("a_b"));
        assert_eq!(config.reports_file.to_str(), Some("r_1.csv"));
        assert_eq!((args.num_workers, config.limit), (Some(8), Some(100)));
    }
}
