//! How far a run of `verify` has come.

/// Is told how it goes.
pub trait Progress: Sync {
    /// So many bytes (of shards) or voxels are to be looked at.
    fn begin(&self, what: &str, total: u64);
    /// So many more were.
    fn advance(&self, count: u64);
}
