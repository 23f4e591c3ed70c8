//! Memory for volumes: counted against the budget, and reused instead of given back.

use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

use super::growing::Memory;

/// Smallest unit of memory that is accounted: a page.
const PAGE: usize = 4096;

/// Where a region goes when its last user drops it.
pub(super) trait Home: Send + Sync + 'static {
    fn take_back(&self, map: MmapMut);
}

/// Memory of one volume; goes home when dropped.
pub(super) struct Region {
    map: Option<MmapMut>,
    len: usize,
    home: Arc<dyn Home>,
}

impl Region {
    pub(super) fn new(map: MmapMut, len: usize, home: Arc<dyn Home>) -> Self {
        Self { map: Some(map), len, home }
    }
}

// SAFETY: an anonymous mapping is initialised (zeroed or reused), owned by this region alone, and does not move.
unsafe impl Memory for Region {
    fn base(&mut self) -> NonNull<u8> {
        let map = self.map.as_mut().expect("a region has its memory until it is dropped");
        NonNull::new(map.as_mut_ptr()).expect("a mapping is not at address zero")
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(map) = self.map.take() {
            self.home.take_back(map);
        }
    }
}

/// The account of the memory in use and of the free regions that are kept for reuse.
pub(super) struct Ledger {
    limit: usize,
    used: usize,
    free: Vec<MmapMut>,
    /// Address and size of used memory that comes back as soon as replies under way have gone out.
    leaving: Vec<(usize, usize)>,
    /// To be unmapped outside the lock: that takes long.
    discarded: Vec<MmapMut>,
}

impl Ledger {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, free: Vec::new(), leaving: Vec::new(), discarded: Vec::new() }
    }

    /// Bytes of regions in use, which never exceed the limit unless a single volume does.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a volume of `len` bytes may be begun now. One that is larger than the whole budget may when it is alone.
    pub(super) fn fits(&self, len: usize) -> bool {
        self.used == 0 || self.used + capacity(len) <= self.limit
    }

    /// Whether a region of a size that suits `len` bytes is free.
    pub(super) fn has_spare(&self, len: usize) -> bool {
        self.free.iter().any(|map| serves(map.len(), len))
    }

    /// Memory for `len` bytes, counted as used; the caller asked [`Self::fits`].
    ///
    /// # Errors
    /// The operating system has no memory left.
    pub(super) fn take(&mut self, len: usize) -> std::io::Result<MmapMut> {
        let wanted = capacity(len);
        let room = self.limit.saturating_sub(self.used).max(wanted);
        let fitting = self.free.iter().enumerate().filter(|(_, map)| serves(map.len(), len) && map.len() <= room);
        let map = match fitting.min_by_key(|(_, map)| map.len()).map(|(at, _)| at) {
            Some(at) => self.free.swap_remove(at),
            None => {
                self.trim(wanted);
                let map = MmapMut::map_anon(wanted)?;
                let _ = map.advise(Advice::HugePage); // saves page faults where the kernel grants it
                map
            }
        };
        self.used += map.len();
        self.trim(0);
        Ok(map)
    }

    /// Notes that the memory at this address will come back.
    pub(super) fn expect(&mut self, address: usize, len: usize) {
        self.leaving.push((address, capacity(len)));
    }

    /// Bytes that will come back.
    pub(super) fn leaving(&self) -> usize {
        self.leaving.iter().map(|(_, size)| size).sum()
    }

    /// Memory to be unmapped, outside the lock.
    pub(super) fn take_discarded(&mut self) -> Vec<MmapMut> {
        std::mem::take(&mut self.discarded)
    }

    pub(super) fn put(&mut self, map: MmapMut) {
        self.leaving.retain(|(address, _)| *address != map.as_ptr().addr());
        self.used -= map.len();
        self.free.push(map);
        self.trim(0);
    }

    /// Unmaps free regions until `extra` more bytes keep the process within the limit.
    fn trim(&mut self, extra: usize) {
        let mut kept: usize = self.free.iter().map(|map| map.len()).sum();
        while self.used + kept + extra > self.limit {
            let Some(map) = self.free.pop() else { break };
            kept -= map.len();
            self.discarded.push(map);
        }
    }
}

/// Whether a region of `size` bytes is used for a volume of `len`: it is counted by its size, so that one of more than
/// twice the length would waste budget.
pub(super) fn serves(size: usize, len: usize) -> bool {
    (capacity(len)..=2 * capacity(len)).contains(&size)
}

/// What a volume of `len` bytes is accounted as.
pub(super) fn capacity(len: usize) -> usize {
    len.max(1).next_multiple_of(PAGE)
}
