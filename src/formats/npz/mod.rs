//! NPZ files: the zip directory, the array's header, and the payload as a stream of checked bytes.
//!
//! Knows nothing of samples, float16 or caches. Every length read from a file is checked before anything is
//! allocated; what is not supported is an error that names it.

mod directory;
pub(crate) mod npy;
mod payload;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::{Decompress, FlushDecompress};
use serde::{Deserialize, Serialize};

pub use npy::{ArrayHeader, Element};
pub use payload::Payload;

use crate::base::file_id::FileId;
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
    /// The array's name, without `.npy`.
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
    /// The array's dtype, order and shape (three axes).
    pub header: ArrayHeader,
    /// The state of the file that member and header were read from.
    pub file_id: FileId,
}

impl Array {
    /// The extents of the three axes, in NumPy's order.
    pub fn shape(&self) -> [u64; 3] {
        let shape = &self.header.shape;
        [shape[0], shape[1], shape[2]] // `inspect` admits three axes only
    }
}

/// The names that the known NPZ dialects give to the volume, in the order of preference.
const KNOWN_NAMES: [&str; 3] = ["data", "volume", "arr_0"];

/// More voxels than any scanner makes, and few enough that no later arithmetic overflows (2 TiB of float16).
const MAX_VOXELS: u64 = 1 << 40;
/// Deflate cannot pack better (258 bytes in two bits); a directory that claims more would only cost memory.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Opens an NPZ file and finds its volume: the array called `choice`, or by default `data`, `volume`, `arr_0`, or the
/// only array of at least three dimensions. Reads headers only.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect(path: &Path, choice: Option<&str>) -> Result<Array> {
    let file = File::open(path).map_err(|error| Error::io(path, "open the file", error))?;
    inspect_file(path, &file, choice)
}

/// Finds the volume of an open NPZ file as [`inspect`] does; messages call the file `path`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it holds no supported volume.
pub fn inspect_file(path: &Path, file: &File, choice: Option<&str>) -> Result<Array> {
    let metadata = file.metadata().map_err(|error| Error::io(path, "stat the file", error))?;
    if !metadata.is_file() {
        return Err(Error::malformed(path, "not a regular file"));
    }
    let file_id = FileId::of(&metadata);
    let windows = WindowedFile::new(file, file_id.size);
    let members = directory::members(path, &windows)?;
    let (member, header) = choose(path, &windows, members, choice)?;
    check_shape(path, &member, &header)?;
    Ok(Array { member, header, file_id })
}

/// The array of this name. NumPy would read the last of several, a zip tool the first: neither is a safe guess.
fn named<'a>(path: &Path, members: &'a [ZipMember], name: &str) -> Result<Option<&'a ZipMember>> {
    let mut found = members.iter().filter(|member| member.name == name);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => {
            Err(Error::malformed(path, format!("the zip directory lists array '{name}' more than once")))
        }
        (member, _) => Ok(member),
    }
}

fn choose(
    path: &Path,
    windows: &WindowedFile<'_>,
    members: Vec<ZipMember>,
    choice: Option<&str>,
) -> Result<(ZipMember, ArrayHeader)> {
    let names = || members.iter().map(|m| format!("'{}'", m.name)).collect::<Vec<_>>().join(", ");
    let wanted = match choice {
        Some(name) => Some(named(path, &members, name)?.ok_or_else(|| {
            Error::malformed(
                path,
                format!("there is no array '{name}' (arrays found: {}); --array chooses another", names()),
            )
        })?),
        None => {
            let known: Vec<_> = KNOWN_NAMES.iter().map(|name| named(path, &members, name)).collect::<Result<_>>()?;
            known.into_iter().flatten().next()
        }
    };
    if let Some(member) = wanted {
        let header = read_header(path, windows, member)?;
        return Ok((member.clone(), header));
    }
    let mut volumes = Vec::new();
    for member in &members {
        // An array that cannot be read (a pickled note, say) is no candidate; it does not spoil the others.
        match read_header(path, windows, member) {
            Ok(header) if header.shape.len() >= 3 => volumes.push((member.clone(), header)),
            Ok(_) | Err(Error::Malformed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    match <[_; 1]>::try_from(volumes) {
        Ok([only]) => Ok(only),
        Err(several) if several.is_empty() => {
            let found =
                if members.is_empty() { "it holds no array".into() } else { format!("arrays found: {}", names()) };
            Err(Error::malformed(
                path,
                format!("no array 'data', 'volume' or 'arr_0' and none of three dimensions ({found})"),
            ))
        }
        Err(_) => Err(Error::malformed(
            path,
            format!("several arrays could be the volume ({}); choose one with --array", names()),
        )),
    }
}

fn check_shape(path: &Path, member: &ZipMember, header: &ArrayHeader) -> Result<()> {
    let shape = &header.shape;
    if shape.len() != 3 {
        let reason = format!("array '{}' has shape {shape:?}: a volume has three dimensions", member.name);
        return Err(Error::malformed(path, reason));
    }
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
    if header
        .shape
        .iter()
        .try_fold(1, |product: u64, n| product.checked_mul(*n))
        .is_none_or(|voxels| voxels > MAX_VOXELS)
    {
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

fn read_header(path: &Path, windows: &WindowedFile<'_>, member: &ZipMember) -> Result<ArrayHeader> {
    let bad = |reason: String| Error::malformed(path, format!("array '{}': {reason}", member.name));
    let mut wanted = 512; // an ordinary header ends at 128 bytes
    loop {
        let bytes = unpacked_head(path, windows, member, wanted)?;
        match npy::parse(&bytes) {
            Ok(header) => return Ok(header),
            Err(HeaderError::Short(needed)) if needed > wanted && needed as u64 <= member.len => wanted = needed,
            Err(error) => return Err(bad(error.to_string())),
        }
    }
}

/// The first `wanted` bytes of the unpacked member, fewer if it is shorter or damaged.
fn unpacked_head(path: &Path, windows: &WindowedFile<'_>, member: &ZipMember, wanted: usize) -> Result<Vec<u8>> {
    let packed_len = match member.compression {
        Compression::Stored => wanted,
        // Deflate's worst case adds 5 bytes for 16 KiB; NumPy's headers shrink.
        Compression::Deflated => wanted + 64,
    };
    let mut packed = vec![0; packed_len.min(crate::base::num::to_usize(member.packed_len))];
    rawzip::ReaderAt::read_exact_at(windows, &mut packed, member.offset)
        .map_err(|error| Error::io(path, "read the array's header", error))?;
    if member.compression == Compression::Stored {
        return Ok(packed);
    }
    // The beginning of a stream that is cut: what the inflater for whole ones refuses.
    let mut bytes = Vec::with_capacity(wanted);
    Decompress::new(false)
        .decompress_vec(&packed, &mut bytes, FlushDecompress::Sync)
        .map_err(|error| Error::malformed(path, format!("array '{}': damaged deflate data: {error}", member.name)))?;
    Ok(bytes)
}

/// Fills `out` with payload bytes of a *stored* member, from byte `offset` of the payload on, without a look at the
/// rest.
///
/// # Errors
/// [`Error::Io`] if reading failed, [`Error::Malformed`] if the file ends too early.
pub fn read_stored(path: &Path, file: &File, array: &Array, offset: u64, out: &mut [u8]) -> Result<()> {
    debug_assert_eq!(array.member.compression, Compression::Stored);
    let at = array.member.offset + array.header.header_len + offset;
    file.read_exact_at(out, at).map_err(|error| read_error(path, error))
}

fn read_error(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::malformed(path, "the file is cut short"),
        _ => Error::io(path, "read the volume", error),
    }
}
