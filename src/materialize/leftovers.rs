//! Unfinished files that earlier runs left in an output folder.

use std::collections::BTreeSet;
use std::path::Path;

use super::index_files;
use crate::base::beneath::is_link;
use crate::base::files::{file_name, list, remove as remove_file};
use crate::base::partial_name::{PartialName, Writer, is_locked};
use crate::dataset::quarantine;
use crate::error::Result;
use crate::output::indexes::{self, ENERGON_FOLDER};
use crate::output::manifest;
use crate::output::partition::Part;
use crate::plan::Plan;

/// The unfinished files that a run found.
#[derive(Default)]
pub(super) struct Leftovers {
    /// Names of those that stay, because a process may be writing them, in order.
    stay: Vec<String>,
    /// The processes whose files were removed.
    ended: BTreeSet<u32>,
}

impl Leftovers {
    /// What is to be said of them, a sentence each.
    pub(super) fn remarks(&self, folder: &Path) -> Vec<String> {
        let (folder, names) = (folder.display(), self.stay.join(", "));
        let stay = (!names.is_empty()).then(|| {
            format!("{folder}: unfinished files of runs that may go on elsewhere stay (--clean removes them): {names}")
        });
        let ended = self.ended.iter().map(|process| {
            format!(
                "{folder}: process {process} was ended in the middle of its work, by a signal or by the kernel for \
                 lack of memory (dmesg tells); its unfinished files were removed"
            )
        });
        ended.chain(stay).collect()
    }
}

/// Removes the unfinished files of a part whose processes ran on this host and have ended. With `clean`, those of other
/// hosts are removed as well.
///
/// # Errors
/// [`crate::error::Error::Io`] if a folder cannot be listed, or a file not removed.
pub(super) fn remove(folder: &Path, part: Part, clean: bool) -> Result<Leftovers> {
    let mut paths = list(folder)?;
    let energon = folder.join(ENERGON_FOLDER);
    if energon.is_dir() && !is_link(&energon) {
        paths.extend(list(&energon)?);
    }
    let mut found = Leftovers::default();
    for path in paths {
        let name = file_name(&path);
        let Some(partial) = PartialName::parse(&name) else { continue };
        // A run that writes files common to all shards holds the lock of the whole folder, so no other run does now.
        let becomes = path.with_file_name(partial.output);
        let is_common = index_files::common(folder).any(|(_, common)| common == becomes);
        let is_ours = is_common || path.parent() == Some(folder) && is_of_part(partial.output, part);
        if !is_ours {
            continue;
        }
        if partial.is_left(&path) || (clean && !is_locked(&path)) {
            remove_file(&path, "remove the unfinished file")?;
            found.ended.extend(partial.writer.filter(Writer::is_gone).map(|writer| writer.process));
        } else {
            found.stay.push(name);
        }
    }
    found.stay.sort();
    Ok(found)
}

/// Whether a run of the part writes the file of this name.
fn is_of_part(output: &str, part: Part) -> bool {
    let of_part = |kind| Part::of_file(output, kind).is_some_and(|other| other.overlaps(part));
    let shard = Plan::shard_named(output).or_else(|| indexes::shard_of_index(output));
    shard.is_some_and(|id| part.has(id)) || of_part(manifest::FILE) || of_part(quarantine::FILE)
}
