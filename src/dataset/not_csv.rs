//! The names of files that were given as CSV files and are none: compressed, of another program, in another encoding,
//! or with other separators. Pure.

/// The first bytes of files that are no CSV text, what such a file is, and what the user can do.
const SIGNATURES: [(&[u8], &str); 12] = [
    (b"\x1f\x8b", "a gzip file; unpack it (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it (unzstd)"),
    (b"\xfd7zXZ", "an xz file; unpack it (unxz)"),
    (b"BZh91AY&SY", "a bzip2 file; unpack it (bunzip2)"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx); unpack it, or export the sheet as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls); export the sheet as CSV in UTF-8"),
    (b"PAR1", "a Parquet file; write it as CSV (pandas.read_parquet, then to_csv(index=False))"),
    (b"ARROW1", "an Arrow file; write it as CSV (pandas.read_feather, then to_csv(index=False))"),
    (b"\xff\xfe\0\0", "text in UTF-32; save it as UTF-8"),
    (b"\0\0\xfe\xff", "text in UTF-32; save it as UTF-8"),
    (b"\xff\xfe", "text in UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16; save it as UTF-8"),
];

/// The separators of tables that are no CSV with commas, and their names.
const SEPARATORS: [(char, &str); 3] = [(';', "semicolons"), ('\t', "tabs"), ('|', "vertical bars")];

/// The reason why a file with these bytes is no CSV text, with the remedy; `None` if it may be one.
pub(super) fn name(bytes: &[u8]) -> Option<String> {
    let found = SIGNATURES.iter().find(|(first, _)| bytes.starts_with(first)).map(|(_, what)| *what);
    // UTF-16 without a byte-order mark: every other byte of a Latin letter is zero.
    let is_utf16 = bytes.len() > 1 && (bytes[0] == 0) != (bytes[1] == 0);
    let found = found.or_else(|| is_utf16.then_some("text in UTF-16; save it as UTF-8"));
    found.map(|what| format!("not a CSV file but {what}"))
}

/// The reason why a header has no column `wanted` (at least one name): its separators are no commas.
pub(super) fn other_separator<'a>(header: impl IntoIterator<Item = &'a str>, wanted: &[&str]) -> Option<String> {
    let header: Vec<&str> = header.into_iter().collect();
    let header = header.join(",");
    SEPARATORS.iter().find_map(|(separator, name)| {
        let mut fields = header.split(*separator).map(|field| field.trim().trim_matches('"'));
        (header.contains(*separator) && fields.any(|field| wanted.contains(&field))).then(|| {
            format!(
                "column '{}' is missing: the columns are separated by {name} ({separator:?}); save the table with commas \
                 (pandas: to_csv with sep=',')",
                wanted[0]
            )
        })
    })
}
