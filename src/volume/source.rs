//! A volume of any source: an NPZ file or a finished shard file. Readers of volumes use only this type.

use super::{Filled, NpzVolume, ShardVolume, Sink};
use crate::error::Result;
use crate::formats::codec::RowFilter;

/// A volume, by the source of its bytes.
#[derive(Clone, Debug)]
pub enum Volume<'a> {
    /// A volume that is made from an NPZ file.
    Npz(NpzVolume<'a>),
    /// A volume that is read from a finished shard file.
    Shard(ShardVolume<'a>),
}

impl Volume<'_> {
    /// The length of the volume in bytes, known without reading a voxel.
    pub fn byte_len(&self) -> u64 {
        match self {
            Self::Npz(volume) => volume.byte_len(),
            Self::Shard(volume) => volume.byte_len(),
        }
    }

    /// The memory in bytes that [`Self::fill`] takes beside the volume, without what is the same for all volumes.
    pub fn scratch_bytes(&self) -> u64 {
        match self {
            Self::Npz(volume) => volume.scratch_bytes(),
            Self::Shard(volume) => volume.scratch_bytes(),
        }
    }

    /// The filter by which blocks of the volume's bytes get smaller when they are packed.
    pub fn filter(&self) -> RowFilter {
        match self {
            Self::Npz(volume) => volume.filter(),
            Self::Shard(volume) => volume.filter(),
        }
    }

    /// Writes all bytes of the volume to `sink`, as [`NpzVolume::fill`] or [`ShardVolume::fill`] does.
    ///
    /// # Errors
    /// The errors of [`NpzVolume::fill`] and [`ShardVolume::fill`].
    pub fn fill(&self, sink: &mut impl Sink, verify_first: bool) -> Result<Filled> {
        match self {
            Self::Npz(volume) => volume.fill(sink, verify_first),
            Self::Shard(volume) => volume.fill(sink),
        }
    }

    /// Whether the source is there in the planned state, by its metadata, so that bytes that were made of it before are
    /// those that [`Self::fill`] would make now. False also where only a checksum could tell.
    pub fn is_as_planned(&self) -> bool {
        match self {
            Self::Npz(volume) => volume.is_as_planned(),
            Self::Shard(volume) => volume.is_as_planned(),
        }
    }

    /// The work of [`Self::peek`], in bytes that are only copied; `None` where a whole fill is needed.
    pub fn peek_cost(&self, offset: u64, len: u64) -> Option<u64> {
        match self {
            Self::Npz(volume) => volume.peek_cost(offset, len),
            Self::Shard(volume) => Some(volume.peek_cost(len)),
        }
    }

    /// Reads `out.len()` bytes of the volume at `offset` without keeping anything. False where only a fill tells
    /// whether the bytes are the planned ones, as [`NpzVolume::peek`] says.
    ///
    /// # Errors
    /// The errors of [`NpzVolume::peek`] and [`ShardVolume::peek`].
    pub fn peek(&self, offset: u64, out: &mut [u8]) -> Result<bool> {
        match self {
            Self::Npz(volume) => volume.peek(offset, out),
            Self::Shard(volume) => volume.peek(offset, out).map(|()| true),
        }
    }

    /// Whether a peek that ends at byte `end` may hand on unchecked bytes of the last chunk, which a fill hands on only
    /// when the checksum of the whole volume was found right ([`NpzVolume::reaches_last_chunk`]). Never for a shard
    /// file: its checksums, where it has any, are those of single blocks.
    pub fn reaches_last_chunk(&self, end: u64) -> bool {
        match self {
            Self::Npz(volume) => volume.reaches_last_chunk(end),
            Self::Shard(_) => false,
        }
    }
}
