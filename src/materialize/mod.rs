//! Shards to disk: a temporary name, fsync, rename; a durable record of what is finished; the manifest last.
//!
//! A final name never holds a partial file, and a run that was stopped goes on where it was. Bytes come from
//! [`ShardSet::read_on`] alone.

mod compress;
mod folder;
mod indexes;
mod output;
mod partial;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Scope, ScopedJoinHandle};

use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::manifest;
use crate::num::to_usize;
use crate::plan::{Plan, ShardId};
use crate::record::Finished;
use crate::shard::ShardSet;
use compress::Task;
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

/// Writes all shards of `set` and the manifest to `out` with `workers` threads, compressed by `codec` if there is one.
/// Then each worker keeps the compressed member that it is at in memory.
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
    codec: Option<Codec>,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let plan = set.plan();
    let folder = Folder::open(out, &plan.digest, codec)?;
    let sizes: Vec<u64> = plan.shards.iter().map(|shard| shard.layout.len()).collect();
    let finished = folder.finished(sizes.len())?;
    let missing: Vec<ShardId> = (0..).zip(&finished).filter(|(_, shard)| shard.is_none()).map(|(id, _)| id).collect();
    let kept = finished.len() - missing.len();
    let needed = missing.iter().map(|id| sizes[*id as usize]).sum();
    let manifest_len = manifest::render(plan, |_| None).len() as u64 + 64 * sizes.len() as u64;
    // What compressed shards take is known when they are made.
    folder.check_space(if codec.is_none() { needed + manifest_len } else { manifest_len })?;
    if !missing.is_empty() {
        folder.remove_manifest()?;
    }
    observer.begin(missing.len(), kept, needed);

    let job = Job {
        set,
        folder: &folder,
        stop,
        observer,
        codec,
        blocks: Blocks::default(),
        finished: Mutex::new(finished),
        failed: Mutex::default(),
    };
    job.run(&missing, workers)?;
    let (finished, mut failed) = (unlock(job.finished), unlock(job.failed));
    failed.sort_by(|(a, _), (b, _)| a.cmp(b));
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Refused("interrupted; finished shards are kept, run the same command to continue".into()));
    }
    if failed.is_empty() {
        if codec.is_none() {
            indexes::write(&folder, plan)?; // their readers cannot decompress a member
        }
        let file = |id: ShardId| finished[id as usize].as_ref();
        let manifest = match codec {
            None => manifest::render(plan, |id| file(id).map(|file| &*file.sha256)),
            Some(codec) => manifest::render_compressed(plan, codec, file),
        };
        folder.publish(manifest::NAME, &manifest)?;
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
    codec: Option<Codec>,
    blocks: Blocks,
    finished: Mutex<Vec<Option<Finished>>>,
    failed: Mutex<Vec<(String, Error)>>,
}

impl Job<'_> {
    /// Workers take the missing shards in order. An error of the output folder ends them all.
    fn run(&self, missing: &[ShardId], workers: usize) -> Result<()> {
        let next = AtomicU64::new(0);
        let broken: Mutex<Option<Error>> = Mutex::new(None);
        let (tasks, queue) = mpsc::channel();
        let queue = Mutex::new(queue);
        let work = |tasks: Sender<Task>| {
            let shards = std::iter::from_fn(|| missing.get(to_usize(next.fetch_add(1, Ordering::Relaxed))).copied());
            if let Err(error) = thread::scope(|scope| self.make_all(scope, shards, &tasks)) {
                next.store(missing.len() as u64, Ordering::Relaxed);
                lock(&broken).get_or_insert(error);
            }
        };
        thread::scope(|scope| {
            // They end when the last worker has dropped its way to ask them.
            if let Some(codec) = self.codec {
                for _ in 0..workers.max(1) {
                    scope.spawn({
                        let queue = &queue;
                        move || compress::encode(codec, queue)
                    });
                }
            }
            for _ in 1..workers.min(missing.len()) {
                let tasks = tasks.clone();
                scope.spawn(|| work(tasks));
            }
            work(tasks);
        });
        unlock(broken).map_or(Ok(()), Err)
    }

    /// Makes one shard after the other; each is written out and synced while the next is made.
    fn make_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        shards: impl Iterator<Item = ShardId>,
        tasks: &Sender<Task>,
    ) -> Result<()> {
        let mut before: Option<ScopedJoinHandle<'scope, Result<()>>> = None;
        for id in shards.take_while(|_| !self.stop.load(Ordering::Relaxed)) {
            let (sender, receiver) = mpsc::sync_channel(1);
            let writing = scope.spawn(move || self.write_out(id, receiver));
            self.make(id, sender, tasks)?;
            before.replace(writing).map_or(Ok(()), join)?;
        }
        before.map_or(Ok(()), join)
    }

    /// Makes one shard's bytes. A source that fails is noted; only the output's errors are returned.
    fn make(&self, id: ShardId, sender: SyncSender<Message>, tasks: &Sender<Task>) -> Result<()> {
        let no_memory = |error| Error::io(self.folder.path(), "get memory to write", error);
        let mut output = Output::new(&self.blocks, sender).map_err(no_memory)?;
        let cursor = Arc::new(self.set.cursor(id));
        let read = |offset, len| {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let bytes = self.set.read_on(&cursor, offset, len);
            let bytes = bytes.map_err(|error| lock(&self.failed).push((Plan::shard_name(id), error))).ok()?;
            self.observer.wrote(bytes.len() as u64);
            Some(bytes)
        };
        // A writing thread that gives up has the error.
        let complete = if self.codec.is_some() {
            let format = self.set.plan().options.format;
            compress::shard(format, tasks, read, |bytes| output.write(bytes)).map_err(no_memory)?
        } else {
            let (mut offset, len) = (0, self.set.len(id).unwrap_or(0));
            while offset < len {
                let Some(bytes) = read(offset, READ) else { break };
                if !output.write(&bytes).map_err(no_memory)? {
                    break;
                }
                offset += bytes.len() as u64;
            }
            offset >= len
        };
        if complete {
            output.finish();
        }
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
                Message::End(sha256) => {
                    let size = partial.publish()?;
                    let finished = Finished { name, size, sha256 };
                    self.folder.record(&finished)?;
                    self.observer.finished(&finished.name, size);
                    lock(&self.finished)[id as usize] = Some(finished);
                    return Ok(());
                }
            }
        }
        Ok(()) // given up: the partial file vanishes
    }
}
