//! The columns that each of the three tables must have, and which of the given files fits where one does not.

use std::path::Path;

use csv::StringRecord;

use super::Config;
use super::columns::Columns;
use super::csv_file::CsvFile;
use super::tables::Table;
use crate::error::{Error, Result};

/// A table's flag, and the columns that tell it from the other tables; none for the labels, whose columns are any.
#[derive(Clone, Copy, PartialEq)]
struct Role<'a> {
    flag: &'static str,
    needed: &'a [String],
}

/// The three files with the roles in which the user gives them.
pub(super) struct Roles<'a> {
    files: [(Role<'a>, &'a Path); 3],
    columns: &'a Columns,
}

impl<'a> Roles<'a> {
    /// The roles of the files of a scan.
    pub(super) fn of(config: &'a Config) -> Self {
        let columns = &config.columns;
        let [reports, meta, labels] = [
            Role { flag: "--reports-file", needed: &columns.texts },
            Role { flag: "--meta-file", needed: &columns.meta },
            Role { flag: "--labels-file", needed: &[] },
        ];
        let (reports_file, meta_file) = (&*config.reports_file, &*config.meta_file);
        Self { files: [(reports, reports_file), (meta, meta_file), (labels, &config.labels_file)], columns }
    }

    /// The table, or its error with the flag that the file was given by and the file that fits it.
    ///
    /// # Errors
    /// The error of `loaded`.
    pub(super) fn explain(&self, loaded: Result<Table>) -> Result<Table> {
        loaded.map_err(|error| match error {
            Error::Table { path, reason } => {
                let hint =
                    self.files.iter().find(|(_, given)| *given == path).and_then(|(role, path)| self.hint(*role, path));
                Error::table(&path, reason + &hint.unwrap_or_default())
            }
            error => error,
        })
    }

    /// Refuses a table of labels that has the columns of another table: its numbers would become classes. Where the
    /// user has named the classes, it may be one table for all.
    ///
    /// # Errors
    /// [`Error::Table`], if so.
    pub(super) fn refuse_as_labels(&self, labels: &Table) -> Result<()> {
        let (labels_role, path) = self.files[2];
        for (Role { flag, needed }, _) in &self.files[..2] {
            if self.columns.classes.is_empty() && needed.iter().all(|name| labels.columns.contains(name)) {
                let hint = self.hint(labels_role, path).unwrap_or_default();
                let what = "which are no classes; --label-columns names the columns that are";
                return Err(Error::table(path, format!("it has the columns of {flag}, {what}{hint}")));
            }
        }
        Ok(())
    }

    /// The end of a message about a file whose columns are not those of its role; `None` if they are.
    fn hint(&self, role: Role<'_>, path: &Path) -> Option<String> {
        if self.fits(role, path) {
            return None;
        }
        let flag = role.flag;
        let other = self.files.iter().find(|(other, file)| *other != role && *file != path && self.fits(role, file));
        Some(other.map_or_else(
            || format!("; the file was given as {flag}"),
            |(Role { flag: given_as, .. }, file)| {
                format!(
                    "; the file was given as {flag}: {}, given as {given_as}, fits; are they swapped?",
                    file.display()
                )
            },
        ))
    }

    /// Whether the first line of a file has the columns of a role.
    fn fits(&self, role: Role<'_>, path: &Path) -> bool {
        let mut header = StringRecord::new();
        let ids: Vec<&str> = self.columns.ids.iter().map(String::as_str).collect();
        let Ok(file) = CsvFile::read(path, "read the table", &ids) else { return false };
        let Ok(Some(_)) = file.records().read(&mut header) else { return false };
        let has = |name: &str| header.iter().any(|found| found == name);
        let has_all = |names: &[String]| names.iter().all(|name| has(name));
        let is_other = self.files[..2].iter().any(|(other, _)| has_all(other.needed));
        let is_any = role.needed.is_empty();
        ids.iter().any(|id| has(id)) && if is_any { header.len() > 1 && !is_other } else { has_all(role.needed) }
    }
}
