//! What the columns of a table hold, and which of them has the ids of the volumes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::names::{self, Part};
use crate::dataset::comma;
use crate::dataset::csv_file::CsvFile;
use crate::dataset::header::is_nameless;
use crate::dataset::ids;
use crate::dataset::tables::{check_length, present};
use crate::error::{Error, Result};
use crate::volume::Geometry;

/// The words of a text at least; a name or a code has fewer.
const SENTENCE: usize = 4;
/// The letters of a text at least, on average.
const LONG: usize = 20;
/// The largest spacing, in mm.
pub(super) const LARGEST_SPACING: f64 = 20.0;

/// The ids of the volumes, as tables may spell them.
pub(super) struct Studies {
    exact: HashMap<String, usize>,
    bare: HashMap<String, usize>,
    /// The number of volumes.
    pub(super) count: usize,
}

impl Studies {
    /// The volumes with these ids.
    pub(super) fn new<'a>(ids: impl Iterator<Item = &'a str>) -> Self {
        let mut studies = Self { exact: HashMap::new(), bare: HashMap::new(), count: 0 };
        for id in ids {
            studies.exact.insert(id.to_owned(), studies.count);
            studies.bare.insert(ids::bare(id).to_owned(), studies.count);
            studies.count += 1;
        }
        studies
    }

    /// The volume that a table means, by the rules by which tables are joined.
    pub(super) fn find(&self, id: &str) -> Option<usize> {
        let known = id.strip_suffix(".nii.gz").and_then(|study| self.exact.get(study)).or_else(|| self.exact.get(id));
        known.or_else(|| self.bare.get(ids::bare(id))).copied()
    }
}

/// A column of a table.
#[derive(Debug, Default)]
pub(super) struct Column {
    /// The column's name.
    pub(super) name: String,
    /// The values that are there.
    pub(super) present: usize,
    /// The values that are missing.
    pub(super) missing: usize,
    /// The values that are labels: 0, 1, -1, true, false, yes or no.
    labels: usize,
    /// The values that are labels or shares of one: numbers from 0 to 1.
    shares: usize,
    /// The labels that are 0.
    zeros: usize,
    /// The labels that are -1.
    pub(super) uncertain: usize,
    /// The values that are numbers.
    numbers: usize,
    /// The lowest and the highest number.
    pub(super) range: [f64; 2],
    /// The values that would be numbers with a point in place of the comma.
    pub(super) commas: usize,
    /// The values that are a spacing in the plane.
    spacings: usize,
    /// The values of several words.
    sentences: usize,
    /// The characters of all values.
    letters: usize,
}

impl Column {
    fn see(&mut self, field: &str) {
        let Some(value) = present(field.trim()) else {
            self.missing += 1;
            return;
        };
        self.present += 1;
        self.letters += value.chars().count();
        self.sentences += usize::from(value.split_whitespace().nth(SENTENCE - 1).is_some());
        let number = value.parse().ok().filter(|number: &f64| number.is_finite());
        if let Some(number) = number {
            self.numbers += 1;
            self.range = [self.range[0].min(number), self.range[1].max(number)];
        }
        self.commas += usize::from(comma::is_decimal(value));
        let label = number.filter(|number| [0.0, 1.0, -1.0].contains(number)).or_else(|| word(value));
        self.labels += usize::from(label.is_some());
        let is_share = number.is_some_and(|number| (0.0..=1.0).contains(&number));
        self.shares += usize::from(label.is_some() || is_share);
        self.zeros += usize::from(label == Some(0.0));
        self.uncertain += usize::from(label == Some(-1.0));
        let geometry = Geometry { slope: 1.0, intercept: 0.0, xy_spacing: value, z_spacing: 1.0 };
        let is_spacing = geometry.spacing().is_some_and(|mm| mm.iter().all(|mm| *mm <= LARGEST_SPACING));
        self.spacings += usize::from(is_spacing);
    }

    /// Whether the column has a name that a key can give.
    pub(super) fn is_named(&self) -> bool {
        !is_nameless(&self.name)
    }

    /// Whether all values are labels.
    pub(super) fn is_label(&self) -> bool {
        self.present > 0
            && self.labels == self.present
            && self.is_named()
            && !names::is_one(&self.name, names::NO_CLASS)
    }

    /// Whether all values are labels or shares of one.
    pub(super) fn is_share(&self) -> bool {
        self.present > 0
            && self.shares == self.present
            && self.is_named()
            && !names::is_one(&self.name, names::NO_CLASS)
    }

    /// Whether all values are one and the same label.
    pub(super) fn is_constant(&self) -> bool {
        self.zeros == self.present || self.zeros == 0 && self.uncertain == 0
    }

    /// Whether all values are numbers within a range.
    pub(super) fn is_within(&self, low: f64, high: f64) -> bool {
        self.present > 0 && self.numbers == self.present && self.range[0] >= low && self.range[1] <= high
    }

    /// Whether the values are numbers with decimal commas.
    pub(super) fn has_commas(&self) -> bool {
        self.commas > 0 && self.commas + self.numbers == self.present
    }

    /// Whether all values are spacings in the plane.
    pub(super) fn is_spacing(&self) -> bool {
        self.present > 0 && self.spacings == self.present
    }

    /// Whether most values are texts of several words.
    pub(super) fn is_text(&self) -> bool {
        self.is_named() && self.present > 0 && 2 * self.sentences >= self.present && self.letters / self.present >= LONG
    }

    /// The part of a report that the column has, by its name and its values.
    pub(super) fn part(&self) -> Option<Part> {
        names::part(&self.name).filter(|_| self.present > 0 && self.numbers == 0 && self.labels == 0)
    }
}

/// The value of a label in words.
fn word(value: &str) -> Option<f64> {
    let is = |words: [&str; 2]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    if is(["true", "yes"]) { Some(1.0) } else { is(["false", "no"]).then_some(0.0) }
}

/// A table, and the column by which it is joined with the volumes.
#[derive(Debug)]
pub(super) struct Profile {
    /// The file.
    pub(super) path: PathBuf,
    /// The columns, in the order of the table.
    pub(super) columns: Vec<Column>,
    /// The place of the column with the ids.
    pub(super) id: usize,
    /// The number of rows.
    pub(super) rows: usize,
    /// Which of the volumes have a row, by their places.
    pub(super) matched: Vec<bool>,
    /// The rows of a volume that has one already.
    pub(super) repeated: usize,
}

impl Profile {
    /// The column with the ids.
    pub(super) fn id(&self) -> &Column {
        &self.columns[self.id]
    }

    /// The number of volumes that have a row.
    pub(super) fn count(&self) -> usize {
        count(&self.matched)
    }

    /// The columns that are neither the ids nor without a name, with their places.
    pub(super) fn others(&self) -> impl Iterator<Item = (usize, &Column)> {
        self.columns.iter().enumerate().filter(|(at, column)| *at != self.id && column.is_named())
    }
}

fn count(matched: &[bool]) -> usize {
    matched.iter().filter(|matched| **matched).count()
}

/// Reads a table whole.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Table`] if it is no table.
pub(super) fn read(path: &Path, studies: &Studies) -> Result<Profile> {
    let file = CsvFile::sniff(path, "read the table")?;
    let mut records = file.records();
    let (mut header, mut record) = (StringRecord::new(), StringRecord::new());
    if records.read(&mut header)?.is_none() || header.len() < 2 {
        return Err(Error::table(path, "it has no columns"));
    }
    let new =
        |name: &str| Column { name: name.to_owned(), range: [f64::INFINITY, f64::NEG_INFINITY], ..Column::default() };
    let mut columns: Vec<Column> = header.iter().map(new).collect();
    let mut matched = vec![vec![false; studies.count]; header.len()];
    let (mut repeated, mut rows) = (vec![0; header.len()], 0);
    while let Some(line) = records.read(&mut record)? {
        check_length(path, &header, &record, line)?;
        rows += 1;
        for (at, field) in record.iter().enumerate() {
            columns[at].see(field);
            if let Some(study) = studies.find(field) {
                repeated[at] += usize::from(std::mem::replace(&mut matched[at][study], true));
            }
        }
    }
    // Of several columns that know as many volumes, the one with the fewest rows of the same, then the first.
    let best = (0..header.len()).max_by_key(|at| (count(&matched[*at]), std::cmp::Reverse((repeated[*at], *at))));
    let id = best.unwrap_or(0);
    Ok(Profile { path: path.to_owned(), columns, id, rows, matched: matched.swap_remove(id), repeated: repeated[id] })
}
