//! The index files of other readers, beside the finished shards.

use std::fs;

use super::folder::Folder;
use super::partial::publish;
use crate::error::{Error, Result};
use crate::index::{ENERGON_FOLDER, ShardIndex, ViewIndex};
use crate::plan::{Plan, ShardId, View};

/// Writes those that are not there yet as they are to be: a run that only continues writes what is missing.
pub(super) fn write(folder: &Folder, plan: &Plan) -> Result<()> {
    let energon = folder.path().join(ENERGON_FOLDER);
    fs::create_dir_all(&energon).map_err(|error| Error::io(&energon, "create the folder of indexes", error))?;
    let shards = plan.view(View::Plain).into_iter().flatten();
    let of_shards = shards.flat_map(|id: ShardId| ShardIndex::ALL.map(|index| (id, index)));
    for (id, index) in of_shards {
        if let Some(content) = index.render(plan, id) {
            write_one(folder, None, &index.name(id), &content)?;
        }
    }
    for index in ViewIndex::ALL {
        write_one(folder, index.folder(), index.name(), &index.render(plan, View::Plain))?;
    }
    Ok(())
}

fn write_one(folder: &Folder, below: Option<&str>, name: &str, content: &[u8]) -> Result<()> {
    let folder = below.map_or_else(|| folder.path().to_owned(), |below| folder.path().join(below));
    match fs::read(folder.join(name)) {
        Ok(found) if found == content => Ok(()),
        _ => publish(&folder, name, content),
    }
}
