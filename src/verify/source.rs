//! An NPZ file as an array, by the `zip` and `ndarray-npy` crates: code that shares nothing with the program's own
//! decoder but zlib.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use half::f16;
use ndarray::Array3;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};
use zip::ZipArchive;

/// A volume's values, of the type that the file has.
pub(super) enum Source {
    /// Bits of half precision, which `ndarray-npy` does not know.
    F16(Array3<u16>),
    F32(Array3<f32>),
    F64(Array3<f64>),
    I8(Array3<i8>),
    U8(Array3<u8>),
    I16(Array3<i16>),
    U16(Array3<u16>),
    I32(Array3<i32>),
}

impl Source {
    /// Reads an array of an NPZ file to its end, so that the zip crate checks its CRC.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn read(path: &Path, array: &str) -> Result<Self, String> {
        // One after the other: which type it is, the header says.
        let mut none = Ok(None);
        none = none.and_then(|found| or_read(found, path, array, false, Self::F32));
        none = none.and_then(|found| or_read(found, path, array, false, Self::I16));
        none = none.and_then(|found| or_read(found, path, array, false, Self::F64));
        none = none.and_then(|found| or_read(found, path, array, true, Self::F16));
        none = none.and_then(|found| or_read(found, path, array, false, Self::U16));
        none = none.and_then(|found| or_read(found, path, array, false, Self::I32));
        none = none.and_then(|found| or_read(found, path, array, false, Self::I8));
        none = none.and_then(|found| or_read(found, path, array, false, Self::U8));
        none?.ok_or_else(|| format!("{}: array '{array}' is of no type that verify knows", path.display()))
    }

    /// The extents of the axes.
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

    /// One value; exact, whatever the type.
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

/// What was found already, or the array if its elements are of the type `T`.
fn or_read<T: ReadableElement>(
    found: Option<Source>,
    path: &Path,
    array: &str,
    is_half: bool,
    source: impl Fn(Array3<T>) -> Source,
) -> Result<Option<Source>, String> {
    if found.is_some() {
        return Ok(found);
    }
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| failed(&error))?;
    let mut member = archive.by_name(&format!("{array}.npy")).map_err(|error| failed(&error))?;
    let result = if is_half {
        // Half precision under the name of integers of its size.
        let mut head = Vec::new();
        (&mut member).take(128).read_to_end(&mut head).map_err(|error| failed(&error))?;
        if let Some(at) = head.windows(3).position(|text| text == b"f2'") {
            head[at] = b'u';
        } else {
            return Ok(None);
        }
        Array3::read_npy(Cursor::new(head).chain(member))
    } else {
        Array3::read_npy(member)
    };
    match result {
        Ok(array) => Ok(Some(source(array))),
        Err(ReadNpyError::WrongDescriptor(_)) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// Whether an array of an NPZ file can be read and its CRC is right.
///
/// # Errors
/// Why not.
pub fn readable(path: &Path, array: &str) -> Result<(), String> {
    Source::read(path, array).map(|_| ())
}
