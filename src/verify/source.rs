//! The volume of an NPZ, NPY or NIfTI file as an array, read by the `zip` crate, `flate2` and header readers of its own
//! (`npy_header`, `nifti`).
//!
//! The program's own decoders (`formats`) are not used. Two libraries are below both:
//! `crc32fast` computes the CRC-32 of a member in both; and `flate2`, by which the `zip` crate inflates the whole
//! member, inflates in the own decoder only the first bytes of a member, for the header of its array. Zip
//! directories, NPY headers and the deflated voxels are read by different code.

use std::fmt::Display;
use std::io::{self, Read};
use std::path::Path;

use bytemuck::Pod;
use half::f16;
use zip::ZipArchive;

use super::nifti;
use super::npy_header::{self, ElementType, SourceHeader};
use super::source_file::SourceFile;
use super::unread::Unread;
use crate::error::Error;
use crate::storage::Store;

/// Numbers of a NIfTI file that are read at a time.
const READ: usize = 1 << 18;

/// The volume in a source that is read.
#[derive(Clone, Copy, Debug)]
pub struct SourceVolume<'a> {
    /// The name of the array; of no meaning for NPY and NIfTI files.
    pub array: &'a str,
    /// The channel of an array of four axes that is the volume: whether the channels are along the last axis (else
    /// along the first), and its number, from 0 on.
    pub channel: Option<(bool, usize)>,
    /// The axis of the file that each axis of the volume is, and whether it runs backwards; none if the volume is not
    /// turned.
    pub turn: Option<([usize; 3], [bool; 3])>,
    /// Whether the array stands beside a volume: then the numbers of a NIfTI file stay what they are, unless its header
    /// scales them.
    pub is_extra: bool,
}

/// The values of a source's volume.
pub(super) struct SourceArray {
    elements: Elements,
    /// Lengths of the three axes, in voxels.
    shape: [usize; 3],
    /// The elements from one voxel to the next along each axis; backwards, modulo the largest number.
    strides: [usize; 3],
    /// The elements before the first voxel.
    first: usize,
}

/// Elements in the type of the file, in its order.
enum Elements {
    /// Bits of half precision.
    F16(Vec<u16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    /// Bytes that are 0 for false.
    Truth(Vec<u8>),
}

impl SourceArray {
    /// Reads an array of an NPZ file to its end, so that the `zip` crate checks the CRC; of a gzip file, `flate2` does.
    ///
    /// # Errors
    /// A reason that names the file: it cannot be read, is damaged, or the array is none that is compared.
    pub(super) fn read(store: &dyn Store, path: &Path, volume: &SourceVolume<'_>) -> Result<Self, Unread> {
        let opened = SourceFile::open(store, path).map_err(Unread::from);
        let read = opened.and_then(|file| Self::of_file(&file, path, volume));
        read.map_err(|reason| reason.behind(path.display()))
    }

    /// The array of an open file, of which `path` tells the format.
    fn of_file(file: &SourceFile, path: &Path, volume: &SourceVolume<'_>) -> Result<Self, Unread> {
        // A library may drop the reason why bytes could not be read, or take it for damage.
        Self::of_any(file, path, volume).map_err(|reason| file.failure_or(reason))
    }

    fn of_any(file: &SourceFile, path: &Path, volume: &SourceVolume<'_>) -> Result<Self, Unread> {
        let &SourceVolume { array, channel, .. } = volume;
        let failed = |error: &dyn Display| Unread::from(error.to_string());
        if nifti::is_named_so(path) {
            let found = Self::of_nifti(&mut *nifti::content(file, path), volume)?;
            return Ok(match volume.turn {
                Some((axes, backwards)) => found.turned(axes, backwards),
                None => found,
            });
        }
        if path.extension().is_some_and(|suffix| suffix == "npy") {
            return Self::to_end(&mut &*file, channel);
        }
        let mut archive = ZipArchive::new(file).map_err(|error| failed(&error))?;
        // NumPy ends the names of arrays with `.npy`, and reads others too.
        let with_suffix = format!("{array}.npy");
        let name = if archive.index_for_name(&with_suffix).is_some() { &*with_suffix } else { array };
        let mut member = archive.by_name(name).map_err(|error| failed(&error))?;
        file.ends_at(member.data_start().saturating_add(member.compressed_size()));
        Self::to_end(&mut member, channel)
    }

    /// The array in NPY that comes next in a file, and is the last thing in it.
    ///
    /// # Errors
    /// The file cannot be read, or holds no such array.
    pub(super) fn to_end(file: &mut dyn Read, channel: Option<(bool, usize)>) -> Result<Self, Unread> {
        let header = npy_header::read(file)?;
        let found = Self::of_elements(&header, channel, file)?;
        match file.read(&mut [0]) {
            Ok(0) => Ok(found),
            Ok(_) => Err("the array goes on behind its last voxel".into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The volume of a NIfTI file, as the values that its header makes of its numbers. What stands behind the voxels is
    /// none of it, and is read for the checksum of a gzip file.
    fn of_nifti(file: &mut dyn Read, volume: &SourceVolume<'_>) -> Result<Self, Unread> {
        let (header, channel) = (nifti::read(file)?, volume.channel);
        if volume.is_extra && header.scale.is_none() {
            let found = Self::of_elements(&header.array, channel, file)?;
            io::copy(file, &mut io::sink())?;
            return Ok(found);
        }
        let (placed, count) = Self::placed(&header.array, channel)?;
        let mut values = reserved(count)?;
        while values.len() < count {
            let next = READ.min(count - values.len());
            let stored = Elements::read(&header.array, next, file)?;
            values.extend((0..next).map(|at| header.value(stored.at(at))));
        }
        io::copy(file, &mut io::sink())?;
        Ok(Self { elements: Elements::F32(values), ..placed })
    }

    /// An array whose elements come next in a file.
    fn of_elements(header: &SourceHeader, channel: Option<(bool, usize)>, file: &mut dyn Read) -> Result<Self, Unread> {
        let (placed, count) = Self::placed(header, channel)?;
        Ok(Self { elements: Elements::read(header, count, file)?, ..placed })
    }

    /// An array without elements whose volume has its place among those that its header tells, and how many these are.
    fn placed(header: &SourceHeader, channel: Option<(bool, usize)>) -> Result<(Self, usize), String> {
        let &SourceHeader { is_fortran, ref shape, .. } = header;
        let no_volume = || format!("{shape:?} is no shape of a volume");
        // Length and stride of each axis.
        let (mut axes, mut count) = (vec![(0, 0); shape.len()], 1usize);
        for at in 0..shape.len() {
            let axis = if is_fortran { at } else { shape.len() - 1 - at };
            axes[axis] = (shape[axis], count);
            count = count.checked_mul(shape[axis]).ok_or_else(no_volume)?;
        }
        let mut too_many = axes.len().saturating_sub(3);
        axes.retain(|(length, _)| {
            let goes = *length == 1 && too_many > 0;
            too_many -= usize::from(goes);
            !goes
        });
        let mut first = 0;
        if let (4, Some((is_last, number))) = (axes.len(), channel) {
            let (length, stride) = axes.remove(if is_last { 3 } else { 0 });
            if number >= length {
                return Err(format!("{shape:?} has no channel {number}"));
            }
            first = number * stride;
        }
        let [a, b, c]: [(usize, usize); 3] = axes.try_into().map_err(|_| no_volume())?;
        let (shape, strides) = ([a.0, b.0, c.0], [a.1, b.1, c.1]);
        Ok((Self { elements: Elements::Truth(Vec::new()), shape, strides, first }, count))
    }

    /// The array with other axes, of which some run backwards.
    fn turned(self, axes: [usize; 3], backwards: [bool; 3]) -> Self {
        let strides = self.strides;
        let mut turned = Self { shape: axes.map(|axis| self.shape[axis]), ..self };
        for at in 0..3 {
            let stride = strides[axes[at]];
            turned.strides[at] = if backwards[at] { stride.wrapping_neg() } else { stride };
            turned.first += if backwards[at] { (turned.shape[at] - 1) * stride } else { 0 };
        }
        turned
    }

    /// Lengths of the three axes, in voxels.
    pub(super) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The value at a position. An integer that f64 cannot hold is far beyond float16, and is rounded.
    pub(super) fn at(&self, place: [usize; 3]) -> f64 {
        self.elements.at(self.index(place))
    }

    /// The bits of the element at a position, in front of zeros.
    pub(super) fn bits(&self, place: [usize; 3]) -> u64 {
        let at = self.index(place);
        match &self.elements {
            Elements::F16(elements) => elements[at].into(),
            Elements::F32(elements) => elements[at].to_bits().into(),
            Elements::F64(elements) => elements[at].to_bits(),
            Elements::I8(elements) => elements[at].cast_unsigned().into(),
            Elements::U8(elements) | Elements::Truth(elements) => elements[at].into(),
            Elements::I16(elements) => elements[at].cast_unsigned().into(),
            Elements::U16(elements) => elements[at].into(),
            Elements::I32(elements) => elements[at].cast_unsigned().into(),
            Elements::U32(elements) => elements[at].into(),
            Elements::I64(elements) => elements[at].cast_unsigned(),
            Elements::U64(elements) => elements[at],
        }
    }

    /// Whether the elements have the type of another array's.
    pub(super) fn has_type_of(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.elements) == std::mem::discriminant(&other.elements)
    }

    /// Whether the elements are floats.
    pub(super) fn is_float(&self) -> bool {
        matches!(self.elements, Elements::F16(_) | Elements::F32(_) | Elements::F64(_))
    }

    /// The value at a position, rounded once to f32.
    #[expect(clippy::cast_possible_truncation, reason = "meant: NumPy's arithmetic")]
    pub(super) fn in_f32(&self, place: [usize; 3]) -> f32 {
        match &self.elements {
            Elements::I64(elements) => elements[self.index(place)] as f32,
            Elements::U64(elements) => elements[self.index(place)] as f32,
            _ => self.at(place) as f32, // f64 holds the values of all other types
        }
    }

    fn index(&self, place: [usize; 3]) -> usize {
        let steps = place.into_iter().zip(self.strides);
        steps.fold(self.first, |at, (place, stride)| at.wrapping_add(place.wrapping_mul(stride)))
    }
}

impl Elements {
    /// Reads elements of the type that a header tells.
    fn read(header: &SourceHeader, count: usize, file: &mut dyn Read) -> Result<Self, Unread> {
        let &SourceHeader { element, is_big_endian, .. } = header;
        Ok(match element {
            ElementType::Float(2) => Elements::F16(read_elements(file, count, is_big_endian)?),
            ElementType::Float(4) => Elements::F32(read_elements(file, count, is_big_endian)?),
            ElementType::Float(_) => Elements::F64(read_elements(file, count, is_big_endian)?),
            ElementType::Signed(1) => Elements::I8(read_elements(file, count, is_big_endian)?),
            ElementType::Signed(2) => Elements::I16(read_elements(file, count, is_big_endian)?),
            ElementType::Signed(4) => Elements::I32(read_elements(file, count, is_big_endian)?),
            ElementType::Signed(_) => Elements::I64(read_elements(file, count, is_big_endian)?),
            ElementType::Unsigned(1) => Elements::U8(read_elements(file, count, is_big_endian)?),
            ElementType::Unsigned(2) => Elements::U16(read_elements(file, count, is_big_endian)?),
            ElementType::Unsigned(4) => Elements::U32(read_elements(file, count, is_big_endian)?),
            ElementType::Unsigned(_) => Elements::U64(read_elements(file, count, is_big_endian)?),
            ElementType::Truth => Elements::Truth(read_elements(file, count, is_big_endian)?),
        })
    }

    /// The value of an element.
    fn at(&self, at: usize) -> f64 {
        match self {
            Elements::F16(elements) => f16::from_bits(elements[at]).to_f64(),
            Elements::F32(elements) => elements[at].into(),
            Elements::F64(elements) => elements[at],
            Elements::I8(elements) => elements[at].into(),
            Elements::U8(elements) => elements[at].into(),
            Elements::I16(elements) => elements[at].into(),
            Elements::U16(elements) => elements[at].into(),
            Elements::I32(elements) => elements[at].into(),
            Elements::U32(elements) => elements[at].into(),
            Elements::I64(elements) => elements[at] as f64,
            Elements::U64(elements) => elements[at] as f64,
            Elements::Truth(elements) => u8::from(elements[at] != 0).into(),
        }
    }
}

/// Reads elements of any type of number.
fn read_elements<T: Pod>(file: &mut dyn Read, count: usize, is_big_endian: bool) -> Result<Vec<T>, Unread> {
    let mut elements = reserved(count)?;
    elements.resize(count, T::zeroed());
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut elements);
    file.read_exact(bytes).map_err(|error| format!("its voxels cannot be read: {error}"))?;
    if is_big_endian {
        bytes.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
    }
    Ok(elements)
}

/// An empty list with room for so many elements.
fn reserved<T>(count: usize) -> Result<Vec<T>, Unread> {
    let mut elements = Vec::new();
    let enough = elements.try_reserve_exact(count).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory));
    enough.map_err(|error| Unread::from(error).behind(format_args!("{count} voxels")))?;
    Ok(elements)
}

/// Checks that an array can be read, and that its CRC is right. The content is at fault only where all bytes of the
/// file can be read.
///
/// # Errors
/// [`Error::Malformed`] if the array is damaged, or none that is compared; [`Error::Io`] if it could not be looked at.
pub fn readable(store: &dyn Store, path: &Path, volume: &SourceVolume<'_>) -> crate::error::Result<()> {
    let file = SourceFile::open(store, path).map_err(|error| Error::io(path, "open the file", error))?;
    SourceArray::of_file(&file, path, volume).map(|_| ()).or_else(|unread| {
        file.check(path)?;
        Err(Error::malformed(path, unread.behind(path.display()).reason))
    })
}
