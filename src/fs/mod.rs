//! The mount's files: names, inodes, attributes, handles and reads. Read-only, and free of FUSE.
//!
//! An inode's bytes and size never change. No lock is held while bytes are read or made.

mod finished;
mod fuse;
pub mod holders;
pub mod mount;
pub mod mounts;
mod passthrough;
mod pool;
mod switched;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::manifest;
use crate::num::to_usize;
use crate::plan::{Plan, ShardId};
use crate::record::STATUS_DIR;
use crate::shard::{self, Cursor, ShardSet};
use finished::Finished;
use pool::Pool;
use switched::{FIRST_FILE, FIRST_SHARD, Switched, shard_of};

const STATS: &str = "stats.json";
const MOUNT: &str = "mount.json";
const ERRORS: &str = "errors.json";
/// The status files, for whoever reads all of them: what is mounted, what happened, what failed.
pub const STATUS_FILES: [&str; 3] = [MOUNT, STATS, ERRORS];

/// An inode number.
pub type Inode = u64;

const ROOT: Inode = 1;
const STATUS: Inode = 2;
const MANIFEST_FILE: Inode = 3;
const STATS_FILE: Inode = 4;
const MOUNT_FILE: Inode = 5;
const ERRORS_FILE: Inode = 6;

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
#[derive(Clone, Debug)]
pub struct Opened {
    /// Names it in later calls.
    pub handle: u64,
    /// How the kernel is to read it.
    pub reading: Reading,
}

/// How the kernel reads an open file.
#[derive(Clone, Debug)]
pub enum Reading {
    /// Through its page cache.
    Cached,
    /// Past it.
    Uncached,
    /// From this file, without us if it can. `None` where the file is gone: from where others who have it open read.
    From(Option<Arc<File>>),
}

#[derive(Clone)]
enum Handle {
    Shard(Arc<Cursor>),
    Fixed(Bytes),
    File(Arc<File>),
}

/// Shards that are files already.
struct Materialized {
    finished: Finished,
    /// Those whose names have the inode of the file.
    switched: Switched,
    /// Opens and reads them: a disk may be slow, and a server dead.
    pool: Pool,
    opened: AtomicU64,
}

/// The status file `stats.json`.
#[derive(Serialize)]
struct Stats {
    #[serde(flatten)]
    shards: shard::Stats,
    /// Shards that are read from files.
    materialized_shards: u64,
    /// Opens that were served from them.
    materialized_opens: u64,
}

fn json(content: &impl Serialize) -> Bytes {
    let mut json = serde_json::to_vec_pretty(content).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

fn read_file(file: &File, offset: u64, len: usize) -> Result<Bytes> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(Path::new("a materialised shard"), "read it", error)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

/// The tree of the mount.
pub struct Tree {
    set: ShardSet,
    manifest: Bytes,
    mount: Bytes,
    /// Whether the kernel is to keep what it reads of the shards.
    page_cache: bool,
    materialized: Option<Materialized>,
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
        let materialized = None;
        Self { set, manifest, mount: mount.into(), page_cache, materialized, started, handles, next_handle }
    }

    /// Takes shards that `materialize` has finished in `folder`, now or later, from there.
    ///
    /// # Errors
    /// [`Error::Refused`] if the folder holds shards of another plan, or there are no threads; [`Error::Io`] if it
    /// cannot be read.
    pub fn use_materialized(&mut self, folder: &Path) -> Result<()> {
        let finished = Finished::open(folder, self.set.plan())?;
        let pool = Pool::new().map_err(|error| Error::Refused(format!("cannot start reading threads: {error}")))?;
        let (switched, opened) = (Switched::default(), AtomicU64::new(0));
        self.materialized = Some(Materialized { finished, switched, pool, opened });
        self.switch_finished();
        Ok(())
    }

    /// Gives the names of shards that have become files their new inodes; these names.
    pub fn switch_finished(&self) -> Vec<String> {
        let Some(Materialized { finished, switched, .. }) = &self.materialized else { return Vec::new() };
        finished.refresh();
        let all = 0..ShardId::try_from(self.set.plan().shards.len()).unwrap_or(ShardId::MAX);
        // The files of the others need not be looked at.
        let may_be_new = |id: &ShardId| finished.recorded(*id) != switched.last(*id);
        all.filter(may_be_new).filter(|id| self.switch(*id)).map(Plan::shard_name).collect()
    }

    /// Gives a shard's name the inode of what it is now; whether that is another one.
    fn switch(&self, id: ShardId) -> bool {
        let Some(Materialized { finished, switched, .. }) = &self.materialized else { return false };
        let size = finished.file(id).map(|(_, size)| size);
        self.set.len(id).is_some_and(|planned| switched.note(id, size, planned))
    }

    /// The inode that a shard's name has now.
    fn inode_of(&self, id: ShardId) -> Inode {
        let on_demand = Inode::from(id) + FIRST_SHARD;
        self.materialized.as_ref().map_or(on_demand, |materialized| materialized.switched.inode(id))
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
            (STATUS, ERRORS) => ERRORS_FILE,
            _ => return Err(Error::NotFound),
        };
        self.attr(inode)
    }

    fn shard_named(&self, name: &str) -> Option<Inode> {
        Plan::shard_named(name).map(|id| self.inode_of(id))
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
            STATS_FILE | ERRORS_FILE => (0, false),
            shard => (self.shard_size(shard).ok_or(Error::NotFound)?, false),
        };
        Ok(Attr { inode, size, is_dir })
    }

    fn shard_size(&self, inode: Inode) -> Option<u64> {
        let file = || self.materialized.as_ref()?.switched.size(inode);
        if inode >= FIRST_FILE { file() } else { self.set.len(shard_of(inode)?) }
    }

    /// The entries of a folder with their inodes, `.` and `..` first, from number `start` on.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is no folder.
    pub fn entries(&self, folder: Inode, start: usize) -> Result<impl Iterator<Item = (Inode, String)> + '_> {
        let dots = [(folder, ".".to_owned()), (ROOT, "..".to_owned())];
        let (fixed, shards): (Vec<(Inode, &str)>, _) = match folder {
            ROOT => (vec![(STATUS, STATUS_DIR), (MANIFEST_FILE, manifest::NAME)], self.set.plan().shards.len()),
            STATUS => (vec![(STATS_FILE, STATS), (MOUNT_FILE, MOUNT), (ERRORS_FILE, ERRORS)], 0),
            _ => return Err(Error::NotFound),
        };
        let fixed = fixed.into_iter().map(|(inode, name)| (inode, name.to_owned()));
        let shards =
            (0..ShardId::try_from(shards).unwrap_or(ShardId::MAX)).map(|id| (self.inode_of(id), Plan::shard_name(id)));
        Ok(dots.into_iter().chain(fixed).chain(shards).skip(start))
    }

    /// Opens a file for reading. `done` is called at once, or by a thread that may wait for a disk.
    pub fn open(self: &Arc<Self>, inode: Inode, done: impl FnOnce(Result<Opened>) + Send + 'static) {
        let tree = self.clone();
        match &self.materialized {
            Some(materialized) if inode >= FIRST_SHARD => materialized.pool.run(move || done(tree.open_now(inode))),
            _ => done(self.open_now(inode)),
        }
    }

    fn open_now(&self, inode: Inode) -> Result<Opened> {
        let (handle, reading) = match inode {
            // Status is asked for when something is wrong: never out of the cache.
            MANIFEST_FILE => (Handle::Fixed(self.manifest.clone()), Reading::Cached),
            MOUNT_FILE => (Handle::Fixed(self.mount.clone()), Reading::Uncached),
            STATS_FILE => (Handle::Fixed(self.stats()), Reading::Uncached),
            ERRORS_FILE => (Handle::Fixed(json(&self.set.errors())), Reading::Uncached),
            shard => self.open_shard(shard)?,
        };
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.write().unwrap_or_else(|poison| poison.into_inner()).insert(number, handle);
        Ok(Opened { handle: number, reading })
    }

    fn open_shard(&self, inode: Inode) -> Result<(Handle, Reading)> {
        let id = shard_of(inode).ok_or(Error::NotFound)?;
        let promised = self.shard_size(inode).ok_or(Error::NotFound)?;
        let usual = if self.page_cache { Reading::Cached } else { Reading::Uncached };
        let file = self.materialized.as_ref().and_then(|materialized| {
            materialized.finished.refresh();
            let (file, size) = materialized.finished.file(id)?;
            (size == promised).then(|| {
                materialized.opened.fetch_add(1, Ordering::Relaxed);
                Arc::new(file)
            })
        });
        Ok(match file {
            Some(file) if inode >= FIRST_FILE => (Handle::File(file.clone()), Reading::From(Some(file))),
            Some(file) => (Handle::File(file), usual),
            // A file without a sample that could not be made has been replaced or removed: the kernel looks the name up
            // again, and finds what it leads to now.
            None if self.set.len(id) != Some(promised) => {
                self.switch(id);
                let (path, detail) = (Plan::shard_name(id).into(), "it has become another file".into());
                return Err(Error::Changed { path, detail });
            }
            None if inode >= FIRST_FILE => (Handle::Shard(Arc::new(self.set.cursor(id))), Reading::From(None)),
            None => (Handle::Shard(Arc::new(self.set.cursor(id))), usual),
        })
    }

    fn stats(&self) -> Bytes {
        let count = |materialized: &Materialized| {
            (materialized.switched.len() as u64, materialized.opened.load(Ordering::Relaxed))
        };
        let (materialized_shards, materialized_opens) = self.materialized.as_ref().map_or((0, 0), count);
        let stats = Stats { shards: self.set.stats(), materialized_shards, materialized_opens };
        json(&stats)
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
            Some(Handle::File(file)) => match &self.materialized {
                Some(materialized) => materialized.pool.run(move || done(read_file(&file, offset, len))),
                None => done(Err(Error::NotFound)),
            },
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
