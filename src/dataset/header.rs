//! The columns that are read of a table, found in the header of a file.

use std::collections::HashSet;
use std::path::Path;

use csv::StringRecord;

use super::columns::{self, NamedColumns};
use crate::error::{Error, Result, shown};

/// The columns to read of a table.
pub(crate) enum Wanted<'a> {
    /// The columns of these names, in this order.
    Named(&'a [String]),
    /// The columns that are classes; all but the ids, if the list is empty.
    Classes(&'a [NamedColumns]),
}

/// The places of the columns to read, and warnings about columns that are left out.
pub(super) fn kept(
    path: &Path,
    header: &StringRecord,
    key: usize,
    wanted: &Wanted<'_>,
) -> Result<(Vec<usize>, Vec<String>)> {
    match wanted {
        Wanted::Named(names) => {
            let places = names.iter().map(|name| column(path, header, name, ""));
            Ok((places.collect::<Result<_>>()?, Vec::new()))
        }
        Wanted::Classes([]) => {
            let others = (0..header.len()).filter(|at| *at != key);
            let (nameless, kept) = others.partition::<Vec<usize>, _>(|at| is_nameless(&header[*at]));
            Ok((kept, nameless.iter().map(|at| nameless_warning(path, *at, &header[*at])).collect()))
        }
        Wanted::Classes(classes) => {
            let names: Vec<&str> = header.iter().collect();
            let mut kept: Vec<usize> = Vec::new();
            for class in *classes {
                let found =
                    class.of(&names).map_err(|reason| Error::table(path, format!("--label-columns: {reason}")))?;
                kept.extend(found.into_iter().filter(|at| *at != key));
            }
            let mut seen = HashSet::new();
            kept.retain(|at| seen.insert(*at));
            Ok((kept, Vec::new()))
        }
    }
}

/// A warning about columns of a later file of a table that would be read if the first file had them; `None` if there is
/// none. `key` is the place of the ids.
pub(super) fn unused_warning(
    [path, first]: [&Path; 2],
    header: &StringRecord,
    key: usize,
    wanted: &Wanted<'_>,
    extra: &[NamedColumns],
    known: &[String],
) -> Option<String> {
    let names: Vec<String> = header.iter().map(str::to_owned).collect();
    let classes = match wanted {
        Wanted::Named(_) => Vec::new(),
        Wanted::Classes([]) => (0..names.len()).filter(|at| *at != key && !is_nameless(&names[*at])).collect(),
        Wanted::Classes(classes) => columns::places(classes, &names, key),
    };
    let mut unused = [classes, columns::places(extra, &names, key)].concat();
    unused.retain(|at| !known.contains(&names[*at]));
    let mut seen = HashSet::new();
    unused.retain(|at| seen.insert(*at));
    let list: Vec<String> = unused.iter().map(|at| format!("'{}'", shown(&names[*at]))).collect();
    let (path, first) = (path.display(), first.display());
    (!list.is_empty()).then(|| {
        format!(
            "{path}: of its columns, {} {} not read, because {first}, the first file of the table, has none of that name",
            list.join(", "),
            if list.len() == 1 { "is" } else { "are" }
        )
    })
}

/// Whether a column has no name. pandas writes row numbers so, and names them `Unnamed: 0` when it reads them.
pub(super) fn is_nameless(name: &str) -> bool {
    let number = name.trim().strip_prefix("Unnamed:").map(str::trim_start);
    name.trim().is_empty() || number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
}

fn nameless_warning(path: &Path, at: usize, name: &str) -> String {
    format!(
        "{}: column {} has no name ({name:?}), as the row numbers that pandas writes: it is left out, and is no class; \
         name it if it is one, else write the table with index=False",
        path.display(),
        at + 1
    )
}

/// What names another column for the ids, for a message.
pub(super) const ID_FLAG: &str = "; --id-column names the one with the ids of the volumes";

/// The place of a column; `remedy` is the end of the message if it is missing.
pub(super) fn column(path: &Path, header: &StringRecord, name: &str, remedy: &str) -> Result<usize> {
    header.iter().position(|found| found == name).ok_or_else(|| {
        let found: Vec<&str> = header.iter().collect();
        let blanks = found.iter().find(|found| found.trim() == name);
        let blanks = blanks.map_or_else(String::new, |found| format!("; {found:?} has blanks around it: remove them"));
        Error::table(path, format!("column '{name}' is missing; the columns are: {}{blanks}{remedy}", found.join(", ")))
    })
}
