//! Page-aligned blocks of memory: in these, a shard's bytes go from the thread that makes them to the one that writes.

use std::io;
use std::sync::Mutex;

use memmap2::MmapMut;

use crate::base::lock::lock;

/// Bytes of a block, and so of a write. Large and page-aligned, as `O_DIRECT` wants them: through the page cache,
/// writing was measured at half the speed, because it copies every byte into fresh pages.
const BLOCK_LEN: usize = 1 << 20;

/// A block whose first bytes are filled.
pub(super) struct AlignedBlock {
    /// The whole block.
    pub(super) memory: MmapMut,
    /// Number of bytes that are filled.
    pub(super) filled: usize,
}

impl AlignedBlock {
    /// Appends as many bytes as there is room for, and returns the others.
    pub(super) fn append<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(self.memory.len() - self.filled));
        self.memory[self.filled..self.filled + now.len()].copy_from_slice(now);
        self.filled += now.len();
        later
    }

    /// Whether there is no more room.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.memory.len()
    }

    /// The bytes that are filled.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[..self.filled]
    }
}

/// Blocks that are not in use, kept for the next shard: touching fresh memory takes longer than writing it out.
#[derive(Default)]
pub(super) struct BlockPool(Mutex<Vec<MmapMut>>);

impl BlockPool {
    /// An empty block: one that was used before, or a new one.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn take(&self) -> io::Result<AlignedBlock> {
        let unused = lock(&self.0).pop();
        let memory = unused.map_or_else(|| MmapMut::map_anon(BLOCK_LEN), Ok)?;
        Ok(AlignedBlock { memory, filled: 0 })
    }

    /// Gives a block back when its bytes are written.
    pub(super) fn put(&self, block: AlignedBlock) {
        lock(&self.0).push(block.memory);
    }
}
