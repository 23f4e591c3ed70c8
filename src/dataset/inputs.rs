//! The states of the files and folders that a scan read: while none of them has changed, another scan would find the
//! same data set.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, statat};
use serde::{Deserialize, Serialize};

use super::listing::Listing;
use super::{Config, Dataset};
use crate::base::file_id::FileId;
use crate::base::parallel::try_map;
use crate::storage::is_address;

/// The files that a thread takes at a time: a stat of a file that the kernel has cached takes a microsecond or two.
const BATCH: usize = 256;

/// The states of tables, folders and left-out volumes before they were read. A sample's file has its state in the
/// sample.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inputs {
    /// The tables: reports, metadata, labels, and the lists of excluded and of selected samples if there are any.
    pub(super) tables: Vec<FileId>,
    /// The folders that were listed, relative to the data folder. A folder's time changes with the names in it.
    pub(super) folders: Vec<(PathBuf, FileId)>,
    /// The files of the volumes that are left out, in the order of [`Dataset::left_out`].
    pub(super) left_out: Vec<FileId>,
    /// The files of extras whose volumes are left out, as absolute paths.
    pub(super) others: Vec<(PathBuf, FileId)>,
    /// The lists of prefixes in buckets. Samples and extras of which they are the folders are not looked at one by one.
    pub(super) listings: Vec<Listing>,
    /// Whether a later stat would show every change.
    pub(super) certain: bool,
}

impl Dataset {
    /// Whether a later [`Self::is_current`] can be trusted: all modification times and ctimes are before
    /// `settled_before` (nanoseconds since 1970), and no symbolic link leads to a folder that was not listed. Of an
    /// object, the `ETag` tells without times.
    pub fn can_be_saved(&self, config: &Config, settled_before: i128) -> bool {
        let Inputs { tables, listings, certain, .. } = &self.inputs;
        // A file system without times of folders shows them as 1970.
        let settled = |file_id: &FileId| file_id.mtime_ns > 0 && file_id.latest_ns() < settled_before;
        *certain
            && config.tables().into_iter().zip(tables).all(|(path, file_id)| is_address(path) || settled(file_id))
            && listings.iter().all(|listing| listing.latest_ns < settled_before)
            && self.on_disk(&self.extra_files()).iter().all(|(_, file_id)| settled(file_id))
    }

    /// Whether tables, folders and volumes are as they were when the data set was scanned. Opens no file but the data
    /// folder; the others are only looked at by `stat`, and those of a bucket in its list.
    pub fn is_current(&self, config: &Config) -> bool {
        let tables = config.tables();
        let as_many = tables.len() == self.inputs.tables.len();
        let mut tables = tables.into_iter().zip(&self.inputs.tables);
        let extras = self.extra_files();
        let inside = self.on_disk(&extras);
        config.progress.begin("files compared with the last time", Some(inside.len()));
        let batches: Vec<_> = inside.chunks(BATCH).collect();
        // Relative to the open folder: the kernel looks up three names for each file, not ten.
        let root = if is_address(&self.root) { None } else { Some(File::open(&self.root)) };
        let Ok(root) = root.transpose() else { return false };
        let root: BorrowedFd<'_> = root.as_ref().map_or(CWD, AsFd::as_fd);
        let all_are = |batch: &&[(&Path, &FileId)]| {
            config.progress.seen(batch.len());
            batch.iter().all(|(path, file_id)| is(root, path, file_id)).then_some(()).ok_or(())
        };
        as_many
            && tables.all(|(path, file_id)| config.store.identity_of(path).is_ok_and(|found| found == *file_id))
            && try_map(&batches, config.threads, all_are).is_ok()
            && self.inputs.listings.iter().all(|listing| listing.is_current(&*config.store))
    }

    /// The folders and files that lie on a disk, with their states: relative to the data folder, or absolute. `extras`
    /// are those of [`Self::extra_files`].
    fn on_disk<'a>(&'a self, extras: &'a [(PathBuf, &'a FileId)]) -> Vec<(&'a Path, &'a FileId)> {
        let Inputs { folders, left_out, others, .. } = &self.inputs;
        let samples = self.samples.iter().map(|sample| (sample.path.as_path(), sample.file_id()));
        let left_out = self.left_out.iter().zip(left_out);
        let left_out = left_out.map(|(left_out, file_id)| (Path::new(&left_out.path), file_id));
        let folders = folders.iter().map(|(path, file_id)| (path.as_path(), file_id));
        let extras = extras.iter().map(|(path, file_id)| (path.as_path(), *file_id));
        let others = others.iter().map(|(path, file_id)| (path.as_path(), file_id));
        let all = folders.chain(samples).chain(left_out).chain(extras).chain(others);
        let is_bucket = is_address(&self.root);
        all.filter(|(path, _)| !(is_address(path) || is_bucket && path.is_relative())).collect()
    }
}

impl Dataset {
    /// The files of all extras, as absolute paths, and their states. A file that holds a volume too is among them.
    fn extra_files(&self) -> Vec<(PathBuf, &FileId)> {
        let studies = self.samples.iter().filter_map(|sample| sample.study());
        let files = studies.flat_map(|study| {
            let extras = self.extras.iter().zip(&study.extras);
            extras.map(|(extra, found)| (extra.root.join(&found.path), &found.array.file_id))
        });
        files.collect()
    }
}

fn is(folder: impl AsFd, path: &Path, file_id: &FileId) -> bool {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    statat(folder, path, AtFlags::empty()).is_ok_and(|stat| FileId::of_stat(&stat) == *file_id)
}
