//! A shard's bytes gathered into blocks by the thread that makes them. Full blocks are hashed by that thread or by the
//! one that makes another shard ([`super::hash_pair`]), and written by a third, so that none waits for the others.

use std::io;
use std::sync::Arc;

use super::blocks::{AlignedBlock, BlockPool};
use super::hash_pair::ShardHasher;

/// Gathers a shard's bytes into blocks. If it is dropped before [`Self::finish`], the shard is given up.
pub(super) struct BlockFiller {
    pool: Arc<BlockPool>,
    hasher: ShardHasher,
    block: AlignedBlock,
}

impl BlockFiller {
    /// Begins a shard.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn new(pool: Arc<BlockPool>, hasher: ShardHasher) -> io::Result<Self> {
        let block = pool.take()?;
        Ok(Self { pool, hasher, block })
    }

    /// Appends bytes; waits if the disk is behind. False if the writing thread has given up, which then has the reason.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            bytes = self.block.append(bytes);
            if self.block.is_full() {
                let full = std::mem::replace(&mut self.block, self.pool.take()?);
                if !self.hasher.add(full) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Completes the shard.
    pub(super) fn finish(self) {
        self.hasher.end(self.block);
    }
}
