//! The volume of an NPZ file as an array, read by the `zip` and `ndarray-npy` crates.
//!
//! The program's own decoder (`formats::npz`, `formats::inflate`) is not used. Two libraries are below both:
//! `crc32fast` computes the CRC-32 of a member in both; and `flate2` with zlib-ng, by which the `zip` crate inflates
//! the whole member, inflates in the own decoder only the first bytes of a member, for the header of its array. Zip
//! directories, NPY headers and the deflated voxels are read by different code.

use std::error::Error;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use half::f16;
use ndarray::Array3;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};
use zip::ZipArchive;

/// The values of a source's volume, in the type of the file.
pub(super) enum SourceArray {
    /// Bits of half precision, which `ndarray-npy` does not know.
    F16(Array3<u16>),
    /// Single precision.
    F32(Array3<f32>),
    /// Double precision.
    F64(Array3<f64>),
    /// Signed integers of 8 bits.
    I8(Array3<i8>),
    /// Unsigned integers of 8 bits.
    U8(Array3<u8>),
    /// Signed integers of 16 bits.
    I16(Array3<i16>),
    /// Unsigned integers of 16 bits.
    U16(Array3<u16>),
    /// Signed integers of 32 bits.
    I32(Array3<i32>),
}

impl SourceArray {
    /// Reads an array of an NPZ file to its end, so that the `zip` crate checks the CRC.
    ///
    /// # Errors
    /// A message that names the file: it cannot be read, is damaged, or the array is of no type of [`SourceArray`].
    pub(super) fn read(path: &Path, array: &str) -> Result<Self, String> {
        // `ndarray-npy` reads an array of one given type only, so the types are tried one after the other.
        let attempts: [&dyn Fn() -> Result<Option<Self>, String>; 8] = [
            &|| Ok(read_as(path, array)?.map(Self::F32)),
            &|| Ok(read_as(path, array)?.map(Self::I16)),
            &|| Ok(read_as(path, array)?.map(Self::F64)),
            &|| Ok(read_half(path, array)?.map(Self::F16)),
            &|| Ok(read_as(path, array)?.map(Self::U16)),
            &|| Ok(read_as(path, array)?.map(Self::I32)),
            &|| Ok(read_as(path, array)?.map(Self::I8)),
            &|| Ok(read_as(path, array)?.map(Self::U8)),
        ];
        for attempt in attempts {
            if let Some(found) = attempt()? {
                return Ok(found);
            }
        }
        Err(format!("{}: array '{array}' is of no type that verify knows", path.display()))
    }

    /// Lengths of the three axes, in voxels.
    pub(super) fn shape(&self) -> [usize; 3] {
        let shape = match self {
            Self::F16(array) | Self::U16(array) => array.shape(),
            Self::F32(array) => array.shape(),
            Self::F64(array) => array.shape(),
            Self::I8(array) => array.shape(),
            Self::U8(array) => array.shape(),
            Self::I16(array) => array.shape(),
            Self::I32(array) => array.shape(),
        };
        [shape[0], shape[1], shape[2]]
    }

    /// The value at a position; f64 holds the values of every type exactly.
    pub(super) fn at(&self, place: [usize; 3]) -> f64 {
        match self {
            Self::F16(array) => f16::from_bits(array[place]).to_f64(),
            Self::F32(array) => f64::from(array[place]),
            Self::F64(array) => array[place],
            Self::I8(array) => f64::from(array[place]),
            Self::U8(array) => f64::from(array[place]),
            Self::I16(array) => f64::from(array[place]),
            Self::U16(array) => f64::from(array[place]),
            Self::I32(array) => f64::from(array[place]),
        }
    }
}

/// Reads an array whose elements are of the type `T`; none if they are of another type.
fn read_as<T: ReadableElement>(path: &Path, array: &str) -> Result<Option<Array3<T>>, String> {
    with_member(path, array, |member| Ok(elements(Array3::read_npy(member))?))
}

/// Reads an array of half precision as integers of the same bits; none if the elements are of another type.
fn read_half(path: &Path, array: &str) -> Result<Option<Array3<u16>>, String> {
    with_member(path, array, |member| {
        let mut head = Vec::new();
        Read::take(&mut *member, 128).read_to_end(&mut head)?;
        let Some(descriptor) = head.windows(3).position(|text| text == b"f2'") else { return Ok(None) };
        head[descriptor] = b'u'; // the header now says unsigned integers of two bytes
        Ok(elements(Array3::read_npy(Cursor::new(head).chain(member)))?)
    })
}

/// Opens the member of an array in an NPZ file, and passes it to `read`. Error messages name the file.
fn with_member<R>(
    path: &Path,
    array: &str,
    read: impl FnOnce(&mut dyn Read) -> Result<R, Box<dyn Error>>,
) -> Result<R, String> {
    let failed = |error: &dyn Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| failed(&error))?;
    let mut member = archive.by_name(&format!("{array}.npy")).map_err(|error| failed(&error))?;
    read(&mut member).map_err(|error| failed(&error))
}

/// The array that was read; none if its elements are of another type than was asked for.
fn elements<T>(read: Result<Array3<T>, ReadNpyError>) -> Result<Option<Array3<T>>, ReadNpyError> {
    match read {
        Err(ReadNpyError::WrongDescriptor(_)) => Ok(None),
        other => other.map(Some),
    }
}

/// Checks that an array of an NPZ file can be read, and that its CRC is right.
///
/// # Errors
/// A message that names the file: it cannot be read, is damaged, or the array is of no type that `verify` knows.
pub fn readable(path: &Path, array: &str) -> Result<(), String> {
    SourceArray::read(path, array).map(|_| ())
}
