//! The NPZ files of a data folder, in an order that is the same on every machine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawDir};

use crate::base::file_id::FileId;
use crate::base::parallel::try_map;
use crate::error::{Error, Result};

/// The number of folder depths that data sets use: `*.npz`, `*/*.npz`, `*/*/*.npz`.
const DEPTHS: usize = 3;
/// The bytes of names that one system call returns at most.
const NAMES: usize = 32 << 10;

/// The volumes that were found in a data folder.
#[derive(Debug)]
pub(super) struct FoundVolumes {
    /// The paths of the NPZ files relative to the data folder, sorted by their bytes.
    pub files: Vec<PathBuf>,
    /// The number of NPZ files at the depths that were not chosen.
    pub elsewhere: usize,
    /// The folders that were listed, relative to the data folder, and their states before.
    pub folders: Vec<(PathBuf, FileId)>,
    /// Whether the folders' states show every change: not where a symbolic link leads elsewhere, or to nothing yet.
    pub certain: bool,
}

impl FoundVolumes {
    /// The volumes of a list of files; no folder is listed.
    pub(super) fn of(files: &[PathBuf]) -> Self {
        Self { files: sorted(files.to_vec()), elsewhere: 0, folders: Vec::new(), certain: false }
    }
}

fn sorted(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    files
}

/// The NPZ files and folders directly in a folder.
struct Listing {
    state: FileId,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    certain: bool,
}

/// Lists `*.npz` below `root` at all three depths and takes the depth that has the most, the deepest of equals. Follows
/// symbolic links; leaves out names that begin with a dot, as a shell's (and Python's) glob does.
///
/// # Errors
/// [`Error::Io`] if a folder cannot be read, [`Error::Refused`] if there is no volume, or a cycle of links.
pub(super) fn find_volumes(root: &Path, threads: usize) -> Result<FoundVolumes> {
    if !fs::metadata(root).map_err(|error| Error::io(root, "open the data folder", error))?.is_dir() {
        return Err(Error::Refused(format!("--data-folder {}: not a folder", root.display())));
    }
    let open = File::open(root).map_err(|error| Error::io(root, "open the data folder", error))?;
    let mut folders = vec![PathBuf::new()];
    let mut by_depth: Vec<Vec<PathBuf>> = Vec::new();
    let (mut listed, mut certain) = (Vec::new(), true);
    for depth in 1..=DEPTHS {
        let listings = try_map(&folders, threads, |folder| list(root, &open, folder, depth < DEPTHS))?;
        by_depth.push(Vec::new());
        let here = std::mem::take(&mut folders);
        for (folder, listing) in here.into_iter().zip(listings) {
            by_depth[depth - 1].extend(listing.files);
            folders.extend(listing.folders);
            listed.push((folder, listing.state));
            certain &= listing.certain;
        }
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
    let files = sorted(std::mem::take(&mut by_depth[chosen]));
    Ok(FoundVolumes { files, elsewhere: by_depth.iter().map(Vec::len).sum(), folders: listed, certain })
}

/// The NPZ files and (if wanted) the folders directly in `folder`, which is relative to `root`.
fn list(root: &Path, open_root: &File, folder: &Path, want_folders: bool) -> Result<Listing> {
    let here = || root.join(folder);
    let failed = |error: rustix::io::Errno| Error::io(&here(), "list the folder", error.into());
    // By system calls: the standard library looks each folder up and stats it once more, and there are 23,000 of them.
    // Relative to the open root: the kernel looks up two names for each, not ten. Into memory of the stack: allocating
    // and freeing it 47,000 times showed in the profile.
    let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let open = rustix::fs::openat(open_root, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let open = open.map_err(failed)?;
    let state = FileId::of_stat(&rustix::fs::fstat(&open).map_err(failed)?);
    let mut listing = Listing { state, files: Vec::new(), folders: Vec::new(), certain: true };
    let mut names = [MaybeUninit::uninit(); NAMES];
    let mut entries = RawDir::new(open, &mut names);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let is_npz = name.as_bytes().ends_with(b".npz");
        let kind = match entry.file_type() {
            FileType::Symlink if !is_npz && !want_folders => continue,
            FileType::Symlink | FileType::Unknown => listing.look_at(&here(), name, is_npz)?,
            kind => Some(kind),
        };
        match kind {
            Some(FileType::RegularFile) if is_npz => listing.files.push(folder.join(name)),
            Some(FileType::Directory) if want_folders => listing.folders.push(folder.join(name)),
            _ => {}
        }
    }
    Ok(listing)
}

impl Listing {
    /// The type of an entry, or of what a symbolic link leads to. A broken link that has the name of a volume counts as
    /// a file, so that the volume keeps its slot until it is there; `None` for any other broken link.
    fn look_at(&mut self, folder: &Path, name: &OsStr, is_npz: bool) -> Result<Option<FileType>> {
        let path = folder.join(name);
        let entry = fs::symlink_metadata(&path).map_err(|error| Error::io(&path, "stat the entry", error))?;
        if !entry.is_symlink() {
            return Ok(Some(FileType::from_raw_mode(entry.mode())));
        }
        match fs::metadata(&path) {
            Ok(target) if target.is_dir() && !is_npz => {
                refuse_cycle(folder, &path)?;
                Ok(Some(FileType::Directory))
            }
            Ok(target) => {
                self.certain &= is_npz && target.is_file(); // anything else may become a folder or a volume
                Ok(Some(FileType::from_raw_mode(target.mode())))
            }
            Err(error) if leads_nowhere(&error) => {
                self.certain = false;
                Ok(is_npz.then_some(FileType::RegularFile))
            }
            Err(error) => Err(Error::io(&path, "follow the symbolic link", error)),
        }
    }
}

/// Whether the error of following a symbolic link is the link's own: what it leads to is not there (git-annex, a
/// download that is not finished), or it leads back to itself. Any other may be gone at the next attempt.
pub(super) fn leads_nowhere(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP | libc::ENOTDIR | libc::ENAMETOOLONG))
}

/// Refuses a link to a folder that it lies in, which would present the same volumes under several names.
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
