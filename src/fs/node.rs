//! What there is in the mount, as numbers: each thing has its inode, and each inode its thing.
//!
//! The upper bits of an inode say what it is, the lower 33 of which shard or view; a shard's generation is above them.
//! Whether that shard or view is there at all, the plan knows.

use super::Inode;
use crate::output::indexes::{ShardIndex, ViewIndex};
use crate::plan::{ShardId, View};

/// A folder or file of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// The folder of a view's shards; that of the plain ones is the root.
    Folder(View),
    /// The folder of the epochs' folders.
    Epochs,
    /// The folder of the status files, and these.
    Status,
    Stats,
    Mount,
    Errors,
    /// A shard that is made on demand.
    Shard(ShardId),
    /// The same once it is a file, and each time that it has become one of another size ([`super::switched`]). Another
    /// inode, because a kernel that has cached pages of the one cannot read the other past them.
    File(ShardId, Generation),
    ShardIndex(ShardId, ShardIndex),
    Manifest(View),
    /// The folder of Energon's files of a view.
    Energon(View),
    ViewIndex(View, ViewIndex),
}

/// Of the files that a shard's name has led to, which: from 0 on.
pub(super) type Generation = u32;

const ROOT: Inode = 1;
/// Shard 0's inode while it is made on demand; the others follow.
const FIRST_SHARD: Inode = 16;
const NUMBER_BITS: u32 = 33;
const KIND_BITS: u32 = 7;

const FILES: u64 = 1;
const SHARD_INDEXES: [(u64, ShardIndex); 2] = [(2, ShardIndex::Dali), (3, ShardIndex::Energon)];
const FOLDERS: u64 = 4;
const MANIFESTS: u64 = 5;
const ENERGON: u64 = 6;
const VIEW_INDEXES: [(u64, ViewIndex); 4] =
    [(7, ViewIndex::Wids), (8, ViewIndex::EnergonInfo), (9, ViewIndex::EnergonSplit), (10, ViewIndex::EnergonDataset)];
const SINGLE: [(Inode, Node); 6] = [
    (ROOT, Node::Folder(View::Plain)),
    (2, Node::Status),
    (3, Node::Stats),
    (4, Node::Mount),
    (5, Node::Errors),
    (6, Node::Epochs),
];

fn view_number(view: View) -> u64 {
    match view {
        View::Plain => 0,
        View::Epoch(epoch) => u64::from(epoch) + 1,
    }
}

impl Node {
    pub(super) fn inode(self) -> Inode {
        if let Some((inode, _)) = SINGLE.iter().find(|(_, node)| *node == self) {
            return *inode;
        }
        let (kind, number) = match self {
            Self::Shard(id) => (0, FIRST_SHARD + u64::from(id)),
            Self::File(id, generation) => (u64::from(generation) << KIND_BITS | FILES, u64::from(id)),
            Self::ShardIndex(id, index) => (kind_of(&SHARD_INDEXES, index), u64::from(id)),
            Self::Folder(view) => (FOLDERS, view_number(view)),
            Self::Manifest(view) => (MANIFESTS, view_number(view)),
            Self::Energon(view) => (ENERGON, view_number(view)),
            Self::ViewIndex(view, index) => (kind_of(&VIEW_INDEXES, index), view_number(view)),
            Self::Epochs | Self::Status | Self::Stats | Self::Mount | Self::Errors => (0, 0), // found above
        };
        kind << NUMBER_BITS | number
    }

    pub(super) fn of(inode: Inode) -> Option<Self> {
        if let Some((_, node)) = SINGLE.iter().find(|(single, _)| *single == inode) {
            return Some(*node);
        }
        let (kind, number) = (inode >> NUMBER_BITS, inode & ((1 << NUMBER_BITS) - 1));
        if kind == 0 {
            return Some(Self::Shard(ShardId::try_from(number.checked_sub(FIRST_SHARD)?).ok()?));
        }
        let id = ShardId::try_from(number).ok()?;
        if kind % (1 << KIND_BITS) == FILES {
            return Some(Self::File(id, Generation::try_from(kind >> KIND_BITS).ok()?));
        }
        if let Some((_, index)) = SHARD_INDEXES.iter().find(|(of, _)| *of == kind) {
            return Some(Self::ShardIndex(id, *index));
        }
        let view = id.checked_sub(1).map_or(View::Plain, View::Epoch);
        match kind {
            FOLDERS => (view != View::Plain).then_some(Self::Folder(view)),
            MANIFESTS => Some(Self::Manifest(view)),
            ENERGON => Some(Self::Energon(view)),
            _ => {
                let (_, index) = VIEW_INDEXES.iter().find(|(of, _)| *of == kind)?;
                Some(Self::ViewIndex(view, *index))
            }
        }
    }

    pub(super) fn is_dir(self) -> bool {
        matches!(self, Self::Folder(_) | Self::Epochs | Self::Status | Self::Energon(_))
    }

    /// The folder in which it is, of those that hold folders.
    pub(super) fn parent(self) -> Self {
        match self {
            Self::Folder(View::Epoch(_)) => Self::Epochs,
            Self::Energon(view) => Self::Folder(view),
            _ => Self::Folder(View::Plain),
        }
    }
}

fn kind_of<T: PartialEq>(kinds: &[(u64, T)], wanted: T) -> u64 {
    kinds.iter().find(|(_, index)| *index == wanted).map_or(0, |(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_node_has_an_inode_of_its_own() {
        let ids = [0, 1, 471, u32::MAX];
        let views = [View::Plain, View::Epoch(0), View::Epoch(1), View::Epoch(999_999)];
        let shards = ids.into_iter().flat_map(|id| {
            let indexes = ShardIndex::ALL.map(|index| Node::ShardIndex(id, index));
            [Node::Shard(id), Node::File(id, 0), Node::File(id, 300)].into_iter().chain(indexes)
        });
        let folders = views.into_iter().flat_map(|view| {
            let indexes = ViewIndex::ALL.map(|index| Node::ViewIndex(view, index));
            [Node::Folder(view), Node::Manifest(view), Node::Energon(view)].into_iter().chain(indexes)
        });
        let single = [Node::Epochs, Node::Status, Node::Stats, Node::Mount, Node::Errors];
        let all: Vec<Node> = shards.chain(folders).chain(single).collect();
        assert!(all.iter().all(|node| Node::of(node.inode()) == Some(*node)));
        assert_eq!(all.iter().map(|node| node.inode()).collect::<HashSet<_>>().len(), all.len());
        assert_eq!(Node::Folder(View::Plain).inode(), 1);
        for inode in [0, 15, FIRST_SHARD - 1, FOLDERS << NUMBER_BITS, 11 << NUMBER_BITS, u64::MAX] {
            assert_eq!(Node::of(inode), None, "{inode}");
        }
    }
}
