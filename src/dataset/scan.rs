//! The volumes of a data folder, in an order that is the same on every machine.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawDir};

use super::files::{FileChoice, Source};
use super::found::{DEPTHS, FoundObjects, FoundVolumes, InFolder, MORE_DEPTHS, PATTERN_DEPTHS, is_half};
use super::listing::Listing;
use super::progress::ScanProgress;
use crate::base::file_id::FileId;
use crate::base::files;
use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::storage::{ListedObject, Store};

/// The bytes of names that one system call returns at most.
const NAMES: usize = 32 << 10;

/// The volumes and folders directly in a folder.
struct FolderList {
    state: FileId,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    certain: bool,
    /// One of the files that are half of a NIfTI volume.
    half: Option<PathBuf>,
}

/// Lists the volumes below `root`: those of the three depths that data sets use, or where these have none, down to the
/// eighth; and takes the depth that has the most, the deepest of equals. With patterns, takes the files that match one.
/// Follows symbolic links; leaves out names that begin with a dot, as a shell's (and Python's) glob does.
///
/// # Errors
/// [`Error::Io`] if a folder cannot be read, [`Error::Refused`] if there is no volume, nothing matches a pattern, or a
/// cycle of links.
pub(super) fn find_volumes(
    (store, root): (&dyn Store, &Path),
    choice: &FileChoice,
    threads: usize,
    progress: &ScanProgress,
) -> Result<FoundVolumes> {
    progress.begin("volumes found", None);
    if let Some((listing, objects)) = Listing::below(store, root)? {
        return of_objects(root, choice, progress, (listing, objects));
    }
    if !fs::metadata(root).map_err(|error| Error::io(root, "open the data folder", error))?.is_dir() {
        return Err(Error::Refused(format!("--data-folder {}: not a folder", root.display())));
    }
    let open = files::open_folder(root).map_err(|error| Error::io(root, "open the data folder", error))?;
    let level = vec![PathBuf::new()];
    let in_folder = InFolder { root, source: choice.source, half: None };
    let walk =
        Walk { in_folder, open, threads, progress, level, by_depth: Vec::new(), listed: Vec::new(), certain: true };
    if choice.patterns.is_empty() { walk.fullest_depth() } else { walk.matching(choice) }
}

/// The volumes among the objects below a prefix, by the rules for folders.
fn of_objects(
    root: &Path,
    choice: &FileChoice,
    progress: &ScanProgress,
    (listing, objects): (Listing, Vec<ListedObject>),
) -> Result<FoundVolumes> {
    let mut in_folder = InFolder { root, source: choice.source, half: None };
    let mut by_depth = vec![Vec::new(); if choice.patterns.is_empty() { MORE_DEPTHS } else { PATTERN_DEPTHS }];
    let mut states = HashMap::new();
    for ListedObject { path, identity } in objects {
        let Some(name) = path.file_name() else { continue };
        let place = by_depth.get_mut(path.iter().count() - 1);
        match place {
            Some(files) if choice.source.is_volume(name) => {
                files.push(path.clone());
                states.insert(path, identity);
            }
            Some(_) if in_folder.half.is_none() && is_half(name) => in_folder.half = Some(path),
            _ => {}
        }
    }
    progress.seen(states.len());
    let files = if choice.patterns.is_empty() {
        if by_depth[..DEPTHS].iter().any(|files| !files.is_empty()) {
            by_depth.truncate(DEPTHS);
        }
        in_folder.fullest(&mut by_depth)?
    } else {
        in_folder.matching(&mut by_depth, choice)?
    };
    let elsewhere = by_depth.iter().map(Vec::len).sum();
    let objects = Some(FoundObjects { listing, states });
    Ok(FoundVolumes { files, elsewhere, folders: Vec::new(), certain: true, objects })
}

/// A walk through the folders below the data folder, depth by depth.
struct Walk<'a> {
    in_folder: InFolder<'a>,
    open: File,
    threads: usize,
    progress: &'a ScanProgress,
    /// The folders that are listed next.
    level: Vec<PathBuf>,
    /// The volumes of each depth so far.
    by_depth: Vec<Vec<PathBuf>>,
    /// The folders that were listed, and their states before.
    listed: Vec<(PathBuf, FileId)>,
    certain: bool,
}

impl Walk<'_> {
    /// Lists the folders of the next depth; those in them that `enters` wants are listed after.
    fn step(&mut self, enters: impl Fn(&Path) -> bool + Sync) -> Result<()> {
        let here = std::mem::take(&mut self.level);
        let InFolder { root, source, .. } = self.in_folder;
        let list = |folder: &PathBuf| {
            let listing = list(root, &self.open, folder, source, &enters)?;
            self.progress.seen(listing.files.len());
            Ok::<_, Error>(listing)
        };
        let listings = try_map(&here, self.threads, list)?;
        let mut files = Vec::new();
        for (folder, listing) in here.into_iter().zip(listings) {
            files.extend(listing.files);
            self.level.extend(listing.folders);
            self.listed.push((folder, listing.state));
            self.certain &= listing.certain;
            self.in_folder.half = self.in_folder.half.take().or(listing.half);
        }
        self.by_depth.push(files);
        Ok(())
    }

    fn fullest_depth(mut self) -> Result<FoundVolumes> {
        let mut before = 0;
        for depth in 1..=DEPTHS {
            before = self.listed.len();
            self.step(|_| depth < DEPTHS)?;
        }
        if self.by_depth.iter().all(Vec::is_empty) {
            // The last depth once more, for the folders in it.
            self.level = self.listed.split_off(before).into_iter().map(|(folder, _)| folder).collect();
            self.by_depth.pop();
            for depth in DEPTHS..=MORE_DEPTHS {
                self.step(|_| depth < MORE_DEPTHS)?;
            }
        }
        let files = self.in_folder.fullest(&mut self.by_depth)?;
        Ok(self.found(files))
    }

    fn matching(mut self, choice: &FileChoice) -> Result<FoundVolumes> {
        while !self.level.is_empty() && self.by_depth.len() < PATTERN_DEPTHS {
            self.step(|folder| choice.enters(folder))?;
        }
        let files = self.in_folder.matching(&mut self.by_depth, choice)?;
        Ok(self.found(files))
    }

    fn found(self, files: Vec<PathBuf>) -> FoundVolumes {
        let elsewhere = self.by_depth.iter().map(Vec::len).sum();
        FoundVolumes { files, elsewhere, folders: self.listed, certain: self.certain, objects: None }
    }
}

/// The volumes directly in `folder`, which is relative to `root`, and the folders that `enters` wants.
fn list(
    root: &Path,
    open_root: &File,
    folder: &Path,
    source: Source,
    enters: &impl Fn(&Path) -> bool,
) -> Result<FolderList> {
    let here = || root.join(folder);
    let failed = |error: rustix::io::Errno| Error::io(&here(), "list the folder", error.into());
    // By system calls: the standard library looks each folder up and stats it once more, and there are 23,000 of them.
    // Relative to the open root: the kernel looks up two names for each, not ten. Into memory of the stack: allocating
    // and freeing it 47,000 times showed in the profile.
    let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let open = rustix::fs::openat(open_root, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let open = open.map_err(failed)?;
    let state = FileId::of_stat(&rustix::fs::fstat(&open).map_err(failed)?);
    let mut listing = FolderList { state, files: Vec::new(), folders: Vec::new(), certain: true, half: None };
    let mut names = [MaybeUninit::uninit(); NAMES];
    let mut entries = RawDir::new(open, &mut names);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let is_volume = source.is_volume(name);
        let kind = match entry.file_type() {
            FileType::Symlink if !is_volume && !enters(&folder.join(name)) => continue,
            FileType::Symlink | FileType::Unknown => listing.look_at(&here(), name, is_volume)?,
            kind => Some(kind),
        };
        let path = || folder.join(name);
        match kind {
            Some(FileType::RegularFile) if is_volume => listing.files.push(path()),
            Some(FileType::RegularFile) if listing.half.is_none() && is_half(name) => listing.half = Some(path()),
            Some(FileType::Directory) if enters(&path()) => listing.folders.push(path()),
            _ => {}
        }
    }
    Ok(listing)
}

impl FolderList {
    /// The type of an entry, or of what a symbolic link leads to. A broken link that has the name of a volume counts as
    /// a file, so that the volume keeps its slot until it is there; `None` for any other broken link.
    fn look_at(&mut self, folder: &Path, name: &OsStr, is_volume: bool) -> Result<Option<FileType>> {
        let path = folder.join(name);
        let entry = fs::symlink_metadata(&path).map_err(|error| Error::io(&path, "stat the entry", error))?;
        if !entry.is_symlink() {
            return Ok(Some(FileType::from_raw_mode(entry.mode())));
        }
        match fs::metadata(&path) {
            Ok(target) if target.is_dir() && !is_volume => {
                refuse_cycle(folder, &path)?;
                Ok(Some(FileType::Directory))
            }
            Ok(target) => {
                self.certain &= is_volume && target.is_file(); // anything else may become a folder or a volume
                Ok(Some(FileType::from_raw_mode(target.mode())))
            }
            Err(error) if leads_nowhere(&error) => {
                self.certain = false;
                Ok(is_volume.then_some(FileType::RegularFile))
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
    use crate::storage::Files;
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
        let found = find_volumes((&Files, dir.path()), &FileChoice::default(), 4, &ScanProgress::default()).unwrap();
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
        let error = find_volumes((&Files, dir.path()), &FileChoice::default(), 4, &ScanProgress::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("real/up") && error.contains("cycle"), "{error}");
    }

    #[test]
    fn pairs_are_named_where_nothing_else_is_found() {
        let said = |files: &[&str], choice: &FileChoice| {
            find_volumes((&Files, tree(files).path()), choice, 2, &ScanProgress::default())
                .map_err(|error| error.to_string())
        };
        for pair in [["a/v.hdr", "a/v.img"], ["v.hdr.gz", "v.img.gz"]] {
            let refused = said(&pair, &FileChoice::default()).unwrap_err();
            assert!(refused.contains(pair[0].split_once('.').unwrap().0) && refused.contains("pairs of"), "{refused}");
        }
        let pattern = FileChoice { patterns: vec!["*/*.hdr".parse().unwrap()], ..FileChoice::default() };
        assert!(said(&["a/v.hdr", "a/v.img"], &pattern).unwrap_err().contains("nibabel.save"));
        assert!(!said(&["a/v.txt"], &FileChoice::default()).unwrap_err().contains("pairs of"));
        assert!(said(&["a/v.hdr", "a/v.img", "a/w.nii"], &FileChoice::default()).is_ok());
    }

    #[test]
    fn nothing_found_says_where_it_looked() {
        let choice = FileChoice::default();
        let error = find_volumes((&Files, tree(&["x/y/readme"]).path()), &choice, 1, &ScanProgress::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no NPZ, NPY or NIfTI file found") && error.contains("8 levels"), "{error}");
    }

    #[test]
    fn deeper_levels_count_where_the_first_three_have_none() {
        assert_eq!(names(&tree(&["a/b/c/d.npz", "a/b/c/d/e.npz", "x"])), ["a/b/c/d/e.npz"]);
        assert_eq!(
            names(&tree(&["a/b/c/1.npy", "a/b/c/2.npz", "a/b/c/d/e/f/g/3.npz"])),
            ["a/b/c/1.npy", "a/b/c/2.npz"]
        );
        assert!(
            find_volumes(
                (&Files, tree(&["1/2/3/4/5/6/7/8/a.npz"]).path()),
                &FileChoice::default(),
                1,
                &ScanProgress::default()
            )
            .is_err()
        );
    }

    #[test]
    fn patterns_take_what_matches_and_enter_nothing_else() {
        let dir = tree(&["images/a.npz", "images/b.npy", "masks/a.npz", "deep/1/2/3/4/c.npz", ".x/d.npz"]);
        symlink("..", dir.path().join("masks/up")).unwrap();
        let find = |patterns: &[&str], source| {
            let patterns = patterns.iter().map(|text| text.parse().unwrap()).collect();
            let found =
                find_volumes((&Files, dir.path()), &FileChoice { source, patterns }, 2, &ScanProgress::default())?;
            Ok::<_, Error>(found.files.iter().map(|p| p.to_str().unwrap().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(find(&["images/*"], Source::Auto).unwrap(), ["images/a.npz", "images/b.npy"]);
        assert_eq!(find(&["images/*"], Source::Npy).unwrap(), ["images/b.npy"]);
        let both = find(&["deep/**/*.npz", "images/a.*"], Source::Auto).unwrap();
        assert_eq!(both, ["deep/1/2/3/4/c.npz", "images/a.npz"]);
        let error = find(&["images/a.npz", "imges/*"], Source::Auto).unwrap_err().to_string();
        assert!(error.contains("'imges/*': no NPZ, NPY or NIfTI file"), "{error}");
        assert!(find(&["**/*.npz"], Source::Auto).unwrap_err().to_string().contains("cycle"));
    }
}
