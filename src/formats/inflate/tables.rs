//! Decoding tables of Huffman codes, indexed by the first 11 bits of a literal or length and the first 8 of a distance,
//! with subtables for the rare longer codes.
//!
//! An entry, from its lowest bit: six bits for how many bits it takes, extra bits included; [`ALONE`], [`SPECIAL`];
//! four bits for how many of them are code, or for the bits that index a subtable. Then, for literals and lengths, the
//! literal (8 bits), whether there is one, and the match's length (9 bits); for distances and subtables, from bit 16
//! on, the distance or where the subtable begins.

use super::bits::{Bits, Input};
use super::{InflateError, Result};

/// The flag of an entry that is a literal without a match behind it.
pub(super) const ALONE: u32 = 1 << 6;
/// The flag of an entry that is a subtable, the block's end, or no code.
pub(super) const SPECIAL: u32 = 1 << 7;
/// The flag of a [`SPECIAL`] entry that is the block's end.
pub(super) const END_OF_BLOCK: u32 = 1 << 30;
/// The flag of a [`SPECIAL`] entry that is a subtable.
pub(super) const SUBTABLE: u32 = 1 << 31;
const HAS_LITERAL: u32 = 1 << 20;
const LITERAL: u32 = 0xff << 12;

const LENGTH_BITS: u32 = 11;
const DISTANCE_BITS: u32 = 8;
/// The bits that index the table of literals and lengths.
pub(super) const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;
/// The bits that index the table of distances.
pub(super) const DISTANCE_MASK: u64 = (1 << DISTANCE_BITS) - 1;
/// The entries of both tables. At most 2342 and 402 are used (zlib's `enough` counts them); powers of two need no
/// bounds check.
const LENGTHS: usize = 4096;
const DISTANCES: usize = 512;

const LONGEST: usize = 15;

#[rustfmt::skip]
const LENGTH_BASE: [u32; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
];
#[rustfmt::skip]
const LENGTH_EXTRA: [u32; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
#[rustfmt::skip]
const DISTANCE_BASE: [u32; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
];
/// The order in which a header gives the lengths of the codes for code lengths.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The two decoding tables of a block.
pub(super) struct Tables {
    /// The entries of literals and lengths, subtables included.
    pub lengths: [u32; LENGTHS],
    /// The entries of distances, subtables included.
    pub distances: [u32; DISTANCES],
    /// Whether the tables are those of fixed codes: a stream may have a block in every ten bits, and setting the tables
    /// takes 6 µs.
    is_fixed: bool,
}

impl Default for Tables {
    fn default() -> Self {
        Self { lengths: [0; LENGTHS], distances: [0; DISTANCES], is_fixed: false }
    }
}

/// The literal of an entry, if it has one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the eight bits that are meant")]
pub(super) fn literal(entry: u32) -> u8 {
    (entry >> 12) as u8
}

/// The index of the entry for the code that `bits` begin with, in the subtable of `entry`.
#[inline(always)]
pub(super) fn subtable(entry: u32, bits: Bits) -> usize {
    (entry >> 16 & 0x3fff) as usize + bits.peek((1 << (entry >> 8 & 15)) - 1)
}

impl Tables {
    /// Sets the tables of the format's fixed codes.
    ///
    /// # Errors
    /// None in fact: the fixed codes are sound.
    pub(super) fn set_fixed(&mut self) -> Result<()> {
        if self.is_fixed {
            return Ok(());
        }
        let mut lens = [8; 288];
        lens[144..256].fill(9);
        lens[256..280].fill(7);
        self.set(&lens, &[5; 32])?;
        self.is_fixed = true;
        Ok(())
    }

    /// Reads the tables that a block's header describes.
    ///
    /// # Errors
    /// [`InflateError::Damaged`] if the codes are not sound.
    pub(super) fn read(&mut self, bits: &mut Bits, input: &Input) -> Result<()> {
        let (lengths, distances) = (bits.take(5) as usize + 257, bits.take(5) as usize + 1);
        let given = bits.take(4) as usize + 4;
        if lengths > 286 || distances > 30 {
            return Err(InflateError::Damaged("a block with more codes than there are symbols"));
        }
        let mut lens_of_lens = [0; 19];
        for symbol in &ORDER[..given] {
            bits.refill(input);
            lens_of_lens[*symbol] = low_byte(bits.take(3));
        }
        let mut table = [0; 128];
        if !build(&mut table, 7, &lens_of_lens, |symbol| symbol << 16)? {
            return Err(InflateError::Damaged("an incomplete set of codes"));
        }
        let (mut lens, mut n) = ([0; 286 + 30 + 138], 0);
        while n < lengths + distances {
            bits.refill(input);
            let entry = table[bits.peek(127)];
            bits.skip(entry);
            let (len, times) = match entry >> 16 {
                16 if n == 0 => return Err(InflateError::Damaged("a repetition of nothing")),
                16 => (lens[n - 1], 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                18 => (0, 11 + bits.take(7)),
                len => (low_byte(len), 1),
            };
            lens[n..n + times as usize].fill(len);
            n += times as usize;
        }
        if n > lengths + distances {
            return Err(InflateError::Damaged("more code lengths than codes"));
        }
        if lens[256] == 0 {
            return Err(InflateError::Damaged("a block without an end"));
        }
        self.set(&lens[..lengths], &lens[lengths..n])
    }

    fn set(&mut self, lengths: &[u8], distances: &[u8]) -> Result<()> {
        self.is_fixed = false;
        build(&mut self.lengths, LENGTH_BITS, lengths, |symbol| match symbol {
            0..=255 => ALONE | HAS_LITERAL | symbol << 12,
            256 => SPECIAL | END_OF_BLOCK,
            257..=285 => LENGTH_BASE[symbol as usize - 257] << 21 | LENGTH_EXTRA[symbol as usize - 257],
            _ => SPECIAL,
        })?;
        self.join();
        build(&mut self.distances, DISTANCE_BITS, distances, |symbol| match symbol {
            0..=29 => DISTANCE_BASE[symbol as usize] << 16 | (symbol / 2).saturating_sub(1),
            _ => SPECIAL,
        })?;
        Ok(())
    }

    /// Joins each literal with the length behind it where both codes are within the table's bits.
    fn join(&mut self) {
        // Downwards, because the entry that follows a literal has a lower index, and must not be joined yet.
        for place in (1..1 << LENGTH_BITS).rev() {
            let entry = self.lengths[place];
            let len = entry & 63;
            let next = self.lengths[place >> len];
            if entry & ALONE != 0 && next & (ALONE | SPECIAL) == 0 && (next >> 8 & 15) + len <= LENGTH_BITS {
                self.lengths[place] = (next + len + (len << 8)) | entry & (HAS_LITERAL | LITERAL);
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "of a few bits")]
fn low_byte(value: u32) -> u8 {
    value as u8
}

/// Fills `table` with the canonical codes of the lengths `lens`, indexed by their first `root` bits. `value` gives a
/// symbol's entry without its code. False if codes are missing: no code at all, or one of a single bit, which zlib
/// accepts as well.
fn build(table: &mut [u32], root: u32, lens: &[u8], value: impl Fn(u32) -> u32) -> Result<bool> {
    let mut counts = [0; LONGEST + 1];
    for len in lens {
        counts[usize::from(*len)] += 1;
    }
    let used = lens.len() - std::mem::take(&mut counts[0]);
    let free = counts[1..].iter().try_fold(1usize, |free, count| (2 * free).checked_sub(*count));
    let free = free.ok_or(InflateError::Damaged("more codes than their lengths allow"))?;
    let mut symbols = [0; 288];
    sort(lens, &counts, &mut symbols);
    if free > 0 {
        if used > 1 || used != counts[1] {
            return Err(InflateError::Damaged("an incomplete set of codes"));
        }
        table[..1 << root].fill(SPECIAL | 1);
        if used == 1 {
            table[..1 << root].iter_mut().step_by(2).for_each(|entry| *entry = coded(value(symbols[0]), 1));
        }
        return Ok(false);
    }
    let mut codes = Codes::new(root);
    let mut symbols = symbols.into_iter();
    for (len, count) in (1..).zip(counts[1..].iter().copied()) {
        if len <= root {
            codes.double(table);
        }
        for left in (1..=count).rev() {
            let entry = symbols.next().map_or(SPECIAL, &value);
            if len <= root {
                table[codes.code] = coded(entry, len);
            } else {
                codes.put_long(table, coded(entry, len - root), len, left, &counts);
            }
            codes.advance(len);
        }
    }
    Ok(true)
}

/// Sorts the symbols by the length of their codes, then by number.
fn sort(lens: &[u8], counts: &[usize; LONGEST + 1], symbols: &mut [u32; 288]) {
    let mut places = [0; LONGEST + 2];
    for len in 1..=LONGEST {
        places[len + 1] = places[len] + counts[len];
    }
    for (symbol, len) in (0..).zip(lens).filter(|(_, len)| **len > 0) {
        let place = &mut places[usize::from(*len)];
        symbols[*place] = symbol;
        *place += 1;
    }
}

/// An entry with the length of its code.
fn coded(value: u32, len: u32) -> u32 {
    value + len + (len << 8)
}

/// The place of the next code in a table.
struct Codes {
    root: u32,
    /// The next code, its first bit lowest, as in the stream.
    code: usize,
    /// Entries that are filled so far, before they are repeated for one more bit.
    filled: usize,
    /// The subtable in use: its place, its end, and the first bits of its codes.
    start: usize,
    end: usize,
    prefix: Option<usize>,
}

impl Codes {
    fn new(root: u32) -> Self {
        Self { root, code: 0, filled: 1, start: 0, end: 1 << root, prefix: None }
    }

    /// Repeats the table so far; codes of one more bit then overwrite their places.
    fn double(&mut self, table: &mut [u32]) {
        table.copy_within(..self.filled, self.filled);
        self.filled *= 2;
    }

    /// The next code of this length in canonical order, which counts from the highest bit, the code's first.
    fn advance(&mut self, len: u32) {
        let ones = (1 << len) - 1;
        let clear = self.code ^ ones;
        if clear != 0 {
            let highest = 1 << clear.ilog2();
            self.code = self.code & (highest - 1) | highest;
        }
    }

    /// Puts an entry into a subtable, a new one if its first bits are new; `left` codes of this length are to come,
    /// this one included.
    fn put_long(&mut self, table: &mut [u32], entry: u32, len: u32, left: usize, counts: &[usize; LONGEST + 1]) {
        let prefix = self.code & ((1 << self.root) - 1);
        if self.prefix != Some(prefix) {
            // As many bits as the codes take that fill it.
            let (mut bits, mut space) = (len - self.root, left);
            while space < 1 << bits {
                bits += 1;
                space = 2 * space + counts[(self.root + bits) as usize];
            }
            (self.prefix, self.start) = (Some(prefix), self.end);
            self.end += 1 << bits;
            let start = u32::try_from(self.start).expect("a table's length");
            table[prefix] = SPECIAL | SUBTABLE | start << 16 | bits << 8 | self.root;
        }
        let places = self.start + (self.code >> self.root)..self.end;
        table[places].iter_mut().step_by(1 << (len - self.root)).for_each(|place| *place = entry);
    }
}
