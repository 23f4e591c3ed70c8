//! The shards of a folder, the NPZ files that they were made from, and what is known of these.

use std::fs;
use std::path::{Path, PathBuf};

use super::sources::{NpzState, in_slots_of, present, refuse_other_options, states};
use crate::dataset::{Config, Dataset};
use crate::error::{Error, Result};
use crate::output::{archive, manifest, removals};
use crate::plan::{Options, Plan, ShardId, shard_ids};
use crate::storage;

/// The shards of a folder, and what is known of their NPZ files.
pub(super) struct Inventory {
    /// Path of the folder of shards.
    pub(super) folder: PathBuf,
    /// Absolute path of the data folder, which holds the NPZ files.
    pub(super) root: PathBuf,
    /// The plan of the shards.
    pub(super) shards: Plan,
    /// SHA-256 of each shard's file in hexadecimal, as the manifest has it; the index is the shard's number.
    pub(super) sha256: Vec<String>,
    /// The plan of the NPZ files that are there; `None` if there is none.
    pub(super) npz: Option<Plan>,
    /// What became of the NPZ files of the shards' samples, in the order of the samples.
    pub(super) states: Vec<NpzState>,
}

/// The SHA-256 of a folder's shards by its manifest, in hexadecimal, by number.
///
/// # Errors
/// [`Error::Refused`] if the folder is a mount, whose manifest has none; those of [`manifest::read`].
pub(super) fn recorded_sha256(folder: &Path) -> Result<Vec<String>> {
    let manifest = manifest::read(folder)?;
    let sha256: Option<Vec<String>> = manifest.shards.iter().map(|shard| shard.sha256.clone()).collect();
    sha256.ok_or_else(|| {
        let folder = folder.display();
        Error::Refused(format!("{folder}: this is a mount; name the folder that materialize wrote shards to"))
    })
}

impl Inventory {
    /// Reads the headers of the shards in `folder` and of the NPZ files that they name, by `threads` threads.
    ///
    /// # Errors
    /// [`Error::Refused`] if the shards were made with other options; those of [`archive::plan`] and [`Dataset::scan`].
    pub(super) fn open(
        folder: &Path,
        sha256: Vec<String>,
        config: &Config,
        options: Options,
        threads: usize,
    ) -> Result<Self> {
        let shards = archive::plan(folder, storage::local(), threads, &config.progress)?;
        refuse_other_options(folder, &shards, config, options)?;
        let removed = removals::read(folder)?.into_iter().map(|one| (one.study_id, one.sample_digest)).collect();
        let root = std::path::absolute(&config.data_folder)
            .map_err(|error| Error::io(&config.data_folder, "resolve the path", error))?;
        let present = present(&root, &shards)?;
        let npz = if present.is_empty() {
            None
        } else {
            // Every file is looked into again, whatever the user's cache holds.
            let config = Config { volumes: Some(present), limit: None, scan_cache: None, ..config.clone() };
            Some(Plan::new(in_slots_of(&shards, Dataset::scan(&config)?), options)?)
        };
        let states = states(&root, &shards, npz.as_ref(), &removed)?;
        Ok(Self { folder: folder.to_owned(), root, shards, sha256, npz, states })
    }

    fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        shard_ids(self.shards.shards.len())
    }

    /// The shards that have NPZ files which no earlier run is known to have removed.
    pub(super) fn shards_to_compare(&self) -> Vec<ShardId> {
        let is_removed = |index: usize| matches!(self.states[index], NpzState::Removed(_));
        self.ids().filter(|id| self.shards.samples(*id).iter().any(|index| !is_removed(index))).collect()
    }

    /// Size of a shard's file in bytes; 0 if the file system cannot tell.
    pub(super) fn shard_size(&self, id: ShardId) -> u64 {
        let file = self.folder.join(Plan::shard_name(id));
        fs::metadata(file).map_or(0, |metadata| metadata.len())
    }

    /// Checks that a shard is of the data set and the options given: its digest is the one that it was made with.
    ///
    /// # Errors
    /// How it differs.
    pub(super) fn check_digest(&self, id: ShardId) -> Result<(), String> {
        let mut digests = Vec::new();
        for index in self.shards.samples(id).iter() {
            match (&self.states[index], &self.npz) {
                (NpzState::Here(npz), Some(plan)) => digests.push(plan.sample_digest(*npz)),
                (NpzState::Removed(digest), _) => digests.push(digest),
                (NpzState::Unknown(reason), _) => {
                    return Err(format!("{}: {reason}", self.shards.dataset.samples[index].study_id));
                }
                (NpzState::Here(_), None) => return Err("its source files are gone".into()),
            }
        }
        let digest = self.npz.as_ref().map(|plan| plan.shard_digest_of_samples(id, digests.into_iter()));
        if digest.as_deref() == self.shards.shard_digest(id) {
            return Ok(());
        }
        Err("it was made of other volumes, tables or options than those given; give the flags of materialize".into())
    }
}
