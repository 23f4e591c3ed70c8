//! The names, attributes and folder entries of the tree.

use std::ffi::OsStr;

use super::node::{Inode, Node};
use super::tree::{Attr, ERRORS, MOUNT, STATS, Tree};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::output::indexes::{ENERGON_FOLDER, ShardIndex, ViewIndex};
use crate::output::journal::STATUS_DIR;
use crate::output::manifest;
use crate::plan::{Plan, ShardId, View};

/// The name of the folder of the shuffled views. In it, the name of a view's folder is the epoch's number, in six
/// digits.
const EPOCHS: &str = "epochs";

fn epoch_name(epoch: u32) -> String {
    format!("{epoch:06}")
}

/// An entry of a folder of the mount.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// The inode.
    pub inode: Inode,
    /// Whether the entry is a folder.
    pub is_dir: bool,
    /// The name, without the folder.
    pub name: String,
}

impl DirEntry {
    fn new(node: Node, name: impl Into<String>) -> Self {
        Self { inode: node.inode(), is_dir: node.is_dir(), name: name.into() }
    }
}

impl Tree {
    /// The attributes of the entry `name` of folder `parent`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such entry.
    pub fn look_up(&self, parent: Inode, name: &OsStr) -> Result<Attr> {
        let name = name.to_str().ok_or(Error::NotFound)?;
        let node = Node::of(parent).and_then(|parent| self.child(parent, name)).ok_or(Error::NotFound)?;
        self.attr(node.inode())
    }

    /// The node of the entry `name` of a folder.
    fn child(&self, parent: Node, name: &str) -> Option<Node> {
        if let Node::Epochs = parent {
            let epoch = name.parse().ok().filter(|epoch| epoch_name(*epoch) == name)?;
            return Some(Node::Folder(View::Epoch(epoch)));
        }
        if let Node::Folder(view) = parent
            && let Some(node) = self.shard_named(view, name)
        {
            return Some(node);
        }
        self.fixed(parent)?.into_iter().find(|(_, of)| *of == name).map(|(node, _)| node)
    }

    /// The entries of a folder that are not numbered; `None` if the node is no folder.
    fn fixed(&self, folder: Node) -> Option<Vec<(Node, &'static str)>> {
        let indexes = |view, of: Option<&'static str>| {
            let indexes = ViewIndex::ALL.into_iter().filter(move |index| index.folder() == of);
            indexes.map(move |index| (Node::ViewIndex(view, index), index.name()))
        };
        Some(match folder {
            Node::Folder(view) => {
                let mut entries = vec![(Node::Manifest(view), manifest::NAME), (Node::Energon(view), ENERGON_FOLDER)];
                entries.extend(indexes(view, None));
                if view == View::Plain {
                    entries.push((Node::Status, STATUS_DIR));
                    entries.extend((self.set.plan().epochs() > 0).then_some((Node::Epochs, EPOCHS)));
                }
                entries
            }
            Node::Energon(view) => indexes(view, Some(ENERGON_FOLDER)).collect(),
            Node::Status => vec![(Node::StatsFile, STATS), (Node::MountFile, MOUNT), (Node::ErrorsFile, ERRORS)],
            Node::Epochs => Vec::new(),
            _ => return None,
        })
    }

    /// The node of a shard of a view, or of an index file of the shard, by name.
    fn shard_named(&self, view: View, name: &str) -> Option<Node> {
        let digits = name.strip_prefix("shard-")?.split('.').next()?;
        let number: u32 = digits.parse().ok()?;
        let id = self.set.plan().view(view)?.nth(to_usize(number.into()))?;
        if Plan::shard_name(number) == name {
            return Some(self.shard_node(id));
        }
        let index = ShardIndex::ALL.into_iter().find(|index| index.name(number) == name)?;
        Some(Node::ShardIndex(id, index))
    }

    /// The node that a shard's name leads to now.
    fn shard_node(&self, id: ShardId) -> Node {
        let generation = self.materialized.as_ref().and_then(|materialized| materialized.generations.current(id));
        generation.map_or(Node::Shard(id), |generation| Node::File(id, generation))
    }

    /// Whether a shard's name leads to the planned bytes. If a file lacks a sample that could not be made, it does not,
    /// and the shard's index files are not there, because they would lead their readers to wrong bytes.
    pub(super) fn is_as_planned(&self, id: ShardId) -> bool {
        let size = self.materialized.as_ref().and_then(|materialized| materialized.generations.current_size(id));
        size.is_none_or(|size| self.set.len(id) == Some(size))
    }

    /// The attributes of an inode.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing has that inode.
    pub fn attr(&self, inode: Inode) -> Result<Attr> {
        let node = Node::of(inode).ok_or(Error::NotFound)?;
        let size = self.size(node).ok_or(Error::NotFound)?;
        Ok(Attr { inode, size, is_dir: node.is_dir() })
    }

    /// The size of a file in bytes, and 0 for a folder; `None` if the node is not there.
    pub(super) fn size(&self, node: Node) -> Option<u64> {
        let plan = self.set.plan();
        match node {
            Node::Epochs => (plan.epochs() > 0).then_some(0),
            Node::Folder(view) | Node::Energon(view) => plan.has_view(view).then_some(0),
            // These files are made when they are opened, as in procfs.
            Node::Status | Node::StatsFile | Node::ErrorsFile => Some(0),
            Node::MountFile => Some(self.mount.len() as u64),
            Node::Shard(id) => self.set.len(id),
            Node::File(id, generation) => self.materialized.as_ref()?.generations.size(id, generation),
            Node::ShardIndex(id, index) => self.is_as_planned(id).then(|| index.len(plan, id))?,
            Node::Manifest(_) | Node::ViewIndex(..) => Some(self.made(node)?.len() as u64),
        }
    }

    /// The entries of a folder, `.` and `..` first, from number `start` on.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is no folder.
    pub fn entries(&self, folder: Inode, start: usize) -> Result<impl Iterator<Item = DirEntry> + '_> {
        let folder = Node::of(folder).filter(|node| self.size(*node).is_some()).ok_or(Error::NotFound)?;
        let mut fixed = vec![DirEntry::new(folder, "."), DirEntry::new(folder.parent(), "..")];
        fixed.extend(
            self.fixed(folder).ok_or(Error::NotFound)?.into_iter().map(|(node, name)| DirEntry::new(node, name)),
        );
        let numbered = match folder {
            Node::Epochs => to_usize(self.set.plan().epochs().into()),
            // Each shard has its two indexes.
            Node::Folder(view) => self.set.plan().view(view).map_or(0, |shards| shards.len()) * 3,
            _ => 0,
        };
        let count = fixed.len();
        let entry = move |place: usize| match place.checked_sub(count) {
            None => Some(fixed[place].clone()),
            Some(number) => self.numbered(folder, number),
        };
        Ok((start..count + numbered).filter_map(entry))
    }

    /// The entry at a place among a folder's numbered entries: an epoch's folder, or a shard followed by its index
    /// files.
    fn numbered(&self, folder: Node, place: usize) -> Option<DirEntry> {
        let Node::Folder(view) = folder else {
            let epoch = u32::try_from(place).ok()?;
            return Some(DirEntry::new(Node::Folder(View::Epoch(epoch)), epoch_name(epoch)));
        };
        let number = u32::try_from(place / 3).ok()?;
        let id = self.set.plan().view(view)?.nth(place / 3)?;
        Some(match place % 3 {
            0 => DirEntry::new(self.shard_node(id), Plan::shard_name(number)),
            index => {
                let index = ShardIndex::ALL[index - 1];
                DirEntry::new(Node::ShardIndex(id, index), index.name(number))
            }
        })
    }
}
