//! Removing one file, if it is the one that was compared. No symbolic link is followed below the data folder.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fsync, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::base::file_id::FileId;

/// A file, as an entry of an open folder.
struct FolderEntry<'a> {
    folder: OwnedFd,
    name: &'a OsStr,
}

/// Whether a relative path that was read from a file stays below its folder.
pub(super) fn is_inside(path: &Path) -> bool {
    path.file_name().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// The number of bytes that removing a file frees: 0 while it has other hard links. `path` is relative to `root`.
///
/// # Errors
/// The reason why the file must not be removed.
pub(super) fn removable(root: &File, path: &Path, expected: &FileId) -> Result<u64, String> {
    let stat = check(&find(root, path)?, expected)?;
    Ok(if stat.st_nlink > 1 { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) })
}

/// Removes a file and makes that durable. A file whose removal is not known to be durable counts as removed.
///
/// # Errors
/// The reason why the file is still there.
pub(super) fn remove(root: &File, path: &Path, expected: &FileId) -> Result<(), String> {
    let entry = find(root, path)?;
    check(&entry, expected)?;
    unlinkat(&entry.folder, entry.name, AtFlags::empty())
        .map_err(|error| format!("it cannot be removed: {}", io::Error::from(error)))?;
    if let Err(error) = fsync(&entry.folder) {
        log::warn!("{}: the removal may not be durable: {}", path.display(), io::Error::from(error));
    }
    Ok(())
}

/// The state of a file that is still the expected one, or why it must not be removed.
fn check(entry: &FolderEntry<'_>, expected: &FileId) -> Result<Stat, String> {
    let stat = statat(&entry.folder, entry.name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| format!("it cannot be looked at: {}", io::Error::from(error)))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err("it is a symbolic link; remove it and the file that it leads to yourself".into());
    }
    match expected.difference(&FileId::of_stat(&stat)) {
        Some(detail) => Err(format!("it has changed since it was compared ({detail}); run reclaim again")),
        None => Ok(stat),
    }
}

/// Opens the folder of a file, one component of the path after the other.
fn find<'a>(root: &File, path: &'a Path) -> Result<FolderEntry<'a>, String> {
    let failed = |error: Errno| match error {
        Errno::LOOP | Errno::NOTDIR => {
            "a folder on its path is a symbolic link; name the folder that it leads to as --data-folder".into()
        }
        error => format!("its folder cannot be opened: {}", io::Error::from(error)),
    };
    let name = path.file_name().filter(|_| is_inside(path)).ok_or("it is not below the data folder")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = openat(root, ".", flags, Mode::empty()).map_err(failed)?;
    for part in path.parent().into_iter().flat_map(Path::components) {
        folder = openat(&folder, part.as_os_str(), flags, Mode::empty()).map_err(failed)?;
    }
    Ok(FolderEntry { folder, name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn file_id(path: &Path) -> FileId {
        FileId::of(&fs::metadata(path).unwrap())
    }

    #[test]
    fn only_the_file_that_was_compared_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, path) = (File::open(dir.path()).unwrap(), dir.path().join("a/b/v.npz"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"four").unwrap();
        let expected = file_id(&path);
        assert_eq!(removable(&root, Path::new("a/b/v.npz"), &expected), Ok(4));
        fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(removable(&root, Path::new("a/b/v.npz"), &expected).unwrap_err().contains("ctime"));
        let expected = file_id(&path);
        assert_eq!(removable(&root, Path::new("a/b/v.npz"), &expected), Ok(0));
        fs::rename(&path, dir.path().join("away")).unwrap();
        fs::write(&path, b"five").unwrap();
        assert!(remove(&root, Path::new("a/b/v.npz"), &expected).unwrap_err().contains("changed"));
        let expected = file_id(&path);
        remove(&root, Path::new("a/b/v.npz"), &expected).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/v.npz"), b"1").unwrap();
        symlink("real", dir.path().join("folder")).unwrap();
        symlink("real/v.npz", dir.path().join("file.npz")).unwrap();
        let expected = file_id(&dir.path().join("file.npz"));
        for path in ["folder/v.npz", "file.npz", "../v.npz", "real/../real/v.npz"] {
            let why = remove(&root, Path::new(path), &expected).unwrap_err();
            assert!(why.contains("link") || why.contains("below"), "{path}: {why}");
        }
        assert!(dir.path().join("real/v.npz").exists() && dir.path().join("file.npz").exists());
    }
}
