//! The payload of an array as a stream: unpacked, counted, and hashed against the directory's CRC.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crc32fast::Hasher;

use super::{Array, Compression, Member, read_error};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::inflate::{Failure, Inflater};

/// A running read of one array. [`Payload::finish`] must be called after the last byte: only then is the CRC known.
pub struct Payload<'a> {
    path: &'a Path,
    array: &'a Array,
    /// Unpacked bytes so far, header included.
    produced: u64,
    packed: Packed<'a>,
    inflater: &'a mut Inflater,
    crc: Hasher,
}

/// The bytes of a member in its file, from where reading is.
struct Packed<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Packed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = out.len().min(to_usize(self.left));
        self.file.read_exact_at(&mut out[..n], self.at)?;
        (self.at, self.left) = (self.at + n as u64, self.left - n as u64);
        Ok(n)
    }
}

impl<'a> Payload<'a> {
    /// Begins at the first payload byte. `inflater` is for a deflated array.
    ///
    /// # Errors
    /// As [`Payload::read_exact`].
    pub fn open(path: &'a Path, file: &'a File, array: &'a Array, inflater: &'a mut Inflater) -> Result<Self> {
        inflater.reset();
        let Member { offset, packed_len, .. } = array.member;
        let packed = Packed { file, at: offset, left: packed_len };
        let mut payload = Self { path, array, produced: 0, packed, inflater, crc: Hasher::new() };
        let mut header = vec![0; to_usize(array.header.header_len)];
        payload.read_exact(&mut header)?;
        Ok(payload)
    }

    /// Bytes of the array that were not read yet.
    pub fn remaining(&self) -> u64 {
        self.array.member.len - self.produced
    }

    /// Fills `out` with the next bytes of the array.
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

    fn inflate(&mut self, out: &mut [u8]) -> Result<usize> {
        self.inflater.read(&mut self.packed, out).map_err(|failure| match failure {
            Failure::Read(error) => read_error(self.path, error),
            Failure::Damaged(what) => Error::malformed(self.path, format!("damaged deflate data: {what}")),
            Failure::Cut => Error::malformed(self.path, "the deflate data is cut: it has no end marker"),
        })
    }

    /// Checks that the data ends here and that its CRC is the directory's.
    ///
    /// # Errors
    /// [`Error::Malformed`] if not.
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
