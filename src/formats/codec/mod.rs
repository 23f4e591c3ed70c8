//! Voxels stored smaller, without loss: independent blocks in the zstd seekable format, each shuffled before it is
//! packed.
//!
//! A block is 256 KiB of the voxels' bytes. *Shuffled*, the low bytes of its 16-bit values stand before the high ones:
//! the low bytes are noise, the high ones repeat, and zstd finds repetitions faster where they are not mixed with
//! noise; this makes noisy volumes 12 % smaller than zstd alone does (`scripts/codec_table.py` measures all of these
//! numbers). Each block is one zstd frame that ends with its checksum, so every implementation of zstd reads it. Knows
//! no files.

mod seek_table;

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter, Strategy};

use crate::base::memory;

pub use seek_table::{BlockEntry, FOOTER, SeekTable};

/// The bytes of a block before compression. Half of it makes noisy volumes 4 to 6 % larger, twice of it no smaller; a
/// reader of one row unpacks one block.
pub const BLOCK: usize = 256 << 10;
/// The bytes of the largest block that is read, whatever program wrote it.
const MAX_BLOCK: usize = 16 << 20;
/// The codec's name, as JSON and manifest give it.
pub const CODEC: &str = "zstd";
/// The filter's name, as JSON and manifest give it.
pub const FILTER: &str = "shuffle";
/// The extension that is added to the name of a compressed file of voxels. It names filter and codec, so that no reader
/// takes the file for plain voxels.
pub const EXTENSION: &str = "shuffle.zst";

/// The codec of compressed volumes: `zstd` or `zstd:LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Codec {
    /// The level of zstd, from 1 to 19. Noise gets at most 0.6 % smaller by level 3 in 1.2 times the time, and 4 % by
    /// level 9 in eight times.
    pub level: i32,
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = match text.split_once(':') {
            None if text == CODEC => Some(1),
            Some((CODEC, level)) => level.parse().ok().filter(|level| (1..=19).contains(level)),
            _ => None,
        };
        level.map(|level| Self { level }).ok_or_else(|| "expected zstd, or zstd:LEVEL with a level from 1 to 19".into())
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CODEC}:{}", self.level)
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> Self {
        codec.to_string()
    }
}

impl TryFrom<String> for Codec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A compressor of blocks; each thread has one of its own.
pub struct Encoder {
    context: Compressor<'static>,
    shuffled: Vec<u8>,
}

impl Encoder {
    /// A compressor with the level of `codec`.
    ///
    /// # Errors
    /// The error of zstd if there is no memory.
    pub fn new(codec: Codec) -> io::Result<Self> {
        let mut context = Compressor::new(codec.level)?;
        context.set_parameter(CParameter::ChecksumFlag(true))?;
        if codec.level == 1 {
            // Level 3's search with level 1's small tables: finds fewer but longer matches than level 1's own. Noise
            // gets 0.8 % smaller and is unpacked 16 % faster, in 5 % more time to pack.
            context.set_parameter(CParameter::Strategy(Strategy::ZSTD_dfast))?;
            context.set_parameter(CParameter::MinMatch(6))?;
        }
        Ok(Self { context, shuffled: Vec::new() })
    }

    /// Compresses a block of an even number of bytes to a zstd frame.
    ///
    /// # Errors
    /// The error of zstd if there is no memory.
    pub fn encode(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        memory::resize(&mut self.shuffled, block.len())?;
        let (low, high) = self.shuffled.split_at_mut(block.len() / 2);
        for ((value, low), high) in block.chunks_exact(2).zip(low).zip(high) {
            (*low, *high) = (value[0], value[1]);
        }
        self.context.compress(&self.shuffled)
    }
}

/// A decompressor of blocks; each thread has one of its own.
pub struct Decoder {
    context: Decompressor<'static>,
    shuffled: Vec<u8>,
}

impl Decoder {
    /// A decompressor for blocks of any level.
    ///
    /// # Errors
    /// The error of zstd if there is no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { context: Decompressor::new()?, shuffled: Vec::new() })
    }

    /// Decompresses the frame that `block` describes into `out`, which has the length that the seek table gives, and
    /// checks both.
    ///
    /// # Errors
    /// The damage as a phrase for a message; `out` then holds nothing of use.
    pub fn decode(&mut self, block: &BlockEntry, frame: &[u8], out: &mut [u8]) -> Result<(), String> {
        if !out.len().is_multiple_of(2) {
            return Err("it holds half a value".into());
        }
        // Magic number, then the descriptor, whose bit 2 says that the frame ends with a checksum: zstd checks that.
        let has_checksum = frame.get(4).is_some_and(|descriptor| descriptor & 4 != 0);
        if !has_checksum || zstd_safe::find_frame_compressed_size(frame).ok() != Some(frame.len()) {
            return Err("it is not one zstd frame with a checksum".into());
        }
        let checksum = frame.last_chunk().map(|last| u32::from_le_bytes(*last));
        if block.checksum.is_some() && block.checksum != checksum {
            return Err("its checksum is not that of the seek table".into());
        }
        self.shuffled.resize(self.shuffled.len().max(out.len()), 0);
        let shuffled = &mut self.shuffled[..out.len()];
        let len = self.context.decompress_to_buffer(frame, shuffled).map_err(|error| error.to_string())?;
        if len != out.len() {
            return Err(format!("it holds {len} bytes, the seek table says {}", out.len()));
        }
        let (low, high) = shuffled.split_at(len / 2);
        unshuffle(low, high, out);
        Ok(())
    }
}

/// Interleaves low and high bytes, in pieces of a register's size, which the compiler turns into two instructions; byte
/// by byte, this took a tenth of a cold read.
fn unshuffle(low: &[u8], high: &[u8], out: &mut [u8]) {
    const PIECE: usize = 16;
    let ((low, low_rest), (high, high_rest)) = (low.as_chunks::<PIECE>(), high.as_chunks::<PIECE>());
    let (values, rest) = out.split_at_mut(low.len() * 2 * PIECE);
    for ((values, low), high) in values.as_chunks_mut::<{ 2 * PIECE }>().0.iter_mut().zip(low).zip(high) {
        for at in 0..PIECE {
            (values[2 * at], values[2 * at + 1]) = (low[at], high[at]);
        }
    }
    for ((value, low), high) in rest.as_chunks_mut::<2>().0.iter_mut().zip(low_rest).zip(high_rest) {
        *value = [*low, *high];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(plain: &[u8]) -> (BlockEntry, Vec<u8>) {
        let frame = Encoder::new(Codec { level: 1 }).unwrap().encode(plain).unwrap();
        let mut table = SeekTable::default();
        table.push(&frame, plain.len());
        let block = table.covering(&(0..1)).next().unwrap().1.clone();
        (block, frame)
    }

    #[test]
    fn every_changed_byte_of_a_frame_is_noticed() {
        let plain: Vec<u8> = (0..1200u32).flat_map(|n| u16::try_from(n * n % 991).unwrap().to_le_bytes()).collect();
        let (block, right) = packed(&plain);
        let mut decoder = Decoder::new().unwrap();
        let mut out = vec![0; plain.len()];
        decoder.decode(&block, &right, &mut out).unwrap();
        assert!(out == plain);
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x10;
            // A bit that zstd does not use may change nothing; then the content is still right.
            assert!(decoder.decode(&block, &wrong, &mut out).is_err() || out == plain, "byte {at}");
            assert!(decoder.decode(&block, &right[..at], &mut out).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_block_of_any_length_comes_back() {
        let mut decoder = Decoder::new().unwrap();
        for values in (1..=70).chain([BLOCK / 2 - 17, BLOCK / 2 - 1, BLOCK / 2]) {
            let value = |n: usize| u16::try_from(n * 40_503 % 65_521).unwrap().to_le_bytes();
            let plain: Vec<u8> = (0..values).flat_map(value).collect();
            let (block, frame) = packed(&plain);
            let mut out = vec![0xaa; plain.len()];
            decoder.decode(&block, &frame, &mut out).unwrap();
            assert!(out == plain, "{values} values");
        }
    }

    #[test]
    fn a_block_in_the_place_of_another_is_noticed() {
        let (block, _) = packed(&[1; 64]);
        let (_, other) = packed(&[2; 64]);
        let error = Decoder::new().unwrap().decode(&block, &other, &mut [0; 64]).unwrap_err();
        assert!(error.contains("checksum"), "{error}");
    }

    #[test]
    fn codecs_by_name() {
        assert_eq!("zstd".parse(), Ok(Codec { level: 1 }));
        assert_eq!("zstd:7".parse::<Codec>().unwrap().to_string(), "zstd:7");
        for wrong in ["", "zstd:", "zstd:0", "zstd:20", "lz4", "zstd:x"] {
            assert!(wrong.parse::<Codec>().is_err(), "{wrong}");
        }
    }
}
