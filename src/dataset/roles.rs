//! The columns that each of the tables must have, and which of the given files fits where one does not.

use std::path::Path;

use csv::StringRecord;

use super::Config;
use super::columns::Columns;
use super::csv_file::CsvFile;
use super::tables::Table;
use crate::error::{Error, Result};
use crate::storage::Store;

/// The flag of a table of reports.
pub(super) const REPORTS: &str = "--reports-file";
/// The flag of a table of metadata.
pub(super) const META: &str = "--meta-file";
/// The flag of a table of labels.
pub(super) const LABELS: &str = "--labels-file";

/// A table's flag, and the columns that tell it from the other tables; none for the labels, whose columns are any.
#[derive(Clone, Copy, PartialEq)]
struct Role<'a> {
    flag: &'static str,
    needed: &'a [String],
}

/// The files with the roles in which the user gives them.
pub(super) struct Roles<'a> {
    files: Vec<(Role<'a>, &'a Path)>,
    /// The roles whose columns are known.
    roles: [Role<'a>; 2],
    columns: &'a Columns,
    store: &'a dyn Store,
}

impl<'a> Roles<'a> {
    /// The roles of the files of a scan.
    pub(super) fn of(config: &'a Config) -> Self {
        let columns = &config.columns;
        let [reports, meta, labels] = [
            Role { flag: REPORTS, needed: &columns.texts },
            Role { flag: META, needed: &columns.meta },
            Role { flag: LABELS, needed: &[] },
        ];
        let mut files = Vec::new();
        for (role, paths) in
            [(reports, &config.reports_files), (meta, &config.meta_files), (labels, &config.labels_files)]
        {
            files.extend(paths.iter().map(|path| (role, &**path)));
        }
        Self { files, roles: [reports, meta], columns, store: &*config.store }
    }

    /// The table that was given by `flag`, or its error with that flag and the file that fits it.
    ///
    /// # Errors
    /// The error of `loaded`.
    pub(super) fn explain(&self, flag: &str, loaded: Result<Table>) -> Result<Table> {
        loaded.map_err(|error| match error {
            Error::Table { path, reason } => {
                let mut files = self.files.iter();
                let given = files.find(|(role, given)| role.flag == flag && *given == path);
                let hint = given.and_then(|(role, path)| self.hint(*role, path));
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
        let Some((labels_role, path)) = self.files.iter().find(|(role, _)| role.needed.is_empty()).copied() else {
            return Ok(());
        };
        for Role { flag, needed } in &self.roles {
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
        let Ok(file) = CsvFile::read(self.store, path, "read the table", &ids) else { return false };
        let Ok(Some(_)) = file.records().read(&mut header) else { return false };
        let has = |name: &str| header.iter().any(|found| found == name);
        let has_all = |names: &[String]| names.iter().all(|name| has(name));
        let is_other = self.roles.iter().any(|other| has_all(other.needed));
        let is_any = role.needed.is_empty();
        ids.iter().any(|id| has(id)) && if is_any { header.len() > 1 && !is_other } else { has_all(role.needed) }
    }
}
