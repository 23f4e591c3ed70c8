//! The states of the files and folders that a scan read: while none of them has changed, another scan would find the
//! same data set.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, statat};
use serde::{Deserialize, Serialize};

use super::{Config, Dataset};
use crate::base::file_id::FileId;
use crate::base::parallel::try_map;

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
    /// Whether a later stat would show every change.
    pub(super) certain: bool,
}

impl Dataset {
    /// Whether a later [`Self::is_current`] can be trusted: all modification times and ctimes are before
    /// `settled_before` (nanoseconds since 1970), and no symbolic link leads to a folder that was not listed.
    pub fn can_be_saved(&self, settled_before: i128) -> bool {
        let Inputs { tables, folders, left_out, others, certain } = &self.inputs;
        let folders = folders.iter().map(|(_, file_id)| file_id);
        let samples = self.samples.iter().map(|sample| sample.file_id());
        let extras = self.extra_files().map(|(_, file_id)| file_id).chain(others.iter().map(|(_, file_id)| file_id));
        // A file system without times of folders shows them as 1970.
        let settled = |file_id: &FileId| file_id.mtime_ns > 0 && file_id.latest_ns() < settled_before;
        *certain && tables.iter().chain(folders).chain(left_out).chain(samples).chain(extras).all(settled)
    }

    /// Whether tables, folders and volumes are as they were when the data set was scanned. Opens no file but the data
    /// folder; the others are only looked at by `stat`.
    pub fn is_current(&self, config: &Config) -> bool {
        let tables = config.tables();
        let as_many = tables.len() == self.inputs.tables.len();
        let mut tables = tables.into_iter().zip(&self.inputs.tables);
        let samples = self.samples.iter().map(|sample| (sample.path.as_path(), sample.file_id()));
        let left_out = self.left_out.iter().zip(&self.inputs.left_out);
        let left_out = left_out.map(|(left_out, file_id)| (Path::new(&left_out.path), file_id));
        let folders = self.inputs.folders.iter().map(|(path, file_id)| (path.as_path(), file_id));
        let extras: Vec<_> = self.extra_files().map(|(path, file_id)| (path, *file_id)).collect();
        let extras = extras.iter().chain(&self.inputs.others).map(|(path, file_id)| (path.as_path(), file_id));
        let inside: Vec<_> = folders.chain(samples).chain(left_out).chain(extras).collect();
        config.progress.begin("files compared with the last time", Some(inside.len()));
        let batches: Vec<_> = inside.chunks(BATCH).collect();
        // Relative to the open folder: the kernel looks up three names for each file, not ten.
        let Ok(root) = File::open(&self.root) else { return false };
        let all_are = |batch: &&[(&Path, &FileId)]| {
            config.progress.seen(batch.len());
            batch.iter().all(|(path, file_id)| is(&root, path, file_id)).then_some(()).ok_or(())
        };
        as_many
            && tables.all(|(path, file_id)| is(CWD, path, file_id))
            && try_map(&batches, config.threads, all_are).is_ok()
    }
}

impl Dataset {
    /// The files of all extras, as absolute paths, and their states. A file that holds a volume too is among them.
    fn extra_files(&self) -> impl Iterator<Item = (PathBuf, &FileId)> {
        let studies = self.samples.iter().filter_map(|sample| sample.study());
        studies.flat_map(|study| {
            let extras = self.extras.iter().zip(&study.extras);
            extras.map(|(extra, found)| (extra.root.join(&found.path), &found.array.file_id))
        })
    }
}

fn is(folder: impl AsFd, path: &Path, file_id: &FileId) -> bool {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    statat(folder, path, AtFlags::empty()).is_ok_and(|stat| FileId::of_stat(&stat) == *file_id)
}
