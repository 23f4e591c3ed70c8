//! Where volumes and tables lie: below a folder at any depth, and beside it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::files;
use crate::base::parallel::try_map;
use crate::dataset::progress::ScanProgress;
use crate::error::{Error, Result};
use crate::formats::volume_file::Format;

/// Endings of the names of files that may be tables; what they are is decided by their content.
const TABLES: [&str; 12] =
    ["csv", "tsv", "tab", "txt", "psv", "dat", "gz", "xlsx", "xls", "parquet", "feather", "arrow"];
/// Endings of packed files that are no tables.
const OTHER_PACKED: [&str; 2] = [".nii.gz", ".tar.gz"];
/// More folders in each other than any data set has; a link that leads back to a folder above it ends there.
const DEPTHS: usize = 16;
/// Files that may be tables and are looked at; more of them are no tables of one data set.
const MOST: usize = 200;
/// Larger files are no tables: CT-RATE's reports have 100 MB.
const LARGEST: u64 = 1 << 30;

/// The files that were found.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The volumes, by the bytes of their paths.
    pub(super) volumes: Vec<PathBuf>,
    /// The files that may be tables: those below the folder, then those beside it, each by the bytes of their paths.
    pub(super) tables: Vec<PathBuf>,
    /// What was not looked at, as sentences.
    pub(super) notes: Vec<String>,
}

/// The volumes, possible tables and folders directly in a folder.
#[derive(Default)]
struct Listing {
    volumes: Vec<PathBuf>,
    tables: Vec<PathBuf>,
    folders: Vec<(PathBuf, (u64, u64))>,
}

/// Finds what lies in `root` and below it, and the possible tables in the folder that holds it and in that one's other
/// folders. Names that begin with a dot do not count.
///
/// # Errors
/// [`Error::Io`] if `root` cannot be listed. Folders below it that cannot are named in the notes.
pub(super) fn find(root: &Path, threads: usize, progress: &ScanProgress) -> Result<Places> {
    files::open_folder(root).map_err(|error| Error::io(root, "list the folder", error))?;
    progress.begin("volumes found", None);
    let mut places = Places::default();
    let mut folders = vec![root.to_owned()];
    let mut seen = HashSet::new();
    for _ in 0..DEPTHS {
        let listings = try_map(&folders, threads, |folder| match list(folder) {
            // As `lost+found` of a disk, which its owner alone may read.
            Err(error @ Error::Io { .. }) if folder != root => Ok(Err(format!("{error}"))),
            listing => listing.map(|listing| {
                progress.seen(listing.volumes.len());
                Ok(listing)
            }),
        })?;
        folders.clear();
        for listing in listings {
            let listing = match listing {
                Ok(listing) => listing,
                Err(note) => {
                    places.notes.push(note);
                    continue;
                }
            };
            places.volumes.extend(listing.volumes);
            places.tables.extend(listing.tables);
            folders.extend(listing.folders.into_iter().filter(|(_, id)| seen.insert(*id)).map(|(path, _)| path));
        }
    }
    if !folders.is_empty() {
        places.notes.push(format!("folders more than {DEPTHS} levels deep were not looked at"));
    }
    sort(&mut places.volumes);
    sort(&mut places.tables);
    places.look_beside(root);
    if places.tables.len() > MOST {
        let count = places.tables.len();
        places.notes.push(format!("{count} files may be tables; the first {MOST} were looked at"));
        places.tables.truncate(MOST);
    }
    Ok(places)
}

impl Places {
    /// Adds the possible tables beside a folder. What cannot be listed there is none of the user's business.
    fn look_beside(&mut self, root: &Path) {
        let Some(above) = root.parent() else { return };
        let Ok(listing) = list(above) else { return };
        let mut tables = listing.tables;
        let others = listing.folders.iter().filter(|(folder, _)| folder != root);
        tables.extend(others.filter_map(|(folder, _)| list(folder).ok()).flat_map(|listing| listing.tables));
        sort(&mut tables);
        let known: HashSet<PathBuf> = self.tables.iter().cloned().collect();
        self.tables.extend(tables.into_iter().filter(|table| !known.contains(table)));
    }
}

fn sort(paths: &mut [PathBuf]) {
    paths.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
}

/// What is directly in a folder. Symbolic links are followed; those that lead nowhere count as volumes by their names,
/// as in a scan.
fn list(folder: &Path) -> Result<Listing> {
    let failed = |error: io::Error| Error::io(folder, "list the folder", error);
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_volume = Format::of(&name).is_some();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(failed)?;
        if is_volume && kind.is_file() {
            listing.volumes.push(path);
            continue;
        }
        if !kind.is_symlink() && !kind.is_dir() && !may_be_table(&path) {
            continue; // a stat of each of a million files would take minutes on a network
        }
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => listing.folders.push((path, (found.dev(), found.ino()))),
            Ok(found) if found.is_file() && is_volume => listing.volumes.push(path),
            Ok(found) if found.is_file() && may_be_table(&path) && (1..=LARGEST).contains(&found.len()) => {
                listing.tables.push(path);
            }
            Err(_) if is_volume => listing.volumes.push(path),
            _ => {}
        }
    }
    Ok(listing)
}

fn may_be_table(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    ending.is_some_and(|ending| TABLES.contains(&ending)) && !OTHER_PACKED.iter().any(|other| name.ends_with(other))
}
