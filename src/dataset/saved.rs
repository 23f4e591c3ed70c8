//! What earlier scans found in the NPZ files, so that a second scan opens only those that are new or have changed: a
//! file of the user's cache folder for each data folder and array option.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::file_id::FileId;
use crate::base::user_cache;
use crate::formats::npz::Array;

/// What a scan found in one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Finding {
    /// A volume.
    Volume(Array),
    /// Why it is none.
    Malformed(FileId, String),
    /// Why the user leaves it out; the file was not opened, and this is not saved.
    Excluded(FileId, String),
}

impl Finding {
    pub(super) fn file_id(&self) -> &FileId {
        match self {
            Self::Volume(array) => &array.file_id,
            Self::Malformed(file_id, _) | Self::Excluded(file_id, _) => file_id,
        }
    }
}

/// The findings by relative path.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved(HashMap<PathBuf, Finding>);

impl Saved {
    /// The findings in `file`, or none.
    pub(super) fn load(file: &Path) -> Self {
        user_cache::load(file).unwrap_or_default()
    }

    /// What was found in a file, if anything, whether or not that still holds.
    pub(super) fn get(&self, path: &Path) -> Option<&Finding> {
        self.0.get(path)
    }

    /// Whether it knows exactly these files, or (of a part of the data set) all of them, so that there is nothing to
    /// write.
    pub(super) fn knows(&self, findings: &[Found<'_>], is_part: bool) -> bool {
        let is_known =
            |(path, finding): &Found<'_>| self.get(path).is_some_and(|known| known.file_id() == finding.file_id());
        (is_part || self.0.len() == findings.len()) && findings.iter().all(is_known)
    }

    /// Writes findings to `file`, beside those of other files where they are of a part of the data set only.
    pub(super) fn store(&self, file: &Path, findings: &[Found<'_>], is_part: bool) {
        let mut others = HashMap::new();
        if is_part {
            others.extend(self.0.iter().map(|(path, finding)| (path.as_path(), finding)));
            for (path, _) in findings {
                others.remove(path);
            }
        }
        let settled = user_cache::settled_before();
        let all = findings.iter().copied().chain(others);
        user_cache::store(file, &Map(all.filter(|(_, finding)| finding.file_id().mtime_ns < settled).collect()));
    }
}

/// What was found in the file of a relative path.
pub(super) type Found<'a> = (&'a Path, &'a Finding);

/// Written as a map is, without a copy of what is in it.
struct Map<'a>(Vec<Found<'a>>);

impl Serialize for Map<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// The file for a data folder and array option in the cache folder `cache`.
pub(super) fn file(cache: &Path, data_folder: &Path, array: Option<&str>) -> PathBuf {
    let mut hasher = Sha256::new();
    hasher.update(data_folder.as_os_str().as_bytes());
    hasher.update([0]);
    hasher.update(array.unwrap_or_default());
    cache.join(format!("scan-{:x}.bin", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed(mtime_ns: i128) -> Finding {
        Finding::Malformed(FileId { size: 5, mtime_ns, inode: 7 }, "cut short".into())
    }

    #[test]
    fn only_what_has_settled_is_saved() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder.path().join("cache"), Path::new("/data"), None);
        let fresh = user_cache::settled_before() + 1_000_000_000;
        let (old, new, other) = (malformed(1), malformed(fresh), malformed(2));
        let findings = [(Path::new("a.npz"), &old), (Path::new("b.npz"), &new)];
        Saved::default().store(&file, &findings, false);
        let saved = Saved::load(&file);
        assert!(saved.get(Path::new("a.npz")).is_some() && saved.get(Path::new("b.npz")).is_none());
        assert!(!saved.knows(&findings, false) && !saved.knows(&findings, true));
        let part = [(Path::new("c.npz"), &other)];
        saved.store(&file, &part, true);
        let saved = Saved::load(&file);
        assert!(saved.get(Path::new("a.npz")).is_some());
        assert!(saved.knows(&part, true) && !saved.knows(&part, false));
        saved.store(&file, &part, false);
        assert!(Saved::load(&file).get(Path::new("a.npz")).is_none());
    }

    #[test]
    fn what_changed_in_a_part_replaces_what_was_found_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder.path().join("cache"), Path::new("/data"), None);
        let (old, new) = (malformed(1), malformed(2));
        // In the order of a scan, that of the bytes: as paths, component by component, these compare the other way.
        let paths = ["a b/1.npz", "a-b/1.npz", "a/1.npz", "a0/1.npz", "b.c/1.npz", "b/1.npz", "c.npz"].map(Path::new);
        Saved::default().store(&file, &paths.map(|path| (path, &old)), false);
        let part = paths.map(|path| (path, &new));
        let part = &part[..part.len() - 1];
        Saved::load(&file).store(&file, part, true);
        let saved = Saved::load(&file);
        assert!(saved.knows(part, true), "{saved:?}");
        assert_eq!(saved.get(Path::new("c.npz")).unwrap().file_id(), old.file_id());
    }
}
