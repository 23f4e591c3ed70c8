//! `quarantine.csv`: samples that cannot be made, with the reasons. What one command found out, `--exclude` tells the
//! next; people edit it, too.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The file's name in an output folder.
pub const NAME: &str = "quarantine.csv";
/// The same in two pieces, for [`crate::output::partition::Part::file_name`].
pub const FILE: (&str, &str) = ("quarantine", "csv");

/// A sample that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Quarantined {
    /// The study.
    pub study_id: String,
    /// The NPZ, relative to the data folder; for people only.
    #[serde(default)]
    pub path: String,
    /// Why; for people only.
    #[serde(default)]
    pub reason: String,
}

/// The file's content: a header and one row a sample.
pub fn render(rows: &[Quarantined]) -> Vec<u8> {
    if rows.is_empty() {
        return b"study_id,path,reason\n".to_vec();
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        // Into memory, and every row has the same three fields.
        writer.serialize(row).expect("the row serialises");
    }
    writer.into_inner().expect("memory does not fail")
}

/// Reads such a file. Only the column `study_id` must be there.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Table`] if it is not such a table.
pub fn read(path: &Path) -> Result<Vec<Quarantined>> {
    let mut reader = csv::Reader::from_path(path).map_err(|error| table(path, error))?;
    reader.deserialize().map(|row| row.map_err(|error| table(path, error))).collect()
}

fn table(path: &Path, error: csv::Error) -> Error {
    let at = error.position().map(|position| format!("line {}: ", position.line())).unwrap_or_default();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::io(path, "read the list of excluded samples", error),
        other => Error::table(path, format!("{at}{other:?}; the list needs the column study_id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let rows = [("a", "x/a.npz", "CRC, \"bad\"\nworse"), ("b", "b.npz", "")].map(|(a, b, c)| Quarantined {
            study_id: a.into(),
            path: b.into(),
            reason: c.into(),
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        for rows in [&rows[..], &[]] {
            std::fs::write(&path, render(rows)).unwrap();
            assert_eq!(read(&path).unwrap(), rows);
        }
        std::fs::write(&path, "study_id\nonly\n").unwrap();
        assert_eq!(read(&path).unwrap()[0].study_id, "only");
        std::fs::write(&path, "name\nx\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("study_id"));
    }
}
