//! Writing and removing the index files of other readers, beside the finished shards.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::beneath::{self, is_link};
use crate::base::durable::publish;
use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::output::indexes::{self, ListedShard, ShardIndex, ViewIndex};
use crate::output::manifest;
use crate::output::partition::Part;
use crate::plan::{Plan, ShardId, View};

/// Files that are made durable at a time: each waits for the storage, and a local disk serves those together that wait
/// together.
const SYNCING: usize = 8;
/// What is said of a file that a user has changed and that must not stay.
const WRITTEN_ANEW: &str = "it was changed, and is written anew: it was wrong about the shards";

/// What is said of a link that was in the place of an index.
const WAS_LINK: &str = "it was a symbolic link, of which none is followed here, and is written anew";

/// Writes the indexes of the shards of a part; those that are there with the right content stay. The indexes of all
/// shards together are written with the whole, or when parts are merged. Returns what is to be said of files that a
/// user has changed.
///
/// # Errors
/// [`Error::Io`] if one cannot be written.
pub(super) fn write(folder: &Path, plan: &Plan, part: Part) -> Result<Vec<String>> {
    let ids: Vec<ShardId> = plan.view(View::Plain).into_iter().flatten().filter(|id| part.has(*id)).collect();
    try_map(&ids, SYNCING, |id| {
        let mut indexes =
            ShardIndex::ALL.into_iter().filter_map(|index| Some((index.name(*id), index.render(plan, *id)?)));
        indexes.try_for_each(|(name, content)| write_one(folder, &name, &content))
    })?;
    if part == Part::WHOLE { write_common(folder, &indexes::list(plan, View::Plain), false) } else { Ok(Vec::new()) }
}

/// Writes the indexes of all shards together. Files that a user has changed stay, except those that say what is not
/// true of the shards. Returns what is to be said of changed files.
///
/// # Errors
/// [`Error::Io`] if one cannot be read or written.
pub(super) fn write_common(folder: &Path, shards: &[ListedShard], are_compressed: bool) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for (index, path) in common(folder).filter(|(index, _)| index.is_for_compressed() || !are_compressed) {
        let content = index.render(shards);
        let was_link = is_link(&path);
        let found = read(folder, &below(index))?;
        let remark = match &found {
            Some(found) if *found == content => None,
            Some(found) if index.may_stay(found, shards) => index.remark(found, shards),
            _ => {
                publish(folder, &below(index).to_string_lossy(), &content)?;
                let reason = if was_link { Some(WAS_LINK) } else { found.as_ref().map(|_| WRITTEN_ANEW) };
                reason.map(str::to_owned)
            }
        };
        said.extend(remark.map(|remark| format!("{}: {remark}", path.display())));
    }
    Ok(said)
}

/// The indexes of all shards together, each with its path.
pub(super) fn common(folder: &Path) -> impl Iterator<Item = (ViewIndex, PathBuf)> {
    ViewIndex::ALL.into_iter().map(move |index| (index, folder.join(below(index))))
}

/// The path of an index of all shards together, below the folder of the shards.
fn below(index: ViewIndex) -> PathBuf {
    index.folder().map_or_else(PathBuf::new, PathBuf::from).join(index.name())
}

/// Removes the indexes of shards that are about to be made again, because they would lead their readers to wrong bytes,
/// and the indexes of all shards together. Those that a user has changed stay, as [`write_common`] decides. It must be
/// called while the old manifest is there: a file is a user's if it is what neither the plan nor that manifest gives.
/// Returns what is to be said of changed files that are removed.
///
/// # Errors
/// [`Error::Io`] if one is there and cannot be read or removed.
pub(super) fn remove(folder: &Path, plan: &Plan, shards: &[ShardId], are_compressed: bool) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let of_shards = shards.iter().flat_map(|id| ShardIndex::ALL.map(|index| folder.join(index.name(*id))));
    let mut unwanted: Vec<PathBuf> = of_shards.collect();
    let planned = indexes::list(plan, View::Plain);
    let listed = manifest::read(folder).map_or_else(|_| Vec::new(), |manifest| manifest.listed());
    // The data card says nothing of single shards, and stays.
    for (index, path) in common(folder).filter(|(index, _)| !index.is_for_compressed() && !are_compressed) {
        if is_link(&path) {
            unwanted.push(path); // the link alone is removed
            continue;
        }
        let Some(found) = read(folder, &below(index))? else { continue };
        let is_made = [&planned, &listed].into_iter().any(|list| found == index.render(list));
        if !is_made && index.may_stay(&found, &planned) {
            continue;
        }
        said.extend((!is_made).then(|| format!("{}: {WRITTEN_ANEW}", path.display())));
        unwanted.push(path);
    }
    unwanted.iter().try_for_each(|path| crate::base::files::remove(path, "remove the old index"))?;
    Ok(said)
}

/// The content of a file; `None` if it is not there, or is a link, which whoever writes the file replaces.
fn read(folder: &Path, below: &Path) -> Result<Option<Vec<u8>>> {
    let path = folder.join(below);
    match beneath::read(folder, below) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_link(&path) => Ok(None),
        Err(error) => Err(Error::io(&path, "read the index file", error)),
    }
}

fn write_one(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    match beneath::read(folder, Path::new(name)) {
        Ok(found) if found == content => Ok(()),
        _ => publish(folder, name, content),
    }
}
