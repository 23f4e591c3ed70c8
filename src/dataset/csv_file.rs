//! CSV files that people give: read as text, with a message for a file that is something else, and split into records
//! with the lines that an editor shows. Tables, lists of studies and lists of excluded samples are read here.

use std::path::Path;

use csv::{Reader, ReaderBuilder, StringRecord};

use super::encoded::{self, line_ends};
use crate::base::given;
use crate::error::{Error, Result};
use crate::storage::{Files, Store};

/// The bytes that stand between fields: a comma, and what other programs write.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// The byte that begins a comment in a list.
const COMMENT: u8 = b'#';

/// The text of a CSV file, without a byte-order mark.
pub(super) struct CsvFile<'a> {
    path: &'a Path,
    text: String,
    delimiter: u8,
}

/// The records of a CSV file, one after the other. Blank lines are none, as for pandas.
pub(super) struct Records<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    reader: Reader<&'a [u8]>,
    delimiter: u8,
    comment: Option<u8>,
    /// The byte up to which lines were counted.
    counted: usize,
    /// The line of that byte, from 1 on.
    line: u64,
}

impl<'a> CsvFile<'a> {
    /// Reads a file of a store, as text in UTF-8 or UTF-16, packed with gzip or not, with the delimiter of which the
    /// first record has one of the columns in `keys`. `doing` is the verb phrase of the error ("read the table").
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Table`] if it is no such text: the message says what the file
    /// is, or the line of the first wrong byte.
    pub(super) fn read(store: &dyn Store, path: &'a Path, doing: &'static str, keys: &[&str]) -> Result<Self> {
        let content = match store.is_remote(path) {
            true => store.read(path).map_err(|error| Error::io(path, doing, error))?,
            false => given::read(path, doing)?,
        };
        Self::of(path, content, keys)
    }

    /// The file of this content; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Table`] as [`Self::read`].
    pub(super) fn of(path: &'a Path, content: Vec<u8>, keys: &[&str]) -> Result<Self> {
        let text = encoded::text(path, content)?;
        let mut file = Self { path, text, delimiter: DELIMITERS[0] };
        file.delimiter = DELIMITERS.into_iter().find(|delimiter| file.has(*delimiter, keys)).unwrap_or(DELIMITERS[0]);
        Ok(file)
    }

    /// Reads a file on disk as [`Self::read`] does, with the delimiter that makes the most fields of the first record:
    /// for who knows no column yet.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn sniff(path: &'a Path, doing: &'static str) -> Result<Self> {
        let mut file = Self::read(&Files, path, doing, &[])?;
        let fields = |delimiter: &u8| file.first(*delimiter).map_or(0, |first| first.len());
        // Of several that make as many, the first: `max_by_key` takes the last.
        file.delimiter = DELIMITERS.into_iter().rev().max_by_key(fields).unwrap_or(DELIMITERS[0]);
        Ok(file)
    }

    /// The byte between fields.
    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// Whether the first record has one of the columns, if this is the delimiter.
    fn has(&self, delimiter: u8, keys: &[&str]) -> bool {
        self.first(delimiter).is_some_and(|first| first.iter().any(|field| keys.contains(&field)))
    }

    /// The first record, if this is the delimiter.
    fn first(&self, delimiter: u8) -> Option<StringRecord> {
        let mut builder = ReaderBuilder::new();
        let reader = builder.has_headers(false).flexible(true).delimiter(delimiter).from_reader(self.text.as_bytes());
        reader.into_records().next().and_then(|record| record.ok())
    }

    /// The records of a table.
    pub(super) fn records(&self) -> Records<'_> {
        self.records_by(ReaderBuilder::new(), None)
    }

    /// The records of a list: lines that begin with `#` are comments, and blanks around fields do not count.
    pub(super) fn list(&mut self) -> Records<'_> {
        if !self.text.contains('\n') {
            self.text = self.text.replace('\r', "\n"); // the csv crate ends a comment at `\n` only
        }
        let mut builder = ReaderBuilder::new();
        builder.comment(Some(COMMENT)).trim(csv::Trim::All);
        self.records_by(builder, Some(COMMENT))
    }

    fn records_by(&self, mut builder: ReaderBuilder, comment: Option<u8>) -> Records<'_> {
        let bytes = self.text.as_bytes();
        let reader = builder.has_headers(false).flexible(true).delimiter(self.delimiter).from_reader(bytes);
        Records { path: self.path, bytes, reader, delimiter: self.delimiter, comment, counted: 0, line: 1 }
    }
}

impl Records<'_> {
    /// Reads the next record and returns the line on which it begins; `None` after the last one.
    ///
    /// # Errors
    /// [`Error::Table`] if the file ends inside a quoted field: rows after it may be lost, or are part of it.
    pub(super) fn read(&mut self, record: &mut StringRecord) -> Result<Option<u64>> {
        while self.reader.read_record(record).map_err(|error| Error::table(self.path, error.to_string()))? {
            let position = record.position().map_or(0, csv::Position::byte);
            let start = self.start(usize::try_from(position).unwrap_or(usize::MAX));
            self.line += line_ends(&self.bytes[self.counted..start]);
            self.counted = start;
            let end = usize::try_from(self.reader.position().byte()).unwrap_or(usize::MAX);
            let raw = &self.bytes[start..end.clamp(start, self.bytes.len())];
            if raw.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if end >= self.bytes.len()
                && let Some(quote) = open_quote(raw, self.delimiter)
            {
                let line = self.line + line_ends(&raw[..quote]);
                let reason = format!(
                    "line {line}: the file ends inside the quoted field that begins here: it was cut off, or a closing \
                     quote is missing; write the file again"
                );
                return Err(Error::table(self.path, reason));
            }
            return Ok(Some(self.line));
        }
        Ok(None)
    }

    /// The first byte of the record that the reader found behind `position`, where line ends and comments may stand.
    fn start(&self, position: usize) -> usize {
        let mut at = position.min(self.bytes.len());
        while let Some(byte) = self.bytes.get(at) {
            if matches!(byte, b'\r' | b'\n') {
                at += 1;
            } else if Some(*byte) == self.comment {
                let line = self.bytes[at..].iter().position(|byte| *byte == b'\n');
                at = line.map_or(self.bytes.len(), |line| at + line);
            } else {
                break;
            }
        }
        at
    }
}

/// The place of the quote that is not closed at the end of the bytes, which begin with a record; `None` if all are.
fn open_quote(record: &[u8], delimiter: u8) -> Option<usize> {
    let mut open = None;
    let mut is_field_start = true;
    let mut at = 0;
    while let Some(byte) = record.get(at) {
        match (open, byte) {
            (None, b'"') if is_field_start => open = Some(at),
            // Two quotes in a quoted field are one that belongs to it.
            (Some(_), b'"') if record.get(at + 1) == Some(&b'"') => at += 1,
            (Some(_), b'"') => open = None,
            _ => (),
        }
        is_field_start = open.is_none() && (*byte == delimiter || matches!(byte, b'\r' | b'\n'));
        at += 1;
    }
    open
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The first fields of all records with their lines, or the message.
    fn read(text: &[u8]) -> std::result::Result<Vec<(u64, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        fs::write(&path, text).unwrap();
        let file = CsvFile::read(&Files, &path, "read the table", &[]).map_err(|error| error.to_string())?;
        let (mut records, mut record) = (file.records(), StringRecord::new());
        let mut found = Vec::new();
        while let Some(line) = records.read(&mut record).map_err(|error| error.to_string())? {
            found.push((line, record[0].to_owned()));
        }
        Ok(found)
    }

    #[test]
    fn lines_are_those_of_an_editor() {
        for end in ["\n", "\r\n", "\r"] {
            for bom in ["", "\u{feff}"] {
                for last in ["", end] {
                    let text = format!("{bom}{end}a,1{end}{end} {end}\"b{end}c\",2{end}d,\"\"{end}{end}e,4{last}");
                    let found = read(text.as_bytes()).unwrap();
                    let b = format!("b{end}c");
                    let expected = [(2, "a"), (5, b.as_str()), (7, "d"), (9, "e")];
                    assert_eq!(found, expected.map(|(line, field)| (line, field.to_owned())), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn an_end_inside_quotes_is_an_error_wherever_it_is() {
        let text = "n,\"q\"\r\nx,\"a \"\"b\"\"\n, c\"\n\"y\ny\",\"z\n";
        let whole = format!("{text}\"");
        assert_eq!(read(whole.as_bytes()).unwrap().len(), 3);
        // By an automaton of its own: whether a quoted field is open, and since which line.
        let (mut open, mut line, mut opened) = (false, 1, 0);
        for (at, byte) in whole.bytes().enumerate() {
            match read(&whole.as_bytes()[..at]) {
                Err(message) => assert!(open && message.contains(&format!("line {opened}: ")), "{at}: {message}"),
                Ok(_) => assert!(!open, "{at}"),
            }
            if byte == b'"' {
                opened = if open { opened } else { line };
                open = !open;
            }
            line += u64::from(byte == b'\n');
        }
        assert_eq!(read(b"a,5\" 3\nb,\"c\"d\"e\n").unwrap().len(), 2, "quotes inside of a field are text");
    }

    #[test]
    fn the_line_of_a_wrong_byte() {
        for text in [&b"a\r\n\r\nb\xff"[..], b"a\r\rb\xff\n", b"a\n\nb\xffc"] {
            let message = read(text).unwrap_err();
            assert!(message.contains("line 3: not UTF-8 (byte 0xff)"), "{message}");
        }
    }
}
