//! Raw deflate streams (RFC 1951), unpacked into memory that is used again for the next one.
//!
//! Inflating takes two thirds of a deflated volume's time, and this takes two thirds of zlib-ng's for CT volumes in
//! float32. Such data is short matches, every third to half of them after a single literal, so the time goes where a
//! processor guesses wrongly between literal and match: here one table entry holds both (`tables`). The window has a
//! length and a spare end by which one symbol needs no check of its place (`window`), and so has the input.
//!
//! Knows nothing of files. What unpacks is not checked against any sum: the caller has the zip directory's CRC.

mod bits;
mod symbols;
mod tables;
#[cfg(test)]
mod tests;
mod window;

use std::io::Read;

use memmap2::MmapMut;

use bits::{Bits, INPUT_LEN, Input};
use tables::Tables;
use window::{END, HISTORY, WINDOW_LEN, Window};

/// Where fetched bytes begin in the input; what is left of the bytes before them is put in front. Page-aligned, as
/// [`crate::volume`]'s scratch memory explains.
const FETCHED: usize = 4096;
/// Bytes of zeros behind the last input, which a symbol or block header may look at, but not use.
const PADDING: usize = 4096;
/// Bytes fetched at a time: 64 KiB to 1 MiB were measured alike.
const FETCH: usize = INPUT_LEN - FETCHED - PADDING;
/// Input that is there before a step, unless it is the last: a block's header takes less than 600 bytes (74 bits, and for
/// each of 316 codes 14 at most), a symbol 8.
const LOOK_AHEAD: usize = 1024;

/// Why a stream could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its source failed.
    #[error("{0}")]
    Read(std::io::Error),
    /// It breaks the format's rules.
    #[error("{0}")]
    Damaged(&'static str),
    /// The source ended before the stream's end marker.
    #[error("no end marker")]
    Cut,
}

type Result<T> = std::result::Result<T, Failure>;

/// What comes next in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Header,
    /// So many bytes as they are.
    Plain(usize),
    Symbols,
    Nothing,
    /// There was a failure.
    Failed,
}

/// The state of one stream and its memory, half a megabyte.
pub struct Inflater {
    tables: Box<Tables>,
    window: MmapMut,
    input: MmapMut,
    bits: Bits,
    /// The end of the fetched bytes in `input`.
    fetched: usize,
    /// The source has no more.
    is_last_input: bool,
    is_last_block: bool,
    next: Next,
    /// Unpacked bytes in `window` end here,
    at: usize,
    /// and those before this were handed out.
    handed_out: usize,
}

impl Inflater {
    /// Memory for streams.
    ///
    /// # Errors
    /// The system's, if it has none.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            tables: Box::default(),
            window: MmapMut::map_anon(WINDOW_LEN)?,
            input: MmapMut::map_anon(INPUT_LEN)?,
            bits: Bits::at(FETCHED),
            fetched: FETCHED,
            is_last_input: false,
            is_last_block: false,
            next: Next::Header,
            at: 0,
            handed_out: 0,
        })
    }

    /// Begins another stream.
    pub fn reset(&mut self) {
        (self.bits, self.fetched) = (Bits::at(FETCHED), FETCHED);
        (self.is_last_input, self.is_last_block, self.next) = (false, false, Next::Header);
        (self.at, self.handed_out) = (0, 0); // nothing before 0 can be copied, so no stream sees another's bytes
    }

    /// Unpacks the next bytes of the stream whose packed bytes `source` has. Returns their number, which is less than
    /// asked for only at the stream's end. More is taken of the source than that needs, and what follows the stream is
    /// ignored.
    ///
    /// # Errors
    /// [`Failure`], which also stands for what was unpacked before it and not yet handed out; every later read fails.
    pub fn read(&mut self, source: &mut impl Read, out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < out.len() {
            if self.handed_out == self.at {
                match self.next {
                    Next::Nothing => break,
                    Next::Failed => return Err(Failure::Damaged("it could not be unpacked before")),
                    _ => self.unpack(source).inspect_err(|_| (self.next, self.handed_out) = (Next::Failed, self.at))?,
                }
            }
            let n = (out.len() - done).min(self.at - self.handed_out);
            out[done..done + n].copy_from_slice(&self.window[self.handed_out..self.handed_out + n]);
            self.handed_out += n;
            done += n;
        }
        Ok(done)
    }

    /// Goes on until the window is full, the input has to be fetched, or the stream ends.
    fn unpack(&mut self, source: &mut impl Read) -> Result<()> {
        if self.at >= END {
            self.window.copy_within(self.at - HISTORY..self.at, 0);
            (self.at, self.handed_out) = (HISTORY, HISTORY);
        }
        if self.fetched - self.bits.pos < LOOK_AHEAD && !self.is_last_input {
            self.fetch(source)?;
        }
        let limit = if self.is_last_input { self.fetched + 1 } else { self.fetched - LOOK_AHEAD + 1 };
        while self.at < END && self.bits.pos < limit && self.next != Next::Nothing {
            self.step(limit)?;
        }
        // What was unpacked of zeros behind the input is never handed out.
        if self.bits.pos > self.fetched { Err(Failure::Cut) } else { Ok(()) }
    }

    /// Puts more of the source behind what is left.
    fn fetch(&mut self, source: &mut impl Read) -> Result<()> {
        let left = self.fetched - self.bits.pos;
        self.input.copy_within(self.bits.pos..self.fetched, FETCHED - left);
        self.bits.pos = FETCHED - left;
        self.fetched = FETCHED;
        while self.fetched < FETCHED + FETCH && !self.is_last_input {
            match source.read(&mut self.input[self.fetched..FETCHED + FETCH]) {
                Ok(0) => self.is_last_input = true,
                Ok(n) => self.fetched += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Read(error)),
            }
        }
        self.input[self.fetched..self.fetched + PADDING].fill(0);
        Ok(())
    }

    /// A block's header, or its bytes or symbols as far as window and input go.
    fn step(&mut self, limit: usize) -> Result<()> {
        let input: &Input = bits::whole(&self.input);
        let is_over = match self.next {
            Next::Nothing | Next::Failed => false,
            Next::Header => {
                (self.is_last_block, self.next) = header(&mut self.bits, input, &mut self.tables)?;
                self.next == Next::Plain(0)
            }
            Next::Plain(left) => {
                let (n, pos) = (left.min(END - self.at).min(limit - self.bits.pos), self.bits.pos);
                self.window[self.at..self.at + n].copy_from_slice(&input[pos..pos + n]);
                self.at += n;
                self.bits.pos += n;
                self.next = Next::Plain(left - n);
                left == n
            }
            Next::Symbols => {
                let window: &mut Window = window::whole(&mut self.window);
                symbols::unpack(&self.tables, &mut self.bits, input, limit, window, &mut self.at)?
            }
        };
        if is_over {
            self.next = if self.is_last_block { Next::Nothing } else { Next::Header };
        }
        Ok(())
    }
}

/// Reads a block's header: whether the block is the last, and what follows.
fn header(bits: &mut Bits, input: &Input, tables: &mut Tables) -> Result<(bool, Next)> {
    bits.refill(input);
    let is_last = bits.take(1) == 1;
    let next = match bits.take(2) {
        0 => {
            bits.align();
            let field = |at: usize| u16::from_le_bytes([input[at], input[at + 1]]);
            let (len, complement) = (field(bits.pos), field(bits.pos + 2));
            if len != !complement {
                return Err(Failure::Damaged("a stored block's length contradicts itself"));
            }
            bits.pos += 4;
            Next::Plain(usize::from(len))
        }
        1 => {
            tables.set_fixed()?;
            Next::Symbols
        }
        2 => {
            tables.read(bits, input)?;
            Next::Symbols
        }
        _ => return Err(Failure::Damaged("a block of no known type")),
    };
    if next == Next::Symbols {
        bits.give_back();
    }
    Ok((is_last, next))
}
