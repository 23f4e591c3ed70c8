//! Comparing a shard's file, byte by byte, with what the plan makes of its NPZ files.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, OFlags, fadvise};

use super::inventory::Inventory;
use super::sources::NpzState;
use crate::base::beneath::Folder;
use crate::base::file_id::FileId;
use crate::base::num::to_usize;
use crate::error::reason;
use crate::output::checksum;
use crate::plan::layout::Content;
use crate::plan::{Plan, ShardId};
use crate::shard::{Cursor, ShardSet};

/// Bytes that are compared at a time.
const READ: u64 = 4 << 20;

/// Compares shards with their NPZ files.
pub(super) struct ShardComparer<'a> {
    /// The shards and what is known of their NPZ files.
    pub(super) inventory: &'a Inventory,
    /// The shards as they are made from the NPZ files.
    pub(super) npz: &'a ShardSet,
    /// The shards as they stand in their files.
    pub(super) shards: &'a ShardSet,
    /// Set by the caller to stop between two reads.
    pub(super) stop: &'a AtomicBool,
    /// Gets the number of bytes that were read.
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
}

impl ShardComparer<'_> {
    /// Makes a shard's file durable, checks its SHA-256, and compares all of its samples whose NPZ files are there.
    ///
    /// # Errors
    /// What is wrong with the shard.
    pub(super) fn compare(&self, id: ShardId) -> Result<(), String> {
        self.check_file(id)?;
        let cursors = [self.npz, self.shards].map(|set| Arc::new(set.cursor(id)));
        let (npz, shards) = (self.npz.plan(), self.shards.plan());
        let number = |plan: &Plan, index: usize| index - plan.shards[id as usize].samples.start;
        for index in shards.samples(id).iter() {
            let NpzState::Here(other) = self.inventory.states[index] else { continue };
            let study = &shards.dataset.samples[index].study_id;
            let ranges = [range(npz, id, number(npz, other)), range(shards, id, number(shards, index))];
            self.compare_sample(id, &cursors, ranges).map_err(|reason| format!("{study}: {reason}"))?;
        }
        Ok(())
    }

    /// Checks that a shard's file is still the one that was compared.
    ///
    /// # Errors
    /// How it differs.
    pub(super) fn check_unchanged(&self, id: ShardId) -> Result<(), String> {
        let metadata = std::fs::metadata(self.path(id))
            .map_err(|error| format!("its shard cannot be seen: {}", reason(&error)))?;
        self.check_planned(id, &FileId::of(&metadata))
    }

    fn path(&self, id: ShardId) -> PathBuf {
        self.inventory.folder.join(Plan::shard_name(id))
    }

    /// Checks that a file is the one whose headers were read.
    fn check_planned(&self, id: ShardId, found: &FileId) -> Result<(), String> {
        let planned = self.shards.plan().shard_samples(id).next().map(|sample| sample.file_id());
        match planned.and_then(|planned| planned.difference(found)) {
            Some(detail) => Err(format!("the shard has changed since its headers were read ({detail})")),
            None => Ok(()),
        }
    }

    /// Makes a shard's file durable and checks its SHA-256. The file is read from the disk, where the kernel takes that
    /// advice.
    fn check_file(&self, id: ShardId) -> Result<(), String> {
        let path = self.path(id);
        let failed = |error: std::io::Error| format!("the shard cannot be made durable: {}", reason(&error));
        let folder = Folder::named(&self.inventory.folder).map_err(failed)?;
        let mut file = folder.open(Plan::shard_name(id), OFlags::RDONLY, 0).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let state = |file: &File| file.metadata().map(|metadata| FileId::of(&metadata)).map_err(failed);
        self.check_planned(id, &state(&file)?)?;
        let found = checksum::of_file(&mut file, &path, self.stop, self.progress).map_err(|error| error.to_string())?;
        self.check_planned(id, &state(&file)?)?;
        if found != self.inventory.sha256[id as usize] && !self.stop.load(Ordering::Relaxed) {
            return Err(
                "its SHA-256 is not that of the manifest: it is damaged; remove it, and materialize again".into()
            );
        }
        Ok(())
    }

    /// Compares a sample's bytes, from its first header to the end of its last member. The sample has the same slot in
    /// both plans, and so the same key: all bytes must be the same.
    fn compare_sample(
        &self,
        id: ShardId,
        [npz, shard]: &[Arc<Cursor>; 2],
        [made, stored]: [Range<u64>; 2],
    ) -> Result<(), String> {
        if made.end - made.start != stored.end - stored.start {
            return Err("its members have other sizes in the shard".into());
        }
        let mut done = 0;
        while stored.start + done < stored.end {
            if self.stop.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            let len = to_usize(READ.min(stored.end - stored.start - done));
            let read = |set: &ShardSet, cursor, at| set.read_with(cursor, at, len).map_err(|error| error.to_string());
            let (right, found) =
                (read(self.npz, npz, made.start + done)?, read(self.shards, shard, stored.start + done)?);
            if right.len() != len || found.len() != len {
                return Err("it could not be read to its end".into());
            }
            if right != found {
                let differs = right.iter().zip(&found).position(|(one, other)| one != other).unwrap_or(0);
                return Err(self.difference(id, stored.start + done + differs as u64));
            }
            (self.progress)(2 * len as u64);
            done += len as u64;
        }
        Ok(())
    }

    /// A message that says what stands at a byte of a shard.
    fn difference(&self, id: ShardId, at: u64) -> String {
        let plan = self.shards.plan();
        let what = match plan.locate(id, at, 1).next().map(|(extent, _)| extent.content) {
            Some(Content::Payload(member)) => format!("its .{}", plan.members.extension(member.member)),
            _ => "its headers".into(),
        };
        format!("{what} in the shard is not what is made from the source file (byte {at} of the plain shard)")
    }
}

/// The bytes of a shard that belong to a sample; `number` counts the shard's samples from 0 on.
fn range(plan: &Plan, id: ShardId, number: usize) -> Range<u64> {
    let layout = &plan.shards[id as usize].layout;
    let starts = layout.sample_starts();
    starts[number]..starts.get(number + 1).copied().unwrap_or_else(|| layout.end())
}
