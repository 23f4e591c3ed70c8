//! The synchronisation that [`super::growing`] uses. Its loom test compiles the same file with loom's versions.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

/// Stands for the bytes where a model checker watches every access to them; here it is nothing.
pub(super) struct Shadow;

impl Shadow {
    pub(super) fn new(_len: usize) -> Self {
        Self
    }

    pub(super) fn reading(&self, _range: std::ops::Range<usize>) {}

    pub(super) fn writing(&self, _range: std::ops::Range<usize>) {}
}
