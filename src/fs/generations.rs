//! The generations of a shard's name. An inode's bytes and size never change, so the name of a shard that becomes a
//! file gets another inode, and gets one again each time that the file comes to have another size.

use std::collections::HashMap;
use std::sync::RwLock;

use super::node::Generation;
use crate::base::lock;
use crate::base::num::to_usize;
use crate::plan::ShardId;

/// The generations of each shard whose name leads, or led, to a file. The size of a file without a sample that could
/// not be made is not the planned one.
#[derive(Default)]
pub(super) struct Generations(RwLock<HashMap<ShardId, Shard>>);

#[derive(Default)]
struct Shard {
    /// The sizes in bytes of the generations, the newest last.
    sizes: Vec<u64>,
    /// Whether the newest generation was opened while its file was gone: the kernel may never read it by itself again.
    lost: bool,
}

impl Generations {
    /// Notes the size of a shard's file in bytes, if there is one; true if the name gets a new inode by that. If a file
    /// of an unplanned size is gone, the new generation is the shard of the planned size that is made on demand.
    pub(super) fn note(&self, id: ShardId, file: Option<u64>, planned: u64) -> bool {
        let current = self.current_size(id);
        let Some(now) = file.or(current.map(|_| planned)) else { return false };
        let is_new = current != Some(now) || (file.is_some() && self.is_lost(id));
        if is_new {
            let mut shards = lock::write(&self.0);
            let shard = shards.entry(id).or_default();
            shard.sizes.push(now);
            shard.lost = false;
        }
        is_new
    }

    /// Notes that a generation was opened while its file was gone: when the file is there again, the name gets a new
    /// inode.
    pub(super) fn lose(&self, id: ShardId, generation: Generation) {
        let mut shards = lock::write(&self.0);
        if let Some(shard) = shards.get_mut(&id) {
            shard.lost |= shard.sizes.len() == to_usize(generation.into()) + 1;
        }
    }

    /// Whether the newest generation of a shard was opened while its file was gone.
    pub(super) fn is_lost(&self, id: ShardId) -> bool {
        lock::read(&self.0).get(&id).is_some_and(|shard| shard.lost)
    }

    /// The size in bytes of the newest generation; `None` if the shard's name has never led to a file.
    pub(super) fn current_size(&self, id: ShardId) -> Option<u64> {
        lock::read(&self.0).get(&id)?.sizes.last().copied()
    }

    /// The newest generation; `None` if the shard's name has never led to a file.
    pub(super) fn current(&self, id: ShardId) -> Option<Generation> {
        let sizes = lock::read(&self.0).get(&id)?.sizes.len();
        Generation::try_from(sizes - 1).ok()
    }

    /// The size of a generation in bytes; `None` if there was none of that number.
    pub(super) fn size(&self, id: ShardId, generation: Generation) -> Option<u64> {
        let shards = lock::read(&self.0);
        shards.get(&id)?.sizes.get(to_usize(generation.into())).copied()
    }

    /// The number of shards whose names lead, or led, to files.
    pub(super) fn shards(&self) -> usize {
        lock::read(&self.0).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_a_generation_of_its_own() {
        let generations = Generations::default();
        assert!(!generations.note(5, None, 100));
        assert_eq!(generations.current(5), None);
        let mut seen = Vec::new();
        for (file, is_new) in [(Some(80), true), (Some(80), false), (None, true), (Some(100), false), (Some(90), true)]
        {
            assert_eq!(generations.note(5, file, 100), is_new, "{file:?}");
            let generation = generations.current(5).unwrap();
            assert_eq!(generations.size(5, generation), file.or(Some(100)));
            seen.extend(is_new.then_some(generation));
        }
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(
            seen.iter().map(|generation| generations.size(5, *generation)).collect::<Vec<_>>(),
            [Some(80), Some(100), Some(90)]
        );
        assert_eq!((generations.current(6), generations.size(5, 3), generations.shards()), (None, None, 1));
    }

    #[test]
    fn a_file_that_comes_back_is_a_new_generation_if_somebody_missed_it() {
        let generations = Generations::default();
        assert!(generations.note(5, Some(100), 100));
        assert!(!generations.note(5, None, 100) && !generations.note(5, Some(100), 100), "nobody missed it");
        generations.lose(5, 0);
        assert!(generations.is_lost(5) && !generations.note(5, None, 100), "it is still gone");
        assert!(generations.note(5, Some(100), 100) && !generations.note(5, Some(100), 100));
        generations.lose(5, 0);
        assert!(!generations.is_lost(5), "an older generation has no name any more");
        assert_eq!(
            (generations.current(5), generations.size(5, 0), generations.size(5, 1)),
            (Some(1), Some(100), Some(100))
        );
    }
}
