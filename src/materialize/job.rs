//! One pass over shards: made by several workers, each written out while the next is made.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};

use sha2::{Digest, Sha256};

use super::Observer;
use super::compress::{self, Task};
use super::folder::Folder;
use super::output::{Blocks, Message, Output};
use super::pair::{self, Place};
use super::stream::{self, Told};
use crate::base::lock::{self, lock};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::codec::Codec;
use crate::output::journal::{FinishedShard, SkippedSample};
use crate::plan::layout::Content;
use crate::plan::members::VOLUME;
use crate::plan::{Plan, ShardId};
use crate::shard::{Cursor, ShardSet};

/// Bytes that are asked for at a time.
pub(super) const READ: usize = 4 << 20;

/// Volumes that are read ahead of each of the last shards, at most: as many decoders as one thread that hashes keeps busy.
const LENT: usize = 4;

/// Why a shard could not be made.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) shard: ShardId,
    /// The sample at fault, as an index into the samples of the plan, if it is one.
    pub(super) sample: Option<usize>,
    pub(super) error: Error,
}

/// What a worker has of its own.
struct Worker {
    /// The way to those who compress.
    tasks: Sender<Task>,
    place: Place,
}

/// What all workers share.
pub(super) struct Job<'a> {
    pub(super) set: &'a ShardSet,
    /// The plan that was asked for; that of `set` may be without some of its samples.
    pub(super) asked: &'a Plan,
    /// Those samples, by their index in it.
    pub(super) skipped: &'a BTreeMap<usize, SkippedSample>,
    pub(super) folder: &'a Folder,
    pub(super) run: u64,
    pub(super) codec: Option<Codec>,
    pub(super) stop: &'a AtomicBool,
    pub(super) observer: &'a dyn Observer,
    blocks: Arc<Blocks>,
    finished: Mutex<BTreeMap<ShardId, FinishedShard>>,
    failed: Mutex<Vec<Failure>>,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        (set, asked): (&'a ShardSet, &'a Plan),
        skipped: &'a BTreeMap<usize, SkippedSample>,
        (folder, run, codec): (&'a Folder, u64, Option<Codec>),
        (stop, observer): (&'a AtomicBool, &'a dyn Observer),
    ) -> Self {
        let (blocks, finished, failed) = (Arc::default(), Mutex::default(), Mutex::default());
        Self { set, asked, skipped, folder, run, codec, stop, observer, blocks, finished, failed }
    }

    /// Workers take the shards in order. An error of the output folder ends them all; those of sources are returned
    /// beside what was finished.
    pub(super) fn run(
        self,
        shards: &[ShardId],
        workers: usize,
    ) -> Result<(BTreeMap<ShardId, FinishedShard>, Vec<Failure>)> {
        let next = AtomicU64::new(0);
        let broken: Mutex<Option<Error>> = Mutex::new(None);
        let (tasks, queue) = mpsc::channel();
        let queue = Mutex::new(queue);
        let work = |worker: Worker| {
            let mine = std::iter::from_fn(|| shards.get(to_usize(next.fetch_add(1, Ordering::Relaxed))).copied());
            if let Err(error) = thread::scope(|scope| self.make_all(scope, mine, &worker)) {
                next.store(shards.len() as u64, Ordering::Relaxed);
                lock(&broken).get_or_insert(error);
            }
            self.lend_decoder(workers);
        };
        if workers > shards.len() {
            self.lend_decoder(workers);
        }
        thread::scope(|scope| {
            // They end when the last worker has dropped its way to ask them.
            if let Some(codec) = self.codec {
                for _ in 0..workers.max(1) {
                    let queue = &queue;
                    scope.spawn(move || compress::encode(codec, queue));
                }
            }
            for place in pair::places(workers.max(1).min(shards.len())) {
                let (work, worker) = (&work, Worker { tasks: tasks.clone(), place });
                scope.spawn(move || work(worker));
            }
            drop(tasks);
        });
        lock::into_inner(broken).map_or(Ok(()), Err)?;
        let mut failed = lock::into_inner(self.failed);
        failed.sort_by_key(|failure| (failure.shard, failure.sample));
        Ok((lock::into_inner(self.finished), failed))
    }

    /// A worker has no shard, so that its decoder may read ahead for the others.
    fn lend_decoder(&self, workers: usize) {
        if self.codec.is_none() {
            self.set.set_read_ahead(LENT.min(workers.saturating_sub(1)));
        }
    }

    /// Makes one shard after the other; each is written out and synced while the next is made.
    fn make_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        shards: impl Iterator<Item = ShardId>,
        worker: &Worker,
    ) -> Result<()> {
        let mut before: Option<ScopedJoinHandle<'scope, Result<()>>> = None;
        for id in shards.take_while(|_| !self.stopped()) {
            let (sender, receiver) = mpsc::sync_channel(1);
            let writing = scope.spawn(move || self.write_out(id, receiver));
            self.make(id, sender, worker)?;
            before.replace(writing).map_or(Ok(()), join)?;
        }
        before.map_or(Ok(()), join)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes one shard's bytes. A source that fails is noted; only the output's errors are returned.
    fn make(&self, id: ShardId, sender: SyncSender<Message>, worker: &Worker) -> Result<()> {
        let no_memory = |error| Error::io(self.folder.path(), "get memory to write", error);
        let output = Output::new(self.blocks.clone(), worker.place.begin(sender)).map_err(no_memory)?;
        let cursor = Arc::new(self.set.cursor(id));
        let complete = match self.codec {
            Some(_) => self.compress(id, &cursor, output, &worker.tasks),
            None => self.stream(id, &cursor, output),
        };
        if let Some(output) = complete.map_err(no_memory)? {
            output.finish();
        }
        Ok(())
    }

    /// A shard as it is. None if it was given up: a writing thread that gives up has the error.
    fn stream(&self, id: ShardId, cursor: &Arc<Cursor>, output: Output) -> io::Result<Option<Output>> {
        for told in stream::begin(self.set.clone(), cursor.clone(), output) {
            match told {
                Told::Progress(_) if self.stopped() => return Ok(None),
                Told::Progress(bytes) => self.observer.wrote(bytes as u64),
                Told::Complete(output) => return Ok(Some(output)),
                Told::GivenUp => return Ok(None),
                Told::NoMemory(error) => return Err(error),
                Told::Failed(offset, error) => {
                    self.note(id, cursor, offset, error);
                    return Ok(None);
                }
            }
        }
        let error = Error::Internal("the shard was dropped while it was made".into());
        lock(&self.failed).push(Failure { shard: id, sample: None, error });
        Ok(None)
    }

    /// The same for one that is compressed.
    fn compress(
        &self,
        id: ShardId,
        cursor: &Arc<Cursor>,
        mut output: Output,
        tasks: &Sender<Task>,
    ) -> io::Result<Option<Output>> {
        let read = |offset, len| {
            if self.stopped() {
                return None;
            }
            let bytes = self.set.read_on(cursor, offset, len);
            let bytes = bytes.map_err(|error| self.note(id, cursor, offset, error)).ok()?;
            self.observer.wrote(bytes.len() as u64);
            Some(bytes)
        };
        let format = self.set.plan().options.format;
        let complete = compress::shard(format, tasks, read, |bytes| output.write(bytes))?;
        Ok(complete.then_some(output))
    }

    fn note(&self, id: ShardId, cursor: &Arc<Cursor>, offset: u64, error: Error) {
        let failures = self.failures(id, cursor, offset, error);
        lock(&self.failed).extend(failures);
    }

    /// All samples that fail in a shard of which reading from `offset` on failed with `error`: one run is to find all of
    /// them. If none does when it is read on its own, it was the weather.
    fn failures(&self, id: ShardId, cursor: &Arc<Cursor>, offset: u64, error: Error) -> Vec<Failure> {
        let plan = self.set.plan();
        let mut failures = Vec::new();
        for (extent, _) in plan.locate(id, 0, u64::MAX) {
            let (Content::Payload(member), end) = (extent.content, extent.start + extent.len) else { continue };
            if member.member != VOLUME || end <= offset {
                continue;
            }
            let mut at = extent.start;
            while at < end && !self.stopped() {
                match self.set.read_on(cursor, at, READ.min(to_usize(end - at))) {
                    Ok(bytes) => at += bytes.len() as u64,
                    Err(error) => {
                        let sample = Some(plan.sample_index(id, member));
                        failures.push(Failure { shard: id, sample, error });
                        break;
                    }
                }
            }
        }
        if failures.is_empty() {
            failures.push(Failure { shard: id, sample: None, error });
        }
        failures
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
                    let size = partial.len();
                    if !self.folder.is_stranger(id) {
                        partial.publish()?;
                    } else if self.is_same(&name, &digest)? {
                        drop(partial);
                    } else {
                        return Ok(());
                    }
                    return self.record(id, size, digest);
                }
            }
        }
        Ok(()) // given up: the partial file vanishes
    }

    /// Whether a file that no record knows is what was just made. Otherwise it stays, and its shard fails.
    fn is_same(&self, name: &str, digest: &str) -> Result<bool> {
        let path = self.folder.path().join(name);
        let is_same = sha256(&path, self.stop)? == digest;
        if !is_same {
            let error = Error::Refused(format!(
                "{}: this file is another one than the plan's, and there is no record of it; remove or rename it",
                path.display()
            ));
            let shard = Plan::shard_named(name).unwrap_or_default();
            lock(&self.failed).push(Failure { shard, sample: None, error });
        }
        Ok(is_same)
    }

    fn record(&self, id: ShardId, size: u64, sha256: String) -> Result<()> {
        let digest = |plan: &Plan| plan.shard_digest(id).unwrap_or_default().to_owned();
        let finished = FinishedShard {
            run: self.run,
            name: Plan::shard_name(id),
            size,
            sha256,
            made_of: digest(self.set.plan()),
            planned: digest(self.asked),
            left_out: self
                .skipped
                .range(self.asked.shards[id as usize].samples.clone())
                .map(|(_, skipped)| skipped.clone())
                .collect(),
        };
        self.folder.record(finished.clone())?;
        self.observer.finished(&finished.name, finished.size);
        lock(&self.finished).insert(id, finished);
        Ok(())
    }
}

fn join(writing: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The SHA-256 of a file, in hexadecimal; of its beginning if `stop` was set.
pub(super) fn sha256(path: &Path, stop: &AtomicBool) -> Result<String> {
    let mut file = File::open(path).map_err(|error| Error::io(path, "read the finished shard", error))?;
    sha256_of(&mut file, path, stop, &|_| ())
}

/// The same of an open file; `read` is told of the bytes that were read.
pub(crate) fn sha256_of(file: &mut File, path: &Path, stop: &AtomicBool, read: &dyn Fn(u64)) -> Result<String> {
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    while !stop.load(Ordering::Relaxed) {
        match io::Read::read(file, &mut piece) {
            Ok(0) => break,
            Ok(len) => {
                hasher.update(&piece[..len]);
                read(len as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path, "read the finished shard", error)),
        }
    }
    Ok(format!("{:x}", hasher.finalize()))
}
