//! Whether a shard's file holds, to the byte, what the plan makes of its NPZ files.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, fadvise};

use super::{Reclaim, State};
use crate::base::file_id::FileId;
use crate::base::num::to_usize;
use crate::output::checksum;
use crate::plan::layout::Content;
use crate::plan::{Plan, ShardId};
use crate::shard::{Cursor, ShardSet};

/// Bytes that are compared at a time.
const READ: u64 = 4 << 20;

/// The two sources of a shard's bytes.
pub(super) struct Proof<'a> {
    pub(super) of: &'a Reclaim,
    pub(super) npz: &'a ShardSet,
    pub(super) shards: &'a ShardSet,
    pub(super) stop: &'a AtomicBool,
    pub(super) read: &'a (dyn Fn(u64) + Sync),
}

impl Proof<'_> {
    /// Makes a shard's file durable, checks its SHA-256, and compares all of its samples whose NPZ files are there. Or
    /// says what is wrong.
    pub(super) fn compare(&self, id: ShardId) -> Result<(), String> {
        self.check_file(id)?;
        let cursors = [self.npz, self.shards].map(|set| Arc::new(set.cursor(id)));
        let (npz, shards) = (self.npz.plan(), self.shards.plan());
        let place = |plan: &Plan, index: usize| index - plan.shards[id as usize].samples.start;
        for index in shards.samples(id).iter() {
            let State::Here(other) = self.of.states[index] else { continue };
            let study = &shards.dataset.samples[index].study_id;
            let ranges = [range(npz, id, place(npz, other)), range(shards, id, place(shards, index))];
            self.compare_sample(id, &cursors, ranges).map_err(|reason| format!("{study}: {reason}"))?;
        }
        Ok(())
    }

    /// Whether a shard's file is still the one that was checked.
    pub(super) fn still_stands(&self, id: ShardId) -> Result<(), String> {
        let metadata =
            std::fs::metadata(self.path(id)).map_err(|error| format!("its shard cannot be seen: {error}"))?;
        self.is_planned(id, &FileId::of(&metadata))
    }

    fn path(&self, id: ShardId) -> PathBuf {
        self.of.folder.join(Plan::shard_name(id))
    }

    fn is_planned(&self, id: ShardId, found: &FileId) -> Result<(), String> {
        let planned = self.shards.plan().shard_samples(id).next().map(|sample| sample.file_id());
        match planned.and_then(|planned| planned.difference(found)) {
            Some(detail) => Err(format!("the shard has changed since its headers were read ({detail})")),
            None => Ok(()),
        }
    }

    /// The file is durable before it is read again, from the disk where the kernel takes that advice.
    fn check_file(&self, id: ShardId) -> Result<(), String> {
        let path = self.path(id);
        let failed = |error: std::io::Error| format!("the shard cannot be made durable: {error}");
        let mut file = File::open(&path).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let state = |file: &File| file.metadata().map(|metadata| FileId::of(&metadata)).map_err(failed);
        self.is_planned(id, &state(&file)?)?;
        let found = checksum::of_file(&mut file, &path, self.stop, self.read).map_err(|error| error.to_string())?;
        self.is_planned(id, &state(&file)?)?;
        if found != self.of.sha256[id as usize] && !self.stop.load(Ordering::Relaxed) {
            return Err(
                "its SHA-256 is not that of the manifest: it is damaged; remove it, and materialize again".into()
            );
        }
        Ok(())
    }

    /// Compares a sample's bytes, from its first header to the end of its last member. Both have it in the same slot, so
    /// they have the same key, and the bytes must be the same altogether.
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
            let read = |set: &ShardSet, cursor, at| set.read_on(cursor, at, len).map_err(|error| error.to_string());
            let (right, found) =
                (read(self.npz, npz, made.start + done)?, read(self.shards, shard, stored.start + done)?);
            if right.len() != len || found.len() != len {
                return Err("it could not be read to its end".into());
            }
            if right != found {
                let differs = right.iter().zip(&found).position(|(one, other)| one != other).unwrap_or(0);
                return Err(self.difference(id, stored.start + done + differs as u64));
            }
            (self.read)(2 * len as u64);
            done += len as u64;
        }
        Ok(())
    }

    /// What stands at a byte of a shard, in words.
    fn difference(&self, id: ShardId, at: u64) -> String {
        let plan = self.shards.plan();
        let extensions = plan.options.format.extensions();
        let what = match plan.locate(id, at, 1).next().map(|(extent, _)| extent.content) {
            Some(Content::Payload(member)) => format!("its .{}", extensions[usize::from(member.member)]),
            _ => "its headers".into(),
        };
        format!("{what} in the shard is not what is made from the NPZ file (byte {at} of the plain shard)")
    }
}

/// Where the sample at a place of a shard stands in it.
fn range(plan: &Plan, id: ShardId, place: usize) -> Range<u64> {
    let layout = &plan.shards[id as usize].layout;
    let starts = layout.sample_starts();
    starts[place]..starts.get(place + 1).copied().unwrap_or_else(|| layout.end())
}
