//! The synchronisation that [`super::growing`] uses. The test `tests/loom.rs` compiles that file with loom's versions.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

/// A stand-in for the buffer's bytes: the version of `tests/loom.rs` reports every access to the model checker, and
/// this one does nothing.
pub(super) struct Shadow;

impl Shadow {
    /// A stand-in for `_len` bytes.
    pub(super) fn new(_len: usize) -> Self {
        Self
    }

    /// Notes that the bytes `_range` are read.
    pub(super) fn reading(&self, _range: std::ops::Range<usize>) {}

    /// Notes that the bytes `_range` may be written.
    pub(super) fn writing(&self, _range: std::ops::Range<usize>) {}
}
