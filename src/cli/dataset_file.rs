//! `ctwds.toml`: the flags of a data set in a file, one key for each, and where it is found.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Arg;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::given;
use crate::error::{Error, Result};
use crate::storage::is_address;

/// The name by which the file is found.
pub const NAME: &str = "ctwds.toml";

/// The keys of a file of a data set, in its order.
#[derive(Debug)]
pub(super) struct DatasetFile {
    /// The path of the file.
    pub(super) path: PathBuf,
    /// The keys and their values.
    pub(super) keys: Vec<Key>,
}

/// A key, which is the name of a flag, and its value.
#[derive(Debug)]
pub(super) struct Key {
    /// The name of the flag, with dashes.
    pub(super) name: String,
    /// The line of the key, from 1 on.
    pub(super) line: usize,
    /// The value.
    pub(super) value: Value,
}

/// The value of a key.
#[derive(Debug)]
pub(super) enum Value {
    /// Whether a flag without a value is given.
    Switch(bool),
    /// The values of a flag, as on the command line.
    Texts(Vec<String>),
}

impl DatasetFile {
    /// Reads a file. Dashes and underscores in keys are the same.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Malformed`] if it is no TOML, or a value is a table or a date.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = given::read_text(path, "read the data set's file")?;
        let table = DeTable::parse(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            Error::malformed(path, format!("line {line}: {}", error.message()))
        })?;
        let keys = table.get_ref().iter().map(|(name, value)| {
            let (line, name) = (line_of(&text, name.span().start), name.get_ref().replace('_', "-"));
            match self::value(value.get_ref()) {
                Some(value) => Ok(Key { name, line, value }),
                None => {
                    Err(Error::malformed(path, format!("line {line}: '{name}' must be a text, number, list or truth")))
                }
            }
        });
        let mut keys: Vec<Key> = keys.collect::<Result<_>>()?;
        keys.sort_by_key(|key| key.line);
        // TOML itself refuses a key twice, but takes data-folder and data_folder for two.
        let mut seen = HashSet::new();
        match keys.iter().find(|key| !seen.insert(&key.name)) {
            Some(twice) => Err(Error::malformed(path, format!("line {}: '{}' is there twice", twice.line, twice.name))),
            None => Ok(Self { path: path.to_owned(), keys }),
        }
    }

    /// The folder that the file's paths start at.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

impl Key {
    /// The value as arguments of the command line, `flag` being the name there. Lists are one value with commas unless
    /// the flag may be given several times. Paths start at `folder`.
    pub(super) fn arguments(&self, flag: Flag<'_>, folder: &Path) -> std::result::Result<Vec<OsString>, String> {
        match (&self.value, flag.takes_value) {
            (Value::Switch(true), false) => Ok(vec![flag.name.into()]),
            (Value::Switch(false), false) => Ok(Vec::new()),
            (Value::Switch(_), true) => Err("it must be a text or a number, as the flag has a value".into()),
            (Value::Texts(_), false) => Err("it must be true or false, as the flag has no value".into()),
            (Value::Texts(texts), true) => {
                let texts = if flag.is_repeatable { texts.clone() } else { vec![texts.join(",")] };
                Ok(texts.iter().map(|text| flag.with(&flag.resolve(text, folder))).collect())
            }
        }
    }
}

/// How a flag is written on the command line.
#[derive(Clone, Copy)]
pub(super) struct Flag<'a> {
    /// The flag with its dashes; empty for an argument that is known by its place.
    pub(super) name: &'a str,
    /// Whether the flag has a value.
    pub(super) takes_value: bool,
    /// Whether the flag may be given several times.
    pub(super) is_repeatable: bool,
    /// Whether the value is, or holds, a path.
    pub(super) path: PathIn,
}

/// The path in a flag's value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PathIn {
    /// There is none.
    No,
    /// The value is a path.
    Whole,
    /// What stands behind `NAME=` is one, if it has a slash or a star.
    BehindName,
}

/// The path in an argument's value.
pub(super) fn path_in(arg: &Arg) -> PathIn {
    let of_paths = clap::value_parser!(PathBuf);
    match arg.get_id().as_str() {
        "also" => PathIn::BehindName,
        _ if arg.get_value_parser().type_id() == of_paths.type_id() => PathIn::Whole,
        _ => PathIn::No,
    }
}

impl Flag<'_> {
    /// The argument with a value.
    pub(super) fn with(self, value: &OsString) -> OsString {
        if self.name.is_empty() {
            return value.clone();
        }
        let mut argument = OsString::from(format!("{}=", self.name));
        argument.push(value);
        argument
    }

    fn resolve(self, text: &str, folder: &Path) -> OsString {
        match self.path {
            PathIn::No => text.into(),
            PathIn::Whole if is_address(Path::new(text)) => text.into(),
            PathIn::Whole => folder.join(text).into_os_string(),
            PathIn::BehindName => match text.split_once('=') {
                Some((_, path)) if is_address(Path::new(path)) => text.into(),
                Some((name, path)) if path.contains(['/', '*']) => {
                    let mut value = OsString::from(format!("{name}="));
                    value.push(folder.join(path));
                    value
                }
                _ => text.into(),
            },
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The value of a key; `None` for a table or a date.
fn value(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::Boolean(switch) => Some(Value::Switch(*switch)),
        DeValue::Array(items) => {
            items.iter().map(Spanned::get_ref).map(text).collect::<Option<Vec<String>>>().map(Value::Texts)
        }
        other => text(other).map(|text| Value::Texts(vec![text])),
    }
}

fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}
