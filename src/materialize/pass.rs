//! One pass over shards: several workers make them, and each shard is written out while its worker makes the next one.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};

use super::bad_samples::ShardFailure;
use super::blocks::BlockPool;
use super::compress;
use super::control::Control;
use super::folder::OutputFolder;
use super::hash_pair;
use super::maker::ShardMaker;
use super::target::Target;
use super::writer::{ShardWriter, Written};
use crate::base::limits::not_started;
use crate::base::lock::{self, lock};
use crate::base::num::to_usize;
use crate::base::parallel::{self, spawn_in};
use crate::error::{Error, Result};
use crate::output::journal::FinishedShard;
use crate::plan::ShardId;

/// Volumes that are read ahead of each of the last shards, at most: as many decoders as one thread that hashes keeps
/// busy.
const MAX_READ_AHEAD: usize = 4;

/// One pass over shards.
pub(super) struct Pass<'a> {
    /// The shards and their plan.
    pub(super) target: &'a Target<'a>,
    /// The output folder.
    pub(super) folder: &'a OutputFolder,
    /// Stops the pass, and gets its progress.
    pub(super) control: Control<'a>,
}

/// What a pass has made.
#[derive(Default)]
pub(super) struct PassResult {
    /// Shards that are finished.
    pub(super) finished: BTreeMap<ShardId, FinishedShard>,
    /// Failures of other shards, in the order of the shards and samples.
    pub(super) failed: Vec<ShardFailure>,
}

impl PassResult {
    fn add(&mut self, id: ShardId, written: Written) {
        match written {
            Written::Finished(finished) => drop(self.finished.insert(id, finished)),
            Written::Refused(failure) => self.failed.push(failure),
            Written::GivenUp => {}
        }
    }
}

/// The shards that no worker has taken yet.
struct ShardQueue<'a> {
    shards: &'a [ShardId],
    next: AtomicU64,
}

impl ShardQueue<'_> {
    fn take(&self) -> Option<ShardId> {
        self.shards.get(to_usize(self.next.fetch_add(1, Ordering::Relaxed))).copied()
    }

    /// Leaves nothing for the workers to take.
    fn close(&self) {
        self.next.store(self.shards.len() as u64, Ordering::Relaxed);
    }
}

impl<'a> Pass<'a> {
    /// Makes the shards, in their order, by this number of workers. Sources that fail are in the result; shards that
    /// were not made because the run is to stop are not.
    ///
    /// # Errors
    /// [`Error::Io`] if the output folder cannot be written, or there is no memory: then all workers end.
    pub(super) fn run(&self, shards: &[ShardId], workers: usize) -> Result<PassResult> {
        let queue = ShardQueue { shards, next: AtomicU64::new(0) };
        let pool = Arc::<BlockPool>::default();
        let writer = ShardWriter {
            folder: self.folder,
            target: self.target,
            pool: pool.clone(),
            control: self.control,
            has_failed: AtomicBool::new(false),
        };
        let result: Mutex<PassResult> = Mutex::default();
        let broken: Mutex<Option<Error>> = Mutex::new(None);
        let work = |maker: ShardMaker<'_>| {
            match thread::scope(|scope| make_all(scope, &queue, &maker, &writer)) {
                Ok(made) => {
                    let mut result = lock(&result);
                    result.finished.extend(made.finished);
                    result.failed.extend(made.failed);
                }
                Err(error) => {
                    queue.close();
                    lock(&broken).get_or_insert(error);
                }
            }
            self.use_idle_decoders(workers);
        };
        if workers > shards.len() {
            self.use_idle_decoders(workers);
        }
        let codec = self.folder.codec();
        let (tasks, waiting) = mpsc::channel();
        let waiting = Mutex::new(waiting);
        let start = |started: io::Result<ScopedJoinHandle<'_, ()>>| {
            if let Err(error) = started {
                queue.close();
                lock(&broken).get_or_insert(not_started(format!("start {workers} workers"), error));
            }
        };
        thread::scope(|scope| {
            // These threads end when the last worker has dropped its sender of tasks.
            if let Some(codec) = codec {
                for _ in 0..workers.max(1) {
                    let waiting = &waiting;
                    start(spawn_in(scope, "compress", move || compress::encode(codec, waiting)));
                }
            }
            for lane in hash_pair::lanes(workers.max(1).min(shards.len())) {
                let maker = ShardMaker {
                    set: self.target.set,
                    folder: self.folder.path(),
                    pool: pool.clone(),
                    lane,
                    packing: codec.map(|codec| (codec.method, tasks.clone())),
                    control: self.control,
                };
                let work = &work;
                start(spawn_in(scope, "worker", move || work(maker)));
            }
            drop(tasks);
        });
        lock::into_inner(broken).map_or(Ok(()), Err)?;
        let mut result = lock::into_inner(result);
        result.failed.sort_by_key(|failure| (failure.shard, failure.sample));
        Ok(result)
    }

    /// Lets the decoder of a worker that has no shard read ahead for the others.
    fn use_idle_decoders(&self, workers: usize) {
        if self.folder.codec().is_none() {
            self.target.set.set_read_ahead(MAX_READ_AHEAD.min(workers.saturating_sub(1)));
        }
    }
}

/// The work of one worker: makes one shard after the other; each is written out and synchronised while the next one is
/// made.
fn make_all<'scope>(
    scope: &'scope Scope<'scope, '_>,
    queue: &ShardQueue<'_>,
    maker: &ShardMaker<'_>,
    writer: &'scope ShardWriter<'_>,
) -> Result<PassResult> {
    let mut result = PassResult::default();
    let mut before: Option<(ShardId, ScopedJoinHandle<'scope, Result<Written>>)> = None;
    while !maker.control.is_stopped()
        && !writer.has_failed.load(Ordering::Relaxed)
        && let Some(id) = queue.take()
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        let writing = spawn_in(scope, "writer", move || writer.write(id, receiver))
            .map_err(|error| not_started("start a thread that writes a shard", error))?;
        result.failed.extend(maker.make(id, sender)?);
        if let Some((id, writing)) = before.replace((id, writing)) {
            result.add(id, parallel::join(writing)?);
        }
    }
    if let Some((id, writing)) = before {
        result.add(id, parallel::join(writing)?);
    }
    Ok(result)
}
