//! Which of the tables has the texts, the metadata and the labels, and in which columns.

use super::names::{self, Part};
use super::profile::{Column, LARGEST_SPACING, Profile};

/// The largest magnitude of a slope; scanners have 1, and images in another unit up to thousands.
const SLOPES: f64 = 1e4;
/// The largest magnitude of an intercept; CT-RATE has -8192.
const INTERCEPTS: f64 = 7e4;
/// The names of the values of metadata, as `--meta-columns` has them.
pub(super) const META: [&str; 4] = ["slope", "intercept", "xy", "z"];

/// A table that has a role, and its columns in that role.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The place of the table.
    pub(super) table: usize,
    /// The places of its files: the table itself, then those with the same columns for other volumes.
    pub(super) files: Vec<usize>,
    /// The places of the columns.
    pub(super) columns: Vec<usize>,
    /// The places of other tables that have such columns, too.
    pub(super) others: Vec<usize>,
}

/// The tables of each role; `None` where no table has such columns.
#[derive(Debug)]
pub(super) struct Roles {
    /// The table with the texts, and their columns.
    pub(super) reports: Option<Chosen>,
    /// The table with the metadata.
    pub(super) meta: Option<Chosen>,
    /// The columns of slope, intercept, spacing in the plane and of the slices in the table with the metadata.
    pub(super) meta_columns: [Option<usize>; 4],
    /// The table with the labels, and the columns that are classes.
    pub(super) labels: Option<Chosen>,
}

impl Roles {
    /// The roles of the tables of a data set.
    pub(super) fn of(tables: &[Profile]) -> Self {
        let meta = best(tables, |table| {
            let columns: Vec<usize> = meta_columns(table).into_iter().flatten().collect();
            (columns.len(), columns)
        });
        let meta_columns = meta.as_ref().map_or([None; 4], |meta| meta_columns(&tables[meta.table]));
        let reports = best(tables, |table| {
            let columns = texts(table);
            let known = columns.iter().filter(|at| table.columns[**at].part().is_some()).count();
            // Known names count before any number of other texts.
            (1000 * known + columns.len(), columns)
        });
        let labels = best(tables, |table| {
            let columns = labels(table);
            // A table of classes alone before one that has other columns beside them.
            let others = table.others().count() - columns.len();
            (1000 * columns.len() / (columns.len() + others).max(1), columns)
        });
        Self { reports, meta, meta_columns, labels }
    }

    /// The places of the tables that have a role.
    pub(super) fn tables(&self) -> Vec<usize> {
        let roles = [&self.reports, &self.meta, &self.labels];
        let mut tables: Vec<usize> = roles.into_iter().flatten().flat_map(|chosen| chosen.files.clone()).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }
}

/// The table with the highest score among those that have columns of a role; of equals the one that knows most of the
/// volumes, then the one with the most columns, then the first.
fn best(tables: &[Profile], columns: impl Fn(&Profile) -> (usize, Vec<usize>)) -> Option<Chosen> {
    let scored: Vec<(usize, Vec<usize>)> = tables.iter().map(columns).collect();
    let has = |at: &usize| !scored[*at].1.is_empty();
    let rank = |at: &usize| {
        let (score, columns) = &scored[*at];
        (*score, tables[*at].count(), columns.len(), std::cmp::Reverse(*at))
    };
    let table = (0..tables.len()).filter(has).max_by_key(rank)?;
    let mut files = vec![table];
    let mut known = tables[table].matched.clone();
    let mut parts: Vec<usize> = (0..tables.len()).filter(|at| has(at) && *at != table).collect();
    parts.sort_by_key(|at| std::cmp::Reverse(tables[*at].count())); // else a part of one would keep it out
    for at in parts {
        let (one, other) = (&tables[table], &tables[at]);
        let has_column =
            |column: &usize| scored[at].1.iter().any(|place| other.columns[*place].name == one.columns[*column].name);
        let is_part = scored[table].1.iter().all(has_column) && one.id().name == other.id().name;
        if is_part && !known.iter().zip(&other.matched).any(|(one, other)| *one && *other) {
            files.push(at);
            known.iter_mut().zip(&other.matched).for_each(|(known, other)| *known |= other);
        }
    }
    let is_other = |at: &usize| has(at) && !files.contains(at) && scored[*at].0 == scored[table].0;
    let others = (0..tables.len()).filter(is_other).collect();
    Some(Chosen { table, columns: scored[table].1.clone(), files, others })
}

/// The columns of slope, intercept, spacing in the plane and of the slices, by well-known names, where the values are
/// such.
pub(super) fn meta_columns(table: &Profile) -> [Option<usize>; 4] {
    let find = |known: &[&str], is: fn(&Column) -> bool| {
        known.iter().find_map(|name| {
            table.others().find(|(_, column)| names::plain(&column.name) == *name && is(column)).map(|(at, _)| at)
        })
    };
    let is_slope = |column: &Column| column.is_within(-SLOPES, SLOPES) && column.range != [0.0, 0.0];
    let is_of_slices = |column: &Column| column.is_within(f64::MIN_POSITIVE, LARGEST_SPACING);
    [
        find(names::SLOPE, is_slope),
        find(names::INTERCEPT, |column| column.is_within(-INTERCEPTS, INTERCEPTS)),
        find(names::IN_PLANE, Column::is_spacing),
        find(names::OF_SLICES, is_of_slices),
    ]
}

/// The columns of the text: findings and impression, else the whole report, by their names; else all long texts.
fn texts(table: &Profile) -> Vec<usize> {
    let of = |part: Part| table.others().find(|(_, column)| column.part() == Some(part)).map(|(at, _)| at);
    let parts: Vec<usize> = [Part::Findings, Part::Impression].into_iter().filter_map(of).collect();
    if !parts.is_empty() {
        return parts;
    }
    let long = || table.others().filter(|(_, column)| column.is_text()).map(|(at, _)| at).collect();
    of(Part::Whole).map_or_else(long, |whole| vec![whole])
}

/// The columns that are classes. A column of one value is a class only where most columns are, and numbers between 0
/// and 1 only where all columns are such.
fn labels(table: &Profile) -> Vec<usize> {
    let meta = meta_columns(table);
    let others = || table.others().filter(|(at, _)| !meta.contains(&Some(*at)));
    if others().all(|(_, column)| column.is_share()) {
        return others().map(|(at, _)| at).collect();
    }
    let may_be = || others().filter(|(_, column)| column.is_label());
    let is_table_of_labels = 2 * may_be().count() >= table.others().count();
    may_be().filter(|(_, column)| is_table_of_labels || !column.is_constant()).map(|(at, _)| at).collect()
}
