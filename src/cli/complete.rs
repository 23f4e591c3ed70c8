//! The arguments of a command, with those that the environment and the file of the data set add: flags win over
//! variables (`CTWDS_DATA_FOLDER` for `--data-folder`), and variables over the file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::dataset_file::{DatasetFile, Flag, NAME, path_in};
use super::help::NEVER_FINDS;
use super::normalized;
use crate::error::{Error, Result, shown};

/// What only the command line may ask for: files are lost by it, or it is for this one run.
const NEVER: [&str; 16] = [
    "delete",
    "yes",
    "force",
    "clean",
    "help",
    "version",
    "dataset",
    "command",
    "json",
    "quiet",
    "verbose",
    "rescan",
    "integrity",
    "split_by",
    "split_dir",
    "seed",
];

/// The flags that name files of a data set beside its folder. Half of one on the command line and half of another in a
/// file that nobody named would be a third one.
const INPUTS: [&str; 5] = ["reports_file", "meta_file", "labels_file", "config", "split"];

/// The arguments of a command, and which of them were added.
#[derive(Debug)]
pub struct Completed {
    /// All arguments, in an order that the parser takes.
    pub args: Vec<OsString>,
    /// The arguments that were added.
    pub added: Vec<OsString>,
}

/// Completes the arguments of the process: `variable` gives the value of an environment variable, `here` is the current
/// folder. The file is the one that is named, else `ctwds.toml` in the data folder if that is named, or in the current
/// folder. What is found is never used by `reclaim`, and not where a flag names a table or a configuration.
///
/// # Errors
/// The errors of reading the file; [`Error::Malformed`] with a key that no command has, or of which the value has
/// another form; [`Error::Usage`] for such a variable.
pub fn complete(
    args: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
    here: &Path,
) -> Result<Completed> {
    let args = normalized(args);
    let mut root = super::command();
    root.build();
    let (command, at) = command_of(&root, &args);
    let parsed = super::command().ignore_errors(true).try_get_matches_from(&args);
    let given = parsed.as_ref().ok().map(deepest);
    let (true, Some(given)) = (takes_dataset(command), given) else {
        return Ok(Completed { args, added: Vec::new() }); // or the parser will say what is wrong, or help
    };
    let invocation = Invocation { command, given, variable: &variable };
    // Who started this process has completed its arguments. Once more, a file would be found in the data folder that
    // was added to them, and keys of `mount` be added to what `bench` asked for.
    if ["daemon", "parent"].iter().any(|id| invocation.is_given(id)) {
        return Ok(Completed { args, added: Vec::new() });
    }
    let file = invocation.find(here).as_deref().map(DatasetFile::read).transpose()?;
    if let Some(file) = &file {
        check_keys(&root, file)?;
    }
    let added = invocation.added(file.as_ref())?;
    let mut args = args;
    args.splice(at..at, added.iter().cloned());
    Ok(Completed { args, added })
}

/// The command that the arguments name, and the position behind its name.
fn command_of<'a>(root: &'a Command, args: &[OsString]) -> (&'a Command, usize) {
    let (mut command, mut at) = (root, 1);
    while let Some(found) = args.get(at).and_then(|name| command.find_subcommand(name)) {
        (command, at) = (found, at + 1);
    }
    (command, at)
}

fn deepest(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, deeper)| deepest(deeper))
}

fn takes_dataset(command: &Command) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == "dataset")
}

/// The key of an argument: its flag's name, and one name for the mountpoint of all commands.
fn key(arg: &Arg) -> Option<&str> {
    if arg.get_id() == "mountpoint" { Some("mountpoint") } else { arg.get_long() }
}

/// Whether the environment and the file may give an argument of a command.
fn may_be_added(command: &Command, arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    // Elsewhere, --shards takes the place of the data set that the file names.
    let names_another_source = id == "shards" && !["verify", "reclaim"].contains(&command.get_name());
    !arg.is_hide_set() && !NEVER.contains(&id) && !names_another_source
}

/// Refuses a key that no command has.
fn check_keys(root: &Command, file: &DatasetFile) -> Result<()> {
    let commands = root.get_subcommands().filter(|command| takes_dataset(command));
    let known: Vec<&str> = commands
        .flat_map(|command| command.get_arguments().filter(|arg| may_be_added(command, arg)))
        .filter_map(key)
        .collect();
    let Some(wrong) = file.keys.iter().find(|key| !known.contains(&&*key.name)) else { return Ok(()) };
    // By this measure a common beginning counts: 'labels' is nearer to 'labels_file' than to 'axes'.
    let nearness = |name: &str| strsim::jaro_winkler(name, &wrong.name);
    let nearest = known.iter().max_by(|one, other| nearness(one).total_cmp(&nearness(other)));
    let meant = nearest.map_or_else(String::new, |name| format!("; is '{name}' meant?"));
    let what = format!("line {}: there is no key '{}'{meant}", wrong.line, shown(&wrong.name));
    Err(Error::malformed(&file.path, what))
}

/// A command, what was given of its arguments, and the environment.
struct Invocation<'a> {
    command: &'a Command,
    given: &'a ArgMatches,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Invocation<'_> {
    fn is_given(&self, id: &str) -> bool {
        self.given.try_contains_id(id).is_ok() && self.given.value_source(id) == Some(ValueSource::CommandLine)
    }

    /// The value of an argument, of the command line or else of the environment.
    fn path(&self, id: &str) -> Option<PathBuf> {
        let flag = self.is_given(id).then(|| self.given.get_one::<PathBuf>(id).cloned()).flatten();
        flag.or_else(|| self.variable_of(id).map(PathBuf::from))
    }

    /// The environment variable that stands for a key.
    fn variable_of(&self, key: &str) -> Option<OsString> {
        let name = format!("CTWDS_{}", key.replace('-', "_").to_uppercase());
        (self.variable)(&name).filter(|value| !value.is_empty())
    }

    /// The file of the data set, if there is one.
    fn find(&self, here: &Path) -> Option<PathBuf> {
        if let Some(named) = self.path("dataset") {
            return Some(named);
        }
        let is_other_source = self.command.get_name() != "verify" && self.is_given("shards");
        if self.command.get_name() == NEVER_FINDS || is_other_source || INPUTS.iter().any(|id| self.is_given(id)) {
            return None;
        }
        let folder = self.path("data_folder").unwrap_or_else(|| here.to_owned());
        Some(folder.join(NAME)).filter(|file| file.is_file())
    }

    /// The arguments that the environment and the file add.
    fn added(&self, file: Option<&DatasetFile>) -> Result<Vec<OsString>> {
        let mut added = Vec::new();
        let mut last = Vec::new(); // an argument that is known by its place
        for arg in self.command.get_arguments().filter(|arg| may_be_added(self.command, arg)) {
            let id = arg.get_id().as_str();
            let Some(key) = key(arg).filter(|_| !self.is_given(id) && !self.conflicts(arg)) else { continue };
            let name = arg.get_long().map_or_else(String::new, |long| format!("--{long}"));
            let flag = Flag {
                name: &name,
                takes_value: arg.get_action().takes_values(),
                is_repeatable: matches!(arg.get_action(), ArgAction::Append),
                path: path_in(arg),
            };
            let list = if name.is_empty() { &mut last } else { &mut added };
            if let Some(value) = self.variable_of(key) {
                list.extend(of_variable(key, flag, &value)?);
            } else if let Some((file, key)) = file.and_then(|file| Some((file, self.key_of(file, key)?))) {
                let what = |what| Error::malformed(&file.path, format!("line {}: {}: {what}", key.line, key.name));
                list.extend(key.arguments(flag, file.folder()).map_err(what)?);
            }
        }
        added.append(&mut last);
        Ok(added)
    }

    /// The file's entry for a key. What `materialize` writes is what `verify` reads.
    fn key_of<'f>(&self, file: &'f DatasetFile, name: &str) -> Option<&'f super::dataset_file::Key> {
        let find = |name: &str| file.keys.iter().find(|key| key.name == name);
        let is_written = self.command.get_name() == "verify" && name == "shards";
        find(name).or_else(|| is_written.then(|| find("output-dir")).flatten())
    }

    /// Whether an argument contradicts one that was given.
    fn conflicts(&self, arg: &Arg) -> bool {
        let contradicts = |one: &Arg, other: &Arg| {
            self.command.get_arg_conflicts_with(one).iter().any(|found| found.get_id() == other.get_id())
        };
        let mut given = self.command.get_arguments().filter(|other| self.is_given(other.get_id().as_str()));
        given.any(|other| contradicts(arg, other) || contradicts(other, arg))
    }
}

/// The arguments for the value of a variable.
fn of_variable(key: &str, flag: Flag<'_>, value: &OsStr) -> Result<Vec<OsString>> {
    if flag.takes_value {
        return Ok(vec![flag.with(&value.to_owned())]);
    }
    match value.to_str() {
        Some("1" | "true" | "yes") => Ok(vec![flag.name.into()]),
        Some("0" | "false" | "no") => Ok(Vec::new()),
        _ => {
            Err(Error::Usage(format!("CTWDS_{} is {value:?}; it must be 1 or 0", key.replace('-', "_").to_uppercase())))
        }
    }
}
