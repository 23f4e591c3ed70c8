//! Reading a kept volume. No byte of it counts before its block was compared with the checksum.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::VolumeDigest;
use super::format::{BLOCK, Header, PAGE, PackedHeader, block_count, file_len, header_len, is_packed, range_of};
use crate::base::memory;
use crate::base::num::to_usize;
use crate::formats::codec::{Decoder, FOOTER, RowFilter, SeekTable};
use crate::volume::Sink;

/// The bytes that the kernel is asked to read ahead of the block that is looked at: a disk is fast only where many
/// requests are under way.
const AHEAD: u64 = 8 << 20;

/// The reason why a kept volume cannot be had.
#[derive(Debug)]
pub(super) enum Unread {
    /// The file is not what was written; a phrase for a message.
    Damaged(String),
    /// The operating system's reason.
    Failed(io::Error),
}

impl From<&str> for Unread {
    fn from(reason: &str) -> Self {
        Self::Damaged(reason.to_owned())
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it is cut off".into()),
            _ => Self::Failed(error),
        }
    }
}

/// The file of a kept volume, of which the header was compared.
pub(super) struct KeptVolume<'a> {
    file: &'a File,
    len: u64,
    body: Body,
}

/// What stands behind the header.
enum Body {
    /// The volume, and the checksums of its blocks.
    Plain(Vec<u32>),
    /// Its blocks in frames.
    Packed { filter: RowFilter, table: SeekTable },
}

impl<'a> KeptVolume<'a> {
    /// Reads the header of the volume of this digest and length.
    ///
    /// # Errors
    /// [`Unread`] if the file cannot be read or holds anything else.
    pub(super) fn open(file: &'a File, digest: &VolumeDigest, len: u64) -> Result<Self, Unread> {
        let mut page = [0; PAGE];
        file.read_exact_at(&mut page, 0)?;
        let size = file.metadata()?.len();
        let body = if is_packed(&page) {
            let header = PackedHeader::parse(&page, digest, len)?;
            if size != PAGE as u64 + header.packed_len {
                return Err("its size differs".into());
            }
            packed(file, &header)?
        } else {
            let mut bytes = memory::zeros(header_len(len))?;
            file.read_exact_at(&mut bytes, 0)?;
            let header = Header::parse(&bytes, digest, len)?;
            if size != file_len(len) {
                return Err("its size differs".into());
            }
            Body::Plain(header.crcs)
        };
        Ok(Self { file, len, body })
    }

    /// Reads the whole volume into what `sink` has for it, and hands none of it on; false if the sink was cancelled.
    ///
    /// # Errors
    /// [`Unread`] if a block cannot be read or is not what was written; the sink's memory then holds nothing of use.
    pub(super) fn read(&self, sink: &mut impl Sink) -> Result<bool, Unread> {
        let (mut asked, mut blocks) = (0, Blocks::new(self)?);
        for number in 0..block_count(self.len) {
            if sink.cancelled() {
                return Ok(false);
            }
            let (range, at) = (range_of(number, self.len), self.in_file(number).start);
            if at + AHEAD / 2 >= asked {
                let from = asked.max(at);
                asked = from + AHEAD;
                // Advice only.
                let _ = rustix::fs::fadvise(self.file, from, AHEAD.try_into().ok(), rustix::fs::Advice::WillNeed);
            }
            blocks.read(number, &mut sink.spare()[to_usize(range.start)..to_usize(range.end)])?;
        }
        Ok(true)
    }

    /// Reads the bytes of the volume from `offset` on that fill `out`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_part(&self, offset: u64, out: &mut [u8]) -> Result<(), Unread> {
        let wanted = offset..offset + out.len() as u64;
        let (mut buffer, mut blocks) = (memory::zeros(BLOCK)?, Blocks::new(self)?);
        for number in to_usize(wanted.start) / BLOCK..to_usize(wanted.end).div_ceil(BLOCK) {
            let range = range_of(number, self.len);
            let block = &mut buffer[..to_usize(range.end - range.start)];
            blocks.read(number, block)?;
            let part = wanted.start.max(range.start)..wanted.end.min(range.end);
            let within = |base: u64, part: &Range<u64>| to_usize(part.start - base)..to_usize(part.end - base);
            out[within(offset, &part)].copy_from_slice(&block[within(range.start, &part)]);
        }
        Ok(())
    }

    /// The bytes of a block in the file.
    fn in_file(&self, number: usize) -> Range<u64> {
        let (range, before) = match &self.body {
            Body::Plain(_) => (range_of(number, self.len), header_len(self.len)),
            Body::Packed { table, .. } => (table.block(number).map_or(0..0, |block| block.packed.clone()), PAGE),
        };
        range.start + before as u64..range.end + before as u64
    }
}

/// Reads the seek table of a compressed volume, and compares it with what its blocks must be.
fn packed(file: &File, header: &PackedHeader) -> Result<Body, Unread> {
    let len = header.packed_len;
    let mut footer = [0; FOOTER];
    let at = |from_end: usize| (PAGE as u64 + len).checked_sub(from_end as u64).ok_or("it is cut off");
    file.read_exact_at(&mut footer, at(FOOTER)?)?;
    let table_len = SeekTable::len_in(&footer, len).map_err(Unread::Damaged)?;
    let mut bytes = memory::zeros(table_len)?;
    file.read_exact_at(&mut bytes, at(table_len)?)?;
    let table = SeekTable::parse(&bytes, len, header.filter.mark_len()).map_err(Unread::Damaged)?;
    let is_right = |number: usize| table.block(number).is_some_and(|block| block.plain == range_of(number, header.len));
    if table.plain_len() != header.len || !(0..block_count(header.len)).all(is_right) {
        return Err("its blocks are not those of the volume".into());
    }
    let head =
        |out: &mut [u8; RowFilter::HEAD]| file.read_exact_at(out, PAGE as u64).map_err(|error| error.to_string());
    let filter = RowFilter::of_member(header.filter, &table, head).map_err(Unread::Damaged)?;
    Ok(Body::Packed { filter, table })
}

/// Reads blocks one after the other.
struct Blocks<'a> {
    volume: &'a KeptVolume<'a>,
    /// What unpacks, and memory for a frame; `None` for a plain volume.
    packed: Option<(Decoder, Vec<u8>)>,
}

impl<'a> Blocks<'a> {
    fn new(volume: &'a KeptVolume<'a>) -> Result<Self, Unread> {
        let packed = match volume.body {
            Body::Plain(_) => None,
            Body::Packed { .. } => Some((Decoder::new()?, Vec::new())),
        };
        Ok(Self { volume, packed })
    }

    /// Reads a block into `out`, which has its length, and compares the checksum.
    fn read(&mut self, number: usize, out: &mut [u8]) -> Result<(), Unread> {
        let KeptVolume { file, body, .. } = self.volume;
        let range = self.volume.in_file(number);
        let damaged = |what: &str| Unread::Damaged(format!("block {number}: {what}"));
        match (body, &mut self.packed) {
            (Body::Packed { filter, table }, Some((decoder, frame))) => {
                let block = table.block(number).ok_or_else(|| damaged("it is not in the seek table"))?;
                memory::resize(frame, to_usize(range.end - range.start))?;
                file.read_exact_at(frame, range.start)?;
                decoder.decode(block, frame, *filter, out).map_err(|what| damaged(&what))
            }
            (Body::Plain(crcs), _) => {
                file.read_exact_at(out, range.start)?;
                if crc32fast::hash(out) == crcs[number] { Ok(()) } else { Err(damaged("its checksum differs")) }
            }
            (Body::Packed { .. }, None) => Err(damaged("nothing unpacks it")),
        }
    }
}
