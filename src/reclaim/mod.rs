//! Removing NPZ files whose volumes stand in finished shards, to free their space.
//!
//! # What is removed
//!
//! NPZ files are removed by shards. Those of a shard are removed, one by one, only when for *all* of them that are
//! still there the shard's file was made durable, has the manifest's SHA-256, and holds the very bytes that the plan
//! makes of them now; both are read through [`ShardSet`]. Then each file is removed if it is still the one that was
//! compared, and not through a symbolic link. An NPZ that holds other arrays besides the volume stays: the shards do
//! not have them.
//!
//! # Which plan
//!
//! The plan is made from the NPZ files that the shards name and that are still there, each in the slot that the shards
//! give it: so it does not matter that files are gone, or others were added. The digest of a shard is that of its
//! samples; the removal journal has the digests of those samples whose files were removed. So every shard, also one of
//! which some NPZ files were removed, must have the digest that the manifest says: with other options or tables,
//! nothing is removed.

mod compare;
mod inventory;
mod memory;
mod removal_journal;
mod remove;
mod sources;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use serde::Serialize;

use crate::base::beneath::Folder;
use crate::base::durable::sync_folder;
use crate::base::files;
use crate::base::lock::lock;
use crate::base::parallel::try_map;
use crate::dataset::{Config, Dataset};
use crate::error::{Error, Result};
use crate::output::manifest;
use crate::output::removals::{RemovalLine, RemovedNpz};
use crate::plan::{Options, Plan, ShardId};
use crate::shard::{Serving, ShardSet};
use compare::ShardComparer;
use inventory::Inventory;
use removal_journal::RemovalJournal;
use sources::NpzState;

/// A folder of shards whose NPZ files can be compared and removed.
pub struct Reclaim {
    inventory: Inventory,
    /// The removal journal; `None` in a dry run.
    journal: Option<Mutex<RemovalJournal>>,
}

/// How much there is to compare and to remove.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    /// Number of NPZ files that are there.
    pub files: usize,
    /// Size of the NPZ files in bytes.
    pub bytes: u64,
    /// Number of the files that are NIfTI, whose headers tell more than shards hold.
    pub nifti: usize,
    /// Bytes to read: the shards' files, and the samples as they are made from the NPZ files and from the shards.
    pub to_read: u64,
}

/// An NPZ that stays although its shard was found to be right.
#[derive(Debug, Serialize)]
pub struct KeptNpz {
    /// Study of the NPZ.
    pub study_id: String,
    /// Path of the file, relative to the data folder.
    pub path: PathBuf,
    /// Reason why the file stays.
    pub reason: String,
}

/// A shard none of whose NPZ files is removed.
#[derive(Debug, Serialize)]
pub struct RefusedShard {
    /// File name of the shard.
    pub shard: String,
    /// Reason why nothing is removed.
    pub reason: String,
}

/// How a run ended.
#[derive(Debug, Default, Serialize)]
pub struct ReclaimOutcome {
    /// Whether files were removed; if false, they were only compared.
    pub deleted: bool,
    /// Number of NPZ files that were removed, or can be.
    pub files: usize,
    /// Bytes that their removal frees; a file that has other hard links counts 0.
    pub bytes: u64,
    /// Number of NPZ files that earlier runs removed.
    pub removed_earlier: usize,
    /// Number of samples that the shards do not hold; their NPZ files stay.
    pub not_in_shards: usize,
    /// Shards that are in doubt.
    pub refused: Vec<RefusedShard>,
    /// NPZ files of right shards that stay all the same.
    pub kept: Vec<KeptNpz>,
    /// Whether the run was stopped before its end.
    pub interrupted: bool,
}

impl Reclaim {
    /// Reads the headers of the shards in `folder` and of the NPZ files that they name, by `threads` threads. With
    /// `delete`, locks the folder, so that no other run writes there.
    ///
    /// # Errors
    /// [`Error::Refused`] if the folder holds no shards of these options, is in memory alone, or another run is at work
    /// there; those of
    /// [`crate::output::archive::plan`] and [`crate::dataset::Dataset::scan`].
    pub fn open(folder: &Path, config: &Config, options: Options, threads: usize, delete: bool) -> Result<Self> {
        let sha256 = inventory::recorded_sha256(folder)?;
        if delete {
            memory::refuse(folder)?;
        }
        let journal = if delete { Some(Mutex::new(RemovalJournal::open(folder)?)) } else { None };
        let inventory = Inventory::open(folder, sha256, config, options, threads)?;
        Ok(Self { inventory, journal })
    }

    /// How much there is to compare and to remove.
    pub fn survey(&self) -> Survey {
        let npz = self.inventory.npz.as_ref();
        let samples = npz.map_or(&[][..], |plan| &plan.dataset.samples);
        let bytes = samples.iter().map(|sample| sample.file_id().size).sum();
        let nifti = samples.iter().filter_map(|sample| sample.study()).filter(|study| study.array.nifti.is_some());
        let nifti = nifti.count();
        let samples_len = npz.map_or(0, |plan| plan.shards.iter().map(|shard| shard.layout.end()).sum::<u64>());
        let files = self.inventory.shards_to_compare().into_iter().map(|id| self.inventory.shard_size(id));
        Survey { files: samples.len(), bytes, nifti, to_read: 2 * samples_len + files.sum::<u64>() }
    }

    /// The plan of the shards.
    pub fn shards(&self) -> &Plan {
        &self.inventory.shards
    }

    /// Absolute path of the data folder, which holds the NPZ files.
    pub fn root(&self) -> &Path {
        &self.inventory.root
    }

    /// Compares all shards with their NPZ files, and removes the files that may be removed, if this was opened to
    /// delete. `workers` shards are compared at a time, with `cache` bytes of memory for volumes; `stop` ends the run
    /// between two files; `progress` gets the number of bytes that were read.
    ///
    /// # Errors
    /// [`Error::Io`] if the removal journal cannot be written, or the manifest cannot be made durable: then nothing
    /// more is removed.
    pub fn run(
        self,
        workers: usize,
        cache: u64,
        stop: &AtomicBool,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<ReclaimOutcome> {
        let inventory = &self.inventory;
        let (deleted, not_in_shards) = (self.journal.is_some(), inventory.shards.dataset.left_out.len());
        let removed_earlier = inventory.states.iter().filter(|state| matches!(state, NpzState::Removed(_))).count();
        let mut outcome = ReclaimOutcome { deleted, removed_earlier, not_in_shards, ..ReclaimOutcome::default() };
        if deleted {
            make_durable(&inventory.folder)?;
        }
        let serving = Serving { cache_bytes: cache / 2, threads: workers, read_ahead: 1, read_once: true };
        let sets = match &inventory.npz {
            Some(npz) => {
                Some([ShardSet::new(npz.clone(), serving)?, ShardSet::new(inventory.shards.clone(), serving)?])
            }
            None => None,
        };
        let root = &inventory.root;
        let root = File::open(root).map_err(|error| Error::io(root, "open the data folder", error))?;
        let remover = sets.as_ref().map(|[npz, shards]| Remover {
            comparer: ShardComparer { inventory, npz, shards, stop, progress },
            journal: self.journal.as_ref(),
            root: &root,
        });
        let work = |id: &ShardId| match remover.as_ref().filter(|_| !stop.load(Ordering::Relaxed)) {
            Some(remover) => remover.shard(*id),
            None => Ok(shard_without_files(inventory, *id)),
        };
        for of_shard in try_map(&inventory.shards_to_compare(), workers, work)? {
            outcome.files += of_shard.files;
            outcome.bytes += of_shard.bytes;
            outcome.refused.extend(of_shard.refused);
            outcome.kept.extend(of_shard.kept);
        }
        outcome.interrupted = stop.load(Ordering::Relaxed);
        Ok(outcome)
    }
}

/// Makes the manifest, the names in the folder and the folder itself durable: whoever has moved or copied finished
/// shards need not have waited for the disk.
fn make_durable(folder: &Path) -> Result<()> {
    let path = folder.join(manifest::NAME);
    let failed = |error| Error::io(&path, "make the manifest durable", error);
    let opened = Folder::named(folder).and_then(|folder| folder.open(manifest::NAME, OFlags::RDONLY, 0));
    opened.and_then(|manifest| manifest.sync_all()).map_err(failed)?;
    sync_folder(folder)?;
    let folder = std::fs::canonicalize(folder).map_err(|error| Error::io(folder, "resolve the path", error))?;
    for above in folder.ancestors().skip(1) {
        match sync_folder(above) {
            // A folder that this user may not look into is not one where the user made or moved the shards' folder.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
            // Some file systems, such as those of containers' root folders, do not synchronise folders.
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {}
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EROFS) => {}
            other => other?,
        }
    }
    Ok(())
}

/// What a shard adds to the outcome where no NPZ is there, or the run is to stop.
fn shard_without_files(inventory: &Inventory, id: ShardId) -> ReclaimOutcome {
    let refused = inventory.check_digest(id).err().map(|reason| RefusedShard { shard: Plan::shard_name(id), reason });
    ReclaimOutcome { refused: refused.into_iter().collect(), ..ReclaimOutcome::default() }
}

/// What became of an NPZ whose shard is right.
enum NpzOutcome {
    /// The file was removed, or can be: this frees `bytes` bytes.
    Removed { bytes: u64 },
    /// The file stays, and why.
    Kept { reason: String },
}

/// Compares shards, and removes their NPZ files.
struct Remover<'a> {
    comparer: ShardComparer<'a>,
    /// The removal journal; `None` in a dry run.
    journal: Option<&'a Mutex<RemovalJournal>>,
    /// The data folder, open.
    root: &'a File,
}

impl Remover<'_> {
    /// Compares a shard with its NPZ files, then removes them: what this adds to the outcome.
    fn shard(&self, id: ShardId) -> Result<ReclaimOutcome> {
        let ShardComparer { inventory, npz: npz_set, stop, .. } = self.comparer;
        let mut outcome = ReclaimOutcome::default();
        let compared = inventory.check_digest(id).and_then(|()| self.comparer.compare(id));
        if stop.load(Ordering::Relaxed) {
            return Ok(outcome); // a comparison that was stopped says nothing
        }
        if let Err(reason) = compared {
            outcome.refused.push(RefusedShard { shard: Plan::shard_name(id), reason });
            return Ok(outcome);
        }
        for index in inventory.shards.samples(id).iter() {
            let NpzState::Here(npz) = inventory.states[index] else { continue };
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match self.remove(id, npz)? {
                NpzOutcome::Removed { bytes } => {
                    outcome.files += 1;
                    outcome.bytes += bytes;
                }
                NpzOutcome::Kept { reason } => {
                    let sample = &npz_set.plan().dataset.samples[npz];
                    let (study_id, path) = (sample.study_id.clone(), sample.path.clone());
                    outcome.kept.push(KeptNpz { study_id, path, reason });
                }
            }
        }
        Ok(outcome)
    }

    /// Removes an NPZ of a shard that was found to be right, and notes it, if this is to delete. `npz` is the index of
    /// the sample in the plan of the NPZ files.
    fn remove(&self, id: ShardId, npz: usize) -> Result<NpzOutcome> {
        let (inventory, plan) = (self.comparer.inventory, self.comparer.npz.plan());
        let sample = &plan.dataset.samples[npz];
        let (path, file_id) = (&sample.path, sample.file_id());
        let channels = sample.study().and_then(|study| study.array.part).map_or(1, |part| part.count);
        let checked = no_more_than(&inventory.root.join(path), channels, &arrays(plan, npz));
        let checked = checked.and_then(|()| remove::removable(self.root, path, file_id));
        let bytes = match checked {
            Ok(bytes) => bytes,
            Err(reason) => return Ok(NpzOutcome::Kept { reason }),
        };
        let Some(mut journal) = self.journal.map(lock) else { return Ok(NpzOutcome::Removed { bytes }) };
        if let Err(reason) = self.comparer.check_unchanged(id) {
            return Ok(NpzOutcome::Kept { reason });
        }
        let (size, crc) = sample.npz_size_and_crc();
        journal.add(RemovalLine::Removing(RemovedNpz {
            study_id: sample.study_id.clone(),
            path: path.clone(),
            size,
            crc32: crc.map_or_else(String::new, |crc| format!("{crc:08x}")),
            shard: Plan::shard_name(id),
            shard_sha256: inventory.sha256[id as usize].clone(),
            sample_digest: *plan.sample_digest(npz),
        }))?;
        if let Err(reason) = remove::remove(self.root, path, file_id) {
            return Ok(NpzOutcome::Kept { reason });
        }
        journal.add(RemovalLine::Removed { study_id: sample.study_id.clone() })?;
        Ok(NpzOutcome::Removed { bytes })
    }
}

/// The names of the arrays of a volume's file that the shards hold: the volume, and extras of the same file.
fn arrays(plan: &Plan, npz: usize) -> Vec<&str> {
    let Dataset { root, extras, samples, .. } = &plan.dataset;
    let sample = &samples[npz];
    let Some(study) = sample.study() else { return Vec::new() };
    let beside = extras.iter().zip(&study.extras);
    let beside = beside.filter(|(extra, found)| extra.root == *root && found.path == sample.path);
    let beside = beside.map(|(_, found)| &*found.array.member.name);
    [&*study.array.member.name].into_iter().chain(beside).collect()
}

/// Refuses a file that holds more than what the shards hold of it: other channels, or other arrays than these. An NPY
/// or NIfTI file holds one array.
fn no_more_than(path: &Path, channels: u64, arrays: &[&str]) -> Result<(), String> {
    if channels > 1 {
        return Err(format!("it holds {channels} channels, of which the shards have one"));
    }
    if path.extension().is_some_and(|suffix| ["npy", "nii", "gz"].iter().any(|one| suffix == *one)) {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| format!("it cannot be looked into: {error}");
    let file = files::open(path).map_err(|error| failed(&error))?;
    let archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(|error| failed(&error))?;
    let names: Vec<&str> = archive.file_names().collect();
    let is_held =
        |name: &&str| arrays.contains(name) || name.strip_suffix(".npy").is_some_and(|name| arrays.contains(&name));
    if archive.len() == names.len() && (archive.len() == 1 || names.iter().all(is_held)) {
        return Ok(());
    }
    let held = match arrays {
        [_] => "one".to_owned(),
        several => several.join(", "),
    };
    Err(format!("it holds several arrays ({}), of which the shards have {held}", names.join(", ")))
}
