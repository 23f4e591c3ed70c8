//! A column of the tables that no shard shows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::Config;
use super::csv_file::CsvFile;
use super::tables::{Wanted, load_with, present};
use crate::error::{Error, Result, shown};

/// The values of a column for studies, which are given by their ids; the column is in one of the tables.
///
/// # Errors
/// [`Error::Refused`] if no table has the column, or several, or it has no value for a study; the errors of reading a
/// table.
pub fn other_column(config: &Config, column: &str, studies: &[&str]) -> Result<Vec<String>> {
    let mut tables = BTreeSet::new();
    for files in [&config.reports_files, &config.meta_files, &config.labels_files] {
        if let Some(first) = files.first()
            && has(config, first, column)?
        {
            tables.insert(files);
        }
    }
    let shown_column = shown(column);
    let files: &Vec<PathBuf> = match tables.iter().collect::<Vec<_>>()[..] {
        [files] => files,
        [] => return Err(Error::Refused(format!("no table has the column '{shown_column}'"))),
        [one, other, ..] => {
            let (one, other) = (one[0].display(), other[0].display());
            let reason = format!("{one} and {other} have the column '{shown_column}' both; rename it in one");
            return Err(Error::Refused(reason));
        }
    };
    let rows = load_with(&*config.store, files, &config.columns.ids, &Wanted::Named(&[column.to_owned()]), &[])?;
    let value = |study: &&str| {
        let row = rows.find(study)?;
        let value = row.and_then(|row| present(row.get(0).trim()));
        let absent = || Error::table(&files[0], format!("column '{shown_column}' has no value for '{}'", shown(study)));
        value.map(str::to_owned).ok_or_else(absent)
    };
    studies.iter().map(value).collect()
}

/// Whether a table has a column.
fn has(config: &Config, path: &Path, column: &str) -> Result<bool> {
    let ids: Vec<&str> = config.columns.ids.iter().map(String::as_str).collect();
    let file = CsvFile::read(&*config.store, path, "read the table", &ids)?;
    let mut header = StringRecord::new();
    file.records().read(&mut header)?;
    Ok(header.iter().any(|name| name == column))
}
