//! The framing of gzip files (RFC 1952): members, each with a header, a deflate stream, its CRC-32 and its length.
//!
//! Several members are one stream, as of pigz and bgzip; zeros between and behind them are skipped, and whatever else
//! stands behind a member is not looked at, as Python's `gzip` and so nibabel read them. A member's sum and length are
//! compared where it ends.

use std::io::Read;

use crc32fast::Hasher;

use super::inflate::{InflateError, Inflater};

/// The bytes that are unpacked at a time where they are not wanted.
const PIECE: usize = 64 << 10;

/// The reason why a gzip file could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    /// Reading the packed bytes failed.
    #[error("{0}")]
    Read(std::io::Error),
    /// The file breaks the format's rules, or its sums are wrong.
    #[error("{0}")]
    Damaged(String),
}

impl From<InflateError> for GzipError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::Read(error) => Self::Read(error),
            InflateError::Damaged(what) => Self::Damaged(format!("damaged deflate data: {what}")),
            InflateError::Cut => Self::Damaged("the gzip data is cut: it has no end marker".into()),
        }
    }
}

type Result<T> = std::result::Result<T, GzipError>;

/// What stands behind a member's stream: the CRC-32 of its unpacked bytes, and their number modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The CRC-32.
    pub crc: u32,
    /// The number of bytes, modulo 2^32.
    pub len: u32,
}

impl Trailer {
    /// The number of bytes that a trailer takes.
    pub const BYTES: usize = 8;

    /// The trailer in these bytes.
    pub fn parse(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { crc: u32::from_le_bytes([a, b, c, d]), len: u32::from_le_bytes([e, f, g, h]) }
    }
}

/// A member that was unpacked to its end, and whose sums were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedMember {
    /// The CRC-32 of the unpacked bytes.
    pub crc: u32,
    /// The number of unpacked bytes.
    pub len: u64,
}

/// The place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first member.
    Start,
    /// In a member's stream.
    Within,
    /// Behind the last member.
    End,
}

/// A reader of a gzip file from its first byte on. The deflate streams are unpacked by an [`Inflater`] that was reset
/// before, and that is the same for all calls, as is the source.
pub struct Gzip {
    stage: Stage,
    crc: Hasher,
    len: u64,
}

impl Default for Gzip {
    fn default() -> Self {
        Self { stage: Stage::Start, crc: Hasher::new(), len: 0 }
    }
}

impl Gzip {
    /// Whether all members were unpacked; known when a read gave less than it was asked for.
    pub fn is_at_end(&self) -> bool {
        self.stage == Stage::End
    }

    /// Unpacks the next bytes into `out`. Returns their number, which is less than `out` has only where there are no
    /// more.
    ///
    /// # Errors
    /// [`GzipError`] if the file is damaged or cannot be read.
    pub fn read(&mut self, inflater: &mut Inflater, source: &mut impl Read, out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        if self.stage == Stage::Start {
            self.first_header(inflater, source)?;
        }
        while done < out.len() && self.stage == Stage::Within {
            let n = inflater.read(source, &mut out[done..])?;
            self.crc.update(&out[done..done + n]);
            (self.len, done) = (self.len + n as u64, done + n);
            if done < out.len() {
                self.end_member(inflater, source)?;
                self.next_header(inflater, source)?;
            }
        }
        Ok(done)
    }

    /// Unpacks and drops the rest of the member that the last byte was of, and checks its sums; what follows it is not
    /// looked at.
    ///
    /// # Errors
    /// [`GzipError`] if the member is damaged or cannot be read.
    pub fn finish(&mut self, inflater: &mut Inflater, source: &mut impl Read) -> Result<CheckedMember> {
        let mut dropped = vec![0; PIECE];
        loop {
            let n = inflater.read(source, &mut dropped)?;
            self.crc.update(&dropped[..n]);
            self.len += n as u64;
            if n < dropped.len() {
                return self.end_member(inflater, source);
            }
        }
    }

    /// Reads the trailer of the member whose stream has ended, and compares it.
    fn end_member(&mut self, inflater: &mut Inflater, source: &mut impl Read) -> Result<CheckedMember> {
        let mut bytes = [0; Trailer::BYTES];
        if inflater.read_plain(source, &mut bytes)? < bytes.len() {
            return Err(GzipError::Damaged("the gzip data is cut: it has no checksum at its end".into()));
        }
        let Trailer { crc: planned, len } = Trailer::parse(bytes);
        let found = std::mem::take(&mut self.crc).finalize();
        if planned != found {
            return Err(GzipError::Damaged(format!(
                "CRC-32 is {found:08x}, the end of the gzip data says {planned:08x}: the file is damaged"
            )));
        }
        if u64::from(len) != self.len % (1 << 32) {
            return Err(GzipError::Damaged(format!(
                "it unpacks to {} bytes, the end of the gzip data says {len}: the file is damaged",
                self.len
            )));
        }
        self.stage = Stage::End;
        Ok(CheckedMember { crc: found, len: std::mem::take(&mut self.len) })
    }

    fn first_header(&mut self, inflater: &mut Inflater, source: &mut impl Read) -> Result<()> {
        let mut first = [0];
        if inflater.read_plain(source, &mut first)? == 0 {
            return Err(no_gzip());
        }
        self.header(first[0], inflater, source)
    }

    /// Reads the header of the next member if there is one.
    fn next_header(&mut self, inflater: &mut Inflater, source: &mut impl Read) -> Result<()> {
        let mut first = [0];
        loop {
            match inflater.read_plain(source, &mut first)? {
                0 => return Ok(()),
                _ if first[0] == 0 => {}
                _ if first[0] == MAGIC[0] => return self.header(first[0], inflater, source),
                _ => return Ok(()),
            }
        }
    }

    /// Reads a member's header, of which the first byte was read already.
    fn header(&mut self, first: u8, inflater: &mut Inflater, source: &mut impl Read) -> Result<()> {
        let mut fixed = [0; 9];
        let len = inflater.read_plain(source, &mut fixed)?;
        if first != MAGIC[0] || fixed[0] != MAGIC[1] {
            return Err(no_gzip());
        }
        if len < fixed.len() {
            return Err(cut_header());
        }
        let [_, method, flags, ..] = fixed;
        if method != DEFLATE {
            return Err(GzipError::Damaged(format!("its compression method {method} is not deflate")));
        }
        if flags & !KNOWN != 0 {
            return Err(GzipError::Damaged(format!("its gzip header has flags that nobody defined ({flags:#04x})")));
        }
        let mut byte = || {
            let mut byte = [0];
            if inflater.read_plain(source, &mut byte)? == 0 { Err(cut_header()) } else { Ok(byte[0]) }
        };
        if flags & EXTRA != 0 {
            let len = u16::from_le_bytes([byte()?, byte()?]);
            (0..len).try_for_each(|_| byte().map(|_| ()))?;
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                while byte()? != 0 {}
            }
        }
        if flags & HEADER_CRC != 0 {
            byte()?;
            byte()?;
        }
        inflater.next_stream();
        self.stage = Stage::Within;
        Ok(())
    }
}

fn no_gzip() -> GzipError {
    GzipError::Damaged("it is not compressed by gzip, as its name says".into())
}

fn cut_header() -> GzipError {
    GzipError::Damaged("the gzip data is cut within a header".into())
}

/// The first bytes of every member.
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The only compression method.
const DEFLATE: u8 = 8;
/// The flags of a header's fields, besides the one that guesses at text.
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const KNOWN: u8 = 0x1f;
