//! The keys of the tables and of their columns, with their reasons.

use super::profile::{Column, Profile, Studies};
use super::roles::{Chosen, META, Roles};
use super::{Guess, Value};
use crate::base::num::{counted, span};
use crate::dataset::is_own_field;
use crate::error::shown;

/// Columns that a reason names at most.
const NAMED: usize = 6;

/// The keys of the tables. What a table has besides is added to `notes`.
pub(super) fn of_tables(tables: &[Profile], roles: &Roles, studies: &Studies, notes: &mut Vec<String>) -> Vec<Guess> {
    let mut keys = vec![id_column(tables, roles, studies)];
    keys.extend(reports(tables, roles, studies));
    keys.extend(meta(tables, roles, studies));
    keys.extend(labels(tables, roles, studies));
    let used = roles.tables();
    for (at, table) in tables.iter().enumerate().filter(|(at, _)| !used.contains(at)) {
        let is_other = |chosen: &&Chosen| chosen.others.contains(&at);
        let chosen = [&roles.reports, &roles.meta, &roles.labels].into_iter().flatten().find(is_other);
        let (path, count, all) = (table.path.display(), table.count(), studies.count);
        notes.push(match chosen {
            Some(chosen) => {
                let other = tables[chosen.table].path.display();
                format!("{path}: it has such columns as {other}, and {count} of {all} volumes; it is not taken")
            }
            None => format!("{path}: it knows {count} of {all} volumes, but has no texts, metadata or labels"),
        });
    }
    keys
}

/// The files of a role, and the reason: how many of the volumes they know.
fn files(tables: &[Profile], chosen: &Chosen, studies: &Studies) -> (Value, String) {
    let files: Vec<&Profile> = chosen.files.iter().map(|at| &tables[*at]).collect();
    let sum = |count: fn(&Profile) -> usize| files.iter().map(|table| count(table)).sum::<usize>();
    let (matched, all, rows) = (sum(Profile::count), studies.count, sum(|table| table.rows));
    let mut reason = format!("{matched} of {all} volumes have a row ({})", counted(rows, "row", "rows"));
    let repeated = sum(|table| table.repeated);
    if repeated > 0 {
        reason.push_str(&format!("; {repeated} of its rows are of a volume that has one already"));
    }
    if files.len() > 1 {
        reason.push_str("; the files have the same columns, for different volumes");
    }
    let paths: Vec<_> = files.iter().map(|table| table.path.clone()).collect();
    let value = <[_; 1]>::try_from(paths).map_or_else(Value::Paths, |[path]| Value::Path(path));
    (value, reason)
}

/// The key of the column with the ids, or of one column for each table where they differ.
fn id_column(tables: &[Profile], roles: &Roles, studies: &Studies) -> Guess {
    let chosen: Vec<&Profile> = roles.tables().into_iter().map(|at| &tables[at]).collect();
    let matches: Vec<String> = chosen
        .iter()
        .map(|table| {
            let name = table.path.file_name().unwrap_or_default().to_string_lossy();
            let (matched, all) = (table.count(), studies.count);
            format!("{matched} of {all} volumes are in column '{}' of {}", shown(&table.id().name), shown(&*name))
        })
        .collect();
    let reason = matches.join("; ");
    let mut names: Vec<String> = Vec::new();
    for table in &chosen {
        if !names.contains(&table.id().name) {
            names.push(table.id().name.clone());
        }
    }
    if names.is_empty() {
        return Guess::unneeded(
            "id_column",
            "no table has a column with ids of the volumes (their names without suffix)",
        );
    }
    // The first of these that a table has counts: it must be that table's own.
    names.sort_by_key(|name| chosen.iter().filter(|table| has(table, name) && table.id().name != *name).count());
    let taken = |table: &&&Profile| names.iter().find(|name| has(table, name)) != Some(&table.id().name);
    if let Some(wrong) = chosen.iter().find(taken) {
        let reason = format!(
            "{reason}; but {} has another of these columns, which would be taken for its ids: rename one",
            wrong.path.display()
        );
        return Guess::open("id_column", Value::Texts(names), reason);
    }
    Guess::found("id_column", one_or_list(names), reason)
}

fn has(table: &Profile, name: &str) -> bool {
    table.columns.iter().any(|column| column.name == name)
}

fn one_or_list(mut names: Vec<String>) -> Value {
    if names.len() == 1 { Value::Text(names.remove(0)) } else { Value::Texts(names) }
}

fn reports(tables: &[Profile], roles: &Roles, studies: &Studies) -> Vec<Guess> {
    let Some(chosen) = &roles.reports else {
        let reason =
            "no table has a column with texts, such as findings and impressions; the texts of samples are empty";
        return vec![Guess::unneeded("reports_file", reason)];
    };
    let table = &tables[chosen.table];
    let columns = || chosen.columns.iter().map(|at| &table.columns[*at]);
    let is_known = columns().all(|column| column.part().is_some());
    let why = if is_known { "known by their names" } else { "the columns with values of several words" };
    let others = table.others().filter(|(at, column)| column.is_text() && !chosen.columns.contains(at));
    let others: Vec<&Column> = others.map(|(_, column)| column).collect();
    let others =
        if others.is_empty() { String::new() } else { format!("; texts, too, but not taken: {}", list(&others)) };
    let names = columns().map(|column| quoted(&text_name(&column.name))).collect();
    let (file, knows) = files(tables, chosen, studies);
    vec![
        Guess::found("reports_file", file, knows),
        Guess::found("text_columns", Value::Texts(names), format!("{why}{others}")),
    ]
}

/// A column as `--text-columns` names it: what is before the first `=` is for people.
fn text_name(name: &str) -> String {
    if name.contains('=') { format!("text={name}") } else { name.to_owned() }
}

fn meta(tables: &[Profile], roles: &Roles, studies: &Studies) -> Vec<Guess> {
    let Some(chosen) = &roles.meta else {
        let reason =
            "no table has columns with slope, intercept or spacing by a well-known name; what needs them says so";
        return vec![Guess::unneeded("meta_file", reason)];
    };
    let table = &tables[chosen.table];
    let (mut names, mut ranges, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (role, at) in META.iter().zip(roles.meta_columns) {
        let Some(column) = at.map(|at| &table.columns[at]) else {
            missing.push(*role);
            names.push(format!("{role}=COLUMN"));
            continue;
        };
        names.push(quoted(&format!("{role}={}", column.name)));
        let [low, high] = column.range;
        let range = if low > high { "lists of mm".into() } else { span(low, high) };
        ranges.push(format!("{role} {range}"));
    }
    let reason = format!("known by their names; values: {}", ranges.join(", "));
    let (file, knows) = files(tables, chosen, studies);
    if missing.is_empty() {
        let columns = Guess::found("meta_columns", Value::Texts(names), reason);
        return vec![Guess::found("meta_file", file, knows), columns];
    }
    let missing =
        format!("no column was found for {}: name it, and take the marks of both keys away", missing.join(", "));
    let columns = Guess::open("meta_columns", Value::Texts(names), format!("{reason}; {missing}"));
    vec![Guess::open("meta_file", file, format!("{knows}; but {missing}")), columns]
}

fn labels(tables: &[Profile], roles: &Roles, studies: &Studies) -> Vec<Guess> {
    let Some(chosen) = &roles.labels else {
        let reason = "no table has columns of labels (0, 1, -1, true, false, yes or no); samples have no labels";
        return vec![Guess::unneeded("labels_file", reason)];
    };
    let table = &tables[chosen.table];
    let columns: Vec<&Column> = chosen.columns.iter().map(|at| &table.columns[*at]).collect();
    let others: Vec<&Column> =
        table.others().filter(|(at, _)| !chosen.columns.contains(at)).map(|(_, column)| column).collect();
    let are_labels = columns.iter().all(|column| column.is_label());
    let values = if are_labels { "0, 1, -1, true, false, yes or no" } else { "numbers from 0 to 1, or -1" };
    let mut reason = format!("{} with {values} only: {}", counted(columns.len(), "column", "columns"), list(&columns));
    let uncertain: usize = columns.iter().map(|column| column.uncertain).sum();
    if uncertain > 0 {
        reason.push_str(&format!("; {uncertain} values are -1, which stays"));
    }
    if !others.is_empty() {
        reason.push_str(&format!("; no classes: {}", list(&others)));
    }
    let classes = if others.is_empty() {
        Guess::unneeded("label_columns", format!("{reason}; all columns but the ids are classes"))
    } else {
        match classes(table, &chosen.columns) {
            Some(names) => Guess::found("label_columns", Value::Texts(names), reason),
            None => {
                let reason = format!("{reason}; a name that has '..' and blanks around it cannot be given: rename it");
                Guess::open("label_columns", Value::Texts(vec!["FIRST..LAST".into()]), reason)
            }
        }
    };
    let (file, knows) = files(tables, chosen, studies);
    let mut keys = vec![Guess::found("labels_file", file, knows), classes];
    let of_classes = |table: &Profile| -> usize {
        let is_class = |column: &&Column| columns.iter().any(|class| class.name == column.name);
        table.columns.iter().filter(is_class).map(|column| column.missing).sum()
    };
    let blanks: usize = chosen.files.iter().map(|at| of_classes(&tables[*at])).sum();
    if blanks > 0 {
        let reason = format!(
            "{}, and only you know what that means: \"0\" (not there), \"nan\" (not known), \
             or \"exclude\" the samples; without this key the table is refused",
            counted(blanks, "missing label", "missing labels"),
        );
        keys.push(Guess::open("missing_label", Value::Text("nan".into()), reason));
    }
    keys
}

/// Columns as `--label-columns` names them: a range for neighbours, else the names. `None` if a name cannot be given.
fn classes(table: &Profile, places: &[usize]) -> Option<Vec<String>> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &at in places {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == at => *last = at,
            _ => runs.push((at, at)),
        }
    }
    let name = |at: usize| &*table.columns[at].name;
    let first_of_name = |at: usize| table.columns.iter().position(|column| column.name == name(at)) == Some(at);
    let is_plain = |at: usize| !name(at).contains("..") && name(at).trim() == name(at) && first_of_name(at);
    let is_pattern = |at: usize| name(at).contains(['*', '?']);
    let one = |at: usize| if is_pattern(at) { format!("{0}..{0}", name(at)) } else { name(at).to_owned() };
    let mut names = Vec::new();
    for (first, last) in runs {
        if !is_plain(first) || !is_plain(last) {
            return None;
        }
        if last - first < 2 {
            names.extend((first..=last).map(|at| quoted(&one(at))));
        } else {
            names.push(quoted(&format!("{}..{}", name(first), name(last))));
        }
    }
    Some(names)
}

/// The note that a table has numbers with decimal commas, which are not read.
pub(super) fn decimal_commas(table: &Profile) -> Option<String> {
    let columns: Vec<&Column> = table.others().map(|(_, column)| column).filter(|column| column.has_commas()).collect();
    let path = table.path.display();
    (!columns.is_empty()).then(|| {
        let columns = list(&columns);
        format!("{path}: numbers with decimal commas are not read ({columns}); write it with points, then init again")
    })
}

/// The key of further columns: those that no role takes, of the tables that have one. `None` if there is none.
pub(super) fn extra_columns(tables: &[Profile], roles: &Roles) -> Option<Guess> {
    let chosen = || [&roles.reports, &roles.meta, &roles.labels].into_iter().flatten();
    // Of one table in several files, the columns are those of the first.
    let mut first: Vec<usize> = Vec::new();
    for chosen in chosen() {
        if !first.contains(&chosen.table) {
            first.push(chosen.table);
        }
    }
    let is_taken = |table: usize, column: usize| {
        chosen().any(|chosen| chosen.table == table && chosen.columns.contains(&column))
            || roles.meta.as_ref().is_some_and(|meta| meta.table == table) && roles.meta_columns.contains(&Some(column))
    };
    let count = |name: &str| -> usize {
        let in_table = |at: &usize| tables[*at].columns.iter().filter(|column| column.name == name).count();
        first.iter().map(in_table).sum()
    };
    let mut names = Vec::new();
    for &table in &first {
        for (_, column) in tables[table].others().filter(|(at, _)| !is_taken(table, *at)) {
            let name = &column.name;
            let is_plain = !name.contains("..") && !name.contains(['*', '?']) && name.trim() == name;
            if is_plain && count(name) == 1 && !is_own_field(name) {
                names.push(quoted(name));
            }
        }
    }
    let reason = "columns that are nothing else: each sample's JSON gets the values of those that you take the mark \
                  away from and leave in the list";
    (!names.is_empty()).then(|| Guess::offered("extra_columns", Value::Texts(names), reason))
}

/// A name as a list of names takes it: in double quotes if it has a comma or a quote.
fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}

/// The names of columns, the first ones of many.
fn list(columns: &[&Column]) -> String {
    let names: Vec<String> = columns.iter().take(NAMED).map(|column| format!("'{}'", shown(&column.name))).collect();
    let more = columns.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.join(", ") + &more
}
