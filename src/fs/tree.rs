//! The tree of the mount: how its files are opened, read and closed. It is read-only and knows nothing of FUSE.
//!
//! The bytes and size of an inode never change. No lock is held while bytes are read or made.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use super::finished::FinishedShards;
use super::generations::Generations;
use super::node::{Inode, Node};
use super::pool::DiskPool;
use super::shard_errors::{ShardError, ShardErrors};
use crate::base::limits::not_started;
use crate::base::lock::{self, lock};
use crate::base::num::{counted, to_usize};
use crate::error::{Error, Result};
use crate::output::indexes;
use crate::output::manifest;
use crate::plan::{Plan, ShardId, View};
use crate::shard::{self, Cursor, ShardSet, VolumeError};

/// The name of the status file of counts.
pub(super) const STATS: &str = "stats.json";
/// The name of the status file of what is mounted.
pub(super) const MOUNT: &str = "mount.json";
/// The name of the status file of volumes that could not be read.
pub(super) const ERRORS: &str = "errors.json";
/// The names of all status files: what is mounted, what happened, what failed.
pub const STATUS_FILES: [&str; 3] = [MOUNT, STATS, ERRORS];

/// The attributes of a file or folder that are not the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The inode.
    pub inode: Inode,
    /// The size in bytes; 0 for folders and for status files that are made when opened, as in procfs.
    pub size: u64,
    /// Whether the inode is a folder.
    pub is_dir: bool,
}

/// An open file of the mount.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// The number of the handle in later calls.
    pub handle: u64,
    /// How the kernel is to read the file.
    pub mode: ReadMode,
}

/// How the kernel reads an open file.
#[derive(Clone, Debug)]
pub enum ReadMode {
    /// Through the kernel's page cache.
    Cached,
    /// Past the kernel's page cache.
    Uncached,
    /// From this file, past the daemon if the kernel can. `None` if the file is gone: the kernel then reads what other
    /// open handles of the inode read.
    File(Option<Arc<File>>),
}

/// The content that an open handle reads.
#[derive(Clone)]
enum Handle {
    /// A shard that is made on demand.
    Shard(Arc<Cursor>),
    /// Content that was made when the file was opened.
    Fixed(Bytes),
    /// The file of a finished shard, of this size in bytes.
    File(Arc<File>, ShardId, u64),
}

/// The shards that are files already.
pub(super) struct Materialized {
    finished: Arc<FinishedShards>,
    /// The generations of the names that have the inode of a file.
    pub(super) generations: Generations,
    /// Opens and reads the files: a disk may be slow, and a server dead.
    pool: DiskPool,
    /// Opens that were served from the files.
    opened: AtomicU64,
    /// What could not be opened or read of them.
    errors: ShardErrors,
}

impl Materialized {
    /// Reads `len` bytes of a shard's file of `size` bytes, fewer only at the end of the shard.
    fn read(&self, file: &File, id: ShardId, size: u64, offset: u64, len: usize) -> Result<Bytes> {
        let wanted = len.min(to_usize(size.saturating_sub(offset)));
        let path = || self.finished.path(id);
        let bytes = read_file(file, offset, wanted);
        let bytes = bytes.map_err(|error| Error::io(&path(), "read the materialised shard", error));
        let bytes = bytes.and_then(|bytes| match bytes.len() == wanted {
            true => Ok(bytes),
            false => Err(Error::Changed { path: path(), detail: "it was cut while it was open".into() }),
        });
        bytes.inspect_err(|error| self.errors.note(id, error))
    }
}

/// The status file `stats.json`.
#[derive(Serialize)]
struct Stats {
    #[serde(flatten)]
    shards: shard::Stats,
    /// Shards whose names lead to files.
    materialized_shards: u64,
    /// Opens that were served from these files.
    materialized_opens: u64,
    /// Open handles, those of status files included.
    open_files: u64,
    /// Reads that are not answered yet, without those that the kernel does by itself.
    waiting_reads: u64,
}

/// A read that is not answered yet: it is counted until it is dropped.
struct PendingRead(Arc<AtomicU64>);

impl PendingRead {
    fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for PendingRead {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A status file's content.
fn json(content: &impl Serialize) -> Bytes {
    let mut json = serde_json::to_vec_pretty(content).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

/// The status file `errors.json`: a list of studies, then of shards.
#[derive(Serialize)]
#[serde(untagged)]
enum ReadError {
    Volume(VolumeError),
    Shard(ShardError),
}

/// Reads `len` bytes from `offset` on, fewer only at the end of the file.
fn read_file(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

/// The tree of the mount.
pub struct Tree {
    /// Makes the bytes of the shards.
    pub(super) set: ShardSet,
    /// The manifest that was asked for last: of 47,149 samples it has 12 MB, and takes 50 ms to make.
    manifest: Mutex<Option<(View, Bytes)>>,
    /// The content of the status file `mount.json`.
    pub(super) mount: Bytes,
    /// Whether the kernel is to keep what it reads of the shards.
    page_cache: bool,
    /// The shards that are read from files, if the user named their folder.
    pub(super) materialized: Option<Arc<Materialized>>,
    /// The times of all files.
    pub(super) mounted: SystemTime,
    handles: RwLock<HashMap<u64, Handle>>,
    next_handle: AtomicU64,
    pending: Arc<AtomicU64>,
}

impl Tree {
    /// The tree of a shard set; `mount` is the content of the status file `mount.json`. With `page_cache`, the kernel
    /// keeps what it reads of the shards.
    pub fn new(set: ShardSet, mount: Vec<u8>, page_cache: bool) -> Self {
        if page_cache {
            set.kernel_keeps();
        }
        let manifest = Mutex::default();
        let mounted = SystemTime::now();
        let (handles, next_handle, pending) = (RwLock::default(), AtomicU64::new(1), Arc::default());
        let materialized = None;
        Self { set, manifest, mount: mount.into(), page_cache, materialized, mounted, handles, next_handle, pending }
    }

    /// Reads shards that `materialize` has finished in `folder`, now or later, from there; the shards of shuffled views
    /// take their volumes from there as well.
    ///
    /// # Errors
    /// [`Error::Refused`] if the folder holds shards of another plan; [`Error::Io`] if it cannot be read;
    /// [`Error::System`] if no threads can be started.
    pub fn use_materialized(&mut self, folder: &Path) -> Result<()> {
        let finished = Arc::new(FinishedShards::open(folder, self.set.plan())?);
        self.set.use_copies(Box::new(finished.clone()));
        let pool =
            DiskPool::new().map_err(|error| not_started("start the threads that read materialised shards", error))?;
        let (generations, opened, errors) = Default::default();
        self.materialized = Some(Arc::new(Materialized { finished, generations, pool, opened, errors }));
        self.renew_inodes();
        let ids = self.set.plan().shard_ids();
        let smaller = ids.filter(|id| !self.is_as_planned(*id)).count();
        if smaller > 0 {
            log::warn!(
                "--materialized {0}: {1} written without samples that could not be made, which the mount's manifest, \
                 indexes and shuffled views do not know; --exclude {0}/quarantine.csv makes them know",
                folder.display(),
                counted(smaller, "shard was", "shards were")
            );
        }
        Ok(())
    }

    /// Gives new inodes to the names of shards whose files have come, gone or changed in size, and returns these names.
    pub fn renew_inodes(&self) -> Vec<String> {
        let Some(Materialized { finished, generations, .. }) = self.materialized.as_deref() else { return Vec::new() };
        finished.refresh();
        let all = self.set.plan().shard_ids();
        // The files of other shards need not be looked at.
        let may_be_new =
            |id: &ShardId| finished.recorded(*id) != generations.current_size(*id) || generations.is_lost(*id);
        all.filter(may_be_new).filter(|id| self.renew_inode(*id)).map(Plan::shard_name).collect()
    }

    /// Gives a shard's name a new inode if its file has come, gone or changed in size; true if so.
    fn renew_inode(&self, id: ShardId) -> bool {
        let Some(Materialized { finished, generations, .. }) = self.materialized.as_deref() else { return false };
        let size = finished.file(id).map(|(_, size)| size);
        self.set.len(id).is_some_and(|planned| generations.note(id, size, planned))
    }

    /// Opens a file for reading. `done` is called at once, or by a thread that may wait for a disk, with the open file
    /// or [`Error::NotFound`] or [`Error::Changed`].
    pub fn open(self: &Arc<Self>, inode: Inode, done: impl FnOnce(Result<OpenFile>) + Send + 'static) {
        let tree = self.clone();
        match &self.materialized {
            Some(materialized) if matches!(Node::of(inode), Some(Node::Shard(_) | Node::File(..))) => {
                materialized.pool.run(move || done(tree.open_now(inode)))
            }
            _ => done(self.open_now(inode)),
        }
    }

    fn open_now(&self, inode: Inode) -> Result<OpenFile> {
        let node = Node::of(inode).ok_or(Error::NotFound)?;
        let (handle, mode) = match node {
            // The status is read when something is wrong, so it never comes out of the page cache.
            Node::MountFile => (Handle::Fixed(self.mount.clone()), ReadMode::Uncached),
            Node::StatsFile => (Handle::Fixed(self.stats()), ReadMode::Uncached),
            Node::ErrorsFile => (Handle::Fixed(self.errors()), ReadMode::Uncached),
            Node::Shard(id) | Node::File(id, _) => self.open_shard(id, node)?,
            _ => (Handle::Fixed(self.made(node).ok_or(Error::NotFound)?), ReadMode::Cached),
        };
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock::write(&self.handles).insert(number, handle);
        Ok(OpenFile { handle: number, mode })
    }

    /// The content of a manifest or index file, which is the same each time that it is made.
    pub(super) fn made(&self, node: Node) -> Option<Bytes> {
        let plan = self.set.plan();
        match node {
            Node::Manifest(view) => self.manifest(view),
            Node::ViewIndex(view, kind) => plan.has_view(view).then(|| kind.render(&indexes::list(plan, view)).into()),
            Node::ShardIndex(id, index) => self.is_as_planned(id).then(|| index.render(plan, id))?.map(Bytes::from),
            _ => None,
        }
    }

    fn manifest(&self, view: View) -> Option<Bytes> {
        let plan = self.set.plan();
        plan.has_view(view).then_some(())?;
        let last = || lock(&self.manifest);
        if let Some((of, manifest)) = &*last()
            && *of == view
        {
            return Some(manifest.clone());
        }
        let manifest = Bytes::from(manifest::render_view(plan, view));
        *last() = Some((view, manifest.clone()));
        Some(manifest)
    }

    fn open_shard(&self, id: ShardId, node: Node) -> Result<(Handle, ReadMode)> {
        let is_file = matches!(node, Node::File(..));
        let shown = self.size(node).ok_or(Error::NotFound)?;
        let usual = if self.page_cache { ReadMode::Cached } else { ReadMode::Uncached };
        let file = self.materialized.as_ref().and_then(|materialized| {
            self.set.plan().shards.get(to_usize(id.into()))?; // only the plain shards become files
            materialized.finished.refresh();
            let (file, size) = materialized.finished.file(id)?;
            (size == shown).then(|| {
                materialized.opened.fetch_add(1, Ordering::Relaxed);
                Arc::new(file)
            })
        });
        Ok(match file {
            Some(file) if is_file => (Handle::File(file.clone(), id, shown), ReadMode::File(Some(file))),
            Some(file) => (Handle::File(file, id, shown), usual),
            // A file without a sample that could not be made has been replaced or removed: the kernel looks the name up
            // again, and gets the inode that it leads to now.
            None if self.set.len(id) != Some(shown) => {
                self.renew_inode(id);
                let (path, detail) = (Plan::shard_name(id).into(), "it has become another file".into());
                return Err(Error::Changed { path, detail });
            }
            None if is_file => {
                if let (Some(materialized), Node::File(_, generation)) = (&self.materialized, node) {
                    materialized.generations.lose(id, generation);
                }
                (Handle::Shard(Arc::new(self.set.cursor(id))), ReadMode::File(None))
            }
            None => (Handle::Shard(Arc::new(self.set.cursor(id))), usual),
        })
    }

    fn errors(&self) -> Bytes {
        let volumes = self.set.errors().into_iter().map(ReadError::Volume);
        let shards = self.materialized.iter().flat_map(|materialized| materialized.errors.list()).map(ReadError::Shard);
        json(&volumes.chain(shards).collect::<Vec<_>>())
    }

    fn stats(&self) -> Bytes {
        let count = |materialized: &Materialized| {
            (materialized.generations.shards() as u64, materialized.opened.load(Ordering::Relaxed))
        };
        let (materialized_shards, materialized_opens) = self.materialized.as_deref().map_or((0, 0), count);
        let open_files = lock::read(&self.handles).len() as u64;
        let waiting_reads = self.pending.load(Ordering::Relaxed);
        let shards = self.set.stats();
        let stats = Stats { shards, materialized_shards, materialized_opens, open_files, waiting_reads };
        json(&stats)
    }

    /// Reads `len` bytes of an open file from byte `offset` on, fewer only at its end. `done` is called at once, or by
    /// the thread that makes the bytes: the calling thread never waits for a decode.
    pub fn read(&self, handle: u64, offset: u64, len: usize, done: impl FnOnce(Result<Bytes>) + Send + 'static) {
        let handle = lock::read(&self.handles).get(&handle).cloned();
        let pending = PendingRead::new(&self.pending);
        let done = move |result| {
            drop(pending); // before the answer, whose reader may look at the count
            done(result);
        };
        match handle {
            Some(Handle::Shard(cursor)) => self.set.read_then(&cursor, offset, len, done),
            Some(Handle::Fixed(bytes)) => {
                let start = to_usize(offset).min(bytes.len());
                done(Ok(bytes.slice(start..start.saturating_add(len).min(bytes.len()))));
            }
            Some(Handle::File(file, id, size)) => match self.materialized.clone() {
                Some(materialized) => {
                    let reading = materialized.clone();
                    materialized.pool.run(move || done(reading.read(&file, id, size, offset, len)));
                }
                None => done(Err(Error::NotFound)),
            },
            None => done(Err(Error::NotFound)),
        }
    }

    /// Whether anybody has a file open in the mount.
    pub fn has_open_files(&self) -> bool {
        !lock::read(&self.handles).is_empty()
    }

    /// Closes a handle.
    pub fn release(&self, handle: u64) {
        // The handle is dropped after the lock, because the end of a cursor changes the cache.
        let closed = lock::write(&self.handles).remove(&handle);
        drop(closed);
    }

    /// The bytes and the number of all shards, for `df`. A shuffled view has the same bytes once more, in shards of its
    /// own: its shards are counted, and its bytes are not.
    pub fn totals(&self) -> (u64, u64) {
        let plan = self.set.plan();
        let epochs = (0..plan.epochs()).filter_map(|epoch| plan.view(View::Epoch(epoch)));
        (plan.shard_bytes(), epochs.map(|shards| shards.len() as u64).sum::<u64>() + plan.shards.len() as u64)
    }
}
