//! The mount's files: names, inodes, attributes, handles and reads. Read-only, and free of FUSE.
//!
//! An inode's bytes and size never change. No lock is held while bytes are read or made.

mod fuse;
pub mod mount;
pub mod mounts;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::manifest;
use crate::num::to_usize;
use crate::plan::{Plan, ShardId};
use crate::shard::{Cursor, ShardSet};

/// The folder of the status files; hidden, so that a glob of `*.tar` does not see it.
pub const STATUS_DIR: &str = ".ctwds";
const STATS: &str = "stats.json";
const MOUNT: &str = "mount.json";

/// An inode number.
pub type Inode = u64;

const ROOT: Inode = 1;
const STATUS: Inode = 2;
const MANIFEST_FILE: Inode = 3;
const STATS_FILE: Inode = 4;
const MOUNT_FILE: Inode = 5;
/// Shard 0's inode; the others follow.
const FIRST_SHARD: Inode = 16;

/// What `stat` shows, besides the constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The inode.
    pub inode: Inode,
    /// Bytes; 0 for status files that are made when opened, as in procfs.
    pub size: u64,
    /// Folder or file.
    pub is_dir: bool,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Names it in later calls.
    pub handle: u64,
    /// Whether the kernel is not to cache it.
    pub uncached: bool,
}

#[derive(Clone)]
enum Handle {
    Shard(Arc<Cursor>),
    Fixed(Bytes),
}

/// The tree of the mount.
pub struct Tree {
    set: ShardSet,
    manifest: Bytes,
    mount: Bytes,
    /// Whether the kernel is to keep what it reads of the shards.
    page_cache: bool,
    /// All files' times.
    pub(crate) started: SystemTime,
    handles: RwLock<HashMap<u64, Handle>>,
    next_handle: AtomicU64,
}

impl Tree {
    /// The tree of a shard set; `mount` is the content of the status file of that name. With `page_cache`, the kernel
    /// keeps what it reads of the shards.
    pub fn new(set: ShardSet, mount: Vec<u8>, page_cache: bool) -> Self {
        let manifest = manifest::render(set.plan(), |_| None).into();
        let started = SystemTime::now();
        let (handles, next_handle) = (RwLock::default(), AtomicU64::new(1));
        Self { set, manifest, mount: mount.into(), page_cache, started, handles, next_handle }
    }

    /// The entry `name` of folder `parent`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn look_up(&self, parent: Inode, name: &OsStr) -> Result<Attr> {
        let name = name.to_str().ok_or(Error::NotFound)?;
        let inode = match (parent, name) {
            (ROOT, STATUS_DIR) => STATUS,
            (ROOT, manifest::NAME) => MANIFEST_FILE,
            (ROOT, _) => self.shard_named(name).ok_or(Error::NotFound)?,
            (STATUS, STATS) => STATS_FILE,
            (STATUS, MOUNT) => MOUNT_FILE,
            _ => return Err(Error::NotFound),
        };
        self.attr(inode)
    }

    fn shard_named(&self, name: &str) -> Option<Inode> {
        let id: ShardId = name.strip_prefix("shard-")?.strip_suffix(".tar")?.parse().ok()?;
        (Plan::shard_name(id) == name).then_some(FIRST_SHARD + Inode::from(id))
    }

    fn shard_of(inode: Inode) -> Option<ShardId> {
        ShardId::try_from(inode.checked_sub(FIRST_SHARD)?).ok()
    }

    /// The attributes of an inode.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn attr(&self, inode: Inode) -> Result<Attr> {
        let (size, is_dir) = match inode {
            ROOT | STATUS => (0, true),
            MANIFEST_FILE => (self.manifest.len() as u64, false),
            MOUNT_FILE => (self.mount.len() as u64, false),
            STATS_FILE => (0, false),
            shard => (Self::shard_of(shard).and_then(|id| self.set.len(id)).ok_or(Error::NotFound)?, false),
        };
        Ok(Attr { inode, size, is_dir })
    }

    /// The entries of a folder with their inodes, `.` and `..` first, from number `start` on.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is no folder.
    pub fn entries(&self, folder: Inode, start: usize) -> Result<impl Iterator<Item = (Inode, String)> + '_> {
        let dots = [(folder, ".".to_owned()), (ROOT, "..".to_owned())];
        let (fixed, shards): (Vec<(Inode, &str)>, _) = match folder {
            ROOT => (vec![(STATUS, STATUS_DIR), (MANIFEST_FILE, manifest::NAME)], self.set.plan().shards.len()),
            STATUS => (vec![(STATS_FILE, STATS), (MOUNT_FILE, MOUNT)], 0),
            _ => return Err(Error::NotFound),
        };
        let fixed = fixed.into_iter().map(|(inode, name)| (inode, name.to_owned()));
        let shards = (0..ShardId::try_from(shards).unwrap_or(ShardId::MAX))
            .map(|id| (FIRST_SHARD + Inode::from(id), Plan::shard_name(id)));
        Ok(dots.into_iter().chain(fixed).chain(shards).skip(start))
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is none.
    pub fn open(&self, inode: Inode) -> Result<Opened> {
        let handle = match inode {
            MANIFEST_FILE => Handle::Fixed(self.manifest.clone()),
            MOUNT_FILE => Handle::Fixed(self.mount.clone()),
            STATS_FILE => Handle::Fixed(self.stats()),
            shard => {
                let id = Self::shard_of(shard).filter(|id| self.set.len(*id).is_some()).ok_or(Error::NotFound)?;
                Handle::Shard(Arc::new(self.set.cursor(id)))
            }
        };
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.write().unwrap_or_else(|poison| poison.into_inner()).insert(number, handle);
        // The statistics are others at each open.
        let uncached = inode == STATS_FILE || (inode >= FIRST_SHARD && !self.page_cache);
        Ok(Opened { handle: number, uncached })
    }

    fn stats(&self) -> Bytes {
        let mut json = serde_json::to_vec_pretty(&self.set.stats()).unwrap_or_default();
        json.push(b'\n');
        json.into()
    }

    /// Reads `len` bytes of an open file from `offset` on, fewer only at its end. `done` is called at once, or by
    /// the thread that makes the bytes: never does the calling thread wait for a decode.
    pub fn read(&self, handle: u64, offset: u64, len: usize, done: impl FnOnce(Result<Bytes>) + Send + 'static) {
        let handle = self.handles.read().unwrap_or_else(|poison| poison.into_inner()).get(&handle).cloned();
        match handle {
            Some(Handle::Shard(cursor)) => self.set.read_then(&cursor, offset, len, done),
            Some(Handle::Fixed(bytes)) => {
                let start = to_usize(offset).min(bytes.len());
                done(Ok(bytes.slice(start..start.saturating_add(len).min(bytes.len()))));
            }
            None => done(Err(Error::NotFound)),
        }
    }

    /// Closes a file.
    pub fn release(&self, handle: u64) {
        // Dropped after the lock: a cursor's end changes the cache.
        let closed = self.handles.write().unwrap_or_else(|poison| poison.into_inner()).remove(&handle);
        drop(closed);
    }

    /// Bytes and number of all files, for `df`.
    pub fn totals(&self) -> (u64, u64) {
        (self.set.plan().shard_bytes(), self.set.plan().shards.len() as u64)
    }
}
