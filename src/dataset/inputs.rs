//! What a scan looked at, by stat: where none of it has changed, another scan would find the same.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, statat};
use serde::{Deserialize, Serialize};

use super::{Config, Dataset};
use crate::base::parallel::try_map;
use crate::formats::npz::Fingerprint;

/// Items that a thread takes at a time: a stat of what the kernel knows takes a microsecond or two.
const BATCH: usize = 256;

/// The states of tables, folders and volumes before they were read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inputs {
    /// Of the reports, the metadata, the labels, and the lists of excluded and of selected samples if there are any.
    pub(super) tables: Vec<Fingerprint>,
    /// The folders that were listed, relative to the data folder. Their names change only with their time.
    pub(super) folders: Vec<(PathBuf, Fingerprint)>,
    /// Of the volumes that are left out, in their order. A sample has its own.
    pub(super) left_out: Vec<Fingerprint>,
    /// Whether a later stat would tell every change.
    pub(super) certain: bool,
}

impl Dataset {
    /// Whether a later [`Self::is_current`] can be trusted: nothing was written just before the scan, and no symbolic
    /// link leads to what was not looked at.
    pub fn can_be_saved(&self, settled_before: i128) -> bool {
        let Inputs { tables, folders, left_out, certain } = &self.inputs;
        let folders = folders.iter().map(|(_, fingerprint)| fingerprint);
        let samples = self.samples.iter().map(|sample| sample.fingerprint());
        // A file system without times of folders shows them as 1970.
        let settled = |fingerprint: &Fingerprint| (1..settled_before).contains(&fingerprint.mtime_ns);
        *certain && tables.iter().chain(folders).chain(left_out).chain(samples).all(settled)
    }

    /// Whether tables, folders and volumes are as they were when this was scanned. Only stats.
    pub fn is_current(&self, config: &Config) -> bool {
        let tables = config.tables();
        let as_many = tables.len() == self.inputs.tables.len();
        let mut tables = tables.into_iter().zip(&self.inputs.tables);
        let samples = self.samples.iter().map(|sample| (sample.path.as_path(), sample.fingerprint()));
        let left_out = self.left_out.iter().zip(&self.inputs.left_out);
        let left_out = left_out.map(|(left_out, fingerprint)| (Path::new(&left_out.path), fingerprint));
        let folders = self.inputs.folders.iter().map(|(path, fingerprint)| (path.as_path(), fingerprint));
        let inside: Vec<_> = folders.chain(samples).chain(left_out).collect();
        let batches: Vec<_> = inside.chunks(BATCH).collect();
        // Relative to the open folder: the kernel looks up three names for each file, not ten.
        let Ok(root) = File::open(&self.root) else { return false };
        let all_are = |batch: &&[(&Path, &Fingerprint)]| {
            batch.iter().all(|(path, fingerprint)| is(&root, path, fingerprint)).then_some(()).ok_or(())
        };
        as_many
            && tables.all(|(path, fingerprint)| is(CWD, path, fingerprint))
            && try_map(&batches, config.threads, all_are).is_ok()
    }
}

fn is(folder: impl AsFd, path: &Path, fingerprint: &Fingerprint) -> bool {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    statat(folder, path, AtFlags::empty()).is_ok_and(|stat| Fingerprint::of_stat(&stat) == *fingerprint)
}
