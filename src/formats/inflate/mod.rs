//! Raw deflate streams (RFC 1951), unpacked into memory that is used again for the next one.
//!
//! Inflating takes two thirds of a deflated volume's time, and this module takes two thirds of zlib-ng's time for CT
//! volumes in float32. Such data is short matches, every third to half of them after a single literal, so the time goes
//! where a processor mispredicts between literal and match: here one table entry holds both (`tables`). Window and
//! input have lengths and spare ends that make bounds checks for each symbol superfluous (`window`, `bits`).
//!
//! Knows nothing of files. The unpacked bytes are not checked against any sum: the caller has the zip directory's CRC,
//! or that of the gzip member.

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

/// The place in the input where fetched bytes begin; unused bytes of the fetch before are put in front of it. A
/// multiple of the page size, because the kernel copies into a buffer at a page offset of 8 to 24 five times slower.
const FETCHED: usize = 4096;
/// The zero bytes behind the last input, which a symbol or block header may look at, but not use.
const PADDING: usize = 4096;
/// The bytes that are fetched at a time, if the source has so many: 64 KiB to 1 MiB were measured alike.
const FETCH: usize = INPUT_LEN - FETCHED - PADDING;
/// The bytes of input that must be there before a step, unless they are the last: a block's header takes less than 600
/// bytes (74 bits, and for each of 316 codes 14 at most), a symbol 8.
const LOOK_AHEAD: usize = 1024;

/// The reason why a stream could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// Reading the packed bytes failed.
    #[error("{0}")]
    Read(std::io::Error),
    /// The stream breaks the format's rules.
    #[error("{0}")]
    Damaged(&'static str),
    /// The packed bytes end before the stream's end marker.
    #[error("no end marker")]
    Cut,
}

type Result<T> = std::result::Result<T, InflateError>;

/// The next part of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A block's header.
    Header,
    /// The given number of stored bytes.
    Plain(usize),
    /// Symbols of a block.
    Symbols,
    /// The stream has ended.
    Nothing,
    /// Unpacking has failed.
    Failed,
}

/// A decompressor of one deflate stream at a time, with half a megabyte of memory that every stream uses again.
pub struct Inflater {
    tables: Box<Tables>,
    window: MmapMut,
    input: MmapMut,
    bits: Bits,
    /// The end of the fetched bytes in `input`.
    fetched: usize,
    /// Whether the source has no more bytes.
    is_last_input: bool,
    is_last_block: bool,
    next: Stage,
    /// The end of the unpacked bytes in `window`.
    at: usize,
    /// The end of those that were handed out.
    handed_out: usize,
}

impl Inflater {
    /// A decompressor, ready for a stream.
    ///
    /// # Errors
    /// The operating system's error if it has no memory.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            tables: Box::default(),
            window: MmapMut::map_anon(WINDOW_LEN)?,
            input: MmapMut::map_anon(INPUT_LEN)?,
            bits: Bits::at(FETCHED),
            fetched: FETCHED,
            is_last_input: false,
            is_last_block: false,
            next: Stage::Header,
            at: 0,
            handed_out: 0,
        })
    }

    /// Gets ready for another stream; of the stream before, nothing remains visible.
    pub fn reset(&mut self) {
        (self.bits, self.fetched) = (Bits::at(FETCHED), FETCHED);
        (self.is_last_input, self.is_last_block, self.next) = (false, false, Stage::Header);
        (self.at, self.handed_out) = (0, 0); // nothing before 0 can be copied, so no stream sees another's bytes
    }

    /// Unpacks the next bytes of the stream into `out`; `source` gives the packed bytes. Returns the number of unpacked
    /// bytes, which is less than `out` has only at the stream's end. More bytes may be read of `source` than were
    /// needed, and bytes after the stream are ignored.
    ///
    /// # Errors
    /// [`InflateError`] if the stream is damaged or cannot be read. Bytes that were unpacked before the damage, but not
    /// handed out yet, are lost, and every later read fails.
    pub fn read(&mut self, source: &mut impl Read, out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < out.len() {
            if self.handed_out == self.at {
                match self.next {
                    Stage::Nothing => break,
                    Stage::Failed => return Err(InflateError::Damaged("it could not be unpacked before")),
                    _ => {
                        self.unpack(source).inspect_err(|_| (self.next, self.handed_out) = (Stage::Failed, self.at))?
                    }
                }
            }
            let n = (out.len() - done).min(self.at - self.handed_out);
            out[done..done + n].copy_from_slice(&self.window[self.handed_out..self.handed_out + n]);
            self.handed_out += n;
            done += n;
        }
        Ok(done)
    }

    /// Reads bytes of `source` that belong to no stream: those behind the stream that has ended, or before the first
    /// one. Returns their number, which is less than `out` has only where the source ends.
    ///
    /// # Errors
    /// [`InflateError::Read`] if the source cannot be read.
    pub fn read_plain(&mut self, source: &mut impl Read, out: &mut [u8]) -> Result<usize> {
        self.bits.align();
        let mut done = 0;
        while done < out.len() {
            if self.bits.pos == self.fetched {
                if self.is_last_input {
                    break;
                }
                self.fetch(source)?;
            }
            let n = (out.len() - done).min(self.fetched - self.bits.pos);
            out[done..done + n].copy_from_slice(&self.input[self.bits.pos..self.bits.pos + n]);
            self.bits.pos += n;
            done += n;
        }
        Ok(done)
    }

    /// Gets ready for another stream that begins at the next byte of the same source, of which some may be fetched
    /// already; of the stream before, nothing remains visible.
    pub fn next_stream(&mut self) {
        self.bits.align();
        (self.is_last_block, self.next) = (false, Stage::Header);
        (self.at, self.handed_out) = (0, 0);
    }

    /// Unpacks until the window is full, the input has to be fetched, or the stream ends.
    fn unpack(&mut self, source: &mut impl Read) -> Result<()> {
        if self.at >= END {
            self.window.copy_within(self.at - HISTORY..self.at, 0);
            (self.at, self.handed_out) = (HISTORY, HISTORY);
        }
        if self.fetched - self.bits.pos < LOOK_AHEAD && !self.is_last_input {
            self.fetch(source)?;
        }
        let limit = if self.is_last_input { self.fetched + 1 } else { self.fetched - LOOK_AHEAD + 1 };
        while self.at < END && self.bits.pos < limit && self.next != Stage::Nothing {
            self.step(limit)?;
        }
        // What was unpacked of zeros behind the input is never handed out.
        if self.bits.pos > self.fetched { Err(InflateError::Cut) } else { Ok(()) }
    }

    /// Reads more bytes of the source, and puts them behind the unused ones.
    fn fetch(&mut self, source: &mut impl Read) -> Result<()> {
        let left = self.fetched - self.bits.pos;
        self.input.copy_within(self.bits.pos..self.fetched, FETCHED - left);
        self.bits.pos = FETCHED - left;
        self.fetched = FETCHED;
        // A source that gives less than it was asked for is asked again only where that is not enough for a step.
        while self.fetched - self.bits.pos <= LOOK_AHEAD && !self.is_last_input {
            match source.read(&mut self.input[self.fetched..FETCHED + FETCH]) {
                Ok(0) => self.is_last_input = true,
                Ok(n) => self.fetched += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(InflateError::Read(error)),
            }
        }
        self.input[self.fetched..self.fetched + PADDING].fill(0);
        Ok(())
    }

    /// Unpacks one part of the stream: a block's header, or stored bytes or symbols as far as window and input reach.
    fn step(&mut self, limit: usize) -> Result<()> {
        let input: &Input = bits::whole(&self.input);
        let is_over = match self.next {
            Stage::Nothing | Stage::Failed => false,
            Stage::Header => {
                (self.is_last_block, self.next) = header(&mut self.bits, input, &mut self.tables)?;
                self.next == Stage::Plain(0)
            }
            Stage::Plain(left) => {
                let (n, pos) = (left.min(END - self.at).min(limit - self.bits.pos), self.bits.pos);
                self.window[self.at..self.at + n].copy_from_slice(&input[pos..pos + n]);
                self.at += n;
                self.bits.pos += n;
                self.next = Stage::Plain(left - n);
                left == n
            }
            Stage::Symbols => {
                let window: &mut Window = window::whole(&mut self.window);
                symbols::unpack(&self.tables, &mut self.bits, input, limit, window, &mut self.at)?
            }
        };
        if is_over {
            self.next = if self.is_last_block { Stage::Nothing } else { Stage::Header };
        }
        Ok(())
    }
}

/// Reads a block's header: whether the block is the last, and what follows.
fn header(bits: &mut Bits, input: &Input, tables: &mut Tables) -> Result<(bool, Stage)> {
    bits.refill(input);
    let is_last = bits.take(1) == 1;
    let next = match bits.take(2) {
        0 => {
            bits.align();
            let field = |at: usize| u16::from_le_bytes([input[at], input[at + 1]]);
            let (len, complement) = (field(bits.pos), field(bits.pos + 2));
            if len != !complement {
                return Err(InflateError::Damaged("a stored block's length contradicts itself"));
            }
            bits.pos += 4;
            Stage::Plain(usize::from(len))
        }
        1 => {
            tables.set_fixed()?;
            Stage::Symbols
        }
        2 => {
            tables.read(bits, input)?;
            Stage::Symbols
        }
        _ => return Err(InflateError::Damaged("a block of no known type")),
    };
    if next == Stage::Symbols {
        bits.give_back();
    }
    Ok((is_last, next))
}
