//! Writing one shard out: its blocks to a temporary file, the final name, and the line in the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use super::bad_samples::ShardFailure;
use super::blocks::BlockPool;
use super::control::Control;
use super::folder::OutputFolder;
use super::hash_pair::WriterMessage;
use super::target::Target;
use crate::error::{Error, Result};
use crate::output::journal::FinishedShard;
use crate::plan::{Plan, ShardId};

/// Writes shards to the output folder.
pub(super) struct ShardWriter<'a> {
    /// The output folder.
    pub(super) folder: &'a OutputFolder,
    /// What the shards are made of, for the journal.
    pub(super) target: &'a Target<'a>,
    /// Gets the blocks back.
    pub(super) pool: Arc<BlockPool>,
    /// Stops the work, and gets its progress.
    pub(super) control: Control<'a>,
    /// Whether a shard could not be written: then no other is begun.
    pub(super) has_failed: AtomicBool,
}

/// How writing a shard ended.
pub(super) enum Written {
    /// The shard is durable, and recorded.
    Finished(FinishedShard),
    /// A file of another content has the shard's name, and stays.
    Refused(ShardFailure),
    /// The shard was not made to its end; what was written of it is removed.
    GivenUp,
}

impl ShardWriter<'_> {
    /// Writes the blocks of one shard, makes the file durable, and records it. A file of the shard's name that no run
    /// is known to have written is only compared.
    ///
    /// # Errors
    /// [`Error::Io`] if the output folder cannot be written; [`Error::Refused`] if another run has taken the part over.
    pub(super) fn write(&self, id: ShardId, messages: Receiver<WriterMessage>) -> Result<Written> {
        self.try_write(id, messages).map_err(|error| {
            self.has_failed.store(true, Ordering::Relaxed);
            self.folder.why(error)
        })
    }

    fn try_write(&self, id: ShardId, messages: Receiver<WriterMessage>) -> Result<Written> {
        if self.has_failed.load(Ordering::Relaxed) {
            return Ok(Written::GivenUp);
        }
        let name = Plan::shard_name(id);
        let mut shard = self.folder.create(&name, self.target.set.len(id).unwrap_or(0))?;
        for message in messages {
            match message {
                WriterMessage::Block(block) => shard.write(block, &self.pool)?,
                WriterMessage::End(sha256) => {
                    let size = shard.bytes_written();
                    if !self.folder.is_unrecorded(id) {
                        shard.publish(&sha256, self.control.stop)?;
                    } else if let Some(failure) = self.compare(id, &name, size, &sha256)? {
                        return Ok(Written::Refused(failure));
                    } else {
                        drop(shard);
                    }
                    return self.record(id, size, sha256).map(Written::Finished);
                }
            }
        }
        Ok(Written::GivenUp)
    }

    /// Compares a file that no journal knows with the SHA-256 of what was just made: the failure if it is another file.
    fn compare(&self, id: ShardId, name: &str, size: u64, sha256: &str) -> Result<Option<ShardFailure>> {
        let path = self.folder.path().join(name);
        if self.folder.place().sha256(name, size, self.control.stop)? == sha256 {
            return Ok(None);
        }
        let error = Error::Refused(format!(
            "{}: this file is another one than the plan's, and there is no record of it; remove or rename it",
            path.display()
        ));
        Ok(Some(ShardFailure { shard: id, sample: None, error }))
    }

    fn record(&self, id: ShardId, size: u64, sha256: String) -> Result<FinishedShard> {
        let finished = self.target.finished(id, size, sha256);
        self.folder.record(finished.clone())?;
        self.control.observer.finished(&finished.name, finished.size);
        Ok(finished)
    }
}
