//! The file of a kept volume: a header that says which volume it is and what its blocks must be, and the blocks.
//!
//! | bytes | content (numbers are little-endian) |
//! |---|---|
//! | 0..8 | [`MAGIC`] |
//! | 8..12 | [`VERSION`] of this format |
//! | 12..16 | the bytes of a value, by which packed blocks are shuffled; 0 if no block is packed |
//! | 16..48 | the volume's digest |
//! | 48..56 | the volume's length in bytes |
//! | 56.. | for each block, in their order: its length in the file, and the CRC-32 of the volume's bytes in it, 4 bytes each |
//! | … | zeros, so that the header fills whole pages |
//! | last 4 | the CRC-32 of all of the header before it |
//!
//! Blocks hold [`BLOCK`] bytes of the volume each, the last one the rest, and stand one after the other behind the
//! header. So every byte of a file is covered by a checksum; that of a packed block is of what comes out of it, whatever
//! becomes of the codec. Pure.

use std::ops::Range;

use super::VolumeDigest;
use crate::base::num::to_usize;

/// The first bytes of each file.
const MAGIC: &[u8; 8] = b"CTWDSVOL";
/// The version of the format; a file of another one counts as damaged, and is made anew.
const VERSION: u32 = 1;
/// The bytes of the volume in a block: few enough that they are compared while they are in the processor's cache.
pub(super) const BLOCK: usize = 256 << 10;
/// The header's length is a multiple of this, so that blocks begin at pages.
const PAGE: usize = 4096;
/// The bytes before the table of blocks.
const FIXED: usize = 56;
/// The bytes of a block's entry in the table.
const ENTRY: usize = 8;
/// The bytes of the header's checksum.
const CRC: usize = 4;

/// What the header of a kept volume says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The digest of the volume.
    pub(super) digest: VolumeDigest,
    /// The length of the volume in bytes.
    pub(super) len: u64,
    /// The bytes of a value, by which packed blocks are shuffled; `None` if no block is packed.
    pub(super) width: Option<u32>,
    /// The blocks, in their order.
    pub(super) blocks: Vec<Block>,
}

/// A block in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The bytes that it takes in the file; as many as it has of the volume if it is plain.
    pub(super) stored: u32,
    /// The CRC-32 of the volume's bytes in it.
    pub(super) crc: u32,
}

/// The number of blocks of a volume of `len` bytes.
pub(super) fn block_count(len: u64) -> usize {
    to_usize(len.div_ceil(BLOCK as u64))
}

/// The length of the header of a volume of `len` bytes.
pub(super) fn header_len(len: u64) -> usize {
    (FIXED + block_count(len) * ENTRY + CRC).next_multiple_of(PAGE)
}

/// The length of the file of a volume of `len` bytes whose blocks are plain.
pub(super) fn plain_file_len(len: u64) -> u64 {
    header_len(len) as u64 + len
}

/// The bytes of the volume in a block.
pub(super) fn range_of(block: usize, len: u64) -> Range<u64> {
    let start = block as u64 * BLOCK as u64;
    start..(start + BLOCK as u64).min(len)
}

impl Header {
    /// The header's bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(header_len(self.len));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.width.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&self.len.to_le_bytes());
        for Block { stored, crc } in &self.blocks {
            bytes.extend_from_slice(&stored.to_le_bytes());
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        bytes.resize(header_len(self.len) - CRC, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the volume of this digest and length, of which `bytes` are all.
    ///
    /// # Errors
    /// What is wrong with the header, as a phrase for a message.
    pub(super) fn parse(bytes: &[u8], digest: &VolumeDigest, len: u64) -> Result<Self, &'static str> {
        let (content, crc) = bytes.split_last_chunk::<CRC>().ok_or("its header is cut off")?;
        if !content.starts_with(MAGIC) {
            return Err("it is no volume of a disk cache");
        }
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return Err("the checksum of its header differs");
        }
        let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|place| content[at + place]));
        if number(8) != VERSION {
            return Err("its format is of another version");
        }
        if content[16..48] != *digest || content[48..FIXED] != len.to_le_bytes() {
            return Err("it holds another volume");
        }
        let table = content[FIXED..].chunks_exact(ENTRY).take(block_count(len));
        let entry = |entry: &[u8]| Block {
            stored: u32::from_le_bytes(std::array::from_fn(|place| entry[place])),
            crc: u32::from_le_bytes(std::array::from_fn(|place| entry[4 + place])),
        };
        let blocks: Vec<Block> = table.map(entry).collect();
        let width = Some(number(12)).filter(|width| *width > 0);
        let fits = |(number, block): (usize, &Block)| {
            let range = range_of(number, len);
            let plain = range.end - range.start;
            u64::from(block.stored) == plain || (width.is_some() && u64::from(block.stored) < plain)
        };
        if blocks.iter().enumerate().all(fits) {
            Ok(Self { digest: *digest, len, width, blocks })
        } else {
            Err("a block in it has an impossible length")
        }
    }

    /// The length of the whole file.
    pub(super) fn file_len(&self) -> u64 {
        let stored: u64 = self.blocks.iter().map(|block| u64::from(block.stored)).sum();
        header_len(self.len) as u64 + stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: VolumeDigest = [7; 32];

    fn header(len: u64) -> Header {
        let stored = |block| u32::try_from(range_of(block, len).end - range_of(block, len).start).unwrap();
        let blocks = (0..block_count(len)).map(|block| Block { stored: stored(block), crc: 9 }).collect();
        Header { digest: DIGEST, len, width: None, blocks }
    }

    #[test]
    fn a_header_comes_back_and_every_changed_byte_of_it_is_noticed() {
        for len in [1, 4096, BLOCK as u64, BLOCK as u64 + 1, 600 * BLOCK as u64 - 5] {
            let right = header(len);
            let bytes = right.to_bytes();
            assert_eq!(bytes.len(), header_len(len));
            assert!(bytes.len().is_multiple_of(PAGE) && right.file_len() == plain_file_len(len));
            assert_eq!(Header::parse(&bytes, &DIGEST, len).as_ref(), Ok(&right));
            for at in 0..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 0x20;
                assert!(Header::parse(&wrong, &DIGEST, len).is_err(), "byte {at}");
            }
            for cut in (0..bytes.len()).step_by(97) {
                assert!(Header::parse(&bytes[..cut], &DIGEST, len).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_volume_is_never_taken_for_another() {
        let bytes = header(5000).to_bytes();
        assert_eq!(Header::parse(&bytes, &[8; 32], 5000), Err("it holds another volume"));
        assert_eq!(Header::parse(&bytes, &DIGEST, 5001), Err("it holds another volume"));
        for (blocks, width) in [(vec![(5001, 0)], None), (vec![(4999, 0)], None), (vec![(5001, 0)], Some(2))] {
            let blocks = blocks.into_iter().map(|(stored, crc)| Block { stored, crc }).collect();
            let wrong = Header { blocks, width, ..header(5000) }.to_bytes();
            assert_eq!(Header::parse(&wrong, &DIGEST, 5000), Err("a block in it has an impossible length"));
        }
    }
}
