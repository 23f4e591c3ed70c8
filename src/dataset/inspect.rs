//! The arrays in the volumes' files: read from the files' headers, or known from an earlier scan if a file has not
//! changed since.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use rustix::io::retry_on_intr;

use super::Config;
use super::matched::Matched;
use super::scan::leads_nowhere;
use super::scan_cache::{self, Finding, PathFinding, ScanCache};
use crate::base::file_id::FileId;
use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::formats::npz::{self, ArrayChoice};
use crate::formats::volume_file;

/// Which arrays are looked for, and where.
pub(super) struct Look<'a> {
    /// The folder that paths start at, as messages name it.
    pub(super) folder: &'a Path,
    /// The folder as an absolute path, by which earlier findings are known.
    pub(super) root: &'a Path,
    /// The array to take of each file.
    pub(super) choice: &'a ArrayChoice,
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
pub(super) fn volumes(config: &Config, root: &Path, matched: &[Matched]) -> Result<Vec<Finding>> {
    let is_part = config.limit.is_some() || config.selection.is_any() || config.files.is_part();
    let look = Look { folder: &config.data_folder, root, choice: &config.array, is_part };
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
    let folder = Folder::open(look.folder)?;
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

/// The open data folder: relative to it the kernel looks up three names for each file, not ten.
struct Folder<'a> {
    path: &'a Path,
    open: File,
}

impl<'a> Folder<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let open = File::open(path).map_err(|error| Error::io(path, "open the data folder", error))?;
        Ok(Self { path, open })
    }

    fn inspect(&self, relative: &Path, array: &ArrayChoice) -> Result<npz::Array> {
        let path = self.path.join(relative);
        let file = retry_on_intr(|| {
            openat(&self.open, relative, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        });
        let file = file.map_err(|error| Error::io(&path, "open the file", error.into()))?;
        volume_file::inspect_file(&path, &File::from(file), array)
    }

    /// The state of a symbolic link that leads nowhere, and what is wrong with it; `None` for anything else.
    fn broken_link(&self, relative: &Path) -> Option<(FileId, String)> {
        let stat = |flags| retry_on_intr(|| statat(&self.open, relative, flags));
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
        let stat = retry_on_intr(|| statat(&self.open, relative, AtFlags::empty()));
        let stat = stat.map_err(|error| Error::io(&self.path.join(relative), "stat the file", error.into()))?;
        Ok(FileId::of_stat(&stat))
    }
}
