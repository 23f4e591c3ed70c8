//! A volume, wherever its bytes come from. Whoever reads volumes knows this only.

use super::{Filled, NpzVolume, ShardVolume, Sink};
use crate::error::Result;

/// A volume: where its bytes come from.
#[derive(Clone, Debug)]
pub enum Volume<'a> {
    /// Made from an NPZ file.
    Npz(NpzVolume<'a>),
    /// Read from a shard on disk.
    Shard(ShardVolume<'a>),
}

impl Volume<'_> {
    /// Its length in bytes, known without reading a voxel.
    pub fn byte_len(&self) -> u64 {
        match self {
            Self::Npz(volume) => volume.byte_len(),
            Self::Shard(volume) => volume.byte_len(),
        }
    }

    /// Writes all bytes to `sink`; see [`NpzVolume::fill`] and [`ShardVolume::fill`].
    ///
    /// # Errors
    /// Theirs.
    pub fn fill(&self, sink: &mut impl Sink, verify_first: bool) -> Result<Filled> {
        match self {
            Self::Npz(volume) => volume.fill(sink, verify_first),
            Self::Shard(volume) => volume.fill(sink),
        }
    }

    /// The work of [`Self::peek`] in bytes that are only copied; `None` where only a whole fill can tell.
    pub fn peek_cost(&self, offset: u64, len: u64) -> Option<u64> {
        match self {
            Self::Npz(volume) => volume.peek_cost(offset, len),
            Self::Shard(volume) => Some(volume.peek_cost(len)),
        }
    }

    /// Reads `out.len()` bytes at `offset` without keeping anything.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn peek(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match self {
            Self::Npz(volume) => volume.peek(offset, out),
            Self::Shard(volume) => volume.peek(offset, out),
        }
    }

    /// Whether a part that ends at byte `end` may be handed on unchecked by a peek and yet stand for the whole's
    /// checksum; see [`NpzVolume::reaches_last_chunk`]. What a shard has checksums for is checked block by block.
    pub fn reaches_last_chunk(&self, end: u64) -> bool {
        match self {
            Self::Npz(volume) => volume.reaches_last_chunk(end),
            Self::Shard(_) => false,
        }
    }
}
