//! The payload of an array as a stream: unpacked, counted, hashed against the directory's or the gzip member's CRC, and
//! converted where the file's elements are no values yet.

use std::io::{self, Read};
use std::path::Path;

use crc32fast::Hasher;

use super::turned::Turned;
use super::{Array, Compression, Conversion, ZipMember, read_error};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::gzip::{CheckedMember, Gzip, GzipError};
use crate::formats::inflate::{InflateError, Inflater};
use crate::storage::Stored;

/// The bytes that are unpacked at a time where channels take turns, and of those that are no part of the volume.
const PIECE: usize = 64 << 10;
/// The elements that are converted at a time: they and their float32 stay in L2, and mostly in L1.
const CONVERTED: usize = 4096;

/// The volume's bytes in an array as a stream, elements of the array's header: float32 where the array has a
/// [`Conversion`]. [`Payload::finish`] must be called after the last one: only then is the CRC known, which is
/// that of the whole array.
pub struct Payload<'a> {
    path: &'a Path,
    array: &'a Array,
    /// The unpacked bytes of the array so far, header included.
    produced: u64,
    /// The volume's bytes that were not read yet.
    left: u64,
    /// The number of channels that take turns in the array.
    turns: u64,
    packed: PackedBytes<'a>,
    inflater: &'a mut Inflater,
    crc: Hasher,
    gzip: Gzip,
    /// Memory for elements that are converted; none if they are not.
    stored: Vec<u8>,
    /// What turns the array; `None` if it is that of the file.
    turned: Option<Turned>,
}

/// The packed bytes of a member that were not read yet.
struct PackedBytes<'a> {
    file: &'a dyn Stored,
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
    pub fn open(path: &'a Path, file: &'a dyn Stored, array: &'a Array, inflater: &'a mut Inflater) -> Result<Self> {
        inflater.reset();
        let ZipMember { offset, packed_len, .. } = array.member;
        let packed = PackedBytes { file, at: offset, left: packed_len };
        let turns = array.part.map_or(1, |part| if part.is_interleaved { part.count } else { 1 });
        let left = array.header.payload_len().unwrap_or(0);
        let stored = vec![0; array.conversion.map_or(0, |conversion| CONVERTED * conversion.element.size())];
        let (crc, gzip) = (Hasher::new(), Gzip::default());
        let turned = array.turn().map(|(turn, shape)| Turned::new(turn, shape, array.stored_size())).transpose();
        let turned = turned.map_err(|error| Error::io(path, "get memory to turn the volume", error))?;
        let mut payload = Self { path, array, produced: 0, left, turns, packed, inflater, crc, gzip, stored, turned };
        let before = if turns == 1 { array.bytes_before() } else { 0 };
        payload.drop_raw(array.header.header_len + before)?;
        Ok(payload)
    }

    /// The number of the volume's bytes that were not read yet.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// Fills `out`, which holds whole elements, with the next bytes of the volume.
    ///
    /// # Errors
    /// [`Error::Io`] if reading failed, [`Error::Malformed`] if the data is damaged or ends too early.
    pub fn read_exact(&mut self, out: &mut [u8]) -> Result<()> {
        if out.len() as u64 > self.left {
            return Err(Error::malformed(self.path, "the array is shorter than its header says"));
        }
        match self.array.conversion {
            None => self.read_elements(out)?,
            Some(conversion) => {
                let mut stored = std::mem::take(&mut self.stored);
                let read = self.read_converted(conversion, &mut stored, out);
                self.stored = stored;
                read?;
            }
        }
        self.left -= out.len() as u64;
        Ok(())
    }

    /// Fills `out` with the volume's next elements, converted, by way of `stored`.
    fn read_converted(&mut self, conversion: Conversion, stored: &mut [u8], out: &mut [u8]) -> Result<()> {
        let size = self.array.header.element.size();
        for out in out.chunks_mut(CONVERTED * size) {
            let stored = &mut stored[..out.len() / size * conversion.element.size()];
            self.read_elements(stored)?;
            conversion.apply(stored, out);
        }
        Ok(())
    }

    /// Fills `out` with the volume's next elements, of the file's type.
    fn read_elements(&mut self, out: &mut [u8]) -> Result<()> {
        let Some(mut turned) = self.turned.take() else { return self.read_in_order(out) };
        let read = turned.read(out, |bytes| self.read_in_order(bytes));
        self.turned = Some(turned);
        read
    }

    /// Fills `out` with the volume's next elements, in the order of the file.
    fn read_in_order(&mut self, out: &mut [u8]) -> Result<()> {
        if self.turns == 1 { self.read_raw(out) } else { self.read_turns(out) }
    }

    /// Fills `out` with the elements of one channel, of those that take turns.
    fn read_turns(&mut self, out: &mut [u8]) -> Result<()> {
        let (element, turns) = (self.array.stored_size(), to_usize(self.turns));
        let at = to_usize(self.array.bytes_before());
        let mut raw = vec![0; PIECE.max(element * turns)];
        let most = raw.len() / (element * turns) * element;
        for out in out.chunks_mut(most) {
            let raw = &mut raw[..out.len() * turns];
            self.read_raw(raw)?;
            for (out, turn) in out.chunks_exact_mut(element).zip(raw.chunks_exact(element * turns)) {
                out.copy_from_slice(&turn[at..at + element]);
            }
        }
        Ok(())
    }

    /// Reads and drops the next bytes of the array; they count for the checksum.
    fn drop_raw(&mut self, mut len: u64) -> Result<()> {
        let mut buffer = vec![0; PIECE.min(to_usize(len))];
        while len > 0 {
            let piece = buffer.len().min(to_usize(len));
            self.read_raw(&mut buffer[..piece])?;
            len -= piece as u64;
        }
        Ok(())
    }

    /// Fills `out` with the next bytes of the array.
    fn read_raw(&mut self, out: &mut [u8]) -> Result<()> {
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
            Compression::Gzip => {
                let read = self.gzip.read(self.inflater, &mut self.packed, out);
                if read.map_err(|error| self.of_gzip(error))? < out.len() {
                    return Err(Error::malformed(self.path, "the gzip data ends before the array does"));
                }
            }
        }
        if self.array.member.crc.is_some() && self.array.member.compression != Compression::Gzip {
            self.crc.update(out);
        }
        self.produced += out.len() as u64;
        Ok(())
    }

    /// Reads and drops the next `len` bytes of the volume, a piece of `buffer`'s length at a time; they count for the
    /// checksum.
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

    fn of_gzip(&self, error: GzipError) -> Error {
        match error {
            GzipError::Read(error) => read_error(self.path, error),
            GzipError::Damaged(reason) => Error::malformed(self.path, reason),
        }
    }

    /// Checks that the volume was read, that the data ends behind the array, and that its CRC is the one in the zip
    /// directory. Behind the array of a NIfTI file, other data may follow.
    ///
    /// # Errors
    /// [`Error::Malformed`] if one of them is wrong, [`Error::Io`] if reading failed.
    pub fn finish(mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::malformed(self.path, "the array is longer than its header says"));
        }
        self.drop_raw(self.array.member.len - self.produced)?; // of other channels
        // The end marker may still be in the input; a byte of output would be one too many.
        if self.array.member.compression == Compression::Deflated && self.inflate(&mut [0])? > 0 {
            return Err(Error::malformed(self.path, "the deflate data goes on after the array's end"));
        }
        if self.array.member.compression == Compression::Gzip {
            return self.finish_gzip();
        }
        let found = self.crc.finalize();
        match self.array.member.crc {
            Some(planned) if planned != found => {
                let reason =
                    format!("CRC-32 is {found:08x}, the zip directory says {planned:08x}: the file is damaged");
                Err(Error::malformed(self.path, reason))
            }
            _ => Ok(()),
        }
    }

    /// Checks the member of the last voxel; where the plan knows a checksum, it is that of the only member.
    fn finish_gzip(mut self) -> Result<()> {
        let checked = self.gzip.finish(self.inflater, &mut self.packed);
        let CheckedMember { crc, len } = checked.map_err(|error| self.of_gzip(error))?;
        match self.array.member.crc {
            Some(planned) if planned != crc => {
                let reason = format!("CRC-32 is {crc:08x}, the file's end says {planned:08x}: the file is damaged");
                Err(Error::malformed(self.path, reason))
            }
            Some(_) if len != self.array.member.len => {
                let reason = "it has several gzip members, the last as long as all of it should be; write it anew";
                Err(Error::malformed(self.path, reason))
            }
            _ => Ok(()),
        }
    }
}
