//! Volumes and tables joined by study id: the volumes that are in all tables that there are, and the values of their
//! rows. Without a table, every volume counts.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::columns::Columns;
use super::comma;
use super::found::{FoundObjects, FoundVolumes};
use super::ids::{self, study_id};
use super::json_columns::{Flagged, JsonColumn, JsonColumns};
use super::matched::{Matched, MetaValues, Row};
use super::roles::{LABELS, META, REPORTS, Roles};
use super::scan::find_volumes;
use super::tables::{Fields, Table, Wanted, load_with, present};
use super::{Config, Inputs, Meta, MissingLabel, MissingMeta, Selected, SpacingFrom, quarantine};
use crate::base::file_id::FileId;
use crate::base::num::counted;
use crate::base::parallel::{available_cores, both, try_map};
use crate::error::{Error, Result, shown};

/// The outcome of a look-up of one study in all tables.
enum TableRow {
    /// Every table has a row of the study.
    Complete(Row),
    /// The names of the tables that have none.
    NotIn(String),
}

/// All volumes of the data folder, joined with the tables.
pub(super) struct Joined {
    /// The volumes that all tables know and that are selected, in the data set's order.
    pub(super) matched: Vec<Matched>,
    /// The identities of the volumes in the list of a bucket; empty for a folder on a disk.
    pub(super) objects: HashMap<PathBuf, FileId>,
    /// The study ids that a table does not know, each with the names of these tables.
    pub(super) unmatched: Vec<(String, String)>,
    /// The counts of the selection, if the user asked for one.
    pub(super) selected: Option<Selected>,
    /// The first of these ids, and the nearest one of a table that does not know it, as a sentence.
    pub(super) nearest: Option<String>,
    /// The number of rows of the first table (see [`Tables::first`]) that have no volume.
    pub(super) rows_without_volume: usize,
    /// The class columns of the label table; none without one.
    pub(super) label_names: Vec<String>,
    /// The columns whose values stand in the samples' JSON.
    pub(super) extra_columns: Vec<JsonColumn>,
    /// Messages for the user about what is no error.
    pub(super) warnings: Vec<String>,
    /// The states of tables and folders before they were read.
    pub(super) inputs: Inputs,
}

/// The tables that there are.
struct Tables {
    states: Vec<FileId>,
    reports: Option<Table>,
    meta: Option<Table>,
    labels: Option<Table>,
    extra: JsonColumns,
}

/// Finds the volumes, reads the tables, and joins them.
///
/// # Errors
/// [`Error::Io`] if a folder or table cannot be read, [`Error::Table`] if a table is unusable, [`Error::Refused`] if
/// there is no volume, two volumes have one study id, or nothing is selected.
pub(super) fn join(config: &Config) -> Result<Joined> {
    let find = || match &config.volumes {
        Some(files) => Ok(FoundVolumes::of(files)),
        None => find_volumes((&*config.store, &config.data_folder), &config.files, config.threads, &config.progress),
    };
    let (tables, found) = both(|| load_tables(config), find);
    let (tables, found) = (tables?, found?);
    refuse_repeated_studies(&found.files)?;
    let mut inputs =
        Inputs { tables: tables.states.clone(), folders: found.folders, certain: found.certain, ..Inputs::default() };
    let objects = found.objects.map(|FoundObjects { listing, states }| {
        inputs.listings.push(listing);
        states
    });
    let mut joined = Joined {
        matched: Vec::new(),
        objects: objects.unwrap_or_default(),
        unmatched: Vec::new(),
        selected: None,
        nearest: None,
        rows_without_volume: 0,
        label_names: tables.labels.as_ref().map_or_else(Vec::new, |labels| labels.columns.clone()),
        extra_columns: tables.extra.columns(&flagged([&tables.reports, &tables.meta, &tables.labels])),
        warnings: tables.warnings(config, found.elsewhere),
        inputs,
    };
    let mut excluded = excluded(config)?;
    let mut by_row: HashMap<usize, PathBuf> = HashMap::with_capacity(found.files.len());
    let find = |path: &PathBuf| study_id(path).map(|study| tables.find(config, study)).transpose();
    let rows = try_map(&found.files, available_cores(), find)?;
    for (path, row) in found.files.into_iter().zip(rows) {
        let (Some(study), Some(row)) = (study_id(&path), row) else {
            // Its bytes, so that no two names become one id, as they would with a sign for what is not UTF-8.
            let stem = ids::stem(&path).unwrap_or_default().as_bytes().escape_ascii();
            joined.unmatched.push((format!("b'{stem}'"), "any table, as its name is not UTF-8".into()));
            continue;
        };
        let study_id = study.to_owned();
        match row {
            TableRow::Complete(row) => {
                if let (Some(table), Some(place)) = (tables.first(), row.place)
                    && let Some(earlier) = by_row.insert(place, path.clone())
                {
                    let (earlier, path) = (earlier.display(), path.display());
                    let what = format!(" is the row of two volumes, {earlier} and {path}; remove or rename one");
                    return Err(table.error(place, what));
                }
                let excluded = excluded.remove(&study_id);
                joined.matched.push(Matched { study_id, path, row, excluded });
            }
            TableRow::NotIn(tables) => joined.unmatched.push((study_id, tables)),
        }
    }
    if let (Some(list), Some(study)) = (&config.exclude, excluded.keys().min()) {
        let (list, count) = (list.display(), excluded.len());
        joined.warnings.push(format!("{list}: {count} of its studies are not in the data set (for example '{study}')"));
    }
    joined.nearest = tables.nearest(&joined);
    joined.rows_without_volume = tables.first().map_or(0, |table| table.len().saturating_sub(joined.matched.len()));
    let Joined { matched, label_names, warnings, .. } = &mut joined;
    joined.selected = config.selection.apply(config, label_names, matched, warnings)?;
    if let Some(limit) = config.limit {
        joined.matched.truncate(limit);
    }
    Ok(joined)
}

/// The studies that the user leaves out, and why.
fn excluded(config: &Config) -> Result<HashMap<String, String>> {
    let Some(list) = &config.exclude else { return Ok(HashMap::new()) };
    let reason = |row: &quarantine::Quarantined| match row.reason.as_str() {
        "" => format!("excluded by {}", list.display()),
        reason => format!("excluded by {}: {reason}", list.display()),
    };
    Ok(quarantine::read_in(&*config.store, list)?.into_iter().map(|row| (row.study_id.clone(), reason(&row))).collect())
}

fn load_tables(config: &Config) -> Result<Tables> {
    let state =
        |path: &PathBuf| config.store.identity_of(path).map_err(|error| Error::io(path, "read the table", error));
    let states = config.tables().into_iter().map(state).collect::<Result<_>>()?;
    let Columns { ids, texts, classes, meta: of_meta, extra } = &config.columns;
    let roles = Roles::of(config);
    let all_files = [&config.reports_files, &config.meta_files, &config.labels_files];
    let load = |flag, files: &Vec<PathBuf>, wanted: Wanted<'_>| {
        // Of one table for several roles, further columns are those of the first.
        let is_first =
            all_files.into_iter().find(|other| *other == files).is_some_and(|first| std::ptr::eq(first, files));
        let extra = if is_first { &extra[..] } else { &[] };
        (!files.is_empty())
            .then(|| roles.explain(flag, load_with(&*config.store, files, ids, &wanted, extra)))
            .transpose()
    };
    let (reports, (meta, labels)) = both(
        || load(REPORTS, &config.reports_files, Wanted::Named(texts)),
        || {
            both(
                || load(META, &config.meta_files, Wanted::Named(&of_meta[..columns_of_meta(config)])),
                || load(LABELS, &config.labels_files, Wanted::Classes(classes)),
            )
        },
    );
    let (reports, meta, labels) = (reports?, meta?, labels?);
    let extra = JsonColumns::choose(extra, ids, &flagged([&reports, &meta, &labels]))?;
    let tables = Tables { states, reports, meta, labels, extra };
    tables.labels.as_ref().map_or(Ok(()), |labels| roles.refuse_as_labels(labels))?;
    Ok(tables)
}

/// The tables of reports, metadata and labels with their flags.
fn flagged(tables: [&Option<Table>; 3]) -> [Option<Flagged<'_>>; 3] {
    let [reports, meta, labels] = tables.map(Option::as_ref);
    [reports.map(|table| (REPORTS, table)), meta.map(|table| (META, table)), labels.map(|table| (LABELS, table))]
}

fn refuse_repeated_studies(files: &[PathBuf]) -> Result<()> {
    let mut seen: HashMap<&str, &Path> = HashMap::with_capacity(files.len());
    for path in files {
        let Some(study) = study_id(path) else { continue };
        if let Some(earlier) = seen.insert(study, path) {
            return Err(Error::Refused(format!(
                "two volumes have the study id '{}': {} and {}; remove or rename one, or leave one out by --source or \
                 --pattern",
                shown(study),
                shown(earlier),
                shown(path)
            )));
        }
    }
    Ok(())
}

impl Tables {
    /// The tables that there are, with their names.
    fn named(&self) -> impl Iterator<Item = (&'static str, &Table)> {
        let tables = [("reports", &self.reports), ("metadata", &self.meta), ("labels", &self.labels)];
        tables.into_iter().filter_map(|(name, table)| Some((name, table.as_ref()?)))
    }

    /// The table by whose rows volumes are told apart: that of the labels if there is one.
    fn first(&self) -> Option<&Table> {
        self.labels.as_ref().or(self.meta.as_ref()).or(self.reports.as_ref())
    }

    fn warnings(&self, config: &Config, elsewhere: usize) -> Vec<String> {
        let mut warnings: Vec<String> = self.named().flat_map(|(_, table)| table.warnings.iter().cloned()).collect();
        if elsewhere > 0 {
            let folder = config.data_folder.display();
            let volumes = counted(elsewhere, "volume", "volumes");
            warnings.push(format!("{folder}: {volumes} at another depth than most, ignored"));
        }
        warnings
    }

    /// How a table that does not know the first unmatched study spells the nearest id; `None` if it has no row besides
    /// those of other volumes.
    fn nearest(&self, joined: &Joined) -> Option<String> {
        let (study, _) = joined.unmatched.first()?;
        let matched = joined.matched.iter().map(|matched| matched.study_id.as_str());
        let studies = matched.chain(joined.unmatched.iter().map(|(study, _)| study.as_str()));
        let studies: HashSet<&str> = studies.map(ids::bare).collect();
        let (name, table) = self.named().find(|(_, table)| matches!(table.find(study), Ok(None)))?;
        let nearest = table.nearest(study, &studies)?;
        Some(format!("the folder has '{study}', and the nearest id in the table of {name} is '{nearest}'"))
    }

    /// The values of a study's rows, or the tables that do not know the study.
    fn find(&self, config: &Config, study: &str) -> Result<TableRow> {
        let (mut rows, mut absent) = ([None; 3], Vec::new());
        let tables = [("reports", &self.reports), ("metadata", &self.meta), ("labels", &self.labels)];
        for (row, (name, table)) in rows.iter_mut().zip(tables) {
            let Some(table) = table else { continue };
            *row = table.find(study)?;
            if row.is_none() {
                absent.push(name);
            }
        }
        if !absent.is_empty() {
            return Ok(TableRow::NotIn(absent.join(" and ")));
        }
        let fields = self.extra.values(&rows);
        let [report, meta, labels] = rows;
        let texts = report.into_iter().flat_map(Fields::iter).map(|text| present(text).unwrap_or(&config.missing_text));
        let text = texts.collect::<Vec<_>>().join("\n");
        let place = labels.or(meta).or(report).map(Fields::row);
        let meta = meta.map_or(Ok(MetaValues::NoTable), |fields| parse_meta(config, fields))?;
        let (labels, missing) = labels.map_or(Ok(Default::default()), |fields| parse_labels(config, fields))?;
        let left_out = missing.last().filter(|_| config.missing_label == MissingLabel::Exclude).map(|at| {
            let column = self.labels.as_ref().map_or("", |labels| &labels.columns[*at]);
            format!("the label table has no value of '{column}' for it")
        });
        let meta = left_out.map_or(meta, MetaValues::Missing);
        Ok(TableRow::Complete(Row { meta, text, labels, missing, fields, place }))
    }
}

/// The labels of a row, and the places of those that are missing.
fn parse_labels(config: &Config, fields: Fields<'_>) -> Result<(Vec<f32>, Vec<usize>)> {
    let mut labels = Vec::with_capacity(fields.columns().len());
    let mut absent = Vec::new();
    for (at, (field, column)) in fields.iter().zip(fields.columns()).enumerate() {
        let missing = present(field.trim()).is_none().then_some(config.missing_label);
        absent.extend(missing.map(|_| at));
        labels.push(match (missing, label(field)) {
            (Some(MissingLabel::Zero), _) => 0.0,
            (Some(MissingLabel::Nan | MissingLabel::Exclude), _) => f32::NAN,
            (_, Ok(value)) => value,
            (_, Err(what)) => {
                return Err(fields.no_number(column, field, &format!("the label {field:?} is {what}")));
            }
        });
    }
    Ok((labels, absent))
}

/// The value of a label, as pandas does it: parsed as f64, stored as f32.
///
/// # Errors
/// What is wrong with it, and the remedy.
fn label(field: &str) -> std::result::Result<f32, &'static str> {
    match number(field) {
        Some(value) if in_f32(value).is_finite() => Ok(in_f32(value)),
        Some(_) => Err("beyond float32, as which labels are stored"),
        None => match field.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" => Ok(1.0),
            "false" | "no" => Ok(0.0),
            text if present(field.trim()).is_none() || text.is_empty() => {
                Err("not a number; --missing-label says what becomes of missing ones")
            }
            _ => Err("not a number; --label-columns chooses the columns that are classes"),
        },
    }
}

#[expect(clippy::cast_possible_truncation, reason = "labels are stored as f32")]
fn in_f32(value: f64) -> f32 {
    value as f32
}

fn number(field: &str) -> Option<f64> {
    field.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

/// The number of columns that are read of the metadata table: not those of the spacing, if the volumes' files have it.
fn columns_of_meta(config: &Config) -> usize {
    if config.array.spacing.is_some() || config.spacing_from == Some(SpacingFrom::Header) { 2 } else { 4 }
}

/// Reads the values of a row of the metadata table.
///
/// # Errors
/// [`Error::Table`] if a value is no number.
fn parse_meta(config: &Config, fields: Fields<'_>) -> Result<MetaValues> {
    let names = &config.columns.meta;
    let mut missing: Vec<&str> = Vec::new();
    let mut value = |at: usize| match present(fields.get(at)) {
        None => {
            missing.push(&*names[at]);
            Ok(f64::NAN)
        }
        Some(field) => {
            let what = || fields.no_number(&names[at], field, &format!("{field:?} is not a number"));
            number(field).ok_or_else(what)
        }
    };
    let (rescale_slope, rescale_intercept) = (value(0)?, value(1)?);
    let has_spacing = columns_of_meta(config) == 4;
    let z_spacing = if has_spacing { value(3)? } else { f64::NAN };
    // The original converter writes str() of pandas' NaN where the spacing is missing.
    let xy_spacing = if has_spacing { present(fields.get(2)) } else { None };
    if let Some(field) = xy_spacing.filter(|field| fields.delimiter() != b',' && comma::is_decimal(field)) {
        // A list of two numbers elsewhere: `1,5` would be read as 1 and 5 mm.
        return Err(fields.no_number(&names[2], field, &format!("{field:?} may be one number or two")));
    }
    if has_spacing && xy_spacing.is_none() {
        missing.push(&*names[2]);
    }
    let xy_spacing = xy_spacing.unwrap_or("nan").to_owned();
    // A preprocessed sample shows no metadata; its recipe says which values it needs.
    let shown = !config.kind.kind.is_resampled();
    if !missing.is_empty() && shown && config.missing_meta == MissingMeta::Exclude {
        let reason = format!("the metadata table has no {} (--missing-meta nan keeps the sample)", missing.join(", "));
        return Ok(MetaValues::Missing(reason));
    }
    Ok(MetaValues::Complete(Meta { rescale_slope, rescale_intercept, xy_spacing, z_spacing }))
}
