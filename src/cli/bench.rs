//! The arguments of `bench`, and those of its that it hands on.

use std::ffi::OsString;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::builder::RangedU64ValueParser;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory};

use super::{Cli, DatasetArgs, PageCache, with_dashes};

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
    let matches = Cli::command().get_matches_from(with_dashes(args));
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
}
