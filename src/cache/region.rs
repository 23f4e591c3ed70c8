//! Memory for volumes: counted against the budget, and reused instead of given back to the operating system.

use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

use super::growing::Memory;

/// The memory of a volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// The length of the volume.
    pub(super) len: usize,
    /// The memory that the fill takes beside the volume, until it ends.
    pub(super) scratch: usize,
}

impl Size {
    /// What the volume counts while it is filled.
    pub(super) fn while_filled(self) -> usize {
        capacity(self.len).saturating_add(self.scratch)
    }
}

/// The unit in bytes that memory is counted in: a page.
const PAGE: usize = 4096;

/// The owner of the memory of regions, which takes it back when a region is dropped.
pub(super) trait MemoryOwner: Send + Sync + 'static {
    /// Takes the memory of a dropped region back.
    fn take_back(&self, map: MmapMut);
}

/// Memory of one volume; given back to its owner when dropped.
pub(super) struct Region {
    map: Option<MmapMut>,
    len: usize,
    owner: Arc<dyn MemoryOwner>,
}

impl Region {
    /// A region of `len` bytes in `map`, which goes back to `owner`.
    pub(super) fn new(map: MmapMut, len: usize, owner: Arc<dyn MemoryOwner>) -> Self {
        Self { map: Some(map), len, owner }
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
            self.owner.take_back(map);
        }
    }
}

/// The memory in use and the free memory that is kept for reuse, which together stay within a limit.
pub(super) struct MemoryBudget {
    limit: usize,
    used: usize,
    free: Vec<MmapMut>,
    /// Address and size of used memory that comes back as soon as replies under way have gone out.
    leaving: Vec<(usize, usize)>,
    /// Memory to be unmapped outside the lock, because that takes long.
    discarded: Vec<MmapMut>,
}

impl MemoryBudget {
    /// A budget of `limit` bytes, none of them used.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, free: Vec::new(), leaving: Vec::new(), discarded: Vec::new() }
    }

    /// The bytes of regions in use, and what fills take beside them. They exceed the limit only while a single volume
    /// that takes more is filled or held alone.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// The limit in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a fill that takes `bytes` may begin now. One that takes more than the whole budget may begin when no
    /// other memory is in use.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.used == 0 || self.used.saturating_add(bytes) <= self.limit
    }

    /// Whether there is free memory of a size that suits a volume of `len` bytes.
    pub(super) fn has_spare(&self, len: usize) -> bool {
        self.free.iter().any(|map| serves(map.len(), len))
    }

    /// Returns memory for a volume and counts it and what its fill takes beside it as used, the latter until
    /// [`Self::release`]; the caller has asked [`Self::fits`] before.
    ///
    /// # Errors
    /// The error of `mmap` if the operating system has no memory left.
    pub(super) fn take(&mut self, Size { len, scratch }: Size) -> std::io::Result<MmapMut> {
        let wanted = capacity(len);
        let room = self.limit.saturating_sub(self.used.saturating_add(scratch)).max(wanted);
        let fitting = self.free.iter().enumerate().filter(|(_, map)| serves(map.len(), len) && map.len() <= room);
        let map = match fitting.min_by_key(|(_, map)| map.len()).map(|(at, _)| at) {
            Some(at) => self.free.swap_remove(at),
            None => {
                self.trim(wanted.saturating_add(scratch));
                let map = MmapMut::map_anon(wanted)?;
                let _ = map.advise(Advice::HugePage); // saves page faults where the kernel grants it
                map
            }
        };
        self.used += map.len() + scratch;
        self.trim(0);
        Ok(map)
    }

    /// Counts what a fill took beside its volume as free again.
    pub(super) fn release(&mut self, scratch: usize) {
        self.used -= scratch;
    }

    /// Notes that the memory at `address`, of a volume of `len` bytes, will be given back by [`Self::put`].
    pub(super) fn expect(&mut self, address: usize, len: usize) {
        self.leaving.push((address, capacity(len)));
    }

    /// The bytes that were announced by [`Self::expect`] and are not given back yet.
    pub(super) fn leaving(&self) -> usize {
        self.leaving.iter().map(|(_, size)| size).sum()
    }

    /// Removes and returns the memory that is to be unmapped; the caller drops it outside the lock.
    pub(super) fn take_discarded(&mut self) -> Vec<MmapMut> {
        std::mem::take(&mut self.discarded)
    }

    /// Takes memory back that is no longer used, and keeps it for reuse as far as the limit allows.
    pub(super) fn put(&mut self, map: MmapMut) {
        self.leaving.retain(|(address, _)| *address != map.as_ptr().addr());
        self.used -= map.len();
        self.free.push(map);
        self.trim(0);
    }

    /// Unmaps free regions until `extra` more bytes keep the process within the limit.
    fn trim(&mut self, extra: usize) {
        let mut kept: usize = self.free.iter().map(|map| map.len()).sum();
        while self.used.saturating_add(kept).saturating_add(extra) > self.limit {
            let Some(map) = self.free.pop() else { break };
            kept -= map.len();
            self.discarded.push(map);
        }
    }
}

/// Whether memory of `size` bytes is used for a volume of `len` bytes. Memory is counted by its own size, so that a map
/// of more than twice the length would waste budget.
pub(super) fn serves(size: usize, len: usize) -> bool {
    (capacity(len)..=2 * capacity(len)).contains(&size)
}

/// The bytes that a volume of `len` bytes is counted as: whole pages, at least one.
pub(super) fn capacity(len: usize) -> usize {
    len.max(1).next_multiple_of(PAGE)
}
