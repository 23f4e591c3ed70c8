//! Numbers with a decimal comma, as spreadsheets of many countries write them. They are never read as numbers: `1,024`
//! is one to some and a thousand to others, and only the user knows.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Whether a field would be a number if its one comma were a decimal point.
pub(super) fn is_decimal(field: &str) -> bool {
    let (sign, digits) = (['+', '-'], |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let field = field.trim();
    field.strip_prefix(sign).unwrap_or(field).split_once(',').is_some_and(|(whole, part)| digits(whole) && digits(part))
}

/// The end of a message about such a number: how to write the table again. No other field changes by it.
pub(super) fn remedy(path: &Path, delimiter: u8) -> String {
    let mut mark = [0; 2];
    // A pipe was read to its end.
    let is_utf16 = path.is_file()
        && File::open(path).and_then(|mut file| file.read_exact(&mut mark)).is_ok()
        && [[0xff, 0xfe], [0xfe, 0xff]].contains(&mark);
    let encoding = if is_utf16 { ", encoding='utf-16'" } else { "" };
    let (file, delimiter) = (path.display(), char::from(delimiter).escape_default());
    format!(
        "; if its comma is a decimal one, write the table with points: python3 -c \"import pandas; \
         pandas.read_csv('{file}', sep='{delimiter}', dtype=str, keep_default_na=False{encoding})\
         .replace(r'^\\s*([+-]?\\d+),(\\d+)\\s*$', r'\\1.\\2', regex=True).to_csv('{file}.csv', index=False)\""
    )
}

#[cfg(test)]
mod tests {
    use super::is_decimal;

    #[test]
    fn one_comma_between_digits() {
        assert!(["0,75", "-1024,0", " +1,5 "].into_iter().all(is_decimal));
        assert!(!["0.75", "75", "1,5,2", ",5", "5,", "1.000,5", "[0,7]", "a,5", "", "-"].into_iter().any(is_decimal));
    }
}
