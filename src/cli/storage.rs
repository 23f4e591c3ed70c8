//! The flags of finished shards, and of the object storage in which they may lie.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command};

use super::dataset::ALL;
use super::dataset_file::{PathIn, path_in};
use super::dataset_store::ON_A_DISK;
use super::headings::INPUT;
use crate::storage::{StorageOptions, is_address};

/// The arguments of a data set that may be addresses, for the commands that read it from buckets.
const INPUTS: [&str; 7] = ["data_folder", "reports_file", "meta_file", "labels_file", "studies", "exclude", "also"];

/// Finished shards in place of a data set.
#[derive(Clone, Debug, Args)]
pub struct ShardsArgs {
    /// Folder of finished shards, plain or compressed, or its address (s3://bucket/prefix, https://…): they take the
    /// place of the volumes and the tables
    #[arg(long, value_name = "DIR", conflicts_with_all = ALL, help_heading = INPUT)]
    pub shards: Option<PathBuf>,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageArgs,
}

/// How object storage is asked; credentials come from the environment or a profile, because others see a command line.
#[derive(Clone, Debug, Args)]
pub struct StorageArgs {
    /// Address of the S3 service, such as `https://s3.example.org` [default: AWS_ENDPOINT_URL, or Amazon's]
    #[arg(long, value_name = "URL", help_heading = INPUT)]
    pub endpoint_url: Option<String>,
    /// Ask without credentials: a public bucket
    #[arg(long, help_heading = INPUT)]
    pub no_sign_request: bool,
    /// Seconds for which a request to object storage is tried again before it fails
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400), help_heading = INPUT)]
    pub storage_timeout: u32,
}

impl ShardsArgs {
    /// No finished shards: a data set in object storage, or on a disk.
    pub fn none(storage: &StorageArgs) -> Self {
        Self { shards: None, storage: storage.clone() }
    }
}

impl StorageArgs {
    /// The options.
    pub fn options(&self) -> StorageOptions {
        StorageOptions {
            endpoint_url: self.endpoint_url.clone(),
            no_sign_request: self.no_sign_request,
            timeout: Duration::from_secs(self.storage_timeout.into()),
            stop: None,
        }
    }
}

/// What may be an address, in commands with [`StorageArgs`].
const OF_ADDRESSES: [&str; 3] = ["shards", "output_dir", "dir"];

/// Refuses addresses where paths on a disk are wanted: a command would take them for folders of such a name, and make
/// these.
pub(super) fn check_addresses(command: &mut Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    if let Some((name, deeper)) = matches.subcommand() {
        return command.find_subcommand_mut(name).map_or(Ok(()), |command| check_addresses(command, deeper));
    }
    let takes_addresses = command.get_arguments().any(|arg| arg.get_id() == "endpoint_url");
    let may_be = |id: &str| takes_addresses && (OF_ADDRESSES.contains(&id) || INPUTS.contains(&id));
    let wrong = command.get_arguments().find_map(|arg| {
        let id = arg.get_id().as_str();
        let mut values = matches.get_raw(id).into_iter().flatten().filter_map(|value| value.to_str());
        let path = match path_in(arg) {
            _ if may_be(id) => None,
            PathIn::Whole => values.find(|value| is_address(value.as_ref())),
            PathIn::BehindName => {
                values.find(|value| value.split_once('=').is_some_and(|(_, at)| is_address(at.as_ref())))
            }
            PathIn::No => None,
        };
        path.map(|path| (arg.get_long().map_or_else(|| id.to_uppercase(), |long| format!("--{long}")), path.to_owned()))
    });
    wrong.map_or(Ok(()), |(name, address)| {
        Err(command.error(ErrorKind::ValueValidation, format!("{name} {address}: {ON_A_DISK}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command with the names that lead to it.
    fn all(command: &Command, names: &[String]) -> Vec<(Vec<String>, Command)> {
        let names = [names, &[command.get_name().to_owned()]].concat();
        let deeper = command.get_subcommands().flat_map(|deeper| all(deeper, &names));
        deeper.chain([(names.clone(), command.clone())]).collect()
    }

    #[test]
    fn every_path_is_on_a_disk_but_those_of_data_sets_and_shards() {
        let (mut refused, mut read) = (0, Vec::new());
        for (names, command) in all(&crate::cli::command(), &[]) {
            for arg in command.get_arguments().filter(|arg| path_in(arg) != PathIn::No) {
                let address = if path_in(arg) == PathIn::Whole { "s3://b/x" } else { "mask=s3://b/*.npz" };
                let flag = arg.get_long().map(|long| format!("--{long}={address}"));
                let words = names.iter().cloned().chain([flag.unwrap_or_else(|| address.to_owned())]);
                let mut root = crate::cli::command().ignore_errors(true);
                let matches = root.try_get_matches_from_mut(words).unwrap();
                match check_addresses(&mut root, &matches) {
                    Err(error) => {
                        assert!(error.to_string().contains("must be on a disk"), "{error}");
                        refused += 1;
                    }
                    Ok(()) => read.push((names[1].clone(), arg.get_id().to_string())),
                }
            }
        }
        let of_shards = ["cat", "materialize", "mount", "plan", "report", "run", "verify"].map(|name| (name, "shards"));
        let mut expected: Vec<(&str, &str)> = of_shards.to_vec();
        expected.extend([("materialize", "output_dir"), ("manifest", "dir")]);
        for command in ["bench", "cat", "materialize", "mount", "plan", "report", "run", "verify"] {
            expected.extend(INPUTS.map(|id| (command, id)));
        }
        let mut found: Vec<(&str, &str)> = read.iter().map(|(command, id)| (&**command, &**id)).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(refused > 40, "{refused}");
    }
}
