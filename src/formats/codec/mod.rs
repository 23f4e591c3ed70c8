//! Voxels stored smaller, without loss: independent blocks in the zstd seekable format, each shuffled before it is
//! packed.
//!
//! A block is 256 KiB of the voxels' bytes. *Shuffled*, the lowest bytes of all its values stand first, then the next
//! higher ones, the highest last: the low bytes are noise, the high ones repeat, and zstd finds repetitions faster
//! where they are not mixed with noise; this makes noisy volumes of float16 12 % smaller than zstd alone does
//! (`scripts/codec_table.py` measures all of these numbers). Each block is one zstd frame that ends with its checksum,
//! so every implementation of zstd reads it. Knows no files.

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
/// The bytes of a value, for which there is a filter.
const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// The name of the filter for values of `width` bytes, as JSON and manifest give it: `shuffle` for two, which was the
/// only one once; `shuffle1`, `shuffle4`, `shuffle8`. Each has a name of its own, so that no reader takes one for
/// another.
pub fn filter(width: usize) -> String {
    if width == 2 { "shuffle".into() } else { format!("shuffle{width}") }
}

/// The extension that is added to the name of a compressed file of values of `width` bytes. It names filter and codec,
/// so that no reader takes the file for plain values.
pub fn extension(width: usize) -> String {
    format!("{}.zst", filter(width))
}

/// The bytes of a value in a file to whose name `extension` is added; `None` if [`extension`] makes no such one.
pub fn width_of(extension: &str) -> Option<usize> {
    WIDTHS.into_iter().find(|width| self::extension(*width) == extension)
}

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

    /// Compresses a block of whole values of `width` bytes to a zstd frame.
    ///
    /// # Errors
    /// The error of zstd if there is no memory.
    pub fn encode(&mut self, block: &[u8], width: usize) -> io::Result<Vec<u8>> {
        if width == 1 {
            return self.context.compress(block);
        }
        memory::resize(&mut self.shuffled, block.len())?;
        match width {
            2 => shuffle::<2>(block, &mut self.shuffled),
            4 => shuffle::<4>(block, &mut self.shuffled),
            _ => shuffle::<8>(block, &mut self.shuffled),
        }
        self.context.compress(&self.shuffled)
    }
}

/// Writes the bytes of values of `N` bytes into `out` as `N` planes, that of the lowest bytes first.
fn shuffle<const N: usize>(block: &[u8], out: &mut [u8]) {
    let values = block.as_chunks::<N>().0;
    for (place, plane) in out.chunks_exact_mut(values.len().max(1)).enumerate() {
        plane.iter_mut().zip(values).for_each(|(byte, value)| *byte = value[place]);
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
    /// checks both; its values have `width` bytes.
    ///
    /// # Errors
    /// The damage as a phrase for a message; `out` then holds nothing of use.
    pub fn decode(&mut self, block: &BlockEntry, frame: &[u8], width: usize, out: &mut [u8]) -> Result<(), String> {
        if !out.len().is_multiple_of(width) {
            return Err("it holds a part of a value".into());
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
        let shuffled = if width == 1 { &mut *out } else { &mut self.shuffled[..out.len()] };
        let len = self.context.decompress_to_buffer(frame, shuffled).map_err(|error| error.to_string())?;
        if len != out.len() {
            return Err(format!("it holds {len} bytes, the seek table says {}", out.len()));
        }
        match width {
            1 => {}
            2 => unshuffle::<2>(&self.shuffled[..len], out),
            4 => unshuffle::<4>(&self.shuffled[..len], out),
            _ => unshuffle::<8>(&self.shuffled[..len], out),
        }
        Ok(())
    }
}

/// Interleaves planes of bytes, in pieces of a register's size, which the compiler turns into few instructions; byte by
/// byte, this took a tenth of a cold read.
fn unshuffle<const N: usize>(shuffled: &[u8], out: &mut [u8]) {
    const PIECE: usize = 16;
    let values = out.as_chunks_mut::<N>().0;
    let planes: [&[u8]; N] = std::array::from_fn(|place| &shuffled[place * values.len()..][..values.len()]);
    let pieces = planes.map(|plane| plane.as_chunks::<PIECE>());
    let (whole, rest) = values.as_chunks_mut::<PIECE>();
    for (number, whole) in whole.iter_mut().enumerate() {
        let bytes: [[u8; PIECE]; N] = std::array::from_fn(|place| pieces[place].0[number]);
        for at in 0..PIECE {
            for place in 0..N {
                whole[at][place] = bytes[place][at];
            }
        }
    }
    for (number, value) in rest.iter_mut().enumerate() {
        for place in 0..N {
            value[place] = pieces[place].1[number];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(plain: &[u8], width: usize) -> (BlockEntry, Vec<u8>) {
        let frame = Encoder::new(Codec { level: 1 }).unwrap().encode(plain, width).unwrap();
        let mut table = SeekTable::default();
        table.push(&frame, plain.len());
        let block = table.covering(&(0..1)).next().unwrap().1.clone();
        (block, frame)
    }

    #[test]
    fn every_changed_byte_of_a_frame_is_noticed() {
        let plain: Vec<u8> = (0..1200u32).flat_map(|n| u16::try_from(n * n % 991).unwrap().to_le_bytes()).collect();
        let (block, right) = packed(&plain, 2);
        let mut decoder = Decoder::new().unwrap();
        let mut out = vec![0; plain.len()];
        decoder.decode(&block, &right, 2, &mut out).unwrap();
        assert!(out == plain);
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x10;
            // A bit that zstd does not use may change nothing; then the content is still right.
            assert!(decoder.decode(&block, &wrong, 2, &mut out).is_err() || out == plain, "byte {at}");
            assert!(decoder.decode(&block, &right[..at], 2, &mut out).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_block_of_any_length_comes_back() {
        let mut decoder = Decoder::new().unwrap();
        for width in WIDTHS {
            for values in (1..=70).chain([BLOCK / width - 17, BLOCK / width - 1, BLOCK / width]) {
                let value = |n: usize| u8::try_from(n * 40_503 % 65_521 % 256).unwrap();
                let plain: Vec<u8> = (0..values * width).map(value).collect();
                let (block, frame) = packed(&plain, width);
                let mut out = vec![0xaa; plain.len()];
                decoder.decode(&block, &frame, width, &mut out).unwrap();
                assert!(out == plain, "{values} values of {width} bytes");
                if values > 1 && width > 1 {
                    let other = if width == 2 { 1 } else { 2 };
                    decoder.decode(&block, &frame, other, &mut out).unwrap();
                    assert!(out != plain, "{values} values of {width} bytes look like those of {other}");
                }
            }
        }
    }

    #[test]
    fn a_block_in_the_place_of_another_is_noticed() {
        let (block, _) = packed(&[1; 64], 2);
        let (_, other) = packed(&[2; 64], 2);
        let error = Decoder::new().unwrap().decode(&block, &other, 2, &mut [0; 64]).unwrap_err();
        assert!(error.contains("checksum"), "{error}");
    }

    #[test]
    fn lowest_bytes_stand_first() {
        let mut out = [0; 8];
        shuffle::<4>(&[1, 2, 3, 4, 11, 12, 13, 14], &mut out);
        assert_eq!(out, [1, 11, 2, 12, 3, 13, 4, 14]);
        assert_eq!(WIDTHS.map(extension), ["shuffle1.zst", "shuffle.zst", "shuffle4.zst", "shuffle8.zst"]);
        assert!(WIDTHS.into_iter().all(|width| width_of(&extension(width)) == Some(width)));
        assert_eq!(["shuffle2.zst", "zst", "shuffle16.zst", ""].map(width_of), [None; 4]);
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
