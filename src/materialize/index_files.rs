//! Writing and removing the index files of other readers, beside the finished shards.

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::durable::publish;
use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::output::indexes::{self, ENERGON_FOLDER, ListedShard, ShardIndex, ViewIndex};
use crate::output::partition::Part;
use crate::plan::{Plan, ShardId, View};

/// Files that are made durable at a time: each waits for the storage, and a local disk serves those together that wait
/// together.
const SYNCING: usize = 8;

/// Writes the indexes of the shards of a part; those that are there with the right content stay. The indexes of all
/// shards together are written with the whole, or when parts are merged.
///
/// # Errors
/// [`Error::Io`] if one cannot be written.
pub(super) fn write(folder: &Path, plan: &Plan, part: Part) -> Result<()> {
    let ids: Vec<ShardId> = plan.view(View::Plain).into_iter().flatten().filter(|id| part.has(*id)).collect();
    try_map(&ids, SYNCING, |id| {
        let mut indexes =
            ShardIndex::ALL.into_iter().filter_map(|index| Some((index.name(*id), index.render(plan, *id)?)));
        indexes.try_for_each(|(name, content)| write_one(folder, &name, &content))
    })?;
    if part == Part::WHOLE { write_common(folder, &indexes::list(plan, View::Plain)) } else { Ok(()) }
}

/// Writes the indexes of all shards together.
///
/// # Errors
/// [`Error::Io`] if one cannot be written.
pub(super) fn write_common(folder: &Path, shards: &[ListedShard]) -> Result<()> {
    let energon = folder.join(ENERGON_FOLDER);
    fs::create_dir_all(&energon).map_err(|error| Error::io(&energon, "create the folder of indexes", error))?;
    for (index, path) in common(folder) {
        write_one(path.parent().unwrap_or(folder), index.name(), &index.render(shards))?;
    }
    Ok(())
}

/// The indexes of all shards together, each with its path.
pub(super) fn common(folder: &Path) -> impl Iterator<Item = (ViewIndex, PathBuf)> {
    ViewIndex::ALL.into_iter().map(move |index| {
        let below = index.folder().map_or_else(|| folder.to_owned(), |below| folder.join(below));
        (index, below.join(index.name()))
    })
}

/// Removes the indexes of shards that are about to be made again, because they would lead their readers to wrong bytes,
/// and the indexes of all shards together.
///
/// # Errors
/// [`Error::Io`] if one is there and cannot be removed.
pub(super) fn remove(folder: &Path, shards: &[ShardId]) -> Result<()> {
    let of_shards = shards.iter().flat_map(|id| ShardIndex::ALL.map(|index| folder.join(index.name(*id))));
    let common = common(folder).map(|(_, path)| path);
    of_shards.chain(common).try_for_each(|path| crate::base::files::remove(&path, "remove the old index"))
}

fn write_one(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    match fs::read(folder.join(name)) {
        Ok(found) if found == content => Ok(()),
        _ => publish(folder, name, content),
    }
}
