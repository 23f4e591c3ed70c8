//! The CSV tables, keyed by the ids of volumes. A table may stand in several files, whose rows are one after the other.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use csv::StringRecord;

use super::columns::ClassColumns;
use super::csv_file::CsvFile;
use super::ids;
use crate::error::{Error, Result};

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
    /// The names of the columns that were kept, in the order of the fields.
    pub columns: Vec<String>,
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
}

/// The fields of a row, in the order of [`Table::columns`].
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    table: &'a Table,
    row: usize,
}

impl<'a> Fields<'a> {
    /// The field of a column, given as an index into [`Table::columns`].
    pub(super) fn get(&self, column: usize) -> &'a str {
        let at = self.row * self.table.columns.len() + column;
        let start = at.checked_sub(1).map_or(0, |before| self.table.ends[before]);
        &self.table.text[start..self.table.ends[at]]
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

    /// The number of volumes that the table has a row of.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// The columns to read of a table.
pub(crate) enum Wanted<'a> {
    /// The columns of these names, in this order.
    Named(&'a [String]),
    /// The columns that are classes; all but the ids, if the list is empty.
    Classes(&'a [ClassColumns]),
}

/// Reads columns of a table, whose ids are in the first of the columns `ids` that a file has. The rows of several files
/// are appended; the columns are those of the first file, and the others' are matched by name.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read, [`Error::Table`] if it is no CSV text or ends inside a quoted field, a
/// column is missing, a row has too few or too many fields, two rows of one volume differ, or a volume has rows in two
/// files.
pub(crate) fn load(paths: &[impl AsRef<Path>], ids: &[String], wanted: &Wanted<'_>) -> Result<Table> {
    let mut table = Table::default();
    paths.iter().try_for_each(|path| table.append(path.as_ref(), ids, wanted))?;
    Ok(table)
}

/// The places of the columns to read, and warnings about columns that are left out.
fn kept(path: &Path, header: &StringRecord, key: usize, wanted: &Wanted<'_>) -> Result<(Vec<usize>, Vec<String>)> {
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
    fn append(&mut self, path: &Path, ids: &[String], wanted: &Wanted<'_>) -> Result<()> {
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        let file = CsvFile::read(path, "read the table", &names)?;
        let mut records = file.records();
        let (mut header, mut record) = (StringRecord::new(), StringRecord::new());
        records.read(&mut header)?;
        let key = names.iter().find_map(|name| header.iter().position(|found| found == *name));
        let key = key.map_or_else(|| column(path, &header, names.first().copied().unwrap_or_default(), ID_FLAG), Ok)?;
        let kept = self.columns_of(path, &header, key, wanted)?;
        let key_name = header[key].to_owned();
        self.files.push(TableFile { path: path.to_owned(), key: key_name.clone(), first: self.lines.len() });
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
    ) -> Result<Vec<usize>> {
        if let Some(first) = self.files.first() {
            let remedy = format!("; it is one of {}, to which the file belongs", first.path.display());
            return self.columns.iter().map(|name| column(path, header, name, &remedy)).collect();
        }
        let (kept, warnings) = kept(path, header, key, wanted)?;
        if kept.is_empty() {
            return Err(Error::table(path, format!("there is no column with a name besides {}", &header[key])));
        }
        self.columns = kept.iter().map(|at| header[*at].to_owned()).collect();
        self.warnings = warnings;
        Ok(kept)
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
        let (row, same) = (earlier.row, earlier.iter().eq(fields));
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

/// What names another column for the ids, for a message.
const ID_FLAG: &str = "; --id-column names the one with the ids of the volumes";

/// The place of a column; `remedy` is the end of the message if it is missing.
fn column(path: &Path, header: &StringRecord, name: &str, remedy: &str) -> Result<usize> {
    header.iter().position(|found| found == name).ok_or_else(|| {
        let found: Vec<&str> = header.iter().collect();
        let blanks = found.iter().find(|found| found.trim() == name);
        let blanks = blanks.map_or_else(String::new, |found| format!("; {found:?} has blanks around it: remove them"));
        Error::table(path, format!("column '{name}' is missing; the columns are: {}{blanks}{remedy}", found.join(", ")))
    })
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
