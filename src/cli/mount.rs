//! The command lines of `mount`, `status` and `unmount`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

use super::dataset::DatasetArgs;
use super::headings::{INPUT, OUTPUT, PERFORMANCE};
use super::storage::ShardsArgs;
use crate::base::memory;
use crate::error::{Error, Result};

/// `mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// An empty folder outside the data folder [default: the folder of the shard pattern in --config]
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: Option<PathBuf>,
    /// Memory for decoded volumes, such as 8GiB [default: a quarter of what the process may use]
    #[arg(long, value_name = "BYTES", help_heading = PERFORMANCE)]
    pub cache_size: Option<ByteSize>,
    /// Folder on a local disk, such as an NVMe, in which volumes that were made are kept: the next epochs, and the next
    /// mounts, come from there
    #[arg(long, value_name = "DIR", help_heading = PERFORMANCE)]
    pub disk_cache: Option<PathBuf>,
    /// Room for --disk-cache, such as 500GiB [default: four fifths of what its disk has]
    #[arg(long, value_name = "BYTES", requires = "disk_cache", help_heading = PERFORMANCE)]
    pub disk_cache_size: Option<ByteSize>,
    /// Compress all that --disk-cache keeps, without loss [default: only while volumes have no room as they are, and
    /// processors idle]
    #[arg(long, requires = "disk_cache", help_heading = PERFORMANCE)]
    pub disk_cache_compress: bool,
    /// Decoder threads [default: the cores that the process may use; for object storage at least 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = PERFORMANCE)]
    pub threads: Option<u16>,
    /// Volumes made ready ahead of each reader [default: one more than the decoder threads]
    #[arg(long, value_name = "N", help_heading = PERFORMANCE)]
    pub read_ahead: Option<u16>,
    /// Whether the kernel keeps what it reads: fast when read again, costly when read once
    /// [auto: on if the shards fit half of the memory]
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", help_heading = PERFORMANCE)]
    pub page_cache: PageCache,
    /// Folder in which `materialize` writes, or wrote, these shards: finished ones are read from there
    #[arg(long, value_name = "DIR", help_heading = INPUT)]
    pub materialized: Option<PathBuf>,
    /// Show the samples shuffled as well: epochs/000000/, epochs/000001/, … each with all of them in another order, the
    /// same on every machine with this seed
    #[arg(long, value_name = "S", help_heading = OUTPUT)]
    pub shuffle_seed: Option<u64>,
    /// Epochs that are shown [default: 10]
    #[arg(long, value_name = "N", requires = "shuffle_seed", value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = OUTPUT)]
    pub epochs: Option<u32>,
    /// Let other users read the mount too
    #[arg(long, help_heading = OUTPUT)]
    pub allow_other: bool,
    /// Stay in the foreground until unmounted
    #[arg(long, help_heading = OUTPUT)]
    pub foreground: bool,
    /// Where the mount logs [default: the user's state folder; the terminal with --foreground]
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub log_file: Option<PathBuf>,
    /// Print what is mounted as JSON
    #[arg(long, conflicts_with = "foreground", help_heading = OUTPUT)]
    pub json: bool,
    /// Set for the process that becomes the daemon: it reports on standard input when the mount is ready
    #[arg(long, hide = true)]
    pub daemon: bool,
    /// Set with --daemon where the mount is for the process that starts it, and ends with it
    #[arg(long, hide = true, requires = "daemon")]
    pub end_with_parent: bool,
    /// A folder of shards, in place of the data set.
    #[command(flatten)]
    pub source: ShardsArgs,
    /// The data set.
    #[command(flatten)]
    pub dataset: DatasetArgs,
}

impl MountArgs {
    /// The mountpoint, of the command line or else of the configuration.
    ///
    /// # Errors
    /// [`Error::Usage`] if neither names one; the errors of reading the configuration.
    pub fn mountpoint(&self) -> Result<PathBuf> {
        match (&self.mountpoint, self.dataset.configured()?) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(configured)) => configured.mountpoint(),
            (None, None) => Err(Error::Usage(
                "missing: the mountpoint, an empty folder; or --dataset FILE with the key mountpoint, or --config and \
                 --split"
                    .into(),
            )),
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
    /// Whether the page cache is used for shards of so many bytes in all.
    pub fn is_on(self, shard_bytes: u64) -> bool {
        match self {
            Self::Auto => shard_bytes <= memory::available() / 2,
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// `unmount`.
#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Where the shards are mounted
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// Detach it although files are open: who has them reads on, and the mount ends with the last of them
    #[arg(long, conflicts_with = "force")]
    pub lazy: bool,
    /// End it although files are open: who has them gets errors
    #[arg(long)]
    pub force: bool,
    /// Print what became of the mount as JSON
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the shards are mounted [default: list all mounts of this user]
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: Option<PathBuf>,
    /// Show it again every two seconds, until the mount ends or Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Print it as JSON; with --watch, an object a line
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
}

/// The memory for volumes in bytes if the user named none: a quarter of what the process may use.
pub fn default_cache_size() -> u64 {
    memory::available() / 4
}

/// The bytes that the disk cache may take: the size that the user gave; `None` for the default.
///
/// # Errors
/// [`Error::Refused`] if the given size is zero.
pub fn disk_cache_size(given: Option<ByteSize>) -> Result<Option<u64>> {
    match given {
        Some(ByteSize(0)) => Err(Error::Refused(
            "--disk-cache-size must be more than 0, such as 500GiB; to keep nothing, leave --disk-cache out".into(),
        )),
        given => Ok(given.map(|ByteSize(bytes)| bytes)),
    }
}

/// The memory for volumes in bytes: the size that the user gave, or the default.
///
/// # Errors
/// [`Error::Refused`] if the given size is zero.
pub fn cache_size(given: Option<ByteSize>) -> Result<u64> {
    match given {
        Some(ByteSize(0)) => Err(Error::Refused("--cache-size must be more than 0, such as 8GiB".into())),
        Some(ByteSize(bytes)) => Ok(bytes),
        None => Ok(default_cache_size()),
    }
}
