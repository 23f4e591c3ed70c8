//! `quarantine.csv`: samples that cannot be made, with the reasons. A command writes the list, and `--exclude` gives it
//! to the next command; people edit it, too.
//!
//! A spreadsheet takes a field that begins like a formula for one, and runs it; names and reasons come from files that
//! others wrote. Such a field gets an apostrophe in front, by which a spreadsheet knows text. Reading takes it away.

use std::path::Path;

use csv::StringRecord;
use serde::{Deserialize, Serialize};

use super::csv_file::CsvFile;
use super::tables::check_length;
use crate::error::{Error, Result};
use crate::storage::{Files, Store};

/// The list's file name in an output folder.
pub const NAME: &str = "quarantine.csv";
/// The parts of [`NAME`] before and after the dot; a run of a part of the plan writes its number between them.
pub const FILE: (&str, &str) = ("quarantine", "csv");

/// The column that must be there.
const COLUMN: &str = "study_id";

/// A sample that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Quarantined {
    /// The study id.
    pub study_id: String,
    /// The NPZ file, relative to the data folder; for people only.
    #[serde(default)]
    pub path: String,
    /// The reason why the sample cannot be made; for people only.
    #[serde(default)]
    pub reason: String,
}

/// The content of a quarantine list: a header, and one row for each sample.
pub fn render(rows: &[Quarantined]) -> Vec<u8> {
    if rows.is_empty() {
        return b"study_id,path,reason\n".to_vec();
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    for Quarantined { study_id, path, reason } in rows {
        let (study_id, path, reason) = (as_text(study_id), as_text(path), as_text(reason));
        // Into memory, and every row has the same three fields.
        writer.serialize(Quarantined { study_id, path, reason }).expect("the row serialises");
    }
    writer.into_inner().expect("memory does not fail")
}

/// Whether a field, after any apostrophes, begins as a formula does in a spreadsheet.
fn is_formula(field: &str) -> bool {
    field.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// A field as a spreadsheet takes it for text.
fn as_text(field: &str) -> String {
    if is_formula(field) { format!("'{field}") } else { field.to_owned() }
}

/// What is tried when a list is read, for messages.
pub const READING: &str = "read the list of excluded samples";

/// A field as it was before [`as_text`].
fn as_written(field: &str) -> &str {
    field.strip_prefix('\'').filter(|field| is_formula(field)).unwrap_or(field)
}

/// Reads a quarantine list on disk, as [`read_in`] does.
///
/// # Errors
/// Those of [`read_in`].
pub fn read(path: &Path) -> Result<Vec<Quarantined>> {
    read_in(&Files, path)
}

/// Reads a quarantine list of a store. Only the column `study_id` must be there.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Table`] if it is no table with that column, or is cut off.
pub fn read_in(store: &dyn Store, path: &Path) -> Result<Vec<Quarantined>> {
    rows(path, &CsvFile::read(store, path, READING, &[COLUMN])?)
}

/// Reads a quarantine list that lies in memory; `path` is for messages.
///
/// # Errors
/// [`Error::Table`] as [`read`].
pub fn parse(path: &Path, content: Vec<u8>) -> Result<Vec<Quarantined>> {
    rows(path, &CsvFile::of(path, content, &[COLUMN])?)
}

fn rows(path: &Path, file: &CsvFile<'_>) -> Result<Vec<Quarantined>> {
    let mut records = file.records();
    let (mut header, mut record) = (StringRecord::new(), StringRecord::new());
    records.read(&mut header)?;
    let column = |name: &str| header.iter().position(|found| found == name);
    let Some(study_id) = column(COLUMN) else {
        return Err(Error::table(path, format!("the list needs the column {COLUMN}, which its first line names")));
    };
    let (npz, reason) = (column("path"), column("reason"));
    let mut rows = Vec::new();
    while let Some(line) = records.read(&mut record)? {
        check_length(path, &header, &record, line)?;
        let text = |column: Option<usize>| column.map_or_else(String::new, |at| as_written(&record[at]).to_owned());
        rows.push(Quarantined { study_id: text(Some(study_id)), path: text(npz), reason: text(reason) });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let row = |a: &str, b: &str, c: &str| Quarantined { study_id: a.into(), path: b.into(), reason: c.into() };
        let mut rows = vec![row("a", "x/a.npz", "CRC, \"bad\"\nworse"), row("b", "b.npz", "")];
        for begin in ["=", "+", "-", "@", "\t", "\r", "\n", " ", "'", "\"", ",", "\u{1b}[2J", "\u{202e}", "=\r\n", "#"]
        {
            let name = |quotes: usize| format!("{}{begin}1 \u{e9} ", "'".repeat(quotes));
            rows.extend((0..3).map(|quotes| row(&name(quotes), &name(quotes), &name(quotes))));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        for rows in [&rows[..], &[]] {
            std::fs::write(&path, render(rows)).unwrap();
            assert_eq!(read(&path).unwrap(), rows);
        }
        let text = String::from_utf8(render(&[row("=1+1", "@x", "-2")])).unwrap();
        assert_eq!(text, "study_id,path,reason\n'=1+1,'@x,'-2\n");
        std::fs::write(&path, "study_id\nonly\n").unwrap();
        assert_eq!(read(&path).unwrap()[0].study_id, "only");
        std::fs::write(&path, "name\nx\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("study_id"));
    }
}
