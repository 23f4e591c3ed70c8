//! Which files of a folder are shards.

use std::path::{Path, PathBuf};

use super::finding::{Finding, Verdict};
use crate::error::{Error, Result};
use crate::storage::{Listed, Store};

/// A shard file of the folder, not read yet.
#[derive(Debug)]
pub(super) struct ShardFile {
    /// File name, such as `shard-000000.tar`.
    pub name: String,
    /// Path of the file.
    pub path: PathBuf,
    /// Shard number, from the file name.
    pub number: u64,
    /// Bytes of the file.
    pub len: u64,
}

/// Lists the shards of a folder, by number. Other tar files, and unfinished ones, are added to `findings`.
///
/// # Errors
/// The folder cannot be listed, or has no shard.
pub(super) fn shard_files(store: &dyn Store, folder: &Path, findings: &mut Vec<Finding>) -> Result<Vec<ShardFile>> {
    let mut files = Vec::new();
    let doing = "list the folder of shards (name a mount, or what materialize wrote)";
    let listed = store.list(folder).map_err(|error| Error::io(folder, doing, error))?;
    for Listed { name, size } in listed {
        if is_unfinished(&name) {
            let what = "an unfinished shard of a run that stopped, or goes on";
            findings.push(Finding::new(Verdict::Incomplete, &name, what));
        }
        if !name.ends_with(".tar") {
            continue;
        }
        let number = name.strip_prefix("shard-").and_then(|name| name.strip_suffix(".tar"));
        let number = number.filter(|digits| digits.len() >= 6).and_then(|digits| digits.parse().ok());
        match (number, size) {
            (Some(number), Ok(len)) => files.push(ShardFile { path: folder.join(&name), name, number, len }),
            (None, _) => findings.push(Finding::damaged(&name, "a tar file that is no shard of this data set")),
            (_, Err(error)) => {
                findings.push(Finding::unread(&name, "it cannot be looked at", error));
            }
        }
    }
    if files.is_empty() && findings.is_empty() {
        return Err(Error::Refused(format!("{}: there is no shard (shard-000000.tar, …)", folder.display())));
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// Whether a file of this name is a tar file that a run has not finished: `NAME.tar.partial`, or
/// `NAME.tar.PROCESS.partial`.
fn is_unfinished(name: &str) -> bool {
    let Some(name) = name.strip_suffix(".partial") else { return false };
    let written = name.rsplit_once('.').filter(|(_, process)| process.contains('-')).map(|(output, _)| output);
    [Some(name), written].into_iter().flatten().any(|output| output.ends_with(".tar"))
}
