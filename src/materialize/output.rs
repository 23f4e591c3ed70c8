//! A shard's bytes on their way to the disk: hashed and gathered into blocks by the thread that has them, written by
//! another, so that neither waits for the other.

use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use memmap2::MmapMut;
use sha2::{Digest, Sha256};

/// Bytes of a write. Large and page-aligned, as `O_DIRECT` wants them: through the page cache, writing was measured at
/// half the speed, because it copies every byte into fresh pages.
const BLOCK: usize = 1 << 20;
/// Bytes that are hashed and then copied: half of a common L2, so that the copy finds them there.
pub(super) const PIECE: usize = 256 << 10;

/// Free blocks, kept for the next shard: touching fresh memory takes longer than writing it out.
#[derive(Default)]
pub(super) struct Blocks(Mutex<Vec<MmapMut>>);

impl Blocks {
    fn take(&self) -> io::Result<MmapMut> {
        match super::lock(&self.0).pop() {
            Some(block) => Ok(block),
            None => MmapMut::map_anon(BLOCK),
        }
    }

    pub(super) fn put(&self, block: MmapMut) {
        super::lock(&self.0).push(block);
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
    writer: SyncSender<Message>,
    block: MmapMut,
    filled: usize,
    hasher: Sha256,
}

impl Output {
    /// # Errors
    /// There is no memory.
    pub(super) fn new(blocks: Arc<Blocks>, writer: SyncSender<Message>) -> io::Result<Self> {
        let block = blocks.take()?;
        Ok(Self { blocks, writer, block, filled: 0, hasher: Sha256::new() })
    }

    /// Appends bytes; waits if the disk is behind. False if the writing thread has given up: it says why.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        for mut piece in bytes.chunks(PIECE) {
            self.hasher.update(piece);
            while !piece.is_empty() {
                let (now, later) = piece.split_at(piece.len().min(BLOCK - self.filled));
                self.block[self.filled..self.filled + now.len()].copy_from_slice(now);
                self.filled += now.len();
                piece = later;
                if self.filled == BLOCK {
                    let full = std::mem::replace(&mut self.block, self.blocks.take()?);
                    self.filled = 0;
                    if self.writer.send(Message::Block(full, BLOCK)).is_err() {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// The shard is complete.
    pub(super) fn finish(self) {
        let digest = format!("{:x}", self.hasher.finalize());
        // A writer that has given up says why.
        let _ = self.writer.send(Message::Block(self.block, self.filled));
        let _ = self.writer.send(Message::End(digest));
    }
}
