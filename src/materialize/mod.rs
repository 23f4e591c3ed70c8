//! Shards to disk: a temporary name, fsync, rename; a durable record of what is finished; the manifest last.
//!
//! A final name never holds a partial file, and a run that was stopped goes on where it was. Bytes come from
//! [`ShardSet::read_on`] alone.

mod folder;
mod indexes;
mod output;
mod partial;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};
use crate::manifest;
use crate::num::to_usize;
use crate::plan::{Plan, ShardId};
use crate::shard::ShardSet;
use folder::Folder;
use output::{Blocks, Message, Output};

/// Bytes that are asked for at a time.
const READ: usize = 4 << 20;

/// What a run reports while it goes on.
pub trait Observer: Sync {
    /// There are `bytes` to write in `shards` shards; `kept` shards were finished by an earlier run.
    fn begin(&self, shards: usize, kept: usize, bytes: u64);
    /// So many bytes were written.
    fn wrote(&self, bytes: u64);
    /// A shard is finished.
    fn finished(&self, name: &str, bytes: u64);
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Shards that this run wrote.
    pub written: usize,
    /// Shards that an earlier run had finished.
    pub kept: usize,
    /// Shards that could not be made, with the reason.
    pub failed: Vec<(String, Error)>,
}

/// Writes all shards of `set` and the manifest to `out` with `workers` threads.
///
/// A shard whose volume is damaged is left out and listed; the others are written, and the manifest is not.
///
/// # Errors
/// [`Error::Refused`] if the folder belongs to another plan, is in use, has no room, or `stop` was set;
/// [`Error::Io`] if it cannot be written. Finished shards stay, and the same call continues.
pub fn materialize(
    set: &ShardSet,
    out: &Path,
    workers: usize,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let plan = set.plan();
    let folder = Folder::open(out, &plan.digest)?;
    let sizes: Vec<u64> = plan.shards.iter().map(|shard| shard.layout.len()).collect();
    let digests = folder.finished(&sizes)?;
    let missing: Vec<ShardId> = (0..).zip(&digests).filter(|(_, digest)| digest.is_none()).map(|(id, _)| id).collect();
    let kept = digests.len() - missing.len();
    let needed = missing.iter().map(|id| sizes[*id as usize]).sum();
    let manifest_len = manifest::render(plan, |_| None).len() as u64 + 64 * sizes.len() as u64;
    folder.check_space(needed + manifest_len)?;
    if !missing.is_empty() {
        folder.remove_manifest()?;
    }
    observer.begin(missing.len(), kept, needed);

    let job = Job {
        set,
        folder: &folder,
        stop,
        observer,
        blocks: Blocks::default(),
        digests: Mutex::new(digests),
        failed: Mutex::default(),
    };
    job.run(&missing, workers)?;
    let (digests, mut failed) = (unlock(job.digests), unlock(job.failed));
    failed.sort_by(|(a, _), (b, _)| a.cmp(b));
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Refused("interrupted; finished shards are kept, run the same command to continue".into()));
    }
    if failed.is_empty() {
        indexes::write(&folder, plan)?;
        folder.publish(manifest::NAME, &manifest::render(plan, |id| digests[id as usize].as_deref()))?;
    }
    Ok(Outcome { written: missing.len() - failed.len(), kept, failed })
}

fn unlock<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(|poison| poison.into_inner())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

fn join(writing: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Job<'a> {
    set: &'a ShardSet,
    folder: &'a Folder,
    stop: &'a AtomicBool,
    observer: &'a dyn Observer,
    blocks: Blocks,
    digests: Mutex<Vec<Option<String>>>,
    failed: Mutex<Vec<(String, Error)>>,
}

impl Job<'_> {
    /// Workers take the missing shards in order. An error of the output folder ends them all.
    fn run(&self, missing: &[ShardId], workers: usize) -> Result<()> {
        let next = AtomicU64::new(0);
        let broken: Mutex<Option<Error>> = Mutex::new(None);
        let work = || {
            let shards = std::iter::from_fn(|| missing.get(to_usize(next.fetch_add(1, Ordering::Relaxed))).copied());
            if let Err(error) = thread::scope(|scope| self.make_all(scope, shards)) {
                next.store(missing.len() as u64, Ordering::Relaxed);
                lock(&broken).get_or_insert(error);
            }
        };
        thread::scope(|scope| {
            for _ in 1..workers.min(missing.len()) {
                scope.spawn(work);
            }
            work();
        });
        unlock(broken).map_or(Ok(()), Err)
    }

    /// Makes one shard after the other; each is written out and synced while the next is made.
    fn make_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        shards: impl Iterator<Item = ShardId>,
    ) -> Result<()> {
        let mut before: Option<ScopedJoinHandle<'scope, Result<()>>> = None;
        for id in shards.take_while(|_| !self.stop.load(Ordering::Relaxed)) {
            let (sender, receiver) = mpsc::sync_channel(1);
            let writing = scope.spawn(move || self.write_out(id, receiver));
            self.make(id, sender)?;
            before.replace(writing).map_or(Ok(()), join)?;
        }
        before.map_or(Ok(()), join)
    }

    /// Makes one shard's bytes. A source that fails is noted; only the output's errors are returned.
    fn make(&self, id: ShardId, sender: SyncSender<Message>) -> Result<()> {
        let no_memory = |error| Error::io(self.folder.path(), "get memory to write", error);
        let mut output = Output::new(&self.blocks, sender).map_err(no_memory)?;
        let cursor = Arc::new(self.set.cursor(id));
        let len = self.set.len(id).unwrap_or(0);
        let mut offset = 0;
        while offset < len {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let bytes = match self.set.read_on(&cursor, offset, READ) {
                Ok(bytes) => bytes,
                Err(error) => {
                    lock(&self.failed).push((Plan::shard_name(id), error));
                    return Ok(());
                }
            };
            if !output.write(&bytes).map_err(no_memory)? {
                return Ok(()); // the writing thread has the error
            }
            offset += bytes.len() as u64;
            self.observer.wrote(bytes.len() as u64);
        }
        output.finish();
        Ok(())
    }

    /// Writes one shard out, makes it durable, and records it.
    fn write_out(&self, id: ShardId, messages: Receiver<Message>) -> Result<()> {
        let name = Plan::shard_name(id);
        let mut partial = self.folder.create(&name)?;
        for message in messages {
            match message {
                Message::Block(mut block, len) => {
                    partial.write(&mut block, len)?;
                    self.blocks.put(block);
                }
                Message::End(digest) => {
                    let len = self.set.len(id).unwrap_or(0);
                    partial.publish()?;
                    self.folder.record(&name, len, &digest)?;
                    lock(&self.digests)[id as usize] = Some(digest);
                    self.observer.finished(&name, len);
                    return Ok(());
                }
            }
        }
        Ok(()) // given up: the partial file vanishes
    }
}
