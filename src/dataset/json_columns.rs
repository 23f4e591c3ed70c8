//! Columns of the tables whose values stand in the JSON of each sample, behind its own fields.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::columns::NamedColumns;
use super::tables::{Fields, Table, present};
use crate::error::{Error, Result, shown};

/// The fields that the JSON of a sample may have by itself. Readers would take a column of such a name for them.
const OWN: [&str; 13] = [
    "study_id",
    "RescaleSlope",
    "RescaleIntercept",
    "XYSpacing",
    "ZSpacing",
    "original_shape",
    "volume_shape",
    "volume_dtype",
    "volume_window",
    "volume_kind",
    "volume_codec",
    "volume_filter",
    "affine",
];
/// The begin of the names of fields that tell of further arrays.
const OF_ARRAYS: &str = "also_";

/// Whether the JSON of a sample may have a field of this name by itself.
pub fn is_own_field(name: &str) -> bool {
    OWN.contains(&name) || name.starts_with(OF_ARRAYS)
}

/// A column whose values stand in the JSON of each sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonColumn {
    /// The name of the column.
    pub name: String,
    /// The first file of its table; empty for shards on disk, which do not say it.
    pub table: PathBuf,
}

impl JsonColumn {
    /// A column of this name in shards on disk.
    pub fn of_shards(name: String) -> Self {
        Self { name, table: PathBuf::new() }
    }
}

/// The value of one sample in such a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JsonField {
    /// The name of the column.
    pub name: String,
    /// The value.
    pub value: FieldValue,
}

/// A value of a table by its spelling alone, so that no other row changes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FieldValue {
    /// The field is empty, or says that the value is missing.
    Missing,
    /// A whole number of 64 bits.
    Integer(i64),
    /// Another finite number.
    Float(f64),
    /// Anything else, as it stands in the table.
    Text(String),
}

impl FieldValue {
    /// The value of a field.
    fn of(field: &str) -> Self {
        let bare = field.trim();
        if present(bare).is_none() {
            return Self::Missing;
        }
        let text = || Self::Text(field.to_owned());
        let digits = bare.trim_start_matches(['+', '-']);
        // Zeros in front are part of an id or a code; as a number it would be another one.
        if digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit() {
            return text();
        }
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return bare.parse().map_or_else(|_| text(), Self::Integer); // beyond 64 bits: an id, which f64 would round
        }
        let number = bare.parse().ok().filter(|number: &f64| number.is_finite());
        number.map_or_else(text, Self::Float)
    }
}

/// The places of such columns in the tables.
pub(super) struct JsonColumns {
    places: Vec<Place>,
}

/// The place of a column.
struct Place {
    name: String,
    /// The table, by its place among those given to [`JsonColumns::choose`].
    table: usize,
    /// The place in the header of the table's first file.
    column: usize,
}

/// A table with the flag that names it.
pub(super) type Flagged<'a> = (&'static str, &'a Table);

impl JsonColumns {
    /// Finds columns in the tables. A column with ids may be in several tables, and is taken of the first.
    ///
    /// # Errors
    /// [`Error::Refused`] if a column is in no table or in two, or has the name of a field that the JSON has by itself.
    pub(super) fn choose(wanted: &[NamedColumns], ids: &[String], tables: &[Option<Flagged<'_>>]) -> Result<Self> {
        let mut places: Vec<Place> = Vec::new();
        for named in wanted {
            let before = places.len();
            let mut is_known = false;
            for (table, flagged) in tables.iter().enumerate() {
                let Some((_, Table { header, extra, .. })) = flagged else { continue };
                let of_table = named.of(header).unwrap_or_default();
                is_known |= !of_table.is_empty();
                for column in of_table.into_iter().filter(|column| extra.contains(column)) {
                    let name = header[column].clone();
                    if header.iter().filter(|other| **other == name).count() > 1 {
                        return Err(twice(&name, tables, [table, table]));
                    }
                    match places.iter().find(|place| place.name == name) {
                        Some(place) if place.table == table && place.column == column => {}
                        Some(_) if ids.contains(&name) => {}
                        Some(place) => return Err(twice(&name, tables, [place.table, table])),
                        None => places.push(Place { name, table, column }),
                    }
                }
            }
            if !is_known {
                return Err(unknown(named, tables));
            }
            if let Some(own) = places[before..].iter().find(|place| is_own_field(&place.name)) {
                let name = shown(&own.name);
                let reason = format!(
                    "--extra-columns: each sample's JSON has a field '{name}' of its own, which readers rely on; rename \
                     the column, or leave it out"
                );
                return Err(Error::Refused(reason));
            }
        }
        Ok(Self { places })
    }

    /// The columns, with the files that they are read from.
    pub(super) fn columns(&self, tables: &[Option<Flagged<'_>>]) -> Vec<JsonColumn> {
        let table = |place: &Place| tables[place.table].and_then(|(_, table)| table.first_file()).map(PathBuf::from);
        let column = |place: &Place| JsonColumn { name: place.name.clone(), table: table(place).unwrap_or_default() };
        self.places.iter().map(column).collect()
    }

    /// The values of a study, by its rows of the tables.
    pub(super) fn values(&self, rows: &[Option<Fields<'_>>]) -> Vec<JsonField> {
        let value = |place: &Place| rows[place.table].map_or(FieldValue::Missing, |row| value_in(row, place.column));
        self.places.iter().map(|place| JsonField { name: place.name.clone(), value: value(place) }).collect()
    }
}

fn value_in(row: Fields<'_>, column: usize) -> FieldValue {
    row.of_header(column).map_or(FieldValue::Missing, FieldValue::of)
}

/// The error that two columns have one name.
fn twice(name: &str, tables: &[Option<Flagged<'_>>], [one, other]: [usize; 2]) -> Error {
    let file = |at: usize| {
        let (flag, table) = tables[at]?;
        Some(format!("{} ({flag})", table.first_file()?.display()))
    };
    let (one_file, other_file) = (file(one).unwrap_or_default(), file(other).unwrap_or_default());
    let name = shown(name);
    Error::Refused(if one == other {
        format!("--extra-columns: {one_file} has two columns '{name}'; rename one")
    } else {
        format!("--extra-columns: {one_file} and {other_file} have the column '{name}' both; rename it in one")
    })
}

/// The error that no table has a column.
fn unknown(named: &NamedColumns, tables: &[Option<Flagged<'_>>]) -> Error {
    let names: Vec<String> = tables.iter().flatten().flat_map(|(_, table)| table.header.clone()).collect();
    let reason = match named {
        NamedColumns::Range(first, last) if names.contains(first) && names.contains(last) => {
            format!("none has both ends of '{named}', in this order")
        }
        _ => named.of(&names).err().unwrap_or_else(|| format!("none has '{named}'")),
    };
    Error::Refused(format!("--extra-columns: of all tables, {reason}"))
}

#[cfg(test)]
mod tests {
    use super::FieldValue::{Float, Integer, Missing};
    use super::*;

    #[test]
    fn the_spelling_decides() {
        let text = |text: &str| FieldValue::Text(text.to_owned());
        for (field, value) in [
            ("63", Integer(63)),
            (" -5 ", Integer(-5)),
            ("+5", Integer(5)),
            ("0", Integer(0)),
            ("9223372036854775807", Integer(i64::MAX)),
            ("9223372036854775808", text("9223372036854775808")),
            ("63.0", Float(63.0)),
            (".5", Float(0.5)),
            ("0.5", Float(0.5)),
            ("1e3", Float(1000.0)),
            ("1e400", text("1e400")),
            ("inf", text("inf")),
            ("007", text("007")),
            ("-00.5", text("-00.5")),
            ("0x10", text("0x10")),
            ("1.2.840", text("1.2.840")),
            ("063Y", text("063Y")),
            ("True", text("True")),
            (" F ", text(" F ")),
            ("-", text("-")),
            ("", Missing),
            ("  ", Missing),
            (" nan", Missing),
            ("N/A", Missing),
        ] {
            assert_eq!(FieldValue::of(field), value, "{field:?}");
        }
    }
}
