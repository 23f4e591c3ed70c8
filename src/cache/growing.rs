//! A buffer that one thread fills from the front while others read what is filled.
//!
//! All the `unsafe` code of the cache is here. Why it is sound:
//! - A byte below `filled` is never written again: only [`Writer`] writes, it is not `Clone`, and it hands out
//!   `&mut` to bytes at or above its own count only, which [`Writer::publish`] never lowers.
//! - A byte at or above `filled` is never read: [`Growing::slice`] refuses it.
//! - What the writer wrote below `filled` is visible to whoever read that value: the store releases, the load acquires.
//! - The memory outlives every slice, because a slice owns an `Arc` of it, and its address is stable ([`Memory`]).
//!
//! `tests/loom.rs` checks the third point over all interleavings.

use std::ops::Range;
use std::ptr::NonNull;

use super::sync::{Arc, AtomicUsize, Ordering, Shadow};

/// Memory of fixed size that a buffer owns.
///
/// # Safety
/// `base` and `len` describe initialised memory that nothing else accesses while `self` lives, at an address that
/// does not change when `self` is moved.
pub(super) unsafe trait Memory: Send + Sync + 'static {
    /// The address of the first byte.
    fn base(&mut self) -> NonNull<u8>;
    /// The size of the memory in bytes.
    fn len(&self) -> usize;
}

/// The shared side of a buffer: how much of it is filled, and slices of the filled part.
pub(super) struct Growing<M> {
    base: NonNull<u8>,
    len: usize,
    filled: AtomicUsize,
    shadow: Shadow,
    _memory: M,
}

// SAFETY: the pointer is to memory that `_memory` owns, which is itself Send and Sync; access is as proved above.
unsafe impl<M: Memory> Send for Growing<M> {}
// SAFETY: as above.
unsafe impl<M: Memory> Sync for Growing<M> {}

/// The one writer of a [`Growing`].
pub(super) struct Writer<M> {
    shared: Arc<Growing<M>>,
    filled: usize,
}

/// Filled bytes, kept alive for as long as the slice is.
pub(super) struct Slice<M> {
    shared: Arc<Growing<M>>,
    range: Range<usize>,
}

impl<M: Memory> Growing<M> {
    /// Makes an empty buffer of `memory`, and its only writer.
    pub(super) fn new(mut memory: M) -> (Arc<Self>, Writer<M>) {
        let (base, len) = (memory.base(), memory.len());
        let shadow = Shadow::new(len);
        let shared = Arc::new(Self { base, len, filled: AtomicUsize::new(0), shadow, _memory: memory });
        (shared.clone(), Writer { shared, filled: 0 })
    }

    /// The address of the memory, which identifies it.
    pub(super) fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// The number of bytes that are filled, and can be read, so far.
    pub(super) fn filled(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// A slice of the bytes `range`; `None` if they are not all filled yet.
    pub(super) fn slice(this: &Arc<Self>, range: Range<usize>) -> Option<Slice<M>> {
        (range.start <= range.end && range.end <= this.filled()).then(|| Slice { shared: this.clone(), range })
    }
}

impl<M: Memory> Writer<M> {
    /// The bytes of the buffer that are not published yet.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        let (start, len) = (self.filled, self.shared.len);
        self.shared.shadow.writing(start..len);
        // SAFETY: in bounds of the memory; nobody reads at or above `filled`, and `self` is the only writer and
        // borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.shared.base.as_ptr().add(start), len - start) }
    }

    /// Whether all bytes of the buffer are published.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.shared.len
    }

    /// The shared side of the buffer.
    pub(super) fn shared(&self) -> &Arc<Growing<M>> {
        &self.shared
    }

    /// Makes the first `len` bytes of [`Self::spare`] readable. They are never written again.
    pub(super) fn publish(&mut self, len: usize) {
        self.filled = (self.filled + len).min(self.shared.len);
        self.shared.filled.store(self.filled, Ordering::Release);
    }
}

impl<M: Memory> AsRef<[u8]> for Slice<M> {
    fn as_ref(&self) -> &[u8] {
        self.shared.shadow.reading(self.range.clone());
        // SAFETY: `Growing::slice` saw `filled` at or above the range's end, so the bytes are initialised, visible
        // and never written again.
        unsafe { std::slice::from_raw_parts(self.shared.base.as_ptr().add(self.range.start), self.range.len()) }
    }
}
