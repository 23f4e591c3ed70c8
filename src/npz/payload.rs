//! The payload of an array as a stream: unpacked, counted, and hashed against the directory's CRC.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

use super::{Array, Compression, read_error};
use crate::error::{Error, Result};
use crate::num::to_usize;

/// The input buffer that [`Payload::open`] wants: 256 KiB stays in L2 and keeps `pread`s rare
/// (64 KiB to 1 MiB measured alike).
pub const INPUT_LEN: usize = 256 * 1024;

/// A running read of one array. [`Payload::finish`] must be called after the last byte: only then is the CRC known.
pub struct Payload<'a> {
    path: &'a Path,
    file: &'a File,
    array: &'a Array,
    /// Packed bytes that were fetched so far, from the member's start.
    fetched: u64,
    /// Unpacked bytes so far, header included.
    produced: u64,
    inflate: Option<Decompress>,
    input: &'a mut [u8],
    /// The part of `input` that was fetched and not yet inflated.
    pending: std::ops::Range<usize>,
    crc: Hasher,
}

impl<'a> Payload<'a> {
    /// Begins at the first payload byte. `input` is scratch space, [`INPUT_LEN`] bytes by preference.
    ///
    /// # Errors
    /// As [`Payload::read_exact`].
    pub fn open(path: &'a Path, file: &'a File, array: &'a Array, input: &'a mut [u8]) -> Result<Self> {
        let inflate = (array.member.compression == Compression::Deflated).then(|| Decompress::new(false));
        let mut payload =
            Self { path, file, array, fetched: 0, produced: 0, inflate, input, pending: 0..0, crc: Hasher::new() };
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
        match self.inflate.take() {
            None => {
                let at = self.array.member.offset + self.produced;
                self.file.read_exact_at(out, at).map_err(|error| read_error(self.path, error))?;
            }
            Some(mut inflate) => {
                self.inflate_exact(&mut inflate, out)?;
                self.inflate = Some(inflate);
            }
        }
        self.crc.update(out);
        self.produced += out.len() as u64;
        Ok(())
    }

    fn inflate_exact(&mut self, inflate: &mut Decompress, out: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            // The inflater may still owe output for input that it took long ago, so the end of the input is no error yet.
            self.fetch_if_empty()?;
            let (status, n) = self.inflate_some(inflate, &mut out[filled..])?;
            filled += n;
            let is_dry = n == 0 && self.pending.is_empty() && self.fetched == self.array.member.packed_len;
            if filled < out.len() && (status == Status::StreamEnd || is_dry) {
                return Err(Error::malformed(self.path, "the deflate data ends before the array does"));
            }
        }
        Ok(())
    }

    fn inflate_some(&mut self, inflate: &mut Decompress, out: &mut [u8]) -> Result<(Status, usize)> {
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let input = &self.input[self.pending.clone()];
        let status = inflate
            .decompress(input, out, FlushDecompress::None)
            .map_err(|error| Error::malformed(self.path, format!("damaged deflate data: {error}")))?;
        let (used, made) = (to_usize(inflate.total_in() - before_in), to_usize(inflate.total_out() - before_out));
        self.pending.start += used;
        if used == 0 && made == 0 && status != Status::StreamEnd && !self.pending.is_empty() {
            return Err(Error::malformed(self.path, "damaged deflate data: it makes no progress"));
        }
        Ok((status, made))
    }

    fn fetch_if_empty(&mut self) -> Result<()> {
        let left = self.array.member.packed_len - self.fetched;
        if !self.pending.is_empty() || left == 0 {
            return Ok(());
        }
        let n = self.input.len().min(to_usize(left));
        let at = self.array.member.offset + self.fetched;
        self.file.read_exact_at(&mut self.input[..n], at).map_err(|error| read_error(self.path, error))?;
        self.fetched += n as u64;
        self.pending = 0..n;
        Ok(())
    }

    /// Checks that the data ends here and that its CRC is the directory's.
    ///
    /// # Errors
    /// [`Error::Malformed`] if not.
    pub fn finish(mut self) -> Result<()> {
        if self.produced != self.array.member.len {
            return Err(Error::malformed(self.path, "the array is longer than its header says"));
        }
        if let Some(mut inflate) = self.inflate.take() {
            // The end marker may still be in the input; a byte of output would be one too many.
            loop {
                self.fetch_if_empty()?;
                let (status, n) = self.inflate_some(&mut inflate, &mut [0])?;
                if n > 0 {
                    return Err(Error::malformed(self.path, "the deflate data goes on after the array's end"));
                }
                if status == Status::StreamEnd {
                    break;
                }
                if self.pending.is_empty() && self.fetched == self.array.member.packed_len {
                    return Err(Error::malformed(self.path, "the deflate data has no end marker"));
                }
            }
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
