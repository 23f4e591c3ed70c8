//! The CSV tables, keyed by the ids of volumes. A table may stand in several files, whose rows are one after the other.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use csv::StringRecord;

use super::columns::{self, NamedColumns};
use super::comma;
use super::csv_file::CsvFile;
pub(crate) use super::header::Wanted;
use super::header::{ID_FLAG, column, kept, unused_warning};
use super::ids;
use crate::error::{Error, Result};
use crate::storage::{Files, Store};

/// The texts that mean that a value is missing, as pandas' `read_csv` reads them by default.
const MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// The text of a field, or `None` if the text means that the value is missing.
pub(super) fn present(field: &str) -> Option<&str> {
    (!MISSING.contains(&field)).then_some(field)
}

/// Columns of a table, by volume. The fields stand one after the other in one text: a string of its own for each
/// field would take a million allocations.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The names of the columns that the table is read for, in the order of the fields.
    pub columns: Vec<String>,
    /// The names of all columns of the first file.
    pub(super) header: Vec<String>,
    /// The places in the header of further columns that were kept, behind those of [`Table::columns`].
    pub(super) extra: Vec<usize>,
    /// The files, in the order of their rows.
    files: Vec<TableFile>,
    text: String,
    /// The end of each field in the text, row by row.
    ends: Vec<usize>,
    /// The rows' lines in their files.
    lines: Vec<u64>,
    rows: HashMap<String, usize>,
    /// The rows by ids without folders and suffixes; two rows where these have become equal.
    bare: OnceLock<HashMap<String, Vec<usize>>>,
    /// A message for each row that repeats an earlier one.
    pub warnings: Vec<String>,
}

/// A file of a table.
#[derive(Debug)]
struct TableFile {
    path: PathBuf,
    /// The name of the column with the ids.
    key: String,
    /// The first row of the file among all rows of the table.
    first: usize,
    /// The byte between its fields.
    delimiter: u8,
}

/// The fields of a row, in the order of [`Table::columns`].
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    table: &'a Table,
    row: usize,
}

impl<'a> Fields<'a> {
    /// The field of a column, given as an index into [`Table::columns`]; behind these are the further columns.
    pub(super) fn get(&self, column: usize) -> &'a str {
        let at = self.row * self.table.width() + column;
        let start = at.checked_sub(1).map_or(0, |before| self.table.ends[before]);
        &self.table.text[start..self.table.ends[at]]
    }

    /// The field of a further column, given by its place in the header; `None` if it was not kept.
    pub(super) fn of_header(self, place: usize) -> Option<&'a str> {
        let at = self.table.extra.iter().position(|extra| *extra == place)?;
        Some(self.get(self.table.columns.len() + at))
    }

    /// The names of the columns.
    pub(super) fn columns(self) -> &'a [String] {
        &self.table.columns
    }

    /// The fields of all columns.
    pub(super) fn iter(self) -> impl Iterator<Item = &'a str> {
        (0..self.table.columns.len()).map(move |column| self.get(column))
    }

    /// The place of the row among all rows of the table.
    pub(super) fn row(self) -> usize {
        self.row
    }

    /// The byte between the fields of the row's file.
    pub(super) fn delimiter(self) -> u8 {
        self.table.file(self.row).delimiter
    }

    /// The error that a field of the row, which is named by its column, is no number; `what` says what it is not.
    pub(super) fn no_number(self, column: &str, field: &str, what: &str) -> Error {
        let file = self.table.file(self.row);
        let is_decimal = comma::is_decimal(field);
        let remedy = if is_decimal { comma::remedy(&file.path, file.delimiter) } else { String::new() };
        self.error(format!(", column '{column}': {what}{remedy}"))
    }

    /// The error that something is wrong with the row; `what` follows the number of its line.
    pub(super) fn error(self, what: impl std::fmt::Display) -> Error {
        self.table.error(self.row, what)
    }
}

impl Table {
    /// The fields of a study's row: that of the study's name with `.nii.gz`, as in CT-RATE, else that of the name
    /// itself, else that of the same name without folders and suffix. `None` if there is no such row.
    ///
    /// # Errors
    /// [`Error::Table`], if two rows are meant.
    pub(super) fn find(&self, study: &str) -> Result<Option<Fields<'_>>> {
        let fields = |row: &usize| Fields { table: self, row: *row };
        if let Some(row) = self.rows.get(&format!("{study}.nii.gz")).or_else(|| self.rows.get(study)) {
            return Ok(Some(fields(row)));
        }
        let bare = self.bare.get_or_init(|| {
            let mut bare: HashMap<String, Vec<usize>> = HashMap::with_capacity(self.rows.len());
            self.rows.iter().for_each(|(id, row)| bare.entry(ids::bare(id).to_owned()).or_default().push(*row));
            bare
        });
        match bare.get(ids::bare(study)).map(Vec::as_slice) {
            None => Ok(None),
            Some([row]) => Ok(Some(fields(row))),
            Some(rows) => {
                let mut rows = rows.to_vec();
                rows.sort_unstable();
                let first = self.file(rows[0]);
                let place = |row: &usize| match self.file(*row) {
                    file if file.path == first.path => self.lines[*row].to_string(),
                    file => format!("{} of {}", self.lines[*row], file.path.display()),
                };
                let (key, lines) = (&first.key, rows.iter().map(place).collect::<Vec<_>>().join(" and "));
                let id = ids::bare(study);
                let what = format!("lines {lines}: {key} is '{id}' on each, but for folder and suffix; remove one");
                Err(Error::table(&first.path, what))
            }
        }
    }

    /// The file of a row.
    fn file(&self, row: usize) -> &TableFile {
        &self.files[self.files.partition_point(|file| file.first <= row).saturating_sub(1)]
    }

    /// The error that something is wrong with a row; `what` follows the number of its line.
    pub(super) fn error(&self, row: usize, what: impl std::fmt::Display) -> Error {
        Error::table(&self.file(row).path, format!("line {}{what}", self.lines[row]))
    }

    /// The id of the table that is nearest to a study's, which the table does not know; `None` if every row is that of
    /// another of the `studies`.
    pub(super) fn nearest(&self, study: &str, studies: &HashSet<&str>) -> Option<&str> {
        let distance = |id: &String| strsim::damerau_levenshtein(ids::bare(id), ids::bare(study));
        let free = self.rows.keys().filter(|id| !studies.contains(ids::bare(id)));
        free.min_by_key(|id| (distance(id), *id)).map(String::as_str)
    }

    /// The number of fields of a row.
    fn width(&self) -> usize {
        self.columns.len() + self.extra.len()
    }

    /// The first file of the table; `None` before one was read.
    pub(super) fn first_file(&self) -> Option<&Path> {
        self.files.first().map(|file| &*file.path)
    }

    /// The number of volumes that the table has a row of.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Reads columns of a table, whose ids are in the first of the columns `ids` that a file has. The rows of several files
/// are appended; the columns are those of the first file, and the others' are matched by name.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read, [`Error::Table`] if it is no CSV text or ends inside a quoted field, a
/// column is missing, a row has too few or too many fields, two rows of one volume differ, or a volume has rows in two
/// files.
pub(crate) fn load(paths: &[impl AsRef<Path>], ids: &[String], wanted: &Wanted<'_>) -> Result<Table> {
    load_with(&Files, paths, ids, wanted, &[])
}

/// Reads columns of a table as [`load`] does, and of its other columns those that are named in `extra`, as far as the
/// first file has them.
///
/// # Errors
/// As [`load`].
pub(super) fn load_with(
    store: &dyn Store,
    paths: &[impl AsRef<Path>],
    ids: &[String],
    wanted: &Wanted<'_>,
    extra: &[NamedColumns],
) -> Result<Table> {
    let mut table = Table::default();
    paths.iter().try_for_each(|path| table.append((store, path.as_ref()), ids, wanted, extra))?;
    Ok(table)
}

/// Checks that a record has as many fields as the header.
///
/// # Errors
/// [`Error::Table`] with the record's line, if not.
pub(super) fn check_length(path: &Path, header: &StringRecord, record: &StringRecord, line: u64) -> Result<()> {
    if record.len() == header.len() {
        return Ok(());
    }
    let (found, expected) = (record.len(), header.len());
    let reason = format!("line {line}: {found} fields, the header has {expected}; is a quote missing?");
    Err(Error::table(path, reason))
}

impl Table {
    /// Reads a file, and adds its rows.
    fn append(
        &mut self,
        (store, path): (&dyn Store, &Path),
        ids: &[String],
        wanted: &Wanted<'_>,
        extra: &[NamedColumns],
    ) -> Result<()> {
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        let file = CsvFile::read(store, path, "read the table", &names)?;
        let mut records = file.records();
        let (mut header, mut record) = (StringRecord::new(), StringRecord::new());
        records.read(&mut header)?;
        let key = names.iter().find_map(|name| header.iter().position(|found| found == *name));
        let key = key.map_or_else(|| column(path, &header, names.first().copied().unwrap_or_default(), ID_FLAG), Ok)?;
        let kept = self.columns_of(path, &header, key, wanted, extra)?;
        let key_name = header[key].to_owned();
        self.files.push(TableFile {
            path: path.to_owned(),
            key: key_name.clone(),
            first: self.lines.len(),
            delimiter: file.delimiter(),
        });
        let mut has_blanks = false;
        while let Some(line) = records.read(&mut record)? {
            check_length(path, &header, &record, line)?;
            let name = &record[key];
            if name.trim() != name && !has_blanks {
                has_blanks = true;
                self.warnings.push(format!(
                    "{}: line {line}: {key_name} {name:?} has blanks around it, and so names no volume; remove them",
                    path.display()
                ));
            }
            self.insert(path, name, line, kept.iter().map(|at| &record[*at]))?;
        }
        Ok(())
    }

    /// The places of the columns to read of a file: those that are wanted of the first file, and of another those of
    /// the same names.
    fn columns_of(
        &mut self,
        path: &Path,
        header: &StringRecord,
        key: usize,
        wanted: &Wanted<'_>,
        extra: &[NamedColumns],
    ) -> Result<Vec<usize>> {
        if let Some(first) = self.files.first() {
            let remedy = format!("; it is one of {}, to which the file belongs", first.path.display());
            let files = [path, &*first.path];
            self.warnings.extend(unused_warning(files, header, key, wanted, extra, &self.header));
            let names = self.columns.iter().chain(self.extra.iter().map(|at| &self.header[*at]));
            return names.map(|name| column(path, header, name, &remedy)).collect();
        }
        let (kept, warnings) = kept(path, header, key, wanted)?;
        if kept.is_empty() {
            return Err(Error::table(path, format!("there is no column with a name besides {}", &header[key])));
        }
        self.columns = kept.iter().map(|at| header[*at].to_owned()).collect();
        self.header = header.iter().map(str::to_owned).collect();
        self.extra = columns::places(extra, &self.header, key);
        self.warnings = warnings;
        Ok([kept, self.extra.clone()].concat())
    }

    fn insert<'a>(
        &mut self,
        path: &Path,
        volume: &str,
        line: u64,
        fields: impl Iterator<Item = &'a str>,
    ) -> Result<()> {
        let Some(earlier) = self.rows.get(volume).map(|row| Fields { table: self, row: *row }) else {
            self.rows.insert(volume.to_owned(), self.lines.len());
            self.lines.push(line);
            for field in fields {
                self.text.push_str(field);
                self.ends.push(self.text.len());
            }
            return Ok(());
        };
        let (row, same) = (earlier.row, (0..self.width()).map(|at| earlier.get(at)).eq(fields));
        let (first, key) = (self.lines[row], &self.file(row).key);
        let files = (row < self.files.last().map_or(0, |file| file.first)).then(|| self.file(row).path.display());
        if let Some(other) = files {
            let reason = format!(
                "line {line}: {key} '{volume}' stands on line {first} of {other} already; remove one of the two"
            );
            return Err(Error::table(path, reason));
        }
        if !same {
            let reason =
                format!("{key} '{volume}' stands on line {first} and, with other values, on line {line}; remove one");
            return Err(Error::table(path, reason));
        }
        self.warnings.push(format!("{}: line {line} repeats line {first} ({key} '{volume}')", path.display()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, columns: &[&str]) -> Result<Table> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        let columns: Vec<String> = columns.iter().copied().map(String::from).collect();
        let wanted = if columns.is_empty() { Wanted::Classes(&[]) } else { Wanted::Named(&columns) };
        load(&[path], &["VolumeName".to_owned()], &wanted)
    }

    #[test]
    fn quotes_newlines_and_a_bom() {
        let text = "\u{feff}VolumeName,A,B\r\nx.nii.gz,\"a, \"\"q\"\"\nnext\",\"[0.5, 0.5]\"\r\ny.nii.gz,,NA\r\n";
        let table = load_text(text, &["B", "A"]).unwrap();
        let fields = |volume| table.find(volume).unwrap().unwrap().iter().map(present).collect::<Vec<_>>();
        assert_eq!(fields("x.nii.gz"), [Some("[0.5, 0.5]"), Some("a, \"q\"\nnext")]);
        assert_eq!(fields("y.nii.gz"), [None, None]);
        assert_eq!(present("Not given."), Some("Not given."));
    }

    #[test]
    fn problems_name_lines_and_columns() {
        let message = |text: &str| load_text(text, &["A"]).unwrap_err().to_string();
        let missing = message("VolumeName,B,C\n");
        assert!(missing.contains("column 'A' is missing; the columns are: VolumeName, B, C"), "{missing}");
        let twice = message("VolumeName,A\nx,1\ny,2\nx,3\n");
        assert!(twice.contains("'x'") && twice.contains("line 2") && twice.contains("line 4"), "{twice}");
        let ragged = message("VolumeName,A\nx,1\ny\n");
        assert!(ragged.contains("line 3"), "{ragged}");
        let same = load_text("VolumeName,A\nx,1\nx,1\n", &[]).unwrap();
        assert_eq!((same.len(), same.warnings.len()), (1, 1));
        assert!(same.warnings[0].contains("line 3 repeats line 2"));
    }
}
