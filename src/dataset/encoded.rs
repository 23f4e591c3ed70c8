//! The text of a table's file: in UTF-8 or UTF-16, packed with gzip or not. Other files are named, with what makes a
//! table of them.

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};

/// The first bytes of a gzip file.
const GZIP: &[u8] = b"\x1f\x8b";
/// The first bytes of files that are no text, what such a file is, and what the user can do. `FILE` is the file.
const SIGNATURES: [(&[u8], &str); 9] = [
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it (unzstd)"),
    (b"\xfd7zXZ", "an xz file; unpack it (unxz)"),
    (b"BZh91AY&SY", "a bzip2 file; unpack it (bunzip2)"),
    (
        b"PK\x03\x04",
        "a zip archive or an Excel workbook; unpack it, or: python3 -c \"import pandas; \
         pandas.read_excel('FILE').to_csv('FILE.csv', index=False)\"",
    ),
    (
        b"\xd0\xcf\x11\xe0",
        "an Excel workbook; python3 -c \"import pandas; pandas.read_excel('FILE').to_csv('FILE.csv', index=False)\" \
         makes a table of it",
    ),
    (
        b"PAR1",
        "a Parquet file; python3 -c \"import pandas; pandas.read_parquet('FILE').to_csv('FILE.csv', index=False)\" \
         makes a table of it",
    ),
    (
        b"ARROW1",
        "an Arrow file; python3 -c \"import pandas; pandas.read_feather('FILE').to_csv('FILE.csv', index=False)\" \
         makes a table of it",
    ),
    (b"\xff\xfe\0\0", "text in UTF-32; save it as UTF-8"),
    (b"\0\0\xfe\xff", "text in UTF-32; save it as UTF-8"),
];

/// The text of a file with these bytes, without a byte-order mark.
///
/// # Errors
/// [`Error::Table`] if it is no text in UTF-8 or UTF-16: the message says what the file is, or the line of the first
/// wrong byte.
pub(super) fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let bytes = if bytes.starts_with(GZIP) { unpacked(path, &bytes)? } else { bytes };
    if let Some((_, what)) = SIGNATURES.iter().find(|(first, _)| bytes.starts_with(first)) {
        let file = path.display().to_string();
        return Err(Error::table(path, format!("not a CSV file but {}", what.replace("FILE", &file))));
    }
    if let Some(is_big_endian) = utf16(&bytes) {
        return of_utf16(path, &bytes, is_big_endian);
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let (at, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let line = 1 + line_ends(&bytes[..at]);
        Error::table(path, format!("line {line}: not UTF-8 (byte {:#04x}); save the table as UTF-8", bytes[at]))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn unpacked(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(bytes)
        .read_to_end(&mut unpacked)
        .map_err(|error| Error::table(path, format!("a damaged gzip file ({error}); fetch or write it again")))?;
    Ok(unpacked)
}

/// Whether bytes are text in UTF-16, and which byte of a character comes first. Without a mark, every other byte of a
/// Latin letter is zero.
fn utf16(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [0xfe, 0xff, ..] => Some(true),
        [0xff, 0xfe, ..] => Some(false),
        [0, second, ..] if *second != 0 => Some(true),
        [first, 0, ..] if *first != 0 => Some(false),
        _ => None,
    }
}

fn of_utf16(path: &Path, bytes: &[u8], is_big_endian: bool) -> Result<String> {
    let unit = |pair: &[u8; 2]| if is_big_endian { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text: std::result::Result<String, _> = char::decode_utf16(pairs.iter().map(unit)).collect();
    match text {
        Ok(text) if rest.is_empty() => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        _ => Err(Error::table(path, "damaged text in UTF-16; save it as UTF-8")),
    }
}

/// The number of line ends: `\n`, `\r\n`, or a single `\r`.
pub(super) fn line_ends(bytes: &[u8]) -> u64 {
    let count = |end: u8| bytes.iter().filter(|byte| **byte == end).count();
    let returns = count(b'\r');
    let pairs = if returns == 0 { 0 } else { bytes.windows(2).filter(|pair| *pair == b"\r\n").count() };
    (count(b'\n') + returns - pairs) as u64
}
