//! The payload of an array as a stream: unpacked, counted, and hashed against the directory's CRC.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crc32fast::Hasher;

use super::{Array, Compression, ZipMember, read_error};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::inflate::{InflateError, Inflater};

/// The payload of an array as a stream. [`Payload::finish`] must be called after the last byte: only then is the CRC
/// known.
pub struct Payload<'a> {
    path: &'a Path,
    array: &'a Array,
    /// The unpacked bytes so far, header included.
    produced: u64,
    packed: PackedBytes<'a>,
    inflater: &'a mut Inflater,
    crc: Hasher,
}

/// The packed bytes of a member that were not read yet.
struct PackedBytes<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for PackedBytes<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = out.len().min(to_usize(self.left));
        self.file.read_exact_at(&mut out[..n], self.at)?;
        (self.at, self.left) = (self.at + n as u64, self.left - n as u64);
        Ok(n)
    }
}

impl<'a> Payload<'a> {
    /// Opens the payload at its first byte. `inflater` unpacks a deflated array.
    ///
    /// # Errors
    /// [`Error::Io`] if reading failed, [`Error::Malformed`] if the data is damaged or ends within the array's header.
    pub fn open(path: &'a Path, file: &'a File, array: &'a Array, inflater: &'a mut Inflater) -> Result<Self> {
        inflater.reset();
        let ZipMember { offset, packed_len, .. } = array.member;
        let packed = PackedBytes { file, at: offset, left: packed_len };
        let mut payload = Self { path, array, produced: 0, packed, inflater, crc: Hasher::new() };
        let mut header = vec![0; to_usize(array.header.header_len)];
        payload.read_exact(&mut header)?;
        Ok(payload)
    }

    /// The number of payload bytes that were not read yet.
    pub fn remaining(&self) -> u64 {
        self.array.member.len - self.produced
    }

    /// Fills `out` with the next bytes of the payload.
    ///
    /// # Errors
    /// [`Error::Io`] if reading failed, [`Error::Malformed`] if the data is damaged or ends too early.
    pub fn read_exact(&mut self, out: &mut [u8]) -> Result<()> {
        if self.produced + out.len() as u64 > self.array.member.len {
            return Err(Error::malformed(self.path, "the array is shorter than its header says"));
        }
        match self.array.member.compression {
            Compression::Stored => {
                self.packed.read_exact(out).map_err(|error| read_error(self.path, error))?;
            }
            Compression::Deflated => {
                if self.inflate(out)? < out.len() {
                    return Err(Error::malformed(self.path, "the deflate data ends before the array does"));
                }
            }
        }
        self.crc.update(out);
        self.produced += out.len() as u64;
        Ok(())
    }

    /// Reads and drops the next `len` bytes, a piece of `buffer`'s length at a time; they count for the checksum.
    ///
    /// # Errors
    /// [`Error::Io`] if reading failed, [`Error::Malformed`] if the data is damaged or ends too early.
    pub fn skip(&mut self, mut len: u64, buffer: &mut [u8]) -> Result<()> {
        while len > 0 {
            let piece = buffer.len().min(to_usize(len));
            self.read_exact(&mut buffer[..piece])?;
            len -= piece as u64;
        }
        Ok(())
    }

    fn inflate(&mut self, out: &mut [u8]) -> Result<usize> {
        self.inflater.read(&mut self.packed, out).map_err(|failure| match failure {
            InflateError::Read(error) => read_error(self.path, error),
            InflateError::Damaged(what) => Error::malformed(self.path, format!("damaged deflate data: {what}")),
            InflateError::Cut => Error::malformed(self.path, "the deflate data is cut: it has no end marker"),
        })
    }

    /// Checks that the data ends here, and that its CRC is the one in the zip directory.
    ///
    /// # Errors
    /// [`Error::Malformed`] if one of them is wrong, [`Error::Io`] if reading failed.
    pub fn finish(mut self) -> Result<()> {
        if self.produced != self.array.member.len {
            return Err(Error::malformed(self.path, "the array is longer than its header says"));
        }
        // The end marker may still be in the input; a byte of output would be one too many.
        if self.array.member.compression == Compression::Deflated && self.inflate(&mut [0])? > 0 {
            return Err(Error::malformed(self.path, "the deflate data goes on after the array's end"));
        }
        let found = self.crc.finalize();
        if found != self.array.member.crc {
            let reason = format!(
                "CRC-32 is {found:08x}, the zip directory says {:08x}: the file is damaged",
                self.array.member.crc
            );
            return Err(Error::malformed(self.path, reason));
        }
        Ok(())
    }
}
