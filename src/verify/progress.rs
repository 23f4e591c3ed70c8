//! How far a run of `verify` has come.

/// Receives the progress of a run, from several threads at a time.
pub trait Progress: Sync {
    /// A step begins that handles `total` bytes of shards, or voxels; `what` names them for people.
    fn begin(&self, what: &str, total: u64);
    /// Another `count` bytes or voxels of the step are done.
    fn advance(&self, count: u64);
}
