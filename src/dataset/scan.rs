//! The NPZ files of a data folder, in an order that is the same on every machine.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::parallel::try_map;

/// The folder depths that data sets use: `*.npz`, `*/*.npz`, `*/*/*.npz`.
const DEPTHS: usize = 3;

/// The volumes of a data folder.
#[derive(Debug)]
pub(super) struct Found {
    /// Paths relative to the data folder, sorted by their bytes.
    pub files: Vec<PathBuf>,
    /// Files that lie at the depths that were not chosen.
    pub elsewhere: usize,
}

/// Lists `*.npz` at all three depths and takes the depth that has the most, the deepest of equals. Follows symbolic
/// links; leaves out names that begin with a dot, as a shell's (and Python's) glob does.
///
/// # Errors
/// [`Error::Io`] if a folder cannot be read, [`Error::Refused`] if there is no volume, or a cycle of links.
pub(super) fn find_volumes(root: &Path, threads: usize) -> Result<Found> {
    if !fs::metadata(root).map_err(|error| Error::io(root, "open the data folder", error))?.is_dir() {
        return Err(Error::Refused(format!("--data-folder {}: not a folder", root.display())));
    }
    let mut folders = vec![PathBuf::new()];
    let mut by_depth: Vec<Vec<PathBuf>> = Vec::new();
    for depth in 1..=DEPTHS {
        let listings = try_map(&folders, threads, |folder| list(root, folder, depth < DEPTHS))?;
        let (files, deeper): (Vec<_>, Vec<_>) = listings.into_iter().unzip();
        by_depth.push(files.into_iter().flatten().collect());
        folders = deeper.into_iter().flatten().collect();
    }
    let counts: Vec<usize> = by_depth.iter().map(Vec::len).collect();
    let chosen = (0..DEPTHS).max_by_key(|depth| counts[*depth]).unwrap_or(0); // the last of equals
    if counts[chosen] == 0 {
        return Err(Error::Refused(format!(
            "--data-folder {}: no NPZ file found; looked for *.npz ({}), */*.npz ({}) and */*/*.npz ({}). \
             Is this the folder that holds the volumes?",
            root.display(),
            counts[0],
            counts[1],
            counts[2]
        )));
    }
    let mut files = std::mem::take(&mut by_depth[chosen]);
    files.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(Found { files, elsewhere: by_depth.iter().map(Vec::len).sum() })
}

/// The NPZ files and (if wanted) the folders directly in `folder`.
fn list(root: &Path, folder: &Path, want_folders: bool) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let here = root.join(folder);
    let failed = |error: io::Error| Error::io(&here, "list the folder", error);
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(&here).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let is_npz = name.as_bytes().ends_with(b".npz");
        let mut kind = entry.file_type().map_err(failed)?;
        if kind.is_symlink() {
            if !is_npz && !want_folders {
                continue;
            }
            match fs::metadata(entry.path()) {
                Ok(target) if target.is_dir() && !is_npz => {
                    refuse_cycle(&here, &entry.path())?;
                    kind = target.file_type();
                }
                Ok(target) => kind = target.file_type(),
                // A link to nowhere that claims to be a volume is reported; any other is none of our business.
                Err(error) if is_npz || error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(&entry.path(), "follow the symbolic link", error));
                }
                Err(_) => continue,
            }
        }
        if kind.is_file() && is_npz {
            files.push(folder.join(name));
        } else if kind.is_dir() && want_folders {
            folders.push(folder.join(name));
        }
    }
    Ok((files, folders))
}

/// A link to a folder that it lies in would present the same volumes under several names.
fn refuse_cycle(folder: &Path, link: &Path) -> Result<()> {
    let resolve = |path: &Path| fs::canonicalize(path).map_err(|error| Error::io(path, "resolve the path", error));
    let target = resolve(link)?;
    if resolve(folder)?.starts_with(&target) {
        let (link, target) = (link.display(), target.display());
        return Err(Error::Refused(format!(
            "{link}: this symbolic link leads back to {target}, a cycle; remove the link"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        dir
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let found = find_volumes(dir.path(), 4).unwrap();
        found.files.iter().map(|p| p.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_fullest_depth_wins_and_the_deepest_of_equals() {
        assert_eq!(names(&tree(&["a.npz", "b.npz", "x/c.npz"])), ["a.npz", "b.npz"]);
        assert_eq!(names(&tree(&["a.npz", "x/c.npz", "x/y/d.npz"])), ["x/y/d.npz"]);
        assert_eq!(names(&tree(&["a.npz", "x/y/z/deeper.npz", ".hidden.npz", ".h/x.npz", "b.NPZ"])), ["a.npz"]);
    }

    #[test]
    fn the_order_is_that_of_the_whole_path_in_bytes() {
        // '-' < '/' < '0': a sort by components would put a/ first.
        assert_eq!(
            names(&tree(&["a/1.npz", "a-b/1.npz", "a0/1.npz", "B/1.npz"])),
            ["B/1.npz", "a-b/1.npz", "a/1.npz", "a0/1.npz"]
        );
    }

    #[test]
    fn links_are_followed_and_cycles_refused() {
        let dir = tree(&["real/a.npz", "real/b.npz"]);
        symlink("real", dir.path().join("linked")).unwrap();
        symlink("../nowhere", dir.path().join("real/dangling")).unwrap();
        assert_eq!(names(&dir), ["linked/a.npz", "linked/b.npz", "real/a.npz", "real/b.npz"]);
        symlink("..", dir.path().join("real/up")).unwrap();
        let error = find_volumes(dir.path(), 4).unwrap_err().to_string();
        assert!(error.contains("real/up") && error.contains("cycle"), "{error}");
    }

    #[test]
    fn nothing_found_says_where_it_looked() {
        let error = find_volumes(tree(&["x/y/readme"]).path(), 1).unwrap_err().to_string();
        assert!(error.contains("*.npz (0), */*.npz (0) and */*/*.npz (0)"), "{error}");
    }
}
