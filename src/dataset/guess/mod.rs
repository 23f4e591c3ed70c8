//! What a folder of volumes and the tables below and beside it may be as a data set, with the reason of each guess.
//!
//! Nothing is guessed silently: what is found is a key with its reason, what cannot be decided is a key for the user to
//! fill in. Values of tables (ids, dates, texts) never appear in either.

mod arrays;
mod keys;
mod names;
mod places;
mod profile;
mod roles;
mod values;
mod volumes;

use std::path::{Path, PathBuf};

use super::progress::ScanProgress;
use crate::base::parallel::try_map;
use crate::error::{Error, Result, shown};
use arrays::Looked;
use profile::{Profile, Studies};
use roles::Roles;

/// The threads that list folders and read tables; the work waits on storage.
const THREADS: usize = 32;
/// Of so many volumes, a table that knows fewer than one is of another data set.
const FEW: usize = 20;
/// The header of a list of excluded samples, which this program writes; it has ids and texts, but is no report.
const QUARANTINE: [&str; 3] = ["study_id", "path", "reason"];

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The path of a file or folder, absolute.
    Path(PathBuf),
    /// The paths of several files, absolute.
    Paths(Vec<PathBuf>),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}

/// How a key was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The value that was found.
    Found(Value),
    /// The key is not needed: what holds without it is right.
    Unneeded,
    /// The key is not needed, and the value is one that the user may take.
    Offered(Value),
    /// The user must decide; the value is an example of what to fill in.
    Open(Value),
}

/// A key of the file of a data set, with the reason of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// The name of the key.
    pub key: &'static str,
    /// The decision.
    pub decision: Decision,
    /// The reason: a sentence without a full stop.
    pub reason: String,
}

/// What was found in a folder.
#[derive(Debug)]
pub struct Guesses {
    /// The keys, in the order of the file.
    pub keys: Vec<Guess>,
    /// What else was seen and is not part of the data set, as sentences.
    pub notes: Vec<String>,
}

impl Guess {
    fn found(key: &'static str, value: Value, reason: impl Into<String>) -> Self {
        Self { key, decision: Decision::Found(value), reason: reason.into() }
    }

    fn unneeded(key: &'static str, reason: impl Into<String>) -> Self {
        Self { key, decision: Decision::Unneeded, reason: reason.into() }
    }

    fn offered(key: &'static str, value: Value, reason: impl Into<String>) -> Self {
        Self { key, decision: Decision::Offered(value), reason: reason.into() }
    }

    fn open(key: &'static str, example: Value, reason: impl Into<String>) -> Self {
        Self { key, decision: Decision::Open(example), reason: reason.into() }
    }
}

/// Looks at what lies in a folder, below it and beside it. Reads headers and first values of some volumes, and the
/// tables whole; writes nothing. `progress` counts the volumes that are found.
///
/// # Errors
/// [`Error::Io`] if something cannot be read, [`Error::Refused`] if there is no volume.
pub fn look(folder: &Path, progress: &ScanProgress) -> Result<Guesses> {
    let root = std::path::absolute(folder).map_err(|error| Error::io(folder, "resolve the path", error))?;
    let places = places::find(&root, THREADS, progress)?;
    let mut notes = places.notes;
    let volumes = volumes::choose(&root, places.volumes, &mut notes)?;
    let studies = Studies::new(volumes.ids());
    let tables = read_tables(&places.tables, &studies, &mut notes)?;
    let roles = Roles::of(&tables);
    let looked = Looked::at(&volumes)?;
    let (array, choice) = looked.array();
    let mut keys = volumes.keys;
    keys.push(array);
    let seen = choice.as_ref().map(|choice| looked.values(choice)).transpose()?.unwrap_or_default();
    if let Some(choice) = &choice {
        let axes = arrays::axes(&seen);
        let are_slices_first = axes.as_ref().and_then(|axes| match axes.decision {
            Decision::Found(_) => Some(true),
            Decision::Unneeded => Some(false),
            Decision::Offered(_) | Decision::Open(_) => None,
        });
        keys.extend(looked.channel(choice));
        keys.extend(axes);
        // A table's spacing is known to be right where it has one; the file's is read in its place.
        if roles.meta_columns[2..].iter().any(Option::is_none) {
            keys.extend(looked.spacing(choice, are_slices_first));
            keys.extend(looked.extras(choice));
        }
    }
    keys.extend(keys::of_tables(&tables, &roles, &studies, &mut notes));
    keys.extend(keys::extra_columns(&tables, &roles));
    keys.extend(values::dialect(&seen));
    keys.extend(values::rescale(&seen, &tables, &roles)?);
    Ok(Guesses { keys, notes })
}

/// The tables that know some of the volumes, in the order of the paths.
fn read_tables(paths: &[PathBuf], studies: &Studies, notes: &mut Vec<String>) -> Result<Vec<Profile>> {
    let read = try_map(paths, THREADS, |path| match profile::read(path, studies) {
        Ok(table) => Ok(Ok(table)),
        // What cannot be read beside a data set is not part of it, until the user mends it.
        Err(error @ (Error::Table { .. } | Error::Io { .. })) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    })?;
    let mut tables = Vec::new();
    for table in read {
        let table = match table {
            Ok(table) if table.columns.iter().map(|column| &*column.name).eq(QUARANTINE) => continue,
            Ok(table) => table,
            Err(note) => {
                notes.push(note);
                continue;
            }
        };
        match table.count() {
            0 => notes.push(format!("{}: no column has ids of the volumes", table.path.display())),
            few if few * FEW < studies.count => notes.push(format!(
                "{}: only {few} of {} volumes are in its column '{}'",
                table.path.display(),
                studies.count,
                shown(&table.id().name)
            )),
            _ => {
                notes.extend(keys::decimal_commas(&table));
                tables.push(table);
            }
        }
    }
    Ok(tables)
}
