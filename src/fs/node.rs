//! The folders and files of the mount as inode numbers: each node has one inode, and each inode stands for one node.
//!
//! The lower 33 bits of an inode are the number of the shard or view, the seven above them the kind of the node, and
//! the upper ones the generation of a shard's file. Whether the plan has that shard or view is not known here.

use crate::output::indexes::{ShardIndex, ViewIndex};
use crate::plan::{ShardId, View};

/// An inode number.
pub type Inode = u64;

/// A folder or file of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// The folder of a view's shards; the one of the plain view is the root.
    Folder(View),
    /// The folder that holds the folder of each epoch.
    Epochs,
    /// The folder of the status files.
    Status,
    /// The status file `stats.json`.
    StatsFile,
    /// The status file `mount.json`.
    MountFile,
    /// The status file `errors.json`.
    ErrorsFile,
    /// A shard that is made on demand.
    Shard(ShardId),
    /// A shard that has become a file; each size that the file had is a generation. A generation has an inode of its
    /// own, because a kernel that has cached pages of an inode cannot read another file past them.
    File(ShardId, Generation),
    /// An index file of a shard.
    ShardIndex(ShardId, ShardIndex),
    /// The manifest of a view.
    Manifest(View),
    /// The folder of a view's files for Energon.
    Energon(View),
    /// An index file of a view.
    ViewIndex(View, ViewIndex),
}

/// The number of one of the files that a shard's name has led to, from 0 on.
pub(super) type Generation = u32;

const ROOT: Inode = 1;
/// The inode of shard 0 while it is made on demand; those of the other shards follow.
const FIRST_SHARD: Inode = 16;
const NUMBER_BITS: u32 = 33;
const KIND_BITS: u32 = 7;

const FILES: u64 = 1;
const SHARD_INDEXES: [(u64, ShardIndex); 2] = [(2, ShardIndex::Dali), (3, ShardIndex::Energon)];
const FOLDERS: u64 = 4;
const MANIFESTS: u64 = 5;
const ENERGON: u64 = 6;
const VIEW_INDEXES: [(u64, ViewIndex); 5] = [
    (7, ViewIndex::Wids),
    (8, ViewIndex::EnergonInfo),
    (9, ViewIndex::EnergonSplit),
    (10, ViewIndex::EnergonDataset),
    (11, ViewIndex::DataCard),
];
const SINGLE: [(Inode, Node); 6] = [
    (ROOT, Node::Folder(View::Plain)),
    (2, Node::Status),
    (3, Node::StatsFile),
    (4, Node::MountFile),
    (5, Node::ErrorsFile),
    (6, Node::Epochs),
];

fn view_number(view: View) -> u64 {
    match view {
        View::Plain => 0,
        View::Epoch(epoch) => u64::from(epoch) + 1,
    }
}

impl Node {
    /// The inode of the node.
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
            Self::Epochs | Self::Status | Self::StatsFile | Self::MountFile | Self::ErrorsFile => (0, 0), // found above
        };
        kind << NUMBER_BITS | number
    }

    /// The node of an inode; `None` if the number stands for no node.
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

    /// Whether the node is a folder.
    pub(super) fn is_dir(self) -> bool {
        matches!(self, Self::Folder(_) | Self::Epochs | Self::Status | Self::Energon(_))
    }

    /// The parent of a folder, as its entry `..` shows it.
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
        let single = [Node::Epochs, Node::Status, Node::StatsFile, Node::MountFile, Node::ErrorsFile];
        let all: Vec<Node> = shards.chain(folders).chain(single).collect();
        assert!(all.iter().all(|node| Node::of(node.inode()) == Some(*node)));
        assert_eq!(all.iter().map(|node| node.inode()).collect::<HashSet<_>>().len(), all.len());
        assert_eq!(Node::Folder(View::Plain).inode(), 1);
        for inode in [0, 15, FIRST_SHARD - 1, FOLDERS << NUMBER_BITS, 12 << NUMBER_BITS, u64::MAX] {
            assert_eq!(Node::of(inode), None, "{inode}");
        }
    }
}
