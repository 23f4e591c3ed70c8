//! The list of all objects below a prefix: which of them are volumes, and whether a later list is the same.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::Source;
use crate::base::file_id::FileId;
use crate::error::{Error, Result};
use crate::storage::{ListedObject, Store};

/// A list as a whole: while another one is equal to it, no volume was added, removed or replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    /// The address of the prefix.
    pub(super) root: PathBuf,
    /// SHA-256 of the paths and the identities of all objects that are volumes by their names.
    digest: [u8; 32],
    /// The latest change, in nanoseconds since 1970, of what has no `ETag` in the list; 0 if all have one.
    pub(super) latest_ns: i128,
}

impl Listing {
    /// Lists what is below a prefix: the objects by ascending paths, without those in whose path a name begins with a
    /// dot, and the list as a whole. `None` for a folder on a disk.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no list.
    pub(super) fn below(store: &dyn Store, root: &Path) -> Result<Option<(Self, Vec<ListedObject>)>> {
        let listed = store.list_below(root).map_err(|error| Error::io(root, "list the objects", error))?;
        let Some(mut objects) = listed else { return Ok(None) };
        objects.retain(|object| !object.path.iter().any(|name| name.as_bytes().starts_with(b".")));
        objects.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
        let (mut hasher, mut latest_ns) = (Sha256::new(), 0);
        for ListedObject { path, identity } in &objects {
            if path.file_name().is_some_and(|name| Source::Auto.is_volume(name)) {
                let FileId { size, mtime_ns, inode, .. } = identity;
                hasher.update(path.as_os_str().as_bytes());
                hasher.update(format!("\0{size} {mtime_ns} {inode}\n"));
                latest_ns = latest_ns.max(*mtime_ns);
            }
        }
        Ok(Some((Self { root: root.to_owned(), digest: hasher.finalize().into(), latest_ns }, objects)))
    }

    /// Whether a list of the same prefix is the same now.
    pub(super) fn is_current(&self, store: &dyn Store) -> bool {
        Self::below(store, &self.root).is_ok_and(|now| now.is_some_and(|(now, _)| now == *self))
    }
}
