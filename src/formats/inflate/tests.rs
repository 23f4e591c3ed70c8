//! Compared with `flate2`: with zlib-rs, or with zlib-ng where the package of `tests/zlib_ng` is tested as well.

#![allow(clippy::cast_possible_truncation)] // of random numbers

use std::io::{Error, ErrorKind, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::*;
use crate::fuzzing::inflate as equals_zlib;

fn packed(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Hands out at most `piece` bytes at a time, with an interruption between.
struct InPieces<'a> {
    bytes: &'a [u8],
    piece: usize,
    is_interrupted: bool,
}

impl<'a> InPieces<'a> {
    fn new(bytes: &'a [u8], piece: usize) -> Self {
        Self { bytes, piece, is_interrupted: false }
    }
}

impl Read for InPieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.is_interrupted = !self.is_interrupted;
        if self.is_interrupted {
            return Err(ErrorKind::Interrupted.into());
        }
        let n = out.len().min(self.piece);
        self.bytes.read(&mut out[..n])
    }
}

fn unpacked(inflater: &mut Inflater, source: &mut impl Read, piece: usize) -> Result<Vec<u8>> {
    inflater.reset();
    let (mut all, mut out) = (Vec::new(), vec![0; piece]);
    loop {
        let n = inflater.read(source, &mut out)?;
        all.extend_from_slice(&out[..n]);
        if n < piece {
            return Ok(all);
        }
    }
}

/// A stream whose output is shorter than the window, with a given loop over the symbols.
fn unpacked_by(
    symbols: impl Fn(&Tables, &mut Bits, &Input, usize, &mut Window, &mut usize) -> Result<bool>,
    stream: &[u8],
) -> Result<Vec<u8>> {
    let (mut input, mut memory) = (vec![0; INPUT_LEN], vec![0; WINDOW_LEN]);
    input[..stream.len()].copy_from_slice(stream);
    let (input, window) = (bits::whole(&input), window::whole(&mut memory));
    let (mut tables, mut bits, mut at) = (Tables::default(), Bits::at(0), 0);
    loop {
        let (is_last, next) = header(&mut bits, input, &mut tables)?;
        assert_eq!(next, Stage::Symbols);
        assert!(symbols(&tables, &mut bits, input, stream.len() + 1, window, &mut at)?);
        if is_last {
            return Ok(memory[..at].to_vec());
        }
    }
}

/// Symbols as often as Fibonacci numbers say, whose codes are as long as can be; and what is like CT volumes.
fn data(kind: usize, len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    match kind {
        0 => (0..len).map(|_| random().leading_zeros() as u8 * 7 + (random() >> 27) as u8 % 2).collect(),
        1 => (0..len.div_ceil(4)).flat_map(|_| ((random() >> 25) as f32 - 1024.0).to_le_bytes()).collect(),
        2 => (0..len).map(|_| random() as u8).collect(),
        3 => {
            let mut bytes = Vec::new();
            while bytes.len() < len {
                let (byte, period) = (random() as u8, 1 + random() as usize % 40);
                bytes.extend((0..random() as usize % 900).map(|n| byte.wrapping_add((n % period) as u8)));
            }
            bytes
        }
        _ => {
            // Copies from as far back as the format allows.
            let mut bytes: Vec<u8> = (0..40_000).map(|_| random() as u8).collect();
            while bytes.len() < len {
                let (back, n) = (1 + random() as usize % 32_768, 3 + random() as usize % 300);
                let from = bytes.len() - back;
                bytes.extend((0..n).map(|i| bytes[from + i % back]).collect::<Vec<_>>());
            }
            bytes
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pieces_change_no_byte(
        kind in 0..5usize, len in 0..400_000usize, seed: u32, level in 0..10u32,
        source in 1..300_000usize, out in 1..200_000usize,
    ) {
        let bytes = data(kind, len, seed);
        let stream = packed(&bytes, level);
        let mut inflater = Inflater::new().unwrap();
        // Twice, because memory is used again.
        for out in [out, 4096] {
            let found = unpacked(&mut inflater, &mut InPieces::new(&stream, source), out).unwrap();
            prop_assert!(found == bytes);
        }
    }

    #[test]
    fn damaged_streams_are_refused_as_by_zlib(
        kind in 0..5usize, len in 0..3000usize, seed: u32, level in 0..10u32,
        damages in prop::collection::vec((0.0..1.0f64, 0..8u32), 1..4), head in any::<bool>(),
    ) {
        let mut stream = packed(&data(kind, len, seed), level);
        for (place, bit) in damages {
            let range = if head { stream.len().min(80) } else { stream.len() };
            stream[(place * range as f64) as usize] ^= 1 << bit;
        }
        equals_zlib(&stream);
    }

    #[test]
    fn both_loops_unpack_the_same(kind in 0..4usize, len in 1..100_000usize, seed: u32, level in 1..10u32) {
        let bytes = data(kind, len, seed);
        let stream = packed(&bytes, level);
        prop_assume!(stream.len() < bytes.len()); // no stored blocks, which are not the loops'
        prop_assert!(unpacked_by(symbols::unpack, &stream).unwrap() == bytes);
        prop_assert!(unpacked_by(symbols::portable, &stream).unwrap() == bytes);
    }
}

#[test]
fn every_stream_of_two_bytes_and_all_that_begin_a_block() {
    for first in 0..=255 {
        for second in 0..=255 {
            equals_zlib(&[first, second]);
            equals_zlib(&[first, second, 0x24, 0x92, 0x49, 0xff, 0x12, 0x00, 0x00, 0x00, 0x00, 0x00]);
        }
    }
}

#[test]
fn a_stream_that_is_cut_anywhere_is_never_whole() {
    let bytes = data(1, 3000, 7);
    let stream = packed(&bytes, 6);
    let mut inflater = Inflater::new().unwrap();
    for len in 0..stream.len() {
        equals_zlib(&stream[..len]);
        assert!(matches!(
            unpacked(&mut inflater, &mut &stream[..len], 512),
            Err(InflateError::Cut | InflateError::Damaged(_))
        ));
    }
    assert_eq!(unpacked(&mut inflater, &mut &stream[..], 512).unwrap(), bytes);
}

#[test]
fn codes_longer_than_the_table() {
    let bytes = data(0, 100_000, 3);
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(9));
    encoder.write_all(&bytes).unwrap();
    let stream = encoder.finish().unwrap();
    let has_subtables = std::cell::Cell::new(false);
    let found = unpacked_by(
        |tables, bits, input, limit, window, at| {
            has_subtables.set(has_subtables.get() || tables.lengths.iter().any(|entry| entry & tables::SUBTABLE != 0));
            symbols::unpack(tables, bits, input, limit, window, at)
        },
        &stream,
    );
    assert!(found.unwrap() == bytes && has_subtables.get());
}

/// Blocks of these bytes as they are, none of them the last.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let block = |bytes: &[u8]| {
        let len = u16::try_from(bytes.len()).unwrap();
        [&[0], &len.to_le_bytes()[..], &(!len).to_le_bytes(), bytes].concat()
    };
    bytes.chunks(60_000).flat_map(block).collect()
}

#[test]
fn a_header_at_the_end_of_what_was_fetched() {
    let last = data(0, 3000, 9);
    let block = packed(&last, 9);
    assert_eq!(block[0] & 7, 0b101, "the last block, with codes of its own");
    let (bytes, mut inflater) = (data(2, FETCH, 5), Inflater::new().unwrap());
    for len in FETCH - LOOK_AHEAD - 100..FETCH {
        let stream = [plain(&bytes[..len]), block.clone()].concat();
        let found = unpacked(&mut inflater, &mut &stream[..], 60_000).unwrap();
        assert!(found == [&bytes[..len], &last].concat(), "{len}");
    }
}

#[test]
fn a_stream_that_failed_is_not_read_on() {
    let mut inflater = Inflater::new().unwrap();
    let streams: [&[u8]; 5] =
        [b"\x4b", b"\x73\x04", b"\x4b\x4c\x4c\x4a\x04\x42", b"\x07", b"\x00\x05\x00\xfa\xff\x01\x02"];
    for mut stream in streams {
        inflater.reset();
        let mut failures = (0..5).filter(|_| inflater.read(&mut stream, &mut [0; 16]).is_err());
        assert_eq!(failures.by_ref().count(), 5);
    }
}

#[test]
fn fixed_codes_after_a_block_of_its_own() {
    let mut inflater = Inflater::new().unwrap();
    let own = packed(&data(0, 3000, 9), 9);
    for _ in 0..2 {
        assert_eq!(unpacked(&mut inflater, &mut &b"\x4b\x4c\x4a\x04\x00"[..], 16).unwrap(), b"aba");
        unpacked(&mut inflater, &mut &own[..], 4096).unwrap();
        assert!(unpacked(&mut inflater, &mut &own[..own.len() / 2], 4096).is_err());
    }
}

/// zlib's matches end 262 bytes short of the format's furthest, so this stream is written by hand.
#[test]
fn the_furthest_match_after_the_window_was_moved() {
    let bytes = data(2, END, 5);
    let mut stream = plain(&bytes);
    // The last block, of fixed codes; 258 bytes; the last code for distances, its extra bits set; the end.
    let bits = ["1", "10", "11000101", "11101", "1111111111111", "0000000"].concat();
    stream
        .extend(bits.as_bytes().chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | (bit - b'0'))));
    equals_zlib(&stream);
    let found = unpacked(&mut Inflater::new().unwrap(), &mut &stream[..], 4096).unwrap();
    assert!(found == [&bytes[..], &bytes[END - 32_768..END - 32_768 + 258]].concat());
}

#[test]
fn no_stream_sees_the_bytes_of_another() {
    let mut inflater = Inflater::new().unwrap();
    let secret = packed(&data(2, 200_000, 1), 6);
    unpacked(&mut inflater, &mut &secret[..], 4096).unwrap();
    // A fixed block that begins with a match of three bytes, one byte back.
    let stream = [0b0000_0011, 0b0000_0010, 0, 0];
    assert!(matches!(
        unpacked(&mut inflater, &mut &stream[..], 16),
        Err(InflateError::Damaged("a match from before the beginning"))
    ));
}

#[test]
fn a_source_that_fails_is_no_damage() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(Error::from_raw_os_error(5))
        }
    }
    let failed = unpacked(&mut Inflater::new().unwrap(), &mut Broken, 16);
    assert!(matches!(failed, Err(InflateError::Read(error)) if error.raw_os_error() == Some(5)));
}
