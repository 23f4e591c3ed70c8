//! Reading a kept volume. No byte of it counts before its block was compared with the checksum.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::VolumeDigest;
use super::format::{BLOCK, Header, file_len, header_len, range_of};
use crate::base::memory;
use crate::base::num::to_usize;
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
    header: Header,
}

impl<'a> KeptVolume<'a> {
    /// Reads the header of the volume of this digest and length.
    ///
    /// # Errors
    /// [`Unread`] if the file cannot be read or holds anything else.
    pub(super) fn open(file: &'a File, digest: &VolumeDigest, len: u64) -> Result<Self, Unread> {
        let mut bytes = memory::zeros(header_len(len))?;
        file.read_exact_at(&mut bytes, 0)?;
        let header = Header::parse(&bytes, digest, len).map_err(|reason| Unread::Damaged(reason.into()))?;
        if file.metadata()?.len() != file_len(len) {
            return Err(Unread::Damaged("its size differs".into()));
        }
        Ok(Self { file, header })
    }

    /// Reads the whole volume into what `sink` has for it, and hands none of it on; false if the sink was cancelled.
    ///
    /// # Errors
    /// [`Unread`] if a block cannot be read or is not what was written; the sink's memory then holds nothing of use.
    pub(super) fn read(&self, sink: &mut impl Sink) -> Result<bool, Unread> {
        let mut asked = 0;
        for number in 0..self.header.crcs.len() {
            if sink.cancelled() {
                return Ok(false);
            }
            let range = range_of(number, self.header.len);
            let at = self.offset(range.start);
            if at + AHEAD / 2 >= asked {
                let from = asked.max(at);
                asked = from + AHEAD;
                // Advice only.
                let _ = rustix::fs::fadvise(self.file, from, AHEAD.try_into().ok(), rustix::fs::Advice::WillNeed);
            }
            self.read_block(number, &mut sink.spare()[to_usize(range.start)..to_usize(range.end)])?;
        }
        Ok(true)
    }

    /// Reads the bytes of the volume from `offset` on that fill `out`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_part(&self, offset: u64, out: &mut [u8]) -> Result<(), Unread> {
        let wanted = offset..offset + out.len() as u64;
        let mut buffer = memory::zeros(BLOCK)?;
        let blocks = to_usize(wanted.start) / BLOCK..to_usize(wanted.end).div_ceil(BLOCK);
        for number in blocks {
            let range = range_of(number, self.header.len);
            let block = &mut buffer[..to_usize(range.end - range.start)];
            self.read_block(number, block)?;
            let part = wanted.start.max(range.start)..wanted.end.min(range.end);
            let within = |base: u64, part: &Range<u64>| to_usize(part.start - base)..to_usize(part.end - base);
            out[within(offset, &part)].copy_from_slice(&block[within(range.start, &part)]);
        }
        Ok(())
    }

    /// The offset in the file of the volume's byte `at`.
    fn offset(&self, at: u64) -> u64 {
        header_len(self.header.len) as u64 + at
    }

    /// Reads a block into `out`, which has its length, and compares the checksum.
    fn read_block(&self, number: usize, out: &mut [u8]) -> Result<(), Unread> {
        self.file.read_exact_at(out, self.offset(range_of(number, self.header.len).start))?;
        if crc32fast::hash(out) == self.header.crcs[number] {
            Ok(())
        } else {
            Err(Unread::Damaged(format!("the checksum of block {number} differs")))
        }
    }
}
