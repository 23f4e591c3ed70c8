//! A shard's bytes on their way to the disk: gathered into blocks by the thread that makes them, hashed by it or by that
//! of another shard ([`super::pair`]), written by a third, so that none waits for the others.

use crate::base::lock::lock;
use std::io;
use std::sync::{Arc, Mutex};

use memmap2::MmapMut;

use super::pair::Hashing;

/// Bytes of a write. Large and page-aligned, as `O_DIRECT` wants them: through the page cache, writing was measured at
/// half the speed, because it copies every byte into fresh pages.
const BLOCK: usize = 1 << 20;

/// Free blocks, kept for the next shard: touching fresh memory takes longer than writing it out.
#[derive(Default)]
pub(super) struct Blocks(Mutex<Vec<MmapMut>>);

impl Blocks {
    fn take(&self) -> io::Result<MmapMut> {
        match lock(&self.0).pop() {
            Some(block) => Ok(block),
            None => MmapMut::map_anon(BLOCK),
        }
    }

    pub(super) fn put(&self, block: MmapMut) {
        lock(&self.0).push(block);
    }
}

/// What the writing thread gets. A channel that closes before the end means that the shard is given up.
pub(super) enum Message {
    /// So many bytes of a block, all of it but for the last.
    Block(MmapMut, usize),
    /// That was all; its SHA-256 in hexadecimal.
    End(String),
}

/// The gathering side.
pub(super) struct Output {
    blocks: Arc<Blocks>,
    hashing: Hashing,
    block: MmapMut,
    filled: usize,
}

impl Output {
    /// # Errors
    /// There is no memory.
    pub(super) fn new(blocks: Arc<Blocks>, hashing: Hashing) -> io::Result<Self> {
        let block = blocks.take()?;
        Ok(Self { blocks, hashing, block, filled: 0 })
    }

    /// Appends bytes; waits if the disk is behind. False if the writing thread has given up: it says why.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.block[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == BLOCK {
                let full = std::mem::replace(&mut self.block, self.blocks.take()?);
                self.filled = 0;
                if !self.hashing.add(full, BLOCK) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The shard is complete.
    pub(super) fn finish(self) {
        self.hashing.end(self.block, self.filled);
    }
}
