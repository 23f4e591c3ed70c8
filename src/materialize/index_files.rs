//! Writing and removing the index files of other readers, beside the finished shards.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::output::indexes::{self, ListedShard, ShardIndex, ViewIndex};
use crate::output::manifest;
use crate::output::partition::Part;
use crate::output::place::Place;
use crate::plan::{Plan, ShardId, View};

/// Files that are made durable at a time: each waits for the storage, and a local disk serves those together that wait
/// together.
const SYNCING: usize = 8;
/// Requests to a bucket at a time.
const ASKING: usize = 32;
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
pub(super) fn write(place: &Place, plan: &Plan, part: Part) -> Result<Vec<String>> {
    let ids: Vec<ShardId> = plan.view(View::Plain).into_iter().flatten().filter(|id| part.has(*id)).collect();
    try_map(&ids, at_once(place), |id| {
        let mut indexes =
            ShardIndex::ALL.into_iter().filter_map(|index| Some((index.name(*id), index.render(plan, *id)?)));
        indexes.try_for_each(|(name, content)| write_one(place, &name, &content))
    })?;
    if part == Part::WHOLE { write_common(place, &indexes::list(plan, View::Plain), false) } else { Ok(Vec::new()) }
}

/// Writes the indexes of all shards together. Files that a user has changed stay, except those that say what is not
/// true of the shards. Returns what is to be said of changed files.
///
/// # Errors
/// [`Error::Io`] if one cannot be read or written.
pub(super) fn write_common(place: &Place, shards: &[ListedShard], are_compressed: bool) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for index in ViewIndex::ALL.into_iter().filter(|index| index.is_for_compressed() || !are_compressed) {
        let (content, below) = (index.render(shards), below(index));
        let was_link = place.is_link(&below);
        let found = read(place, &below)?;
        let remark = match &found {
            Some(found) if *found == content => None,
            Some(found) if index.may_stay(found, shards) => index.remark(found, shards),
            _ => {
                place.publish(&below.to_string_lossy(), &content)?;
                let reason = if was_link { Some(WAS_LINK) } else { found.as_ref().map(|_| WRITTEN_ANEW) };
                reason.map(str::to_owned)
            }
        };
        said.extend(remark.map(|remark| format!("{}: {remark}", place.path().join(&below).display())));
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

fn at_once(place: &Place) -> usize {
    if place.objects().is_some() { ASKING } else { SYNCING }
}

/// Removes the indexes of shards that are about to be made again, because they would lead their readers to wrong bytes,
/// and the indexes of all shards together. Those that a user has changed stay, as [`write_common`] decides. It must be
/// called while the old manifest is there: a file is a user's if it is what neither the plan nor that manifest gives.
/// Returns what is to be said of changed files that are removed.
///
/// # Errors
/// [`Error::Io`] if one is there and cannot be read or removed.
pub(super) fn remove(place: &Place, plan: &Plan, shards: &[ShardId], are_compressed: bool) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let sizes = place.sizes()?;
    let of_shards = shards.iter().flat_map(|id| ShardIndex::ALL.map(|index| index.name(*id)));
    let mut unwanted: Vec<PathBuf> = of_shards.filter(|name| sizes.contains_key(name)).map(PathBuf::from).collect();
    let planned = indexes::list(plan, View::Plain);
    let listed = manifest::read_at(place).map_or_else(|_| Vec::new(), |manifest| manifest.listed());
    // The data card says nothing of single shards, and stays.
    for index in ViewIndex::ALL.into_iter().filter(|index| !index.is_for_compressed() && !are_compressed) {
        let below = below(index);
        if place.is_link(&below) {
            unwanted.push(below); // the link alone is removed
            continue;
        }
        let Some(found) = read(place, &below)? else { continue };
        let is_made = [&planned, &listed].into_iter().any(|list| found == index.render(list));
        if !is_made && index.may_stay(&found, &planned) {
            continue;
        }
        said.extend((!is_made).then(|| format!("{}: {WRITTEN_ANEW}", place.path().join(&below).display())));
        unwanted.push(below);
    }
    try_map(&unwanted, at_once(place), |below| place.remove(below, "remove the old index"))?;
    Ok(said)
}

/// The content of a file; `None` if it is not there, or is a link, which whoever writes the file replaces.
fn read(place: &Place, below: &Path) -> Result<Option<Vec<u8>>> {
    match place.read(below) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || place.is_link(below) => Ok(None),
        Err(error) => Err(Error::io(&place.path().join(below), "read the index file", error)),
    }
}

fn write_one(place: &Place, name: &str, content: &[u8]) -> Result<()> {
    if place.objects().is_some() {
        return place.publish(name, content); // which looks first at what is there
    }
    match place.read(Path::new(name)) {
        Ok(found) if found == content => Ok(()),
        _ => place.publish(name, content),
    }
}
