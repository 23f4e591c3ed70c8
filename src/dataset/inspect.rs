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
use crate::formats::{npz, volume_file};

/// The findings of all matched volumes, in their order. Only files that no earlier scan knows are opened.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read; with `config.strict`, [`Error::Malformed`] if it holds no volume.
pub(super) fn all(config: &Config, root: &Path, matched: &[Matched]) -> Result<Vec<Finding>> {
    let file = config.scan_cache.as_deref().map(|cache| scan_cache::file(cache, root, &config.array));
    let cache = file.as_deref().filter(|_| !config.rescan).map(ScanCache::load).unwrap_or_default();
    let folder = Folder::open(&config.data_folder)?;
    let findings = try_map(matched, config.threads, |matched| match &matched.excluded {
        Some(reason) => {
            let broken = |error| folder.broken_link(&matched.path).map(|(state, _)| state).ok_or(error);
            Ok(Finding::Excluded(folder.state(&matched.path).or_else(broken)?, reason.clone()))
        }
        None => one(config, &folder, &cache, &matched.path),
    })?;
    if let Some(file) = file {
        let is_part = config.limit.is_some() || config.selection.is_any() || config.files.is_part();
        // An excluded file was not opened: what an earlier scan found in it stays.
        let found = |(matched, finding)| {
            let matched: &Matched = matched;
            let finding = if matched.excluded.is_some() { cache.get(&matched.path)? } else { finding };
            Some(PathFinding { path: &matched.path, finding })
        };
        let by_path: Vec<_> = matched.iter().zip(&findings).filter_map(found).collect();
        if !cache.knows(&by_path, is_part) {
            cache.store(&file, &by_path, is_part);
        }
    }
    Ok(findings)
}

fn one(config: &Config, folder: &Folder<'_>, cache: &ScanCache, relative: &Path) -> Result<Finding> {
    let finding = found(config, folder, cache, relative).or_else(|error| match folder.broken_link(relative) {
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
fn found(config: &Config, folder: &Folder<'_>, cache: &ScanCache, relative: &Path) -> Result<Finding> {
    let look = || folder.inspect(relative, &config.array);
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

    fn inspect(&self, relative: &Path, array: &npz::ArrayChoice) -> Result<npz::Array> {
        let path = self.path.join(relative);
        let file = retry_on_intr(|| openat(&self.open, relative, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()));
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
