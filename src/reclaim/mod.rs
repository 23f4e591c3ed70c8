//! The room of NPZ files whose volumes stand in finished shards, freed.
//!
//! # What is removed
//!
//! A shard is the unit of proof. Its NPZ files are removed, one by one, only when for *all* of them that are still there
//! its file was made durable, has the manifest's SHA-256, and holds the very bytes that the plan makes of them now; both
//! read through the waist. Then each file goes if it is still the one that was compared, and not through a symbolic link.
//! An NPZ that holds other arrays besides the volume stays: the shards do not have them.
//!
//! # Which plan
//!
//! The plan is made from the NPZ files that the shards name and that are still there, each in the slot that the shards
//! give it: so it does not matter that files are gone, or others were added. The digest of a shard is that of its
//! samples; the journal has those of the samples whose files were removed. Hence it is asked for of every shard, also of
//! one that is half reclaimed, that it be the manifest's: other options or tables remove nothing.

mod journal;
mod prove;
mod remove;
mod sources;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::base::durable::sync_folder;
use crate::base::lock::lock;
use crate::base::parallel::try_map;
use crate::dataset::{Config, Dataset};
use crate::error::{Error, Result};
use crate::output::archive;
use crate::output::manifest;
use crate::output::removals::{self, RemovalLine, RemovedNpz};
use crate::plan::{Options, Plan, SampleDigest, ShardId};
use crate::shard::{Serving, ShardSet};
use journal::Journal;
use prove::Proof;
use sources::{in_slots_of, present, refuse_other_options, states};

/// Shards, the NPZ files that they were made from, and what is known of these.
pub struct Reclaim {
    folder: PathBuf,
    /// Where the NPZ files are.
    root: PathBuf,
    shards: Plan,
    /// Of the shards' files, by number.
    sha256: Vec<String>,
    /// The plan of the NPZ files that are there; `None` if there is none.
    npz: Option<Plan>,
    /// Of the shards' samples, in their order.
    states: Vec<State>,
    journal: Option<Mutex<Journal>>,
}

/// What became of a sample's NPZ.
enum State {
    /// It is there; the index of its sample in the plan of the NPZ files.
    Here(usize),
    /// An earlier run removed it.
    Removed(SampleDigest),
    /// It cannot be made from this data set, and why.
    Unknown(String),
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    /// NPZ files that are there.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes to read, of shards and of volumes in both forms.
    pub to_read: u64,
}

/// An NPZ that stays.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// Its study.
    pub study_id: String,
    /// The file, relative to the data folder.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// A shard none of whose NPZ files is removed.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Its name.
    pub shard: String,
    /// Why.
    pub reason: String,
}

/// How a run ended.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Whether files were removed; otherwise they could be.
    pub deleted: bool,
    /// NPZ files that were, or can be, removed.
    pub files: usize,
    /// Bytes that this frees: none for a file that has other hard links.
    pub bytes: u64,
    /// NPZ files that earlier runs removed.
    pub removed_earlier: usize,
    /// Samples that the shards do not hold; their NPZ files stay.
    pub not_in_shards: usize,
    /// Shards in doubt.
    pub refused: Vec<Refused>,
    /// NPZ files of other shards that stay all the same.
    pub kept: Vec<Kept>,
    /// Whether it was stopped before the end.
    pub interrupted: bool,
}

impl Reclaim {
    /// Looks at the shards of `folder` and at the NPZ files that they name; `threads` threads do. With `delete`, keeps
    /// other runs away from the folder.
    ///
    /// # Errors
    /// [`Error::Refused`] if the folder holds no shards of these options, or something is at work there; those of
    /// [`archive::plan`] and [`Dataset::scan`].
    pub fn open(folder: &Path, config: &Config, options: Options, threads: usize, delete: bool) -> Result<Self> {
        let manifest = manifest::read(folder)?;
        let sha256: Option<Vec<String>> = manifest.shards.iter().map(|shard| shard.sha256.clone()).collect();
        let sha256 = sha256.ok_or_else(|| {
            let folder = folder.display();
            Error::Refused(format!("{folder}: this is a mount; name the folder that materialize wrote shards to"))
        })?;
        let journal = if delete { Some(Mutex::new(Journal::open(folder)?)) } else { None };
        let shards = archive::plan(folder, threads)?;
        refuse_other_options(folder, &shards, config, options)?;
        let removed = removals::read(folder)?.into_iter().map(|one| (one.study_id, one.sample_digest)).collect();
        let root = std::path::absolute(&config.data_folder)
            .map_err(|error| Error::io(&config.data_folder, "resolve the path", error))?;
        let present = present(&root, &shards)?;
        let npz = if present.is_empty() {
            None
        } else {
            // Every file is looked into again, whatever was saved of it.
            let config = Config { volumes: Some(present), limit: None, scan_cache: None, ..config.clone() };
            Some(Plan::new(in_slots_of(&shards, Dataset::scan(&config)?), options)?)
        };
        let states = states(&root, &shards, npz.as_ref(), &removed)?;
        Ok(Self { folder: folder.to_owned(), root, shards, sha256, npz, states, journal })
    }

    /// What there is to do.
    pub fn survey(&self) -> Survey {
        let samples = self.npz.as_ref().map_or(&[][..], |plan| &plan.dataset.samples);
        let bytes = samples.iter().map(|sample| sample.file_id().size).sum();
        let volumes = self.npz.as_ref().map_or(0, |plan| 2 * plan.payload_bytes);
        let files = self.ids().filter(|id| self.is_to_do(*id)).map(|id| self.shard_size(id));
        Survey { files: samples.len(), bytes, to_read: volumes + files.sum::<u64>() }
    }

    /// The plan of the shards.
    pub fn shards(&self) -> &Plan {
        &self.shards
    }

    /// Where the NPZ files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Compares everything, and removes what may be removed if this was opened to delete. `workers` shards are looked at
    /// at a time, with `cache` bytes of memory for volumes; `stop` ends it between two files; `read` is told of bytes
    /// that were read.
    ///
    /// # Errors
    /// [`Error::Io`] if the journal cannot be written, or the manifest cannot be made durable: then nothing more is
    /// removed.
    pub fn run(self, workers: usize, cache: u64, stop: &AtomicBool, read: &(dyn Fn(u64) + Sync)) -> Result<Outcome> {
        let (deleted, not_in_shards) = (self.journal.is_some(), self.shards.dataset.left_out.len());
        let removed_earlier = self.states.iter().filter(|state| matches!(state, State::Removed(_))).count();
        let mut outcome = Outcome { deleted, removed_earlier, not_in_shards, ..Outcome::default() };
        let todo: Vec<ShardId> = self.ids().filter(|id| self.is_to_do(*id)).collect();
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        let manifest = self.folder.join(manifest::NAME);
        sync(&manifest).map_err(|error| Error::io(&manifest, "make the manifest durable", error))?;
        sync_folder(&self.folder)?;
        let serving = Serving { cache_bytes: cache / 2, threads: workers, read_ahead: 1, read_once: true };
        let sets = match &self.npz {
            Some(npz) => Some((ShardSet::new(npz.clone(), serving)?, ShardSet::new(self.shards.clone(), serving)?)),
            None => None,
        };
        let root = File::open(&self.root).map_err(|error| Error::io(&self.root, "open the data folder", error))?;
        let proof = sets.as_ref().map(|(npz, shards)| Proof { of: &self, npz, shards, stop, read });
        let work = |id: &ShardId| match proof.as_ref().filter(|_| !stop.load(Ordering::Relaxed)) {
            Some(proof) => self.shard(proof, &root, *id, stop),
            None => self.shard_without_files(*id),
        };
        for part in try_map(&todo, workers, work)? {
            outcome.files += part.files;
            outcome.bytes += part.bytes;
            outcome.refused.extend(part.refused);
            outcome.kept.extend(part.kept);
        }
        outcome.interrupted = stop.load(Ordering::Relaxed);
        Ok(outcome)
    }

    fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        0..ShardId::try_from(self.shards.shards.len()).unwrap_or(ShardId::MAX)
    }

    /// Whether an NPZ of this shard is not known to have been removed by us.
    fn is_to_do(&self, id: ShardId) -> bool {
        self.shards.samples(id).iter().any(|index| !matches!(self.states[index], State::Removed(_)))
    }

    fn shard_size(&self, id: ShardId) -> u64 {
        let file = self.folder.join(Plan::shard_name(id));
        fs::metadata(file).map_or(0, |metadata| metadata.len())
    }

    fn shard_without_files(&self, id: ShardId) -> Result<Outcome> {
        let refused = self.digest(id).err().map(|reason| Refused { shard: Plan::shard_name(id), reason });
        Ok(Outcome { refused: refused.into_iter().collect(), ..Outcome::default() })
    }

    /// Compares a shard with its NPZ files, then removes them.
    fn shard(&self, proof: &Proof<'_>, root: &File, id: ShardId, stop: &AtomicBool) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let compared = self.digest(id).and_then(|()| proof.compare(id));
        if stop.load(Ordering::Relaxed) {
            return Ok(outcome); // what was not compared to its end says nothing
        }
        if let Err(reason) = compared {
            outcome.refused.push(Refused { shard: Plan::shard_name(id), reason });
            return Ok(outcome);
        }
        for index in self.shards.samples(id).iter() {
            let State::Here(npz) = self.states[index] else { continue };
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match self.free(proof, root, id, npz)? {
                Ok(bytes) => {
                    outcome.files += 1;
                    outcome.bytes += bytes;
                }
                Err(reason) => {
                    let sample = &proof.npz.plan().dataset.samples[npz];
                    let (study_id, path) = (sample.study_id.clone(), sample.path.clone());
                    outcome.kept.push(Kept { study_id, path, reason });
                }
            }
        }
        Ok(outcome)
    }

    /// Removes an NPZ, if this is to delete, and notes it; the bytes that this frees, or why it stays.
    fn free(&self, proof: &Proof<'_>, root: &File, id: ShardId, npz: usize) -> Result<Result<u64, String>> {
        let plan = proof.npz.plan();
        let sample = &plan.dataset.samples[npz];
        let (path, file_id) = (&sample.path, sample.file_id());
        let checked = only_array(&self.root.join(path)).and_then(|()| remove::removable(root, path, file_id));
        let bytes = match (checked, &self.journal) {
            (Err(reason), _) => return Ok(Err(reason)),
            (Ok(bytes), None) => return Ok(Ok(bytes)),
            (Ok(bytes), Some(_)) => bytes,
        };
        let Some(mut journal) = self.journal.as_ref().map(lock) else { return Ok(Ok(bytes)) };
        if let Err(reason) = proof.still_stands(id) {
            return Ok(Err(reason));
        }
        let (size, crc) = sample.npz_size_and_crc();
        journal.add(RemovalLine::Removing(RemovedNpz {
            study_id: sample.study_id.clone(),
            path: path.clone(),
            size,
            crc32: format!("{crc:08x}"),
            shard: Plan::shard_name(id),
            shard_sha256: self.sha256[id as usize].clone(),
            sample_digest: *plan.sample_digest(npz),
        }))?;
        if let Err(reason) = remove::remove(root, path, file_id) {
            return Ok(Err(reason));
        }
        journal.add(RemovalLine::Removed { study_id: sample.study_id.clone() })?;
        Ok(Ok(bytes))
    }

    /// Whether a shard is of the data set and the options given: its digest is the one that it was made with.
    fn digest(&self, id: ShardId) -> Result<(), String> {
        let mut digests = Vec::new();
        for index in self.shards.samples(id).iter() {
            match (&self.states[index], &self.npz) {
                (State::Here(npz), Some(plan)) => digests.push(plan.sample_digest(*npz)),
                (State::Removed(digest), _) => digests.push(digest),
                (State::Unknown(reason), _) => {
                    return Err(format!("{}: {reason}", self.shards.dataset.samples[index].study_id));
                }
                (State::Here(_), None) => return Err("its NPZ files are gone".into()),
            }
        }
        let digest = self.npz.as_ref().map(|plan| plan.digest_of_shard(id, digests.into_iter()));
        if digest.as_deref() == self.shards.shard_digest(id) {
            return Ok(());
        }
        Err("it was made of other volumes, tables or options than those given; give the flags of materialize".into())
    }
}

/// Refuses an NPZ that holds more than its volume.
fn only_array(path: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("it cannot be looked into: {error}");
    let file = File::open(path).map_err(|error| failed(&error))?;
    let archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(|error| failed(&error))?;
    let names: Vec<&str> = archive.file_names().collect();
    if archive.len() == 1 {
        return Ok(());
    }
    Err(format!("it holds several arrays ({}), of which the shards have one", names.join(", ")))
}
