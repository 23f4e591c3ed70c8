//! `ctwds-fs plan --split-by`: lists of studies for training, validation and test.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::durable;
use crate::base::files;
use crate::base::num::counted;
use crate::cli::PlanArgs;
use crate::dataset;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::split::{self, Groups, Split, SplitBy};

/// What `plan` says of groups and splits; writes the lists, if the user asked for them.
///
/// # Errors
/// An id without a group, a split without a study, a column that no table has, or a list that cannot be written.
pub(super) fn run(args: &PlanArgs, plan: &Plan) -> Result<String> {
    let args_of_split = &args.split;
    if args_of_split.group_by.is_none() && args_of_split.split_by.is_none() {
        return Ok(String::new());
    }
    let pattern = args_of_split.pattern()?;
    let studies: Vec<&str> = plan.dataset.samples.iter().map(|sample| sample.study_id.as_str()).collect();
    let groups = split::groups(&studies, &pattern)?;
    let all = counted(studies.len(), "study", "studies");
    let mut text = format!("Groups       {} of {all}, by --group-by '{pattern}'\n", groups.len());
    let Some(split_by) = &args_of_split.split_by else { return Ok(text) };
    let splits = match split_by {
        SplitBy::Shares(shares) => split::by_shares(&groups, shares, args_of_split.seed.unwrap_or(0))?,
        SplitBy::Column(column) => by_column(args, &groups, &studies, column)?,
    };
    let folder = args_of_split.split_dir.as_deref().unwrap_or(Path::new("."));
    super::interrupt::finish(); // all lists or none; they take a moment
    for (path, content) in lists(plan, folder, &splits, &studies)? {
        write(&path, content.as_bytes())?;
    }
    for Split { name, studies: numbers, groups } in &splits {
        text.push_str(&format!(
            "Split        {}: {} ({:.1} %) of {}; take them by --studies\n",
            list_path(folder, name).display(),
            counted(numbers.len(), "study", "studies"),
            100.0 * numbers.len() as f64 / studies.len() as f64,
            counted(*groups, "group", "groups")
        ));
    }
    Ok(text)
}

fn by_column(args: &PlanArgs, groups: &Groups, studies: &[&str], column: &str) -> Result<Vec<Split>> {
    if args.source.shards.is_some() {
        let reason =
            "--split-by: shards have no tables, whose columns could say it; give NAME:SHARE,…, or the data set";
        return Err(Error::Refused(reason.into()));
    }
    let (config, _) = args.dataset.resolve(Some(&args.source.storage.options()))?;
    let values = dataset::other_column(&config, column, studies)?;
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    split::by_values(groups, studies, column, &values)
}

fn list_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.csv"))
}

/// The lists to be written, each with its content. Nothing is written before all of them are known to be possible.
///
/// # Errors
/// [`Error::Refused`] if the folder is the data folder or in it, or a file of other content has a list's name.
fn lists(plan: &Plan, folder: &Path, splits: &[Split], studies: &[&str]) -> Result<Vec<(PathBuf, String)>> {
    let real = fs::canonicalize(folder).map_err(|error| Error::io(folder, "open the folder for the lists", error))?;
    let data = fs::canonicalize(&plan.dataset.root).unwrap_or_else(|_| plan.dataset.root.clone());
    if real.starts_with(&data) {
        return Err(Error::Refused(format!(
            "{}: is in the data folder, into which nothing is written; --split-dir names another folder",
            real.display()
        )));
    }
    let mut lists = Vec::with_capacity(splits.len());
    for split in splits {
        let ids: Vec<&str> = split.studies.iter().map(|number| studies[*number]).collect();
        let (path, content) = (list_path(folder, &split.name), dataset::list_of_studies(&ids)?);
        match files::read(&path) {
            Ok(found) if found == content.as_bytes() => {}
            Ok(_) => {
                return Err(Error::Refused(format!(
                    "{}: is there with other content, and is not overwritten; remove it, or name another folder by \
                     --split-dir",
                    path.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => lists.push((path, content)),
            Err(error) => return Err(Error::io(&path, "read the list", error)),
        }
    }
    Ok(lists)
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let (folder, name) = (path.parent().unwrap_or(Path::new(".")), path.file_name().unwrap_or_default());
    durable::publish(folder, &name.to_string_lossy(), content)
}
