//! What stands in each volume's file: looked at, or known from an earlier scan if the file has not changed since.

use std::fs::File;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::io::retry_on_intr;

use super::Config;
use super::join::Matched;
use super::saved::{self, Finding, Saved};
use crate::base::file_id::FileId;
use crate::base::parallel::try_map;
use crate::error::{Error, Result};
use crate::formats::npz;

/// Looks into the files of all matched volumes that no earlier scan knows.
pub(super) fn all(config: &Config, root: &Path, matched: &[Matched]) -> Result<Vec<Finding>> {
    let file = config.scan_cache.as_deref().map(|cache| saved::file(cache, root, config.array.as_deref()));
    let saved = file.as_deref().filter(|_| !config.rescan).map(Saved::load).unwrap_or_default();
    let folder = Folder::open(&config.data_folder)?;
    let findings = try_map(matched, config.threads, |matched| match &matched.excluded {
        Some(reason) => Ok(Finding::Excluded(folder.state(&matched.path)?, reason.clone())),
        None => one(config, &folder, &saved, &matched.path),
    })?;
    if let Some(file) = file {
        let is_part = config.limit.is_some() || config.selection.is_any();
        // Of those excluded, what an earlier scan found stays.
        let found = |(matched, finding)| {
            let matched: &Matched = matched;
            let known = if matched.excluded.is_some() { saved.get(&matched.path)? } else { finding };
            Some((matched.path.as_path(), known))
        };
        let by_path: Vec<_> = matched.iter().zip(&findings).filter_map(found).collect();
        if !saved.knows(&by_path, is_part) {
            saved.store(&file, &by_path, is_part);
        }
    }
    Ok(findings)
}

fn one(config: &Config, folder: &Folder<'_>, saved: &Saved, relative: &Path) -> Result<Finding> {
    let look = || folder.inspect(relative, config.array.as_deref());
    let finding = match saved.get(relative) {
        Some(finding) if *finding.file_id() == folder.state(relative)? => finding.clone(),
        _ => match look() {
            Ok(array) => Finding::Volume(array),
            Err(Error::Malformed { .. }) => {
                // Again, so that the state it was found in is known from before.
                let state = folder.state(relative)?;
                match look() {
                    Ok(array) => Finding::Volume(array),
                    Err(Error::Malformed { reason, .. }) => Finding::Malformed(state, reason),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        },
    };
    match finding {
        Finding::Malformed(_, reason) if config.strict => {
            let path = folder.path.join(relative);
            Err(Error::Malformed { path, reason: format!("{reason} (fatal because of --strict)") })
        }
        finding => Ok(finding),
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

    fn inspect(&self, relative: &Path, array: Option<&str>) -> Result<npz::Array> {
        let path = self.path.join(relative);
        let file = retry_on_intr(|| openat(&self.open, relative, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()));
        let file = file.map_err(|error| Error::io(&path, "open the file", error.into()))?;
        npz::inspect_file(&path, &File::from(file), array)
    }

    fn state(&self, relative: &Path) -> Result<FileId> {
        let stat = retry_on_intr(|| statat(&self.open, relative, AtFlags::empty()));
        let stat = stat.map_err(|error| Error::io(&self.path.join(relative), "stat the file", error.into()))?;
        Ok(FileId::of_stat(&stat))
    }
}
