//! The columns of the tables that a data set takes: those of CT-RATE, or those that the user names.

use std::str::FromStr;

use wildmatch::WildMatch;

/// The columns of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Names of the column with the volumes' ids: the first that a table has counts.
    pub ids: Vec<String>,
    /// The columns of which the texts are made, in their order.
    pub texts: Vec<String>,
    /// The columns that are classes; all besides the ids where none is named.
    pub classes: Vec<NamedColumns>,
    /// The columns with slope, intercept, spacing in the plane, and spacing of the slices.
    pub meta: [String; 4],
    /// The columns of any table whose values stand in the samples' JSON, in their order.
    pub extra: Vec<NamedColumns>,
}

impl Default for Columns {
    /// Those of CT-RATE.
    fn default() -> Self {
        Self {
            ids: vec!["VolumeName".into()],
            texts: ["Findings_EN", "Impressions_EN"].map(String::from).into(),
            classes: Vec::new(),
            meta: ["RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"].map(String::from),
            extra: Vec::new(),
        }
    }
}

/// Columns of a table, as the user names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedColumns {
    /// The column of this name.
    Name(String),
    /// All columns from one to another, in the order of the table.
    Range(String, String),
    /// All columns whose names match a pattern with `*` and `?`.
    Pattern(String),
}

impl NamedColumns {
    /// The columns of a header that are meant, by their places.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(super) fn of(&self, header: &[impl AsRef<str>]) -> Result<Vec<usize>, String> {
        let place = |name: &str| {
            header.iter().position(|found| found.as_ref() == name).ok_or_else(|| {
                let nearest = header.iter().min_by_key(|found| strsim::damerau_levenshtein(found.as_ref(), name));
                let meant = nearest.map_or_else(String::new, |name| format!("; is '{}' meant?", name.as_ref()));
                format!("column '{name}' is missing{meant}")
            })
        };
        let found = match self {
            Self::Name(name) => vec![place(name)?],
            Self::Range(first, last) => (place(first)?..=place(last)?).collect(),
            Self::Pattern(pattern) => {
                let pattern = WildMatch::new(pattern);
                (0..header.len()).filter(|at| pattern.matches(header[*at].as_ref())).collect()
            }
        };
        if found.is_empty() { Err(format!("no column is '{self}'")) } else { Ok(found) }
    }
}

/// The places of all named columns that a header has, each once, in the order of the names. Ranges and patterns leave
/// out the column with the ids, which is `key`.
pub(super) fn places(named: &[NamedColumns], header: &[String], key: usize) -> Vec<usize> {
    let mut places: Vec<usize> = Vec::new();
    for named in named {
        for at in named.of(header).unwrap_or_default() {
            if (at != key || matches!(named, NamedColumns::Name(_))) && !places.contains(&at) {
                places.push(at);
            }
        }
    }
    places
}

impl std::fmt::Display for NamedColumns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) | Self::Pattern(name) => f.write_str(name),
            Self::Range(first, last) => write!(f, "{first}..{last}"),
        }
    }
}

impl From<&str> for NamedColumns {
    fn from(text: &str) -> Self {
        match text.split_once("..") {
            Some((first, last)) if !first.is_empty() && !last.is_empty() => {
                Self::Range(first.trim().into(), last.trim().into())
            }
            _ if text.contains(['*', '?']) => Self::Pattern(text.into()),
            _ => Self::Name(text.into()),
        }
    }
}

/// The value of a flag: names with commas between them, in double quotes where they have a comma.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut builder = csv::ReaderBuilder::new();
        let mut reader = builder.has_headers(false).trim(csv::Trim::All).from_reader(text.as_bytes());
        let record = reader.records().next().ok_or("expected names with commas between them")?;
        let names: Vec<String> = record.map_err(|error| error.to_string())?.iter().map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return Err("expected names with commas between them".into());
        }
        Ok(Self(names))
    }
}

/// The columns of texts, from values such as `findings=Findings_EN` or `Findings_EN`: what is before the `=` is for
/// people.
pub fn texts(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.split_once('=').map_or(&**name, |(_, column)| column).trim().to_owned()).collect()
}

/// The columns of metadata, from values such as `slope=Slope`; those of CT-RATE where none is given.
///
/// # Errors
/// A message if a value has not that form, or another name before the `=`.
pub fn meta(names: &[String]) -> Result<[String; 4], String> {
    const ROLES: [&str; 4] = ["slope", "intercept", "xy", "z"];
    let mut columns = Columns::default().meta;
    for name in names {
        let role = name.split_once('=').and_then(|(role, column)| {
            Some((ROLES.iter().position(|known| *known == role.trim())?, column.trim().to_owned()))
        });
        let Some((at, column)) = role else {
            return Err(format!("{name:?} is not of the form slope=COLUMN, intercept=…, xy=… or z=…"));
        };
        columns[at] = column;
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_by_name_range_and_pattern() {
        let header = ["id", "a, b", "c", "nodule left", "nodule right", "x"];
        let of = |text: &str| {
            let names = text.parse::<Names>().unwrap().0;
            names.iter().flat_map(|name| NamedColumns::from(&**name).of(&header).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of("c"), [2]);
        assert_eq!(of("\"a, b\", x"), [1, 5]);
        assert_eq!(of("c..nodule right"), [2, 3, 4]);
        assert_eq!(of("nodule*, ?"), [3, 4, 2, 5]);
        let wrong = |text: &str| NamedColumns::from(text).of(&header).unwrap_err();
        assert!(wrong("nodule rihgt").contains("'nodule right' meant"), "{}", wrong("nodule rihgt"));
        assert!(wrong("z*").contains("no column is 'z*'") && wrong("x..c").contains("no column is 'x..c'"));
        assert!("a,,b".parse::<Names>().is_err());
    }

    #[test]
    fn metadata_by_roles() {
        let names = ["z=Thickness", " xy = Spacing"].map(String::from);
        assert_eq!(meta(&names).unwrap(), ["RescaleSlope", "RescaleIntercept", "Spacing", "Thickness"]);
        assert!(meta(&["zz=a".into()]).is_err() && meta(&["a".into()]).is_err());
        assert_eq!(texts(&["findings=A=B".into(), "C".into()]), ["A=B", "C"]);
    }
}
