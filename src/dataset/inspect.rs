//! The arrays in the volumes' files: read from the files' headers, or known from an earlier scan if a file has not
//! changed since.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use rustix::io::retry_on_intr;

use super::Config;
use super::join::Joined;
use super::matched::Matched;
use super::scan::leads_nowhere;
use super::scan_cache::{self, Finding, PathFinding, ScanCache};
use crate::base::file_id::FileId;
use crate::base::parallel::try_map;
use crate::error::{Error, Result, shown};
use crate::formats::npz::{self, ArrayChoice};
use crate::formats::volume_file;
use crate::storage::Store;

/// Which arrays are looked for, and where.
pub(super) struct Look<'a> {
    /// The folder that paths start at, as messages name it.
    pub(super) folder: &'a Path,
    /// The folder as an absolute path, by which earlier findings are known.
    pub(super) root: &'a Path,
    /// The array to take of each file.
    pub(super) choice: &'a ArrayChoice,
    /// The identities of the folder's objects in the list of its bucket; empty for a folder on a disk.
    pub(super) objects: &'a HashMap<PathBuf, FileId>,
    /// Whether there may be other files of the folder whose earlier findings are kept.
    pub(super) is_part: bool,
}

/// A file to look into.
pub(super) struct Wanted<'a> {
    /// The path relative to the folder.
    pub(super) path: &'a Path,
    /// The reason why the user leaves the file out, if so.
    pub(super) excluded: Option<&'a str>,
}

/// The findings of the volumes of all matched studies, in their order.
///
/// # Errors
/// As [`all`].
pub(super) fn volumes(config: &Config, root: &Path, joined: &Joined) -> Result<Vec<Finding>> {
    let is_part = config.limit.is_some() || config.selection.is_any() || config.files.is_part();
    let Joined { matched, objects, .. } = joined;
    let look = Look { folder: &config.data_folder, root, choice: &config.array, objects, is_part };
    let wanted = matched.iter().map(|matched| {
        let Matched { path, excluded, .. } = matched;
        Wanted { path, excluded: excluded.as_deref() }
    });
    all(config, &look, &wanted.collect::<Vec<_>>())
}

/// The findings of all wanted files, in their order. Only files that no earlier scan knows are opened.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read; with `config.strict`, [`Error::Malformed`] if it holds no volume.
pub(super) fn all(config: &Config, look: &Look<'_>, wanted: &[Wanted<'_>]) -> Result<Vec<Finding>> {
    let file = config.scan_cache.as_deref().map(|cache| scan_cache::file(cache, look.root, look.choice));
    let cache = file.as_deref().filter(|_| !config.rescan).map(ScanCache::load).unwrap_or_default();
    let folder = Folder::open(config, look)?;
    config.progress.begin("files looked into", Some(wanted.len()));
    let findings = try_map(wanted, config.threads, |wanted| {
        let finding = match wanted.excluded {
            Some(reason) => {
                let broken = |error| folder.broken_link(wanted.path).map(|(state, _)| state).ok_or(error);
                Finding::Excluded(folder.state(wanted.path).or_else(broken)?, reason.to_owned())
            }
            None => one(config, look.choice, &folder, &cache, wanted.path)?,
        };
        config.progress.seen(1);
        Ok(finding)
    })?;
    if let Some(file) = file {
        // An excluded file was not opened: what an earlier scan found in it stays.
        let found = |(wanted, finding)| {
            let wanted: &Wanted<'_> = wanted;
            let finding = if wanted.excluded.is_some() { cache.get(wanted.path)? } else { finding };
            Some(PathFinding { path: wanted.path, finding })
        };
        let by_path: Vec<_> = wanted.iter().zip(&findings).filter_map(found).collect();
        if !cache.knows(&by_path, look.is_part) {
            cache.store(&file, &by_path, look.is_part);
        }
    }
    Ok(findings)
}

fn one(
    config: &Config,
    choice: &ArrayChoice,
    folder: &Folder<'_>,
    cache: &ScanCache,
    relative: &Path,
) -> Result<Finding> {
    let finding = found(choice, folder, cache, relative).or_else(|error| match folder.broken_link(relative) {
        Some((state, reason)) => Ok(Finding::Malformed(state, reason)),
        None => Err(error),
    });
    match finding? {
        Finding::Malformed(_, reason) if config.strict => {
            let path = folder.path.join(relative);
            Err(Error::Malformed { path, reason: format!("{reason} (fatal because of --strict)") })
        }
        finding => Ok(finding),
    }
}

/// What an earlier scan found in a file that is as it was then, or what is in it now.
fn found(choice: &ArrayChoice, folder: &Folder<'_>, cache: &ScanCache, relative: &Path) -> Result<Finding> {
    let look = || folder.inspect(relative, choice);
    match cache.get(relative) {
        Some(finding) if *finding.file_id() == folder.state(relative)? => return Ok(finding.clone()),
        _ => {}
    }
    match look() {
        Ok(array) => Ok(Finding::Volume(array)),
        Err(Error::Malformed { .. }) => {
            // Again, so that the state it was found in is known from before.
            let state = folder.state(relative)?;
            match look() {
                Ok(array) => Ok(Finding::Volume(array)),
                Err(Error::Malformed { reason, .. }) => Ok(Finding::Malformed(state, reason)),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// The data folder.
struct Folder<'a> {
    path: &'a Path,
    kind: FolderKind<'a>,
}

/// Where a data folder is.
enum FolderKind<'a> {
    /// On a disk, and open: relative to it the kernel looks up three names for each file, not ten.
    Disk(File),
    /// In a bucket, with the identities in its list.
    Bucket(&'a dyn Store, &'a HashMap<PathBuf, FileId>),
}

impl<'a> Folder<'a> {
    fn open(config: &'a Config, look: &Look<'a>) -> Result<Self> {
        let (path, store) = (look.folder, &*config.store);
        let kind = match store.is_remote(path) {
            true => FolderKind::Bucket(store, look.objects),
            false => {
                FolderKind::Disk(File::open(path).map_err(|error| Error::io(path, "open the data folder", error))?)
            }
        };
        Ok(Self { path, kind })
    }

    fn inspect(&self, relative: &Path, array: &ArrayChoice) -> Result<npz::Array> {
        let path = self.path.join(relative);
        let open = match &self.kind {
            FolderKind::Disk(open) => open,
            FolderKind::Bucket(store, _) => {
                let object = store.open(&path).map_err(|error| Error::io(&path, "open the object", error))?;
                return volume_file::inspect_file(&path, &*object, array).map_err(|error| unsteady(&path, error));
            }
        };
        let file = retry_on_intr(|| {
            openat(open, relative, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        });
        let file = file.map_err(|error| Error::io(&path, "open the file", error.into()))?;
        volume_file::inspect_file(&path, &File::from(file), array)
    }

    /// The state of a symbolic link that leads nowhere, and what is wrong with it; `None` for anything else.
    fn broken_link(&self, relative: &Path) -> Option<(FileId, String)> {
        let FolderKind::Disk(open) = &self.kind else { return None };
        let stat = |flags| retry_on_intr(|| statat(open, relative, flags));
        let link = stat(AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let error = io::Error::from(stat(AtFlags::empty()).err()?);
        let is_link = FileType::from_raw_mode(link.st_mode) == FileType::Symlink;
        (is_link && leads_nowhere(&error)).then(|| {
            let target = fs::read_link(self.path.join(relative)).unwrap_or_default();
            let target = target.as_os_str().as_bytes().escape_ascii();
            (FileId::of_stat(&link), format!("it is a symbolic link to '{target}', which cannot be followed: {error}"))
        })
    }

    fn state(&self, relative: &Path) -> Result<FileId> {
        let open = match &self.kind {
            FolderKind::Disk(open) => open,
            // What is in no list has the identity of no object.
            FolderKind::Bucket(_, listed) => return Ok(listed.get(relative).copied().unwrap_or_default()),
        };
        let stat = retry_on_intr(|| statat(open, relative, AtFlags::empty()));
        let stat = stat.map_err(|error| Error::io(&self.path.join(relative), "stat the file", error.into()))?;
        Ok(FileId::of_stat(&stat))
    }
}

/// The error of looking into an object, which may have been removed or replaced since it was listed.
fn unsteady(path: &Path, error: Error) -> Error {
    match &error {
        Error::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle) =>
        {
            Error::Refused(format!(
                "{}: the object was removed or replaced while the data set was planned; plan again when nobody writes there",
                shown(path)
            ))
        }
        _ => error,
    }
}
