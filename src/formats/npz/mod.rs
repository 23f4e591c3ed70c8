//! NPZ and NPY files: the zip directory, the array's header, and the payload as a stream of checked bytes. An NPY file
//! counts as an array that is stored at the beginning of the file, without a name and without a checksum; a NIfTI file
//! ([`super::nifti`]) as the array `data` that `np.savez` would have written of it.
//!
//! Knows nothing of samples, float16 or caches. Every length read from a file is checked before anything is
//! allocated; what is not supported is an error that names it.

mod choose;
mod conversion;
mod directory;
mod listing;
mod literal;
pub(crate) mod npy;
mod orientation;
pub(super) mod part;
mod payload;
mod spacing;
mod turned;

use std::ops::Range;
use std::path::Path;

use flate2::{Decompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};

pub use choose::ArrayChoice;
pub use conversion::Conversion;
pub use listing::{NamedArray, arrays};
pub use npy::{ArrayHeader, Element};
pub use orientation::{Direction, Orientation, Placed, Turn};
pub use part::{Channel, End, Part};
pub use payload::Payload;
pub use spacing::Spacing;

use crate::base::file_id::FileId;
use crate::base::files;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::storage::Stored;
use directory::WindowedFile;
use npy::HeaderError;

/// The compression of a zip member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// No compression, as `np.savez` writes.
    Stored,
    /// Deflate, as `np.savez_compressed` writes.
    Deflated,
    /// Gzip, of a NIfTI file.
    Gzip,
}

/// A zip member that holds an array: its place in the file, and the checksum of its bytes; or a whole NPY or NIfTI
/// file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZipMember {
    /// The array's name: that of the member, without `.npy` if it ends so; empty for an NPY file, `data` for NIfTI.
    pub name: String,
    /// The compression of the member's bytes.
    pub compression: Compression,
    /// The offset of the member's first byte in the file.
    pub offset: u64,
    /// The number of bytes that the member takes in the file.
    pub packed_len: u64,
    /// The number of unpacked bytes: header and payload.
    pub len: u64,
    /// The CRC-32 of the unpacked bytes, as the zip directory or the end of a gzip file gives it; `None` for an NPY
    /// file, and for a NIfTI file that is not one gzip member.
    pub crc: Option<u32>,
}

impl ZipMember {
    /// The member's bytes in the file.
    pub fn in_file(&self) -> Range<u64> {
        self.offset..self.offset + self.packed_len
    }

    /// The array in messages: `array 'data'`, or `the array` of an NPY file.
    pub fn shown(&self) -> String {
        if self.crc.is_none() { "the array".into() } else { format!("array '{}'", self.name) }
    }
}

/// The one array of a file that becomes a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Array {
    /// The zip member that holds the array.
    pub member: ZipMember,
    /// The array's dtype and order, and the volume's shape in it: three axes, in the array's order.
    pub header: ArrayHeader,
    /// The part of the array that is the volume; `None` if it is the whole array.
    pub part: Option<Part>,
    /// The spacing that another array of the file gives; `None` if the user named none.
    pub spacing: Option<Spacing>,
    /// The elements in the file, where float32 is made of them as they are read; `None` if they are read as they are.
    pub conversion: Option<Conversion>,
    /// What the header of a NIfTI file says beside the array; `None` for an NPZ or NPY file.
    pub nifti: Option<Box<NiftiValues>>,
    /// The state of the file that member and header were read from.
    pub file_id: FileId,
}

impl Array {
    /// The extents of the volume's three axes, in NumPy's order.
    pub fn shape(&self) -> [u64; 3] {
        let shape = &self.header.shape;
        [shape[0], shape[1], shape[2]] // `inspect` admits three axes only
    }

    /// The array with the elements that its file has, if all that a conversion would do to them is to make them
    /// float32: labels of a mask are the integers that they are.
    #[must_use]
    pub fn as_stored(self) -> Self {
        match self.conversion {
            Some(conversion) if !conversion.is_scaled() => {
                let Conversion { element, big_endian, .. } = conversion;
                Self { header: ArrayHeader { element, big_endian, ..self.header }, conversion: None, ..self }
            }
            _ => self,
        }
    }

    /// The choice that finds this array in its file again.
    pub fn choice(&self) -> ArrayChoice {
        let spacing = self.spacing.as_ref().map(|spacing| spacing.array.clone());
        let orientation = self.placed().map(|placed| placed.asked);
        let channel = self.part.map(|part| part.asked);
        ArrayChoice { name: Some(self.member.name.clone()), channel, spacing, orientation }
    }

    /// Where the array is in the body, if the user asked for it.
    pub fn placed(&self) -> Option<&Placed> {
        self.nifti.as_ref()?.placed.as_ref()
    }

    /// How the array is made of that in the file, and the latter's shape; `None` if it is the same.
    fn turn(&self) -> Option<(Turn, [u64; 3])> {
        let turn = self.placed()?.turn?;
        Some((turn, turn.in_file(self.shape())))
    }

    /// The axis in the file of each of the array's axes, and whether that runs against it; `None` if nothing is turned.
    pub fn turned_axes(&self) -> Option<([usize; 3], [bool; 3])> {
        self.turn().map(|(Turn { axes, flipped }, _)| (axes, flipped))
    }

    /// Where the user asked the array's axes to lead: for each the axis of the world (right, front, up), and whether it
    /// leads against it; `None` if they stay as they are.
    pub fn asked_directions(&self) -> Option<[(usize, bool); 3]> {
        match self.placed()?.asked {
            Orientation::Keep => None,
            Orientation::Along(directions) => Some(directions.map(|asked| (asked.world, asked.is_reversed))),
        }
    }

    /// The array as the file has it, for whoever needs values in any order.
    pub fn as_in_file(&self) -> Self {
        let mut array = self.clone();
        if let Some((_, shape)) = self.turn() {
            array.header.shape = shape.to_vec();
            array.nifti.iter_mut().for_each(|nifti| nifti.placed = None);
        }
        array
    }

    /// The memory in bytes that [`Payload`] takes to turn the array.
    pub fn bytes_to_turn(&self) -> u64 {
        self.turn().map_or(0, |(turn, shape)| turned::bytes_held(turn, shape, self.stored_size()))
    }

    /// The bytes of one element in the file.
    pub fn stored_size(&self) -> usize {
        self.conversion.map_or(self.header.element, |conversion| conversion.element).size()
    }

    /// The bytes of the array's payload in the file before the first one of the volume, whose bytes follow each other
    /// from there unless channels take turns.
    pub fn bytes_before(&self) -> u64 {
        let element = self.stored_size() as u64;
        let volume = self.header.shape.iter().try_fold(element, |product, &n| product.checked_mul(n)).unwrap_or(0);
        self.part.map_or(0, |part| part.asked.index * if part.is_interleaved { element } else { volume })
    }
}

/// What the header of a NIfTI file says of the volume, beside the array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NiftiValues {
    /// Whether slope and intercept of the header make the values: others than 1 and 0.
    pub is_scaled: bool,
    /// The spacing in mm along the array's three axes; `None` if one is no number.
    pub spacing: Option<[f64; 3]>,
    /// The upper three rows of the matrix from the file's indexes to the world, in mm; `None` if the header gives none.
    pub affine: Option<[[f64; 4]; 3]>,
    /// Where the array is in the body; `None` if the user did not ask.
    pub placed: Option<Placed>,
}

/// More voxels than any scanner makes, and few enough that no later arithmetic overflows (2 TiB of float16).
pub(super) const MAX_VOXELS: u64 = 1 << 40;
/// Deflate cannot pack better (258 bytes in two bits); a directory that claims more would only cost memory.
pub(super) const MAX_DEFLATE_RATIO: u64 = 1032;
/// The packed bytes that are read at a time where the first ones do not hold an array's whole header.
const MORE_OF_A_HEADER: usize = 64 << 10;

/// Opens an NPZ or NPY file, by its suffix, and finds its volume: the array of an NPY file; of an NPZ file the one that
/// `choice` names, or by default `data`, `volume`, `arr_0`, or the only array of numbers that has three dimensions.
/// Reads headers only, and the spacing if `choice` asks for it.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect(path: &Path, choice: &ArrayChoice) -> Result<Array> {
    let file = files::open_now(path).map_err(|error| Error::io(path, "open the file", error))?;
    inspect_file(path, &file, choice)
}

/// Finds the volume of an open NPZ or NPY file, or object, as [`inspect`] does; messages call the file `path`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect_file(path: &Path, file: &dyn Stored, choice: &ArrayChoice) -> Result<Array> {
    let (windows, file_id) = WindowedFile::open(path, file)?;
    let is_npy = path.extension().is_some_and(|suffix| suffix == "npy");
    let listed = if is_npy { Vec::new() } else { directory::members(path, &windows)? };
    let (member, mut header) = if is_npy {
        let member = whole_file(file_id.size);
        let header = read_header(path, &windows, &member).map_err(|unread| unread.of(path, &member))?;
        (member, header)
    } else {
        choose::volume(path, &windows, &listed, choice)?
    };
    check_shape(path, &member, &header)?;
    let shape = &header.shape;
    let (axes, part) = part::of_shape(shape, header.fortran_order, choice.channel)
        .map_err(|reason| Error::malformed(path, format!("{} has shape {shape:?}: {reason}", member.shown())))?;
    header.shape = axes;
    let spacing = choice.spacing.as_deref().map(|name| spacing::read(path, &windows, &listed, name)).transpose()?;
    Ok(Array { member, header, part, spacing, conversion: None, nifti: None, file_id })
}

/// The array of an NPY file of `len` bytes.
fn whole_file(len: u64) -> ZipMember {
    ZipMember { name: String::new(), compression: Compression::Stored, offset: 0, packed_len: len, len, crc: None }
}

fn check_shape(path: &Path, member: &ZipMember, header: &ArrayHeader) -> Result<()> {
    let shape = &header.shape;
    if shape.contains(&0) {
        return Err(Error::malformed(path, format!("{} has shape {shape:?}, which is empty", member.shown())));
    }
    let expected = header.payload_len().and_then(|len| len.checked_add(header.header_len));
    if expected != Some(member.len) {
        let reason = format!(
            "{} of shape {shape:?} and dtype {} does not fit the {} bytes that the file has for it",
            member.shown(),
            header.descr(),
            member.len
        );
        return Err(Error::malformed(path, reason));
    }
    if shape.iter().try_fold(1, |product: u64, n| product.checked_mul(*n)).is_none_or(|voxels| voxels > MAX_VOXELS) {
        return Err(Error::malformed(path, format!("{} has shape {shape:?}, which is no volume", member.shown())));
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
            Self::Header(error) => Error::malformed(path, format!("{}: {error}", member.shown())),
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
pub fn read_stored(path: &Path, file: &dyn Stored, array: &Array, offset: u64, out: &mut [u8]) -> Result<()> {
    debug_assert_eq!(array.member.compression, Compression::Stored);
    let at = array.member.offset + array.header.header_len + array.bytes_before() + offset;
    file.read_exact_at(out, at).map_err(|error| read_error(path, error))
}

fn read_error(path: &Path, error: std::io::Error) -> Error {
    let changed = |detail: &str| Error::Changed { path: path.to_owned(), detail: detail.to_owned() };
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::malformed(path, "the file is cut short"),
        // Of an object, which is looked for with each request.
        std::io::ErrorKind::NotFound => changed("it is gone"),
        std::io::ErrorKind::StaleNetworkFileHandle => changed("it was replaced while it was read"),
        _ => Error::io(path, "read the volume", error),
    }
}
