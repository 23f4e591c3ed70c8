//! The input as bits, least significant first.

/// The bytes that a position in the input can point at; a power of two, so that a masked position needs no bounds
/// check.
const ROOM: usize = 1 << 18;
/// The bytes of input memory: [`ROOM`], and space for a word that begins at the last position.
pub(super) const INPUT_LEN: usize = ROOM + 8;

/// The input memory as an array of known length.
pub(super) type Input = [u8; INPUT_LEN];

/// Converts the input memory to an array of known length.
pub(super) fn whole(input: &[u8]) -> &Input {
    input.try_into().expect("the input's length")
}

/// A position in the input, with the next bits in a buffer. After [`Bits::refill`] all 64 bits of `buffer` are the
/// stream's, and at least 56 of them may be used; those above `count` are of the byte at `pos`, and come again with the
/// next refill.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    buffer: u64,
    /// The number of usable bits in `buffer`, in the lowest six bits of this field; the bits above them have no
    /// meaning, because [`Bits::skip`] subtracts whole table entries.
    count: u32,
    /// The next byte to be fetched into `buffer`.
    pub pos: usize,
}

impl Bits {
    /// The beginning of the byte at `pos`; the buffer is empty.
    pub(super) fn at(pos: usize) -> Self {
        Self { buffer: 0, count: 0, pos }
    }

    /// Fills the buffer: at least 56 bits may be used then.
    #[inline(always)]
    pub(super) fn refill(&mut self, input: &Input) {
        let at = self.pos & (ROOM - 1);
        let mut word = [0; 8];
        word.copy_from_slice(&input[at..at + 8]);
        self.buffer |= u64::from_le_bytes(word) << (self.count & 63);
        self.pos += 7 - (self.count >> 3 & 7) as usize;
        self.count |= 56;
    }

    /// The next bits of the stream, under `mask`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "masked")]
    pub(super) fn peek(self, mask: u64) -> usize {
        (self.buffer & mask) as usize
    }

    /// Moves on by the number of bits that the lowest six bits of a table entry give.
    #[inline(always)]
    pub(super) fn skip(&mut self, entry: u32) {
        self.buffer >>= entry & 63;
        self.count = self.count.wrapping_sub(entry);
    }

    /// The extra bits that follow the code of a table entry; [`Bits::skip`] skips them together with the code.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "at most 13 bits")]
    pub(super) fn extra(self, entry: u32) -> usize {
        ((self.buffer & ((1 << (entry & 63)) - 1)) >> (entry >> 8 & 15)) as usize
    }

    /// Takes the next `n` bits, at most 16.
    #[expect(clippy::cast_possible_truncation, reason = "at most 16 bits")]
    pub(super) fn take(&mut self, n: u32) -> u32 {
        let value = self.buffer & ((1 << n) - 1);
        self.skip(n);
        value as u32
    }

    /// Moves `pos` back to the first byte of which no bit was used, and drops the bits of that byte from the buffer.
    pub(super) fn give_back(&mut self) {
        self.count &= 63;
        self.pos -= (self.count >> 3) as usize;
        self.count &= 7;
        self.buffer &= (1 << self.count) - 1;
    }

    /// Skips the rest of the byte of which a bit was used last.
    pub(super) fn align(&mut self) {
        self.give_back();
        (self.buffer, self.count) = (0, 0);
    }
}
