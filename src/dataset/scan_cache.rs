//! The data set's file in the user's cache folder: what earlier scans found in the NPZ files, so that a second scan
//! opens only files that are new or have changed. Each data folder and array option has a file of its own.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::file_id::FileId;
use crate::base::user_cache;
use crate::formats::npz::{Array, ArrayChoice};

/// The result of looking into one NPZ file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Finding {
    /// The file holds a volume: this array.
    Volume(Array),
    /// The file holds no volume: its state, and the reason.
    Malformed(FileId, String),
    /// The user leaves the file out: its state, and the reason. The file was not opened, and this is not kept.
    Excluded(FileId, String),
}

impl Finding {
    /// The state of the file that was looked into.
    pub(super) fn file_id(&self) -> &FileId {
        match self {
            Self::Volume(array) => &array.file_id,
            Self::Malformed(file_id, _) | Self::Excluded(file_id, _) => file_id,
        }
    }
}

/// A path relative to the data folder, and what was found in its file.
#[derive(Clone, Copy)]
pub(super) struct PathFinding<'a> {
    /// The path.
    pub(super) path: &'a Path,
    /// The finding.
    pub(super) finding: &'a Finding,
}

/// The findings of earlier scans, by path relative to the data folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ScanCache(HashMap<PathBuf, Finding>);

impl ScanCache {
    /// Reads the findings in `file`; none if the file is missing or unusable.
    pub(super) fn load(file: &Path) -> Self {
        user_cache::load(file).unwrap_or_default()
    }

    /// The earlier finding of a path, whether or not the file has changed since; `None` if there is none.
    pub(super) fn get(&self, path: &Path) -> Option<&Finding> {
        self.0.get(path)
    }

    /// Whether the cache holds exactly these findings, so that there is nothing to write. With `is_part`, the findings
    /// are of a part of the data set, and the cache may hold more.
    pub(super) fn knows(&self, findings: &[PathFinding<'_>], is_part: bool) -> bool {
        let is_known = |found: &PathFinding<'_>| {
            self.get(found.path).is_some_and(|known| known.file_id() == found.finding.file_id())
        };
        (is_part || self.0.len() == findings.len()) && findings.iter().all(is_known)
    }

    /// Writes `findings` to `file`. With `is_part`, they are of a part of the data set, and the cache's findings of
    /// other files are written as well. Files that changed just now are left out, because they may change again
    /// unnoticed.
    pub(super) fn store(&self, file: &Path, findings: &[PathFinding<'_>], is_part: bool) {
        let mut others = HashMap::new();
        if is_part {
            others.extend(self.0.iter().map(|(path, finding)| (path.as_path(), finding)));
            for found in findings {
                others.remove(found.path);
            }
        }
        let settled = user_cache::settled_before();
        let others = others.into_iter().map(|(path, finding)| PathFinding { path, finding });
        let all = findings.iter().copied().chain(others);
        user_cache::store(file, &AsMap(all.filter(|found| found.finding.file_id().latest_ns() < settled).collect()));
    }
}

/// Findings that are written in the format of [`ScanCache`], without a copy of them.
struct AsMap<'a>(Vec<PathFinding<'a>>);

impl Serialize for AsMap<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|found| (found.path, found.finding)))
    }
}

/// The path of the file for a data folder and choice of arrays, in the cache folder `cache`.
pub(super) fn file(cache: &Path, data_folder: &Path, array: &ArrayChoice) -> PathBuf {
    let mut hasher = Sha256::new();
    hasher.update(data_folder.as_os_str().as_bytes());
    hasher.update([0]);
    hasher.update(format!("{array:?}"));
    cache.join(format!("scan-{:x}.bin", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(path: &'a str, finding: &'a Finding) -> PathFinding<'a> {
        PathFinding { path: Path::new(path), finding }
    }

    fn malformed(ctime_ns: i128) -> Finding {
        Finding::Malformed(FileId { size: 5, mtime_ns: 1, ctime_ns, inode: 7 }, "cut short".into())
    }

    #[test]
    fn only_what_has_settled_is_saved() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder.path().join("cache"), Path::new("/data"), &ArrayChoice::default());
        let fresh = user_cache::settled_before() + 1_000_000_000;
        let (old, new, other) = (malformed(1), malformed(fresh), malformed(2));
        let findings = [found("a.npz", &old), found("b.npz", &new)];
        ScanCache::default().store(&file, &findings, false);
        let saved = ScanCache::load(&file);
        assert!(saved.get(Path::new("a.npz")).is_some() && saved.get(Path::new("b.npz")).is_none());
        assert!(!saved.knows(&findings, false) && !saved.knows(&findings, true));
        let part = [found("c.npz", &other)];
        saved.store(&file, &part, true);
        let saved = ScanCache::load(&file);
        assert!(saved.get(Path::new("a.npz")).is_some());
        assert!(saved.knows(&part, true) && !saved.knows(&part, false));
        saved.store(&file, &part, false);
        assert!(ScanCache::load(&file).get(Path::new("a.npz")).is_none());
    }

    #[test]
    fn what_changed_in_a_part_replaces_what_was_found_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder.path().join("cache"), Path::new("/data"), &ArrayChoice::default());
        let (old, new) = (malformed(1), malformed(2));
        // In the order of a scan, that of the bytes: as paths, component by component, these compare the other way.
        let paths = ["a b/1.npz", "a-b/1.npz", "a/1.npz", "a0/1.npz", "b.c/1.npz", "b/1.npz", "c.npz"];
        ScanCache::default().store(&file, &paths.map(|path| found(path, &old)), false);
        let part = paths.map(|path| found(path, &new));
        let part = &part[..part.len() - 1];
        ScanCache::load(&file).store(&file, part, true);
        let saved = ScanCache::load(&file);
        assert!(saved.knows(part, true), "{saved:?}");
        assert_eq!(saved.get(Path::new("c.npz")).unwrap().file_id(), old.file_id());
    }
}
