//! How a run is stopped, and how it reports its progress.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// What is kept of a run that was stopped.
pub(super) const INTERRUPTED: &str = "finished shards are kept, run the same command to continue";

/// What a run reports while it goes on, for a progress display.
pub trait Observer: Sync {
    /// The run is about to read `shards` finished shards again, with `bytes` bytes in all.
    fn recheck(&self, shards: usize, bytes: u64);
    /// The run has read `bytes` more bytes of finished shards.
    fn read(&self, bytes: u64);
    /// The finished shard `name` is not what was recorded of it, for the reason `why`, and will be made again.
    fn differs(&self, name: &str, why: &str);
    /// The run begins to write `shards` shards of `bytes` bytes in all; `kept` shards were finished by an earlier run.
    fn begin(&self, shards: usize, kept: usize, bytes: u64);
    /// Shards of `bytes` bytes in all are made once more, without the samples that failed.
    fn more(&self, bytes: u64);
    /// The run has made `bytes` more bytes of shards.
    fn wrote(&self, bytes: u64);
    /// The shard `name` of `bytes` bytes is finished.
    fn finished(&self, name: &str, bytes: u64);
}

/// An observer that shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Observer for Silent {
    fn recheck(&self, _shards: usize, _bytes: u64) {}
    fn read(&self, _bytes: u64) {}
    fn differs(&self, _name: &str, _why: &str) {}
    fn begin(&self, _shards: usize, _kept: usize, _bytes: u64) {}
    fn more(&self, _bytes: u64) {}
    fn wrote(&self, _bytes: u64) {}
    fn finished(&self, _name: &str, _bytes: u64) {}
}

/// The caller's means to stop a run and to watch it.
#[derive(Clone, Copy)]
pub(super) struct Control<'a> {
    /// Set by the caller to stop the run.
    pub(super) stop: &'a AtomicBool,
    /// Gets the progress.
    pub(super) observer: &'a dyn Observer,
}

impl Control<'_> {
    /// Whether the run is to stop.
    pub(super) fn is_stopped(self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the run if it is to stop.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if it is.
    pub(super) fn check_stop(self) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::Interrupted(INTERRUPTED));
        }
        Ok(())
    }
}
