//! The columns that each of the three tables must have, and which of the given files fits where one does not.

use std::path::Path;

use csv::StringRecord;

use super::Config;
use super::csv_file::CsvFile;
use super::tables::{KEY, Table};
use crate::error::{Error, Result};

/// The columns of the reports.
pub(super) const REPORT_COLUMNS: [&str; 2] = ["Findings_EN", "Impressions_EN"];
/// The columns of the metadata table.
pub(super) const META_COLUMNS: [&str; 4] = ["RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"];

/// A table's flag, and the columns that tell it from the other tables; none for the labels, whose columns are any.
type Role = (&'static str, &'static [&'static str]);

const REPORTS: Role = ("--reports-file", &REPORT_COLUMNS);
const META: Role = ("--meta-file", &META_COLUMNS);
const LABELS: Role = ("--labels-file", &[]);

/// The three files with the roles in which the user gives them.
pub(super) struct Roles<'a>([(Role, &'a Path); 3]);

impl<'a> Roles<'a> {
    /// The roles of the files of a scan.
    pub(super) fn of(config: &'a Config) -> Self {
        Self([(REPORTS, &config.reports_file), (META, &config.meta_file), (LABELS, &config.labels_file)])
    }

    /// The table, or its error with the flag that the file was given by and the file that fits it.
    ///
    /// # Errors
    /// The error of `loaded`.
    pub(super) fn explain(&self, loaded: Result<Table>) -> Result<Table> {
        loaded.map_err(|error| match error {
            Error::Table { path, reason } => {
                let hint =
                    self.0.iter().find(|(_, given)| *given == path).and_then(|(role, path)| self.hint(*role, path));
                Error::table(&path, reason + &hint.unwrap_or_default())
            }
            error => error,
        })
    }

    /// Refuses a table of labels that has the columns of another table: its numbers would become classes.
    ///
    /// # Errors
    /// [`Error::Table`], if so.
    pub(super) fn refuse_as_labels(&self, labels: &Table) -> Result<()> {
        let columns: Vec<&str> = labels.columns.iter().map(String::as_str).collect();
        let (labels_role, path) = self.0[2];
        for (flag, needed) in [REPORTS, META] {
            if needed.iter().all(|name| columns.contains(name)) {
                let hint = self.hint(labels_role, path).unwrap_or_default();
                return Err(Error::table(path, format!("it has the columns of {flag}, which are no classes{hint}")));
            }
        }
        Ok(())
    }

    /// The end of a message about a file whose columns are not those of its role; `None` if they are.
    fn hint(&self, role: Role, path: &Path) -> Option<String> {
        if fits(role, path) {
            return None;
        }
        let flag = role.0;
        let other = self.0.iter().find(|(other, file)| *other != role && *file != path && fits(role, file));
        Some(other.map_or_else(
            || format!("; the file was given as {flag}"),
            |((given_as, _), file)| {
                format!(
                    "; the file was given as {flag}: {}, given as {given_as}, fits; are they swapped?",
                    file.display()
                )
            },
        ))
    }
}

/// Whether the first line of a file has the columns of a role.
fn fits((_, needed): Role, path: &Path) -> bool {
    let mut header = StringRecord::new();
    let Ok(file) = CsvFile::read(path, "read the table", &[KEY]) else { return false };
    let Ok(Some(_)) = file.records().read(&mut header) else { return false };
    let has = |names: &[&str]| names.iter().all(|name| header.iter().any(|found| found == *name));
    let is_other = [REPORTS.1, META.1].into_iter().any(has);
    has(&[KEY]) && if needed.is_empty() { header.len() > 1 && !is_other } else { has(needed) }
}
