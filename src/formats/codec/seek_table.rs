//! The seek table of the zstd seekable format: a skippable frame behind the others, with the sizes and the checksum of
//! each. Pure. Source: zstd's `contrib/seekable_format/zstd_seekable_compression_format.md`, version 0.1.0.

use std::ops::Range;

use super::MAX_BLOCK;
use crate::base::num::to_usize;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
/// The bytes at the start of a skippable frame: magic number and length.
const HEAD: usize = 8;
/// The bytes at the end of a seek table: number of frames, descriptor, magic number.
pub const FOOTER: usize = 9;
const HAS_CHECKSUMS: u8 = 0x80;
/// Bits that are 0 in this version; two of them a reader may ignore, but then it would not notice that they changed.
const RESERVED: u8 = 0x7F;

/// The entry of a seek table for one block, which is one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// The bytes of the frame, counted from the first frame's first byte.
    pub packed: Range<u64>,
    /// The bytes of the block's content, counted from the first block's first plain byte.
    pub plain: Range<u64>,
    /// The lower half of the XXH64 of the filtered content, which also ends the frame; `None` if the table has no
    /// checksums.
    pub checksum: Option<u32>,
}

/// A seek table: the entries of all blocks, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeekTable {
    blocks: Vec<BlockEntry>,
    /// The bytes of each frame's content behind those of its block, which the table counts with them.
    mark: usize,
}

impl SeekTable {
    /// A table of frames whose contents have so many bytes behind those of their blocks.
    pub(super) fn with_mark(mark: usize) -> Self {
        Self { blocks: Vec::new(), mark }
    }

    /// Adds the entry of `frame`, which ends with its checksum and holds `plain` bytes.
    pub fn push(&mut self, frame: &[u8], plain: usize) {
        let (at, from) = self.blocks.last().map_or((0, 0), |last| (last.packed.end, last.plain.end));
        let checksum = frame.last_chunk().map(|last| u32::from_le_bytes(*last));
        self.blocks.push(BlockEntry {
            packed: at..at + frame.len() as u64,
            plain: from..from + plain as u64,
            checksum,
        });
    }

    /// Adds the entry of a frame without content, which has `packed` bytes.
    pub(super) fn begin(&mut self, packed: u64, checksum: u32) {
        let (at, from) = self.blocks.last().map_or((0, 0), |last| (last.packed.end, last.plain.end));
        self.blocks.push(BlockEntry { packed: at..at + packed, plain: from..from, checksum: Some(checksum) });
    }

    /// The first entry, if there is one.
    pub(super) fn first(&self) -> Option<&BlockEntry> {
        self.blocks.first()
    }

    /// The bytes of the table, which follow the last frame.
    pub fn render(&self) -> Vec<u8> {
        // Blocks and tables of one volume are far below 4 GiB: a tar member is at most 8 GiB, in blocks of 256 KiB.
        let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = SKIPPABLE_MAGIC.to_le_bytes().to_vec();
        bytes.extend(word((self.blocks.len() * 12 + FOOTER) as u64));
        for BlockEntry { packed, plain, checksum } in &self.blocks {
            bytes.extend(word(packed.end - packed.start));
            let mark = if plain.is_empty() { 0 } else { self.mark as u64 };
            bytes.extend(word(plain.end - plain.start + mark));
            bytes.extend(checksum.unwrap_or(0).to_le_bytes());
        }
        bytes.extend(word(self.blocks.len() as u64));
        bytes.push(HAS_CHECKSUMS);
        bytes.extend(SEEKABLE_MAGIC.to_le_bytes());
        bytes
    }

    /// The length in bytes of a whole table, of which `footer` has the last bytes. Frames and table together have
    /// `packed_len` bytes.
    ///
    /// # Errors
    /// The damage as a phrase for a message.
    pub fn len_in(footer: &[u8; FOOTER], packed_len: u64) -> Result<usize, String> {
        let [count @ .., descriptor, _, _, _, _] = footer;
        if u32::from_le_bytes([footer[5], footer[6], footer[7], footer[8]]) != SEEKABLE_MAGIC {
            return Err("it does not end with a seek table: it is cut off, or not in the zstd seekable format".into());
        }
        if descriptor & RESERVED != 0 {
            return Err("its seek table is of an unknown version".into());
        }
        let len = u64::from(u32::from_le_bytes(*count)) * entry_len(*descriptor) as u64 + (HEAD + FOOTER) as u64;
        if len > packed_len {
            return Err(format!("its seek table claims {len} bytes, all of it has {packed_len}"));
        }
        Ok(to_usize(len))
    }

    /// Reads a table of the length that [`Self::len_in`] gives, of frames with `mark` bytes behind each block. Frames
    /// and table together have `packed_len` bytes.
    ///
    /// # Errors
    /// The damage as a phrase for a message.
    pub fn parse(table: &[u8], packed_len: u64, mark: usize) -> Result<Self, String> {
        let word = |at: usize| table.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if word(0) != SKIPPABLE_MAGIC || u64::from(word(4)) != (table.len() - HEAD) as u64 {
            return Err("its seek table is damaged".into());
        }
        let descriptor = table[table.len() - 5];
        let mut parsed = Self::with_mark(mark);
        let (mut at, mut from) = (0u64, 0u64);
        for entry in table[HEAD..table.len() - FOOTER].chunks_exact(entry_len(descriptor)) {
            let word = |n: usize| u32::from_le_bytes([entry[n], entry[n + 1], entry[n + 2], entry[n + 3]]);
            let (packed, content) = (u64::from(word(0)), u64::from(word(4)));
            let plain = content.saturating_sub(mark as u64);
            let is_head = content == 0 && parsed.blocks.is_empty();
            if mark > 0 && plain == 0 && !is_head {
                return Err("a frame in it holds no block".into());
            }
            if plain > MAX_BLOCK as u64 {
                return Err(format!("a block holds {plain} bytes; at most {MAX_BLOCK} are supported"));
            }
            let checksum = (descriptor & HAS_CHECKSUMS != 0).then(|| word(8));
            parsed.blocks.push(BlockEntry { packed: at..at + packed, plain: from..from + plain, checksum });
            (at, from) = (at + packed, from + plain);
        }
        if at + table.len() as u64 != packed_len {
            return Err(format!("its seek table is of {at} bytes, there are {}", packed_len - table.len() as u64));
        }
        Ok(parsed)
    }

    /// The CRC-32 of the rendered table, which tells two contents apart; `None` if a block has no checksum in it.
    pub fn crc(&self) -> Option<u32> {
        self.blocks.iter().all(|block| block.checksum.is_some()).then(|| crc32fast::hash(&self.render()))
    }

    /// The plain bytes of all blocks together.
    pub fn plain_len(&self) -> u64 {
        self.blocks.last().map_or(0, |last| last.plain.end)
    }

    /// The plain bytes of the largest block.
    pub fn largest(&self) -> u64 {
        self.blocks.iter().map(|block| block.plain.end - block.plain.start).max().unwrap_or(0)
    }

    /// The entry of a block; a first frame without content is none.
    pub fn block(&self, number: usize) -> Option<&BlockEntry> {
        self.blocks.get(number + self.heads())
    }

    fn heads(&self) -> usize {
        usize::from(self.first().is_some_and(|first| first.plain.is_empty()))
    }

    /// The entries of the blocks that hold the plain bytes `range`, each with the block's number. A first frame without
    /// content is no block.
    pub fn covering(&self, range: &Range<u64>) -> impl Iterator<Item = (usize, &BlockEntry)> + use<'_> {
        let first = self.blocks.partition_point(|block| block.plain.end <= range.start);
        let (end, heads) = (range.end, self.heads());
        let numbered = self.blocks.iter().enumerate().map(move |(at, block)| (at.saturating_sub(heads), block));
        numbered.skip(first).take_while(move |(_, block)| block.plain.start < end)
    }
}

fn entry_len(descriptor: u8) -> usize {
    if descriptor & HAS_CHECKSUMS != 0 { 12 } else { 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (SeekTable, u64) {
        let mut table = SeekTable::default();
        for (packed, plain) in [(10, 256), (20, 256), (7, 90)] {
            table.push(&vec![7; packed], plain);
        }
        let len = 37 + table.render().len() as u64;
        (table, len)
    }

    #[test]
    fn what_was_written_is_read() {
        let (table, packed_len) = example();
        let bytes = table.render();
        let footer = bytes.last_chunk().unwrap();
        assert_eq!(SeekTable::len_in(footer, packed_len), Ok(bytes.len()));
        assert_eq!(SeekTable::parse(&bytes, packed_len, 0), Ok(table.clone()));
        assert_eq!((table.plain_len(), table.largest()), (602, 256));
        let numbers = |range| table.covering(&range).map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(numbers(0..1), [0]);
        assert_eq!(numbers(255..257), [0, 1]);
        assert_eq!(numbers(256..602), [1, 2]);
        assert_eq!(numbers(602..700), [0usize; 0]);
    }

    #[test]
    fn a_frame_of_a_mark_alone_is_no_block() {
        let parse = |contents: &[usize], mark| {
            let mut table = SeekTable::default();
            contents.iter().for_each(|content| table.push(&[7; 10], *content));
            let bytes = table.render();
            SeekTable::parse(&bytes, (10 * contents.len() + bytes.len()) as u64, mark)
        };
        assert_eq!(parse(&[0, 257, 91], 1).unwrap().plain_len(), 346);
        for contents in [&[1][..], &[0, 1], &[0, 0], &[0, 257, 0], &[257, 0], &[257, 1, 257]] {
            assert!(parse(contents, 1).is_err(), "{contents:?}");
        }
        assert_eq!(parse(&[1, 256], 0).unwrap().plain_len(), 257);
    }

    #[test]
    fn no_changed_bit_goes_unnoticed() {
        let (table, packed_len) = example();
        let right = table.render();
        for at in 0..right.len() {
            for bit in 0..8 {
                let mut wrong = right.clone();
                wrong[at] ^= 1 << bit;
                let len = SeekTable::len_in(wrong.last_chunk().unwrap(), packed_len);
                if len == Ok(right.len()) {
                    assert_ne!(SeekTable::parse(&wrong, packed_len, 0), Ok(table.clone()), "byte {at}, bit {bit}");
                }
            }
        }
        assert!(SeekTable::parse(&right, packed_len - 1, 0).is_err());
    }
}
