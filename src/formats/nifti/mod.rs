//! NIfTI files, version 1 and 2, as single files: `.nii`, or packed by gzip as `.nii.gz`. Such a file counts as the NPZ
//! file that `np.savez(data=nibabel.load(file).get_fdata().astype(np.float32))` writes: an array `data` in Fortran
//! order, the axes (i, j, k) its height, width and depth.
//!
//! Planning reads the header, and the last eight bytes of a gzip file. Where these fit one member of the length that
//! the header says, their CRC-32 is known as that of an NPZ's array is; else the file has no checksum that a plan could
//! know, as an NPY file has none.

mod affine;
mod header;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io::{self, Read};
use std::path::Path;

pub(crate) use affine::directions;
pub(crate) use header::{Header, parse};

use super::gzip::{Gzip, GzipError, MAGIC as GZIP_MAGIC, Trailer};
use super::inflate::Inflater;
use super::npz::part::of_shape;
use super::npz::{
    Array, ArrayChoice, ArrayHeader, Compression, Conversion, Element, MAX_DEFLATE_RATIO, MAX_VOXELS, NiftiValues,
    Orientation, Placed, Turn, ZipMember,
};
use crate::error::{Error, Result};
use crate::formats::opened;
use crate::storage::Stored;

/// The bytes of a file that are read at once: a packed header takes a few hundred of them.
const HEAD: usize = 4 << 10;
/// The packed bytes that are handed to the decompressor at a time, which unpacks all that it gets but 1,024.
const PIECE: usize = 1536;
/// The name of the array in the NPZ file that people made of a NIfTI file.
const NAME: &str = "data";

/// Finds the volume of an open NIfTI file or object, which is packed by gzip or not; messages call the file `path`.
/// Reads the header only.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect_file(path: &Path, file: &dyn Stored, is_packed: bool, choice: &ArrayChoice) -> Result<Array> {
    let state = opened::state(path, file)?;
    let size = state.map_or(u64::MAX, |state| state.size);
    let mut head = Head::read(file, size).map_err(|error| Error::io(path, "read the header", error))?;
    let file_id = state.map_or_else(|| opened::state_when_read(path, file), Ok)?;
    let header = read_header(path, &mut head, is_packed)?;
    let Header { conversion, ref shape, spacing, offset, .. } = header;
    let len = check_len(path, shape, conversion, offset)?;
    let member = if is_packed { packed(path, &head, file_id.size, len)? } else { plain(path, file_id.size, len)? };
    if choice.spacing.is_some() {
        let reason = "a NIfTI file has no array with the spacing; --spacing-from header takes that of its header";
        return Err(Error::malformed(path, reason));
    }
    let not_read = |reason| Error::malformed(path, format!("its array has shape {shape:?}: {reason}"));
    // As of the NPZ file that NumPy makes of it: (1, y, z, 1) is (y, z, 1).
    let (axes, part) = of_shape(shape, true, choice.channel).map_err(not_read)?;
    let axes: [u64; 3] = axes.try_into().map_err(|_| Error::malformed(path, "it has not three axes"))?;
    if choice.orientation.is_some() && !shape.starts_with(&axes) {
        let reason = "--orientation needs its first three axes, which are those in space, and one of them is none of the \
                      volume's (an axis of length 1 goes first, or --channel takes it)";
        return Err(not_read(reason.into()));
    }
    let placed = choice.orientation.map(|asked| placed(&header, axes, asked)).transpose();
    let placed = placed.map_err(|reason| Error::malformed(path, format!("--orientation: {reason}")))?;
    let turn = placed.as_ref().and_then(|placed| placed.turn);
    let (axes, spacing) = match turn {
        Some(turn) => (turn.of_axes(axes), spacing.map(|spacing| turn.of_axes(spacing))),
        None => (axes, spacing),
    };
    let (element, big_endian) = match conversion.is_needed() {
        true => (Element::F32, false),
        false => (conversion.element, conversion.big_endian && conversion.element.size() > 1),
    };
    Ok(Array {
        member,
        header: ArrayHeader { element, big_endian, fortran_order: true, shape: axes.to_vec(), header_len: offset },
        part,
        spacing: None,
        conversion: conversion.is_needed().then_some(conversion),
        nifti: Some(Box::new(NiftiValues {
            is_scaled: conversion.is_scaled(),
            spacing,
            affine: header.affine.clone().ok(),
            placed,
        })),
        file_id,
    })
}

/// Where the array of a volume is in the body, turned as it was asked for; `shape` is that in the file.
///
/// # Errors
/// The header does not say it.
fn placed(header: &Header, shape: [u64; 3], asked: Orientation) -> Result<Placed, String> {
    let affine = header.affine.clone()?;
    let turn = match asked {
        Orientation::Keep => None,
        Orientation::Along(wanted) => {
            let found = directions(affine)
                .ok_or("an axis leads nowhere, or where another does, by the matrix of its header")?;
            Turn::new(found, wanted)
        }
    };
    Ok(Placed { asked, turn, affine: turn.map_or(affine, |turn| affine::turned(affine, turn, shape)) })
}

/// The number of unpacked bytes up to the last voxel.
fn check_len(path: &Path, shape: &[u64], conversion: Conversion, offset: u64) -> Result<u64> {
    let size = conversion.element.size() as u64;
    let voxels = shape.iter().try_fold(1, |product: u64, n| product.checked_mul(*n));
    match voxels {
        Some(0) => Err(Error::malformed(path, format!("its array has shape {shape:?}, which is empty"))),
        Some(voxels) if voxels <= MAX_VOXELS && offset <= u64::MAX / 4 => Ok(offset + voxels * size),
        _ => Err(Error::malformed(path, format!("its array has shape {shape:?}, which is no volume"))),
    }
}

/// The array of a file that is not packed; behind it, other bytes may follow.
fn plain(path: &Path, size: u64, len: u64) -> Result<ZipMember> {
    if size < len {
        let reason = format!("it is cut short: its header says {len} bytes, and it has {size}");
        return Err(Error::malformed(path, reason));
    }
    Ok(ZipMember { name: NAME.into(), compression: Compression::Stored, offset: 0, packed_len: size, len, crc: None })
}

/// The array of a file that is packed by gzip, with its CRC-32 if the file's end shows that it is one member.
fn packed(path: &Path, head: &Head<'_>, size: u64, len: u64) -> Result<ZipMember> {
    if len / MAX_DEFLATE_RATIO > size {
        let reason = format!("its header says {len} bytes, more than its {size} packed ones can hold");
        return Err(Error::malformed(path, reason));
    }
    let mut end = [0; Trailer::BYTES];
    let at = size.saturating_sub(end.len() as u64);
    head.read_exact_at(&mut end, at).map_err(|error| Error::io(path, "read the file's end", error))?;
    let Trailer { crc, len: len_at_end } = Trailer::parse(end);
    let crc = (u64::from(len_at_end) == len % (1 << 32)).then_some(crc);
    Ok(ZipMember { name: NAME.into(), compression: Compression::Gzip, offset: 0, packed_len: size, len, crc })
}

fn read_header(path: &Path, source: &mut Head<'_>, is_packed: bool) -> Result<Header> {
    let failed = |error| Error::io(path, "read the header", error);
    let mut head = [0; header::LONGEST];
    let len = if is_packed {
        let read = with_inflater(|inflater| Gzip::default().read(inflater, source, &mut head));
        match read.map_err(|error| Error::io(path, "get memory to unpack", error))? {
            Ok(len) => len,
            Err(GzipError::Read(error)) => return Err(failed(error)),
            Err(GzipError::Damaged(reason)) => return Err(Error::malformed(path, reason)),
        }
    } else {
        let mut len = 0;
        loop {
            match source.read(&mut head[len..]).map_err(failed)? {
                0 => break len,
                n => len += n,
            }
        }
    };
    header::parse(&head[..len]).map_err(|reason| Error::malformed(path, reason))
}

/// Runs `work` with a decompressor of this thread, which a plan of many files uses again for each: to map its memory
/// and to give it back takes longer than to unpack a header.
///
/// # Errors
/// The operating system's error if it has no memory.
fn with_inflater<R>(work: impl FnOnce(&mut Inflater) -> R) -> io::Result<R> {
    thread_local! {
        static INFLATER: RefCell<Option<Inflater>> = const { RefCell::new(None) };
    }
    INFLATER.with_borrow_mut(|inflater| {
        let inflater = match inflater {
            Some(inflater) => inflater,
            none => none.insert(Inflater::new()?),
        };
        inflater.reset();
        Ok(work(inflater))
    })
}

/// A file's bytes from its beginning on, wherever its own position is. The first [`HEAD`] are read at once: for most
/// headers no more is read.
struct Head<'a> {
    file: &'a dyn Stored,
    bytes: [u8; HEAD],
    /// The bytes that were read at once, all of the file's if they are fewer than [`HEAD`].
    len: usize,
    /// The next byte to hand out.
    at: u64,
}

impl<'a> Head<'a> {
    /// The head of a file of so many bytes, at most.
    fn read(file: &'a dyn Stored, size: u64) -> io::Result<Self> {
        let (mut bytes, mut len) = ([0; HEAD], 0);
        while len < HEAD && (len as u64) < size {
            match file.read_at(&mut bytes[len..], len as u64) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { file, bytes, len, at: 0 })
    }

    /// Fills `out` with the bytes from `at` on, of which those that were read at once are not read again.
    fn read_exact_at(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        match self.known(at).get(..out.len()) {
            Some(known) => out.copy_from_slice(known),
            None => self.file.read_exact_at(out, at)?,
        }
        Ok(())
    }

    /// The bytes from `at` on that were read at once.
    fn known(&self, at: u64) -> &[u8] {
        usize::try_from(at).ok().and_then(|at| self.bytes[..self.len].get(at..)).unwrap_or_default()
    }
}

impl Read for Head<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let known = self.known(self.at);
        let n = if known.is_empty() {
            let most = out.len().min(HEAD);
            self.file.read_at(&mut out[..most], self.at)?
        } else {
            let n = known.len().min(out.len()).min(PIECE);
            out[..n].copy_from_slice(&known[..n]);
            n
        };
        self.at += n as u64;
        Ok(n)
    }
}
