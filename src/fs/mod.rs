//! The mount's files: names, inodes, attributes, handles and reads. Read-only, and free of FUSE.
//!
//! An inode's bytes and size never change. No lock is held while bytes are read or made.

mod finished;
mod fuse;
pub mod holders;
pub mod mount;
pub mod mounts;
mod names;
mod node;
mod passthrough;
mod pool;
mod switched;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use crate::base::lock::{self, lock};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::output::indexes;
use crate::output::manifest;
use crate::plan::{Plan, ShardId, View};
use crate::shard::{self, Cursor, ShardSet};
use finished::Finished;
use node::Node;
use pool::Pool;
use switched::Switched;

const STATS: &str = "stats.json";
const MOUNT: &str = "mount.json";
const ERRORS: &str = "errors.json";
/// The status files, for whoever reads all of them: what is mounted, what happened, what failed.
pub const STATUS_FILES: [&str; 3] = [MOUNT, STATS, ERRORS];

/// An inode number.
pub type Inode = u64;

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
    finished: Arc<Finished>,
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
    /// Files that somebody has open, status files included.
    open_files: u64,
    /// Reads that are not answered yet, besides those which the kernel does itself.
    waiting_reads: u64,
}

/// A read that is not answered yet; counted until it is dropped.
struct Waiting(Arc<AtomicU64>);

impl Waiting {
    fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
    /// The manifest that was asked for last: of 47,149 samples it has 12 MB, and takes 50 ms to make.
    manifest: Mutex<Option<(View, Bytes)>>,
    mount: Bytes,
    /// Whether the kernel is to keep what it reads of the shards.
    page_cache: bool,
    materialized: Option<Materialized>,
    /// All files' times.
    pub(crate) started: SystemTime,
    handles: RwLock<HashMap<u64, Handle>>,
    next_handle: AtomicU64,
    waiting: Arc<AtomicU64>,
}

impl Tree {
    /// The tree of a shard set; `mount` is the content of the status file of that name. With `page_cache`, the kernel
    /// keeps what it reads of the shards.
    pub fn new(set: ShardSet, mount: Vec<u8>, page_cache: bool) -> Self {
        let manifest = Mutex::default();
        let started = SystemTime::now();
        let (handles, next_handle, waiting) = (RwLock::default(), AtomicU64::new(1), Arc::default());
        let materialized = None;
        Self { set, manifest, mount: mount.into(), page_cache, materialized, started, handles, next_handle, waiting }
    }

    /// Takes shards that `materialize` has finished in `folder`, now or later, from there, and their volumes for the
    /// shards of the shuffled views.
    ///
    /// # Errors
    /// [`Error::Refused`] if the folder holds shards of another plan, or there are no threads; [`Error::Io`] if it
    /// cannot be read.
    pub fn use_materialized(&mut self, folder: &Path) -> Result<()> {
        let finished = Arc::new(Finished::open(folder, self.set.plan())?);
        self.set.use_copies(Box::new(finished.clone()));
        let pool = Pool::new().map_err(|error| Error::Refused(format!("cannot start reading threads: {error}")))?;
        let (switched, opened) = (Switched::default(), AtomicU64::new(0));
        self.materialized = Some(Materialized { finished, switched, pool, opened });
        self.switch_finished();
        let smaller = self.set.plan().shard_ids().filter(|id| !self.is_as_planned(*id)).count();
        if smaller > 0 {
            log::warn!(
                "--materialized {0}: {smaller} shards are without samples that could not be made, which the mount's \
                 manifest, indexes and shuffled views do not know; --exclude {0}/quarantine.csv makes them know",
                folder.display()
            );
        }
        Ok(())
    }

    /// Gives the names of shards that have become files their new inodes; these names.
    pub fn switch_finished(&self) -> Vec<String> {
        let Some(Materialized { finished, switched, .. }) = &self.materialized else { return Vec::new() };
        finished.refresh();
        // The files of the others need not be looked at.
        let may_be_new = |id: &ShardId| finished.recorded(*id) != switched.last(*id);
        self.set.plan().shard_ids().filter(may_be_new).filter(|id| self.switch(*id)).map(Plan::shard_name).collect()
    }

    /// Gives a shard's name the inode of what it is now; whether that is another one.
    fn switch(&self, id: ShardId) -> bool {
        let Some(Materialized { finished, switched, .. }) = &self.materialized else { return false };
        let size = finished.file(id).map(|(_, size)| size);
        self.set.len(id).is_some_and(|planned| switched.note(id, size, planned))
    }

    /// Opens a file for reading. `done` is called at once, or by a thread that may wait for a disk.
    pub fn open(self: &Arc<Self>, inode: Inode, done: impl FnOnce(Result<Opened>) + Send + 'static) {
        let tree = self.clone();
        match &self.materialized {
            Some(materialized) if matches!(Node::of(inode), Some(Node::Shard(_) | Node::File(..))) => {
                materialized.pool.run(move || done(tree.open_now(inode)))
            }
            _ => done(self.open_now(inode)),
        }
    }

    fn open_now(&self, inode: Inode) -> Result<Opened> {
        let node = Node::of(inode).ok_or(Error::NotFound)?;
        let (handle, reading) = match node {
            // Status is asked for when something is wrong: never out of the cache.
            Node::Mount => (Handle::Fixed(self.mount.clone()), Reading::Uncached),
            Node::Stats => (Handle::Fixed(self.stats()), Reading::Uncached),
            Node::Errors => (Handle::Fixed(json(&self.set.errors())), Reading::Uncached),
            Node::Shard(id) | Node::File(id, _) => self.open_shard(id, node)?,
            _ => (Handle::Fixed(self.made(node).ok_or(Error::NotFound)?), Reading::Cached),
        };
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock::write(&self.handles).insert(number, handle);
        Ok(Opened { handle: number, reading })
    }

    /// The content of a file that is made when it is asked for; always the same.
    fn made(&self, node: Node) -> Option<Bytes> {
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

    fn open_shard(&self, id: ShardId, node: Node) -> Result<(Handle, Reading)> {
        let is_file = matches!(node, Node::File(..));
        let promised = self.size(node).ok_or(Error::NotFound)?;
        let usual = if self.page_cache { Reading::Cached } else { Reading::Uncached };
        let file = self.materialized.as_ref().and_then(|materialized| {
            self.set.plan().shards.get(to_usize(id.into()))?; // only the plain shards become files
            materialized.finished.refresh();
            let (file, size) = materialized.finished.file(id)?;
            (size == promised).then(|| {
                materialized.opened.fetch_add(1, Ordering::Relaxed);
                Arc::new(file)
            })
        });
        Ok(match file {
            Some(file) if is_file => (Handle::File(file.clone()), Reading::From(Some(file))),
            Some(file) => (Handle::File(file), usual),
            // A file without a sample that could not be made has been replaced or removed: the kernel looks the name up
            // again, and finds what it leads to now.
            None if self.set.len(id) != Some(promised) => {
                self.switch(id);
                let (path, detail) = (Plan::shard_name(id).into(), "it has become another file".into());
                return Err(Error::Changed { path, detail });
            }
            None if is_file => (Handle::Shard(Arc::new(self.set.cursor(id))), Reading::From(None)),
            None => (Handle::Shard(Arc::new(self.set.cursor(id))), usual),
        })
    }

    fn stats(&self) -> Bytes {
        let count = |materialized: &Materialized| {
            (materialized.switched.len() as u64, materialized.opened.load(Ordering::Relaxed))
        };
        let (materialized_shards, materialized_opens) = self.materialized.as_ref().map_or((0, 0), count);
        let open_files = lock::read(&self.handles).len() as u64;
        let waiting_reads = self.waiting.load(Ordering::Relaxed);
        let shards = self.set.stats();
        let stats = Stats { shards, materialized_shards, materialized_opens, open_files, waiting_reads };
        json(&stats)
    }

    /// Reads `len` bytes of an open file from `offset` on, fewer only at its end. `done` is called at once, or by
    /// the thread that makes the bytes: never does the calling thread wait for a decode.
    pub fn read(&self, handle: u64, offset: u64, len: usize, done: impl FnOnce(Result<Bytes>) + Send + 'static) {
        let handle = lock::read(&self.handles).get(&handle).cloned();
        let waiting = Waiting::new(&self.waiting);
        let done = move |result| {
            drop(waiting); // before the answer, whose reader may look at the count
            done(result);
        };
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
        let closed = lock::write(&self.handles).remove(&handle);
        drop(closed);
    }

    /// Bytes and number of all shards, for `df`. A shuffled view has the same bytes once more, in shards of its own:
    /// only these are counted again.
    pub fn totals(&self) -> (u64, u64) {
        let plan = self.set.plan();
        let epochs = (0..plan.epochs()).filter_map(|epoch| plan.view(View::Epoch(epoch)));
        (plan.shard_bytes(), epochs.map(|shards| shards.len() as u64).sum::<u64>() + plan.shards.len() as u64)
    }
}
