//! What each column of the tables is for, in words.

use std::path::PathBuf;

use crate::cli::PlanArgs;
use crate::dataset::{Config, SpacingFrom};
use crate::error::Result;

/// The role of each column that is read, a line for each table; empty for shards on disk, which need no table.
///
/// # Errors
/// The errors of [`crate::cli::DatasetArgs::resolve`].
pub(super) fn describe(args: &PlanArgs, classes: usize) -> Result<String> {
    if args.source.shards.is_some() {
        return Ok(String::new());
    }
    let (config, _) = args.dataset.resolve()?;
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
        (&config.labels_files, classes_in_words(&config, classes), "no labels"),
    ];
    let ids = config.columns.ids.join(" or ");
    let line = |(files, roles, without): (&Vec<PathBuf>, String, &str)| match &files[..] {
        [] => format!("Table        {without}\n"),
        files => {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            format!("Table        {}: id {ids}, {roles}\n", files.join(" and "))
        }
    };
    Ok(tables.into_iter().map(line).collect())
}

/// Which columns are the classes.
fn classes_in_words(config: &Config, count: usize) -> String {
    let named: Vec<String> = config.columns.classes.iter().map(ToString::to_string).collect();
    match named[..] {
        [] => format!("all {count} others are classes"),
        _ => format!("{count} classes ({})", named.join(", ")),
    }
}
