//! The volume of an NPZ file as an array, read by the `zip` crate and a header reader of its own (`npy_header`).
//!
//! The program's own decoder (`formats::npz`, `formats::inflate`) is not used. Two libraries are below both:
//! `crc32fast` computes the CRC-32 of a member in both; and `flate2` with zlib-ng, by which the `zip` crate inflates
//! the whole member, inflates in the own decoder only the first bytes of a member, for the header of its array. Zip
//! directories, NPY headers and the deflated voxels are read by different code.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use half::f16;
use zip::ZipArchive;

use super::npy_header::{self, ElementType, SourceHeader};
use crate::base::num::to_usize;

/// The values of a source's volume.
pub(super) struct SourceArray {
    element: ElementType,
    /// Lengths of the three axes, in voxels.
    shape: [usize; 3],
    /// The bytes from one voxel to the next along each axis.
    strides: [usize; 3],
    /// The elements as in the file, with their least significant byte first.
    bytes: Vec<u8>,
}

impl SourceArray {
    /// Reads an array of an NPZ file to its end, so that the `zip` crate checks the CRC.
    ///
    /// # Errors
    /// A message that names the file: it cannot be read, is damaged, or the array is none that is compared.
    pub(super) fn read(path: &Path, array: &str) -> Result<Self, String> {
        let failed = |error: &dyn Display| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(|error| failed(&error))?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| failed(&error))?;
        // NumPy ends the names of arrays with `.npy`, and reads others too.
        let with_suffix = format!("{array}.npy");
        let name = if archive.index_for_name(&with_suffix).is_some() { &*with_suffix } else { array };
        let mut member = archive.by_name(name).map_err(|error| failed(&error))?;
        let header = npy_header::read(&mut member).map_err(|reason| failed(&reason))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(to_usize(member.size())).map_err(|error| failed(&error))?;
        member.read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        Self::new(&header, bytes).ok_or_else(|| {
            failed(&format!("the bytes of array '{array}' are not those of the shape {:?}", header.shape))
        })
    }

    /// An array of the elements in `bytes`; none if they are too few or too many.
    fn new(header: &SourceHeader, mut bytes: Vec<u8>) -> Option<Self> {
        let &SourceHeader { element, is_big_endian, is_fortran, shape } = header;
        let size = element.size();
        let fastest_first = if is_fortran { [0, 1, 2] } else { [2, 1, 0] };
        let (mut strides, mut stride) = ([0; 3], size);
        for axis in fastest_first {
            strides[axis] = stride;
            stride = stride.checked_mul(shape[axis])?;
        }
        if is_big_endian {
            bytes.chunks_mut(size).for_each(<[u8]>::reverse);
        }
        (bytes.len() == stride).then_some(Self { element, shape, strides, bytes })
    }

    /// Lengths of the three axes, in voxels.
    pub(super) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The bytes of a voxel.
    fn element<const N: usize>(&self, place: [usize; 3]) -> [u8; N] {
        let at: usize = place.iter().zip(self.strides).map(|(place, stride)| place * stride).sum();
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[at..at + N]);
        bytes
    }

    /// The value at a position, without any rounding.
    fn number(&self, place: [usize; 3]) -> Number {
        use ElementType::{Float, Signed, Truth, Unsigned};
        match self.element {
            Float(2) => Number::Float(f16::from_le_bytes(self.element(place)).to_f64()),
            Float(4) => Number::Float(f32::from_le_bytes(self.element(place)).into()),
            Float(_) => Number::Float(f64::from_le_bytes(self.element(place))),
            Signed(1) => Number::Signed(i8::from_le_bytes(self.element(place)).into()),
            Signed(2) => Number::Signed(i16::from_le_bytes(self.element(place)).into()),
            Signed(4) => Number::Signed(i32::from_le_bytes(self.element(place)).into()),
            Signed(_) => Number::Signed(i64::from_le_bytes(self.element(place))),
            Unsigned(1) => Number::Unsigned(u8::from_le_bytes(self.element(place)).into()),
            Unsigned(2) => Number::Unsigned(u16::from_le_bytes(self.element(place)).into()),
            Unsigned(4) => Number::Unsigned(u32::from_le_bytes(self.element(place)).into()),
            Unsigned(_) => Number::Unsigned(u64::from_le_bytes(self.element(place))),
            Truth => Number::Unsigned((self.element(place) != [0]).into()),
        }
    }

    /// The value at a position. An integer that f64 cannot hold is far beyond float16, and is rounded.
    pub(super) fn at(&self, place: [usize; 3]) -> f64 {
        match self.number(place) {
            Number::Float(value) => value,
            Number::Signed(value) => value as f64,
            Number::Unsigned(value) => value as f64,
        }
    }

    /// The value at a position, rounded once to f32.
    #[expect(clippy::cast_possible_truncation, reason = "meant: NumPy's arithmetic")]
    pub(super) fn in_f32(&self, place: [usize; 3]) -> f32 {
        match self.number(place) {
            Number::Float(value) => value as f32,
            Number::Signed(value) => value as f32,
            Number::Unsigned(value) => value as f32,
        }
    }
}

/// A value in a type that holds it exactly.
enum Number {
    Float(f64),
    Signed(i64),
    Unsigned(u64),
}

impl ElementType {
    /// Bytes of one element.
    fn size(self) -> usize {
        match self {
            Self::Float(size) | Self::Signed(size) | Self::Unsigned(size) => size,
            Self::Truth => 1,
        }
    }
}

/// Checks that an array of an NPZ file can be read, and that its CRC is right.
///
/// # Errors
/// A message that names the file: it cannot be read, is damaged, or the array is none that is compared.
pub fn readable(path: &Path, array: &str) -> Result<(), String> {
    SourceArray::read(path, array).map(|_| ())
}
