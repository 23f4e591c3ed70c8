//! The selection among the volumes that all tables know: those that fulfil a condition, those of a list, or both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::{Deserialize, Serialize};

use super::Config;
use super::condition::Condition;
use super::csv_file::CsvFile;
use super::matched::Matched;
use crate::error::{Error, Result, shown};
use crate::storage::Store;

/// Columns of a table that name studies, in the order of preference.
const COLUMNS: [&str; 2] = ["study_id", "VolumeName"];
/// The number of studies that a warning names.
const NAMED: usize = 3;

/// The criteria of a selection; a volume must fulfil all that are given.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The condition that the labels must fulfil.
    pub condition: Option<Condition>,
    /// The file that lists the studies to take.
    pub studies: Option<PathBuf>,
}

/// The criteria and counts of a selection, as plan and manifest show them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Selected {
    /// The condition, as the user wrote it.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// The number of studies in the list.
    pub studies_listed: Option<usize>,
    /// The number of volumes that were selected.
    pub selected: usize,
    /// The number of volumes that all tables know.
    pub of: usize,
}

impl Selection {
    /// Whether the selection has any criterion.
    pub fn is_any(&self) -> bool {
        self.condition.is_some() || self.studies.is_some()
    }

    /// Keeps only the selected volumes in `matched` and returns their counts; `None` without any criterion. Listed
    /// studies that are not among the volumes become a warning.
    ///
    /// # Errors
    /// [`Error::Refused`] for an unknown class, if nothing is selected, and with `config.strict` for a listed study
    /// that is not among the volumes; [`Error::Io`] or [`Error::Table`] for an unusable list.
    pub(super) fn apply(
        &self,
        config: &Config,
        classes: &[String],
        matched: &mut Vec<Matched>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Selected>> {
        if !self.is_any() {
            return Ok(None);
        }
        let of = matched.len();
        if let Some(condition) = &self.condition {
            let Some(file) = config.labels_files.first() else {
                return Err(Error::Refused(format!(
                    "--where '{condition}' needs labels: --labels-file names their table"
                )));
            };
            let condition = condition.bind(classes);
            let condition =
                condition.map_err(|what| Error::Refused(format!("--where does not fit {}: {what}", file.display())))?;
            matched.retain(|matched| condition.holds(&matched.row.labels));
        }
        let mut listed = None;
        if let Some(file) = &self.studies {
            let studies = read_studies(&*config.store, file)?;
            let known: BTreeSet<&str> = matched.iter().map(|matched| matched.study_id.as_str()).collect();
            let unknown: Vec<&str> = studies.iter().map(String::as_str).filter(|id| !known.contains(id)).collect();
            if !unknown.is_empty() {
                let what = self.unknown(file, &unknown, studies.len());
                if config.strict {
                    return Err(Error::Refused(format!("{what}; without --strict the others are taken")));
                }
                warnings.push(what);
            }
            matched.retain(|matched| studies.contains(&matched.study_id));
            listed = Some(studies.len());
        }
        if matched.is_empty() {
            return Err(self.nothing(of));
        }
        let condition = self.condition.as_ref().map(ToString::to_string);
        Ok(Some(Selected { condition, studies_listed: listed, selected: matched.len(), of }))
    }

    fn unknown(&self, file: &Path, unknown: &[&str], listed: usize) -> String {
        let examples = unknown[..unknown.len().min(NAMED)].join(", ");
        let among =
            if self.condition.is_some() { "that all tables know and --where selects" } else { "that all tables know" };
        format!(
            "{}: {} of {listed} studies are not among the volumes {among} (for example {examples})",
            file.display(),
            unknown.len()
        )
    }

    fn nothing(&self, of: usize) -> Error {
        let condition = self.condition.as_ref().map(|condition| format!("--where '{condition}'"));
        let studies = self.studies.as_ref().map(|file| format!("--studies {}", file.display()));
        let asked: Vec<String> = condition.into_iter().chain(studies).collect();
        let asked = asked.join(" and ");
        Error::Refused(format!("{asked}: selects none of the {of} volumes that all tables know; see `ctwds-fs plan`"))
    }
}

const READ: &str = "read the list of studies";

/// The text of a list of studies that [`Selection::studies`] reads: a table with the column `study_id`.
///
/// # Errors
/// [`Error::Refused`] if a list cannot have one of the ids.
pub fn list_of_studies(studies: &[&str]) -> Result<String> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    for field in [COLUMNS[0]].iter().chain(studies) {
        let is_read_otherwise = field.starts_with('#') || field.trim() != *field || without_ending(field) != *field;
        if is_read_otherwise {
            return Err(Error::Refused(format!("no list can have the study '{}'; rename its file", shown(field))));
        }
        writer.write_record([field]).map_err(|error| Error::Internal(error.to_string()))?;
    }
    let text = writer.into_inner().map_err(|error| Error::Internal(error.to_string()))?;
    String::from_utf8(text).map_err(|error| Error::Internal(error.to_string()))
}

/// A field of a list without the ending of a file's name.
fn without_ending(field: &str) -> &str {
    [".nii.gz", ".nii", ".npz"].iter().find_map(|ending| field.strip_suffix(ending)).unwrap_or(field)
}

/// Reads a list of studies: one study id a line, or a table with a column of them. Lines that begin with `#` are
/// comments.
fn read_studies(store: &dyn Store, file: &Path) -> Result<BTreeSet<String>> {
    let mut csv = CsvFile::read(store, file, READ, &COLUMNS)?;
    let mut records = csv.list();
    let mut record = StringRecord::new();
    let mut column = None;
    let mut is_first = true;
    let mut studies = BTreeSet::new();
    while let Some(line) = records.read(&mut record)? {
        if std::mem::take(&mut is_first) {
            column = COLUMNS.iter().find_map(|name| record.iter().position(|field| field == *name));
            if column.is_some() {
                continue;
            }
        }
        let field = match column {
            Some(column) => record.get(column).unwrap_or_default(),
            None if record.len() == 1 => &record[0],
            None => {
                let reason = format!(
                    "line {line}: more than a study id, and the first line has no column {}",
                    COLUMNS.join(" or ")
                );
                return Err(Error::table(file, reason));
            }
        };
        let study = without_ending(field);
        if !study.is_empty() && !study.starts_with('#') {
            studies.insert(study.to_owned());
        }
    }
    if studies.is_empty() {
        return Err(Error::table(file, "there is no study in it; write one study id a line"));
    }
    Ok(studies)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::Files;

    fn read(text: &str) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("studies.txt");
        fs::write(&file, text).unwrap();
        Ok(read_studies(&Files, &file)?.into_iter().collect())
    }

    #[test]
    fn lists_and_tables() {
        for text in [
            "a\nb c\n",
            "# mine\n\nb c.nii.gz\r\n  a \r\na.npz",
            "\u{feff}study_id\nb c\na\n",
            "n,VolumeName\n1,a.nii.gz\n2,\"b c.nii.gz\"\n3\n",
            "VolumeName,study_id\nx,a\ny,b c\n# z,d\n",
        ] {
            assert_eq!(read(text).unwrap(), ["a", "b c"], "{text:?}");
        }
        for (text, reason) in
            [("", "no study"), ("# a\n", "no study"), ("study_id\n", "no study"), ("a\nb,c\n", "line 2")]
        {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains("studies.txt: ") && message.contains(reason), "{text:?}: {message}");
        }
    }
}
