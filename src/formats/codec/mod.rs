//! Voxels stored smaller, without loss: independent blocks in the zstd seekable format, each filtered before it is
//! packed.
//!
//! A block is 256 KiB of the voxels' bytes. [`Filter`] says what is done to it. Each value is *predicted* by its
//! neighbours. Of what is left, values of two bytes are *split*: their lower bits are noise, which nothing packs, and
//! stand apart from the upper ones. Of other values, the lowest bytes of all stand first, then the next higher ones,
//! the highest last (*shuffled*). `scripts/codec_table.py` measures what each step saves. Each block is one zstd frame
//! that ends with its checksum, so every implementation of zstd reads it. Knows no files.

mod filter;
mod member;
mod predict;
mod running_sum;
mod seek_table;
mod shuffle;
mod split;
mod whole;

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer, ParamSwitch, ResetDirective, Strategy};

use crate::base::memory;

pub use filter::{Filter, Method, RowFilter};
pub use member::unpack;
pub use seek_table::{BlockEntry, FOOTER, SeekTable};

/// The bytes of a block before compression. Half of it makes noisy volumes 4 to 6 % larger, twice of it no smaller; a
/// reader of one row unpacks one block.
pub const BLOCK: usize = 256 << 10;
/// The bytes of the largest block that is read, whatever program wrote it.
const MAX_BLOCK: usize = 16 << 20;
/// The codec's name, as JSON and manifest give it.
pub const CODEC: &str = "zstd";

/// The codec of compressed volumes: `zstd` or `zstd:LEVEL`, and the filters before it.
///
/// Journals have it as a text: `split+zstd:LEVEL`; of folders that were begun with earlier filters
/// `predict+zstd:LEVEL`, or `zstd:LEVEL` where all values were shuffled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Codec {
    /// The level of zstd, from 1 to 19. Noise gets at most 0.6 % smaller by level 3 in 1.2 times the time, and 4 % by
    /// level 9 in eight times.
    pub level: i32,
    /// The filters.
    pub method: Method,
}

impl Codec {
    /// The codec of what is begun now, of level 1.
    pub const NEW: Self = Self { level: 1, method: Method::Split };
}

/// What a journal has before the codec where values are predicted.
const PREDICTED: &str = "predict+";
/// What it has where values are predicted and split.
const SPLIT: &str = "split+";

impl FromStr for Codec {
    type Err = String;

    /// The codec that a user names, with the filters of new folders.
    fn from_str(text: &str) -> Result<Self, String> {
        let level = match text.split_once(':') {
            None if text == CODEC => Some(1),
            Some((CODEC, level)) => level.parse().ok().filter(|level| (1..=19).contains(level)),
            _ => None,
        };
        level
            .map(|level| Self { level, ..Self::NEW })
            .ok_or_else(|| "expected zstd, or zstd:LEVEL with a level from 1 to 19".into())
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CODEC}:{}", self.level)
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> Self {
        match codec.method {
            Method::Shuffle => codec.to_string(),
            Method::Predict => format!("{PREDICTED}{codec}"),
            Method::Split => format!("{SPLIT}{codec}"),
        }
    }
}

impl TryFrom<String> for Codec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let begun = [(PREDICTED, Method::Predict), (SPLIT, Method::Split), ("", Method::Shuffle)];
        let mut with = begun.into_iter().filter_map(|(prefix, method)| Some((text.strip_prefix(prefix)?, method)));
        let (codec, method) = with.next().unwrap_or((&text, Method::Shuffle));
        codec.parse().map(|codec| Self { method, ..codec })
    }
}

/// A compressor of blocks; each thread has one of its own.
pub struct Encoder {
    level: i32,
    context: Compressor<'static>,
    scratch: Vec<u8>,
    filtered: Vec<u8>,
}

impl Encoder {
    /// A compressor with the level of `codec`.
    ///
    /// # Errors
    /// The error of zstd if there is no memory.
    pub fn new(codec: Codec) -> io::Result<Self> {
        let mut context = Compressor::new(codec.level)?;
        context.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { level: codec.level, context, scratch: Vec::new(), filtered: Vec::new() })
    }

    /// Compresses a block of whole values to a zstd frame.
    ///
    /// # Errors
    /// The error of zstd if there is no memory.
    pub fn encode(&mut self, block: &[u8], filter: RowFilter) -> io::Result<Vec<u8>> {
        let Self { level, context, scratch, filtered } = self;
        let (content, borders) = if filter.is_identity() {
            (block, None)
        } else {
            memory::resize(scratch, 2 * block.len())?;
            memory::resize(filtered, block.len() + filter.filter.mark_len())?;
            let borders = filter.apply(block, scratch, filtered);
            (&**filtered, borders)
        };
        // A split filter that has no parts found that its block is better shuffled.
        let is_shuffled = !filter.filter.predicts() || (filter.filter.mark_len() > 0 && borders.is_none());
        let search = if is_shuffled { Search::Everywhere(6) } else { Search::Sparse };
        let frame = search.pack(*level, context, content, borders)?;
        if *level > 1 || search != Search::Sparse || frame.len() > block.len() / REGULAR {
            return Ok(frame);
        }
        let other = Search::Everywhere(7).pack(*level, context, content, borders)?;
        Ok(if other.len() < frame.len() { other } else { frame })
    }
}

/// A block that is packed to less than one part of this many has matches that are worth a second search.
const REGULAR: usize = 8;

/// How level 1 looks for matches; other levels have their own way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// The search of level 3 with the small tables of level 1, for matches of so many bytes at least: fewer but longer
    /// ones than with the search of level 1. Shuffled noise gets 0.8 % smaller by six bytes, and is unpacked 16 %
    /// faster, in 5 % more time to pack.
    Everywhere(u32),
    /// At every 33rd byte, among the last 64 such places. What is left of predicted values matches by chance: a match
    /// of seven bytes takes as many bits as these bytes by themselves, and longer to unpack. At every 17th, there were
    /// a third as many matches, in as many bytes, packed in half of the time; at every 33rd, split values are packed
    /// 6 % faster than that, in 0.1 % more bytes.
    Sparse,
}

impl Search {
    /// Compresses filtered bytes to a frame.
    fn pack(
        self,
        level: i32,
        context: &mut Compressor<'static>,
        content: &[u8],
        borders: Option<[usize; 2]>,
    ) -> io::Result<Vec<u8>> {
        if level == 1 {
            let (strategy, min_match, table, step) = match self {
                Self::Everywhere(min_match) => (Strategy::ZSTD_dfast, min_match, 0, 0), // 0: what the level has
                Self::Sparse => (Strategy::ZSTD_fast, 7, 6, 32),
            };
            context.set_parameter(CParameter::Strategy(strategy))?;
            context.set_parameter(CParameter::MinMatch(min_match))?;
            context.set_parameter(CParameter::HashLog(table))?;
            context.set_parameter(CParameter::TargetLength(step))?;
            // Where a search makes steps, zstd would not pack what is between the matches.
            context.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
        }
        match borders {
            None => context.compress(content),
            Some(borders) => pack_parts(context.context_mut(), content, borders).inspect_err(|_| {
                // Or the parameters of the next frame would be refused.
                let _ = context.context_mut().reset(ResetDirective::SessionOnly);
            }),
        }
    }
}

/// Compresses a content whose parts have little in common: each has blocks, and so codes, of its own in the frame.
fn pack_parts(context: &mut CCtx<'_>, content: &[u8], [first, second]: [usize; 2]) -> io::Result<Vec<u8>> {
    let failed = |code| match zstd_safe::get_error_name(code) {
        lacking if lacking.contains("not enough memory") => io::ErrorKind::OutOfMemory.into(),
        other => io::Error::other(other),
    };
    let mut frame = Vec::new();
    frame.try_reserve_exact(zstd_safe::compress_bound(content.len()) + 64).map_err(|_| io::ErrorKind::OutOfMemory)?;
    context.reset(ResetDirective::SessionOnly).map_err(failed)?;
    context.set_pledged_src_size(Some(content.len() as u64)).map_err(failed)?;
    let [flush, end] = [Directive::ZSTD_e_flush, Directive::ZSTD_e_end];
    for (part, directive) in [(0..first, flush), (first..second, flush), (second..content.len(), end)] {
        let (mut from, mut left) = (InBuffer::around(&content[part]), 1);
        while left > 0 {
            let at = frame.len();
            if at == frame.capacity() {
                return Err(io::Error::other("the frame is longer than zstd says that it can be"));
            }
            let mut to = OutBuffer::around_pos(&mut frame, at);
            left = context.compress_stream2(&mut to, &mut from, directive).map_err(failed)?;
        }
    }
    Ok(frame)
}

/// A decompressor of blocks; each thread has one of its own.
pub struct Decoder {
    context: Decompressor<'static>,
    filtered: Vec<u8>,
    scratch: Vec<u8>,
}

impl Decoder {
    /// A decompressor for blocks of any level.
    ///
    /// # Errors
    /// The error of zstd if there is no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { context: Decompressor::new()?, filtered: Vec::new(), scratch: Vec::new() })
    }

    /// Decompresses the frame that `block` describes into `out`, which has the length that the seek table gives, and
    /// checks both; the block was filtered so.
    ///
    /// # Errors
    /// The damage as a phrase for a message; `out` then holds nothing of use.
    pub fn decode(
        &mut self,
        block: &BlockEntry,
        frame: &[u8],
        filter: RowFilter,
        out: &mut [u8],
    ) -> Result<(), String> {
        if !out.len().is_multiple_of(filter.filter.width()) {
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
        let wanted = out.len() + filter.filter.mark_len();
        self.filtered.resize(self.filtered.len().max(wanted), 0);
        let content = if filter.is_identity() { &mut *out } else { &mut self.filtered[..wanted] };
        let len = self.context.decompress_to_buffer(frame, content).map_err(|error| error.to_string())?;
        if len != wanted {
            return Err(format!("it holds {len} bytes, {wanted} were expected"));
        }
        if filter.is_identity() {
            return Ok(());
        }
        filter.undo(&self.filtered[..wanted], &mut self.scratch, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All filters, each with rows of this length.
    fn filters(row: u64) -> Vec<RowFilter> {
        let names = ["", "1", "2", "4", "8"]
            .map(|width| ["shuffle", "predict", "split"].map(|name| format!("{name}{width}.zst")));
        let known = names.iter().flatten().filter_map(|name| Filter::of_extension(name));
        known.map(|filter| RowFilter::new(filter, row)).collect()
    }

    fn packed(plain: &[u8], filter: RowFilter) -> (BlockEntry, Vec<u8>) {
        let frame = Encoder::new(Codec::NEW).unwrap().encode(plain, filter).unwrap();
        let mut table = SeekTable::default();
        filter.begin(&mut table);
        table.push(&frame, plain.len());
        let block = table.covering(&(0..1)).next().unwrap().1.clone();
        (block, frame)
    }

    #[test]
    fn every_changed_byte_of_a_frame_is_noticed() {
        let plain: Vec<u8> = (0..1200u32).flat_map(|n| u16::try_from(n * n % 991).unwrap().to_le_bytes()).collect();
        for filter in filters(37) {
            let (block, right) = packed(&plain, filter);
            let mut decoder = Decoder::new().unwrap();
            let mut out = vec![0; plain.len()];
            decoder.decode(&block, &right, filter, &mut out).unwrap();
            assert!(out == plain);
            for at in 0..right.len() {
                let mut wrong = right.clone();
                wrong[at] ^= 0x10;
                // A bit that zstd does not use may change nothing; then the content is still right.
                assert!(decoder.decode(&block, &wrong, filter, &mut out).is_err() || out == plain, "byte {at}");
                assert!(decoder.decode(&block, &right[..at], filter, &mut out).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn a_block_of_any_length_comes_back() {
        let (mut encoder, mut decoder) = (Encoder::new(Codec::NEW).unwrap(), Decoder::new().unwrap());
        for (row, filter) in [1, 7, 53, 500].into_iter().flat_map(|row| filters(row).into_iter().map(move |f| (row, f)))
        {
            let width = filter.filter.width();
            for values in (1..=70).chain([BLOCK / width - 17, BLOCK / width - 1, BLOCK / width]) {
                let value = |n: usize| u8::try_from(n * 40_503 % 65_521 % 256).unwrap();
                let plain: Vec<u8> = (0..values * width).map(value).collect();
                let frame = encoder.encode(&plain, filter).unwrap();
                let mut table = SeekTable::default();
                table.push(&frame, plain.len());
                let block = table.first().unwrap();
                let mut out = vec![0xaa; plain.len()];
                decoder.decode(block, &frame, filter, &mut out).unwrap();
                assert!(out == plain, "{values} values, {filter:?}");
                // Where the two that split find a block better shuffled, both mean the same.
                let splits = |filter: RowFilter| filter.filter.mark_len() > 0;
                let differs = |other: &RowFilter| *other != filter && !(splits(*other) && splits(filter));
                let others = filters(row).into_iter().filter(|other| differs(other) && values % 8 == 0 && values > 60);
                for other in others {
                    let taken = decoder.decode(block, &frame, other, &mut out);
                    assert!(taken.is_err() || out != plain, "{filter:?} looks like {other:?}, {values} values");
                }
            }
        }
    }

    #[test]
    fn a_block_in_the_place_of_another_is_noticed() {
        for filter in filters(3) {
            let (block, _) = packed(&[1; 64], filter);
            let (_, other) = packed(&[2; 64], filter);
            let error = Decoder::new().unwrap().decode(&block, &other, filter, &mut [0; 64]).unwrap_err();
            assert!(error.contains("checksum"), "{error}");
        }
    }

    #[test]
    fn codecs_by_name() {
        assert_eq!("zstd".parse(), Ok(Codec::NEW));
        assert_eq!("zstd:7".parse::<Codec>().unwrap().to_string(), "zstd:7");
        for wrong in ["", "zstd:", "zstd:0", "zstd:20", "lz4", "zstd:x", "split+zstd:1"] {
            assert!(wrong.parse::<Codec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn journals_tell_the_filters_apart_and_old_ones_are_read() {
        for (codec, text) in [
            (Codec::NEW, "split+zstd:1"),
            (Codec { level: 1, method: Method::Predict }, "predict+zstd:1"),
            (Codec { level: 3, method: Method::Shuffle }, "zstd:3"),
        ] {
            assert_eq!(String::from(codec), text);
            assert_eq!(Codec::try_from(text.to_owned()), Ok(codec));
        }
        assert!(Codec::try_from("other+zstd:1".to_owned()).is_err());
    }
}
