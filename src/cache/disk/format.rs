//! The file of a kept volume: a header that says which volume it is and what its blocks must be, and the volume.
//!
//! | bytes | content (numbers are little-endian) |
//! |---|---|
//! | 0..8 | [`MAGIC`] |
//! | 8..12 | [`VERSION`] of this format |
//! | 12..44 | the volume's digest |
//! | 44..52 | the volume's length in bytes |
//! | 52.. | the CRC-32 of each block, in their order, 4 bytes each |
//! | … | zeros, so that the header fills whole pages |
//! | last 4 | the CRC-32 of all of the header before it |
//!
//! The volume stands behind the header as it is; a block is [`BLOCK`] bytes of it, the last one the rest. A compressed
//! volume has a header of one page, with another version:
//!
//! | bytes | content |
//! |---|---|
//! | 0..52 | as above |
//! | 52..60 | the length of what follows the header |
//! | 60..76 | the name of the filter, filled up with zeros |
//! | last 4 | the CRC-32 of all of the page before it |
//!
//! Behind it stand the frames of the blocks and their seek table, as in a compressed shard ([`crate::formats::codec`]).
//! So every byte of a file is covered by a checksum. Pure.

use std::ops::Range;

use super::VolumeDigest;
use crate::base::num::to_usize;
use crate::formats::codec::Filter;

/// The first bytes of each file.
const MAGIC: &[u8; 8] = b"CTWDSVOL";
/// The version of the format; a file of another one counts as damaged, and is made anew.
const VERSION: u32 = 1;
/// The version of files with compressed volumes.
const PACKED: u32 = 2;
/// The bytes of the volume in a block: few enough that they are compared while they are in the processor's cache.
pub(super) const BLOCK: usize = 256 << 10;
/// The header's length is a multiple of this, so that blocks begin at pages.
pub(super) const PAGE: usize = 4096;
/// The bytes before the checksums of blocks.
const FIXED: usize = 52;
/// The bytes of a checksum.
const CRC: usize = 4;
/// The bytes before the name of the filter, and those behind it, in the header of a compressed volume.
const NAME: std::ops::Range<usize> = FIXED + 8..FIXED + 24;

/// What the header of a kept volume says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The digest of the volume.
    pub(super) digest: VolumeDigest,
    /// The length of the volume in bytes.
    pub(super) len: u64,
    /// The CRC-32 of each block, in their order.
    pub(super) crcs: Vec<u32>,
}

/// What the header of a compressed volume says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackedHeader {
    /// The digest of the volume.
    pub(super) digest: VolumeDigest,
    /// The length of the volume in bytes.
    pub(super) len: u64,
    /// The length of frames and seek table.
    pub(super) packed_len: u64,
    /// What was done to the blocks before they were packed.
    pub(super) filter: Filter,
}

/// The number of blocks of a volume of `len` bytes.
pub(super) fn block_count(len: u64) -> usize {
    to_usize(len.div_ceil(BLOCK as u64))
}

/// The length of the header of a volume of `len` bytes.
pub(super) fn header_len(len: u64) -> usize {
    (FIXED + (block_count(len) + 1) * CRC).next_multiple_of(PAGE)
}

/// The length of the file of a volume of `len` bytes.
pub(super) fn file_len(len: u64) -> u64 {
    header_len(len) as u64 + len
}

/// The bytes of the volume in a block.
pub(super) fn range_of(block: usize, len: u64) -> Range<u64> {
    let start = block as u64 * BLOCK as u64;
    start..(start + BLOCK as u64).min(len)
}

/// The first fields of a header.
fn begin(version: u32, digest: &VolumeDigest, len: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(header_len(len));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(digest);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes
}

/// Completes a header of so many bytes by its checksum.
fn end(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.resize(len - CRC, 0);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Compares the checksum and the first fields of a header, of which `bytes` are all, and returns what is before the
/// checksum.
fn check<'a>(bytes: &'a [u8], version: u32, digest: &VolumeDigest, len: u64) -> Result<&'a [u8], &'static str> {
    let (content, crc) = bytes.split_at(bytes.len() - CRC);
    if !content.starts_with(MAGIC) {
        return Err("it is no volume of a disk cache");
    }
    if crc32fast::hash(content).to_le_bytes() != *crc {
        return Err("the checksum of its header differs");
    }
    if content[8..12] != version.to_le_bytes() {
        return Err("its format is of another version");
    }
    if content[12..44] != *digest || content[44..FIXED] != len.to_le_bytes() {
        return Err("it holds another volume");
    }
    Ok(content)
}

/// Whether the first page of a file is the header of a compressed volume.
pub(super) fn is_packed(page: &[u8; PAGE]) -> bool {
    page[8..12] == PACKED.to_le_bytes()
}

impl PackedHeader {
    /// The header's bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = begin(PACKED, &self.digest, self.len);
        bytes.extend_from_slice(&self.packed_len.to_le_bytes());
        bytes.extend_from_slice(self.filter.name().as_bytes());
        end(bytes, PAGE)
    }

    /// Reads the header of the volume of this digest and length.
    ///
    /// # Errors
    /// What is wrong with the header, as a phrase for a message.
    pub(super) fn parse(page: &[u8; PAGE], digest: &VolumeDigest, len: u64) -> Result<Self, &'static str> {
        let content = check(page, PACKED, digest, len)?;
        let packed_len = content[FIXED..].first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
        let name = content[NAME].split(|byte| *byte == 0).next().and_then(|name| str::from_utf8(name).ok());
        let filter = name.and_then(Filter::named).ok_or("its filter is of a later version")?;
        Ok(Self { digest: *digest, len, packed_len, filter })
    }
}

impl Header {
    /// The header's bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = begin(VERSION, &self.digest, self.len);
        self.crcs.iter().for_each(|crc| bytes.extend_from_slice(&crc.to_le_bytes()));
        end(bytes, header_len(self.len))
    }

    /// Reads the header of the volume of this digest and length, of which `bytes` are all.
    ///
    /// # Errors
    /// What is wrong with the header, as a phrase for a message.
    pub(super) fn parse(bytes: &[u8], digest: &VolumeDigest, len: u64) -> Result<Self, &'static str> {
        if bytes.len() != header_len(len) {
            return Err("its header is cut off");
        }
        let content = check(bytes, VERSION, digest, len)?;
        let (crcs, _) = content[FIXED..].as_chunks::<CRC>();
        let crcs = crcs.iter().take(block_count(len)).map(|crc| u32::from_le_bytes(*crc)).collect();
        Ok(Self { digest: *digest, len, crcs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::codec::Method;

    const DIGEST: VolumeDigest = [7; 32];

    fn header(len: u64) -> Header {
        let crcs = (0..block_count(len)).map(|block| u32::try_from(block).unwrap() * 99).collect();
        Header { digest: DIGEST, len, crcs }
    }

    #[test]
    fn a_header_comes_back_and_every_changed_byte_of_it_is_noticed() {
        for len in [1, 4096, BLOCK as u64, BLOCK as u64 + 1, 600 * BLOCK as u64 - 5] {
            let right = header(len);
            let bytes = right.to_bytes();
            assert_eq!(bytes.len(), header_len(len));
            assert!(bytes.len().is_multiple_of(PAGE) && range_of(block_count(len) - 1, len).end == len);
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
    fn a_packed_header_comes_back_and_every_changed_byte_of_it_is_noticed() {
        let all = [(Method::Predict, 1, false), (Method::Split, 2, true), (Method::Shuffle, 8, false)];
        for filter in all.map(|(method, width, is_float)| Filter::new(method, width, is_float)) {
            let right = PackedHeader { digest: DIGEST, len: 1 << 40, packed_len: 77, filter };
            let bytes: [u8; PAGE] = right.to_bytes().try_into().unwrap();
            assert!(is_packed(&bytes) && filter.name().len() <= NAME.len());
            assert_eq!(PackedHeader::parse(&bytes, &DIGEST, 1 << 40).as_ref(), Ok(&right));
            for at in 0..PAGE {
                let mut wrong = bytes;
                wrong[at] ^= 0x20;
                assert!(PackedHeader::parse(&wrong, &DIGEST, 1 << 40).is_err(), "byte {at}");
            }
        }
        assert!(!is_packed(header(5000).to_bytes()[..PAGE].try_into().unwrap()));
    }

    #[test]
    fn a_volume_is_never_taken_for_another() {
        let bytes = header(5000).to_bytes();
        assert_eq!(Header::parse(&bytes, &[8; 32], 5000), Err("it holds another volume"));
        assert_eq!(Header::parse(&bytes, &DIGEST, 5001), Err("it holds another volume"));
    }
}
