//! Which file a shard's name leads to: an inode's bytes and size never change, so a shard that becomes a file gets
//! another, and so does one whose file comes to have another size.

use std::collections::HashMap;
use std::sync::RwLock;

use super::node::Generation;
use crate::base::lock;
use crate::base::num::to_usize;
use crate::plan::ShardId;

/// The sizes that files of shards had, one after the other: without a sample that could not be made, it is not the
/// planned one. What a name leads to now is the last.
#[derive(Default)]
pub(super) struct Switched(RwLock<HashMap<ShardId, Vec<u64>>>);

impl Switched {
    /// Notes the size of a shard's file, if there is one; true if the name gets a new inode by that. A file of an unplanned
    /// size that is gone leaves the shard that is made on demand.
    pub(super) fn note(&self, id: ShardId, file: Option<u64>, planned: u64) -> bool {
        let last = self.last(id);
        let Some(now) = file.or(last.map(|_| planned)) else { return false };
        let is_new = last != Some(now);
        if is_new {
            lock::write(&self.0).entry(id).or_default().push(now);
        }
        is_new
    }

    /// The size of what a shard's name leads to now, if it is, or was, a file.
    pub(super) fn last(&self, id: ShardId) -> Option<u64> {
        lock::read(&self.0).get(&id)?.last().copied()
    }

    /// Which file a shard's name leads to now, if it is, or was, one.
    pub(super) fn generation(&self, id: ShardId) -> Option<Generation> {
        let sizes = lock::read(&self.0).get(&id)?.len();
        Generation::try_from(sizes - 1).ok()
    }

    /// The size of one of the files.
    pub(super) fn size(&self, id: ShardId, generation: Generation) -> Option<u64> {
        let sizes = lock::read(&self.0);
        sizes.get(&id)?.get(to_usize(generation.into())).copied()
    }

    /// Shards that are, or were, files.
    pub(super) fn len(&self) -> usize {
        lock::read(&self.0).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_a_file_of_its_own() {
        let switched = Switched::default();
        assert!(!switched.note(5, None, 100));
        assert_eq!(switched.generation(5), None);
        let mut seen = Vec::new();
        for (file, is_new) in [(Some(80), true), (Some(80), false), (None, true), (Some(100), false), (Some(90), true)]
        {
            assert_eq!(switched.note(5, file, 100), is_new, "{file:?}");
            let generation = switched.generation(5).unwrap();
            assert_eq!(switched.size(5, generation), file.or(Some(100)));
            seen.extend(is_new.then_some(generation));
        }
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(
            seen.iter().map(|file| switched.size(5, *file)).collect::<Vec<_>>(),
            [Some(80), Some(100), Some(90)]
        );
        assert_eq!((switched.generation(6), switched.size(5, 3), switched.len()), (None, None, 1));
    }
}
