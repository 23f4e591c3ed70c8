//! NPZ files: the zip directory, the array's header, and the payload as a stream of checked bytes.
//!
//! Knows nothing of samples, float16 or caches. Every length read from a file is checked before anything is
//! allocated; what is not supported is an error that names it.

mod choose;
mod directory;
mod listing;
mod literal;
pub(crate) mod npy;
mod part;
mod payload;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::{Decompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};

pub use choose::ArrayChoice;
pub use listing::{NamedArray, arrays};
pub use npy::{ArrayHeader, Element};
pub use part::{Channel, End, Part};
pub use payload::Payload;

use crate::base::file_id::FileId;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use directory::WindowedFile;
use npy::HeaderError;

/// The compression of a zip member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// No compression, as `np.savez` writes.
    Stored,
    /// Deflate, as `np.savez_compressed` writes.
    Deflated,
}

/// A zip member that holds an array: its place in the file, and the checksum of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZipMember {
    /// The array's name: that of the member, without `.npy` if it ends so.
    pub name: String,
    /// The compression of the member's bytes.
    pub compression: Compression,
    /// The offset of the member's first byte in the file.
    pub offset: u64,
    /// The number of bytes that the member takes in the file.
    pub packed_len: u64,
    /// The number of unpacked bytes: NPY header and payload.
    pub len: u64,
    /// The CRC-32 of the unpacked bytes, as the zip directory gives it.
    pub crc: u32,
}

/// The one array of an NPZ that becomes a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// The zip member that holds the array.
    pub member: ZipMember,
    /// The array's dtype and order, and the volume's shape in it: three axes, in the array's order.
    pub header: ArrayHeader,
    /// The part of the array that is the volume; `None` if it is the whole array.
    pub part: Option<Part>,
    /// The state of the file that member and header were read from.
    pub file_id: FileId,
}

impl Array {
    /// The extents of the volume's three axes, in NumPy's order.
    pub fn shape(&self) -> [u64; 3] {
        let shape = &self.header.shape;
        [shape[0], shape[1], shape[2]] // `inspect` admits three axes only
    }

    /// The choice that finds this array in its file again.
    pub fn choice(&self) -> ArrayChoice {
        ArrayChoice { name: Some(self.member.name.clone()), channel: self.part.map(|part| part.asked) }
    }

    /// The bytes of the array's payload before the first one of the volume, whose bytes follow each other from there
    /// unless channels take turns.
    pub fn bytes_before(&self) -> u64 {
        let element = self.header.element.size() as u64;
        self.part.map_or(0, |part| {
            part.asked.index * if part.is_interleaved { element } else { self.header.payload_len().unwrap_or(0) }
        })
    }
}

/// More voxels than any scanner makes, and few enough that no later arithmetic overflows (2 TiB of float16).
const MAX_VOXELS: u64 = 1 << 40;
/// Deflate cannot pack better (258 bytes in two bits); a directory that claims more would only cost memory.
const MAX_DEFLATE_RATIO: u64 = 1032;
/// The packed bytes that are read at a time where the first ones do not hold an array's whole header.
const MORE_OF_A_HEADER: usize = 64 << 10;

/// Opens an NPZ file and finds its volume: the array that `choice` names, or by default `data`, `volume`, `arr_0`, or
/// the only array of numbers that has three dimensions. Reads headers only.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect(path: &Path, choice: &ArrayChoice) -> Result<Array> {
    let file = File::open(path).map_err(|error| Error::io(path, "open the file", error))?;
    inspect_file(path, &file, choice)
}

/// Finds the volume of an open NPZ file as [`inspect`] does; messages call the file `path`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect_file(path: &Path, file: &File, choice: &ArrayChoice) -> Result<Array> {
    let metadata = file.metadata().map_err(|error| Error::io(path, "stat the file", error))?;
    if !metadata.is_file() {
        return Err(Error::malformed(path, "not a regular file"));
    }
    let file_id = FileId::of(&metadata);
    let windows = WindowedFile::new(file, file_id.size);
    let listed = directory::members(path, &windows)?;
    let (member, mut header) = choose::volume(path, &windows, &listed, choice)?;
    check_shape(path, &member, &header)?;
    let shape = &header.shape;
    let (axes, part) = part::of_shape(shape, header.fortran_order, choice.channel)
        .map_err(|reason| Error::malformed(path, format!("array '{}' has shape {shape:?}: {reason}", member.name)))?;
    header.shape = axes;
    Ok(Array { member, header, part, file_id })
}

fn check_shape(path: &Path, member: &ZipMember, header: &ArrayHeader) -> Result<()> {
    let shape = &header.shape;
    if shape.contains(&0) {
        return Err(Error::malformed(path, format!("array '{}' has shape {shape:?}, which is empty", member.name)));
    }
    let expected = header.payload_len().and_then(|len| len.checked_add(header.header_len));
    if expected != Some(member.len) {
        let reason = format!(
            "array '{}' of shape {shape:?} and dtype {} does not fit the {} bytes that the file has for it",
            member.name,
            header.descr(),
            member.len
        );
        return Err(Error::malformed(path, reason));
    }
    if shape.iter().try_fold(1, |product: u64, n| product.checked_mul(*n)).is_none_or(|voxels| voxels > MAX_VOXELS) {
        return Err(Error::malformed(path, format!("array '{}' has shape {shape:?}, which is no volume", member.name)));
    }
    if member.compression == Compression::Deflated && member.len / MAX_DEFLATE_RATIO > member.packed_len {
        let reason = format!(
            "array '{}' claims {} bytes, more than its {} packed ones can hold",
            member.name, member.len, member.packed_len
        );
        return Err(Error::malformed(path, reason));
    }
    Ok(())
}

/// The reason why an array's header was not read.
enum Unread {
    /// The file cannot be read, or its data is damaged.
    File(Error),
    /// The bytes are no header of a volume.
    Header(HeaderError),
}

impl Unread {
    /// The error of the file that has the array.
    fn of(self, path: &Path, member: &ZipMember) -> Error {
        match self {
            Self::File(error) => error,
            Self::Header(error) => Error::malformed(path, format!("array '{}': {error}", member.name)),
        }
    }
}

fn read_header(path: &Path, windows: &WindowedFile<'_>, member: &ZipMember) -> Result<ArrayHeader, Unread> {
    let mut wanted = 512; // an ordinary header ends at 128 bytes
    loop {
        let bytes = unpacked_head(path, windows, member, wanted).map_err(Unread::File)?;
        match npy::parse(&bytes) {
            Ok(header) => return Ok(header),
            Err(HeaderError::Short(needed)) if needed > wanted && needed as u64 <= member.len => wanted = needed,
            Err(error) => return Err(Unread::Header(error)),
        }
    }
}

/// The first `wanted` bytes of the unpacked member, fewer if it is shorter or damaged.
fn unpacked_head(path: &Path, windows: &WindowedFile<'_>, member: &ZipMember, wanted: usize) -> Result<Vec<u8>> {
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len.min(to_usize(member.packed_len - at))];
        rawzip::ReaderAt::read_exact_at(windows, &mut bytes, member.offset + at)
            .map_err(|error| Error::io(path, "read the array's header", error))?;
        Ok(bytes)
    };
    if member.compression == Compression::Stored {
        return read(0, wanted);
    }
    // The beginning of a stream that is cut: what the inflater for whole ones refuses.
    let mut inflater = Decompress::new(false);
    let mut bytes = Vec::with_capacity(wanted);
    let mut len = wanted + 64; // NumPy's headers shrink; a stream may have any number of blocks before, even empty ones
    while bytes.len() < wanted && inflater.total_in() < member.packed_len {
        let (at, packed) = (inflater.total_in(), read(inflater.total_in(), len)?);
        let status = inflater.decompress_vec(&packed, &mut bytes, FlushDecompress::Sync).map_err(|error| {
            Error::malformed(path, format!("array '{}': damaged deflate data: {error}", member.name))
        })?;
        if status == Status::StreamEnd || inflater.total_in() == at {
            break;
        }
        len = MORE_OF_A_HEADER;
    }
    Ok(bytes)
}

/// Fills `out` with the volume's bytes of a *stored* member whose bytes follow each other, from byte `offset` of the
/// volume on, without a look at the rest.
///
/// # Errors
/// [`Error::Io`] if reading failed, [`Error::Malformed`] if the file ends too early.
pub fn read_stored(path: &Path, file: &File, array: &Array, offset: u64, out: &mut [u8]) -> Result<()> {
    debug_assert_eq!(array.member.compression, Compression::Stored);
    let at = array.member.offset + array.header.header_len + array.bytes_before() + offset;
    file.read_exact_at(out, at).map_err(|error| read_error(path, error))
}

fn read_error(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::malformed(path, "the file is cut short"),
        _ => Error::io(path, "read the volume", error),
    }
}
