//! Which inode a shard's name has: an inode's bytes and size never change, so a shard that becomes a file gets another,
//! and so does one whose file comes to have another size.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::Inode;
use crate::plan::ShardId;

/// Shard 0's inode while it is made on demand; the others follow.
pub(super) const FIRST_SHARD: Inode = 16;
/// Shard 0's inode once it is a file; the others follow, and after them those of files of another size. Not the one
/// that it had before, because a kernel that has cached pages of the one cannot read the other past them.
pub(super) const FIRST_FILE: Inode = 1 << 33;

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
            self.0.write().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().push(now);
        }
        is_new
    }

    /// The size of what a shard's name leads to now, if it is, or was, a file.
    pub(super) fn last(&self, id: ShardId) -> Option<u64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id)?.last().copied()
    }

    /// The inode that a shard's name has now.
    pub(super) fn inode(&self, id: ShardId) -> Inode {
        let sizes = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).map_or(0, Vec::len);
        Inode::from(id) + if sizes == 0 { FIRST_SHARD } else { FIRST_FILE * sizes as Inode }
    }

    /// The size of a file's inode.
    pub(super) fn size(&self, inode: Inode) -> Option<u64> {
        let nth = usize::try_from((inode / FIRST_FILE).checked_sub(1)?).ok()?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&shard_of(inode)?)?.get(nth).copied()
    }

    /// Shards that are, or were, files.
    pub(super) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The shard of an inode.
pub(super) fn shard_of(inode: Inode) -> Option<ShardId> {
    let number = if inode >= FIRST_FILE { Some(inode % FIRST_FILE) } else { inode.checked_sub(FIRST_SHARD) };
    ShardId::try_from(number?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_an_inode_of_its_own() {
        let switched = Switched::default();
        assert!(!switched.note(5, None, 100));
        let mut seen = vec![switched.inode(5)];
        for (file, is_new) in [(Some(80), true), (Some(80), false), (None, true), (Some(100), false), (Some(90), true)]
        {
            assert_eq!(switched.note(5, file, 100), is_new, "{file:?}");
            if is_new {
                assert_eq!(switched.size(switched.inode(5)), file.or(Some(100)));
                seen.push(switched.inode(5));
            }
        }
        assert!(seen.iter().all(|inode| shard_of(*inode) == Some(5)));
        assert_eq!(
            seen.iter().map(|inode| switched.size(*inode)).collect::<Vec<_>>(),
            [None, Some(80), Some(100), Some(90)]
        );
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((switched.inode(6), switched.size(FIRST_FILE + 6), switched.len()), (FIRST_SHARD + 6, None, 1));
    }
}
