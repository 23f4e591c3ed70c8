//! What each column of the tables is for, in words.

use std::path::Path;

use crate::base::num::counted;
use crate::cli::PlanArgs;
use crate::dataset::{Config, Dataset, SpacingFrom};
use crate::error::Result;

/// The role of each column that is read, a line for each table; empty for shards on disk, which need no table.
///
/// # Errors
/// The errors of [`crate::cli::DatasetArgs::resolve`].
pub(super) fn describe(args: &PlanArgs, dataset: &Dataset) -> Result<String> {
    if args.source.shards.is_some() {
        return Ok(String::new());
    }
    let (config, _) = args.dataset.resolve(Some(&args.source.storage.options()))?;
    let [slope, intercept, xy, z] = &config.columns.meta;
    let of_meta = match &config.array.spacing {
        None if config.spacing_from == Some(SpacingFrom::Header) => {
            format!("slope {slope}, intercept {intercept}; spacing of the NIfTI headers")
        }
        None => format!("slope {slope}, intercept {intercept}, spacing {xy} and {z}"),
        Some(array) => format!("slope {slope}, intercept {intercept}; spacing of the array '{array}' in each file"),
    };
    let tables = [
        (&config.reports_files, format!("text {}", config.columns.texts.join(", ")), "no reports: the texts are empty"),
        (&config.meta_files, of_meta, "no metadata: slope, intercept and spacing are known of NIfTI files alone"),
        (&config.labels_files, classes_in_words(&config, dataset.label_names.len()), "no labels"),
    ];
    let ids = config.columns.ids.join(" or ");
    let mut text = String::new();
    let mut seen: Vec<&Path> = Vec::new();
    for (files, roles, without) in tables {
        let Some(first) = files.first() else {
            text.push_str(&format!("Table        {without}\n"));
            continue;
        };
        // Of one table for several roles, further columns are said once.
        let extra = if seen.contains(&&**first) { String::new() } else { extra_in_words(first, dataset) };
        seen.push(first);
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        text.push_str(&format!("Table        {}: id {ids}, {roles}{extra}\n", files.join(" and ")));
    }
    Ok(text)
}

/// Which columns of a table stand in the JSON, after a comma.
fn extra_in_words(first: &Path, dataset: &Dataset) -> String {
    let of_table = dataset.extra_columns.iter().filter(|column| column.table == first);
    let names: Vec<&str> = of_table.map(|column| &*column.name).collect();
    if names.is_empty() { String::new() } else { format!(", in the JSON {}", names.join(", ")) }
}

/// Which columns are the classes.
fn classes_in_words(config: &Config, count: usize) -> String {
    let named: Vec<String> = config.columns.classes.iter().map(ToString::to_string).collect();
    match named[..] {
        [] if count == 1 => "the other is the class".to_owned(),
        [] => format!("all {count} others are classes"),
        _ => format!("{} ({})", counted(count, "class", "classes"), named.join(", ")),
    }
}
