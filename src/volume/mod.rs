//! A source array as the final voxel bytes: little-endian, C order, exactly the planned length, of one kind (`kind`):
//! as stored, in HU, or preprocessed (`planes`, `resample`); and of one dtype (`voxel_format`, `voxel`).
//!
//! A C-order source streams: each chunk is unpacked, cast while it is hot, and handed on. A Fortran-order source is
//! transposed in blocks of planes as it arrives and handed on as a whole, because its first output row needs every
//! plane. The source's file identity is checked before and after: a file that changed is an error, never a mixture.
//! Where only its ctime differs, the zip directory and the array's header are compared with the planned ones, and
//! nothing is handed on before the checksum of the whole array was found right.

mod axes;
mod cast;
mod dialect;
mod element;
mod fill;
mod kind;
mod linear_planes;
mod narrow;
mod nearest_planes;
mod own;
mod placement;
mod plane_size;
mod planes;
mod planned_file;
mod resample;
mod rescale;
mod rounding;
mod scratch;
mod shard_file;
mod source;
mod spacing;
mod steps;
mod transpose;
mod value_check;
mod voxel;
mod voxel_format;

use std::path::PathBuf;

pub use axes::{Axes, SpacingArray};
pub use cast::Overflow;
pub use dialect::Dialect;
pub use kind::{Geometry, Kind, KindOptions, Preprocess, Recipe, Resample};
pub use placement::affine;
pub use rescale::{Rescale, floats};
pub use shard_file::{ShardVolume, Storage, VolumeMember, read_filter, read_table};
pub use source::Volume;
pub use value_check::{Span, Values, check_values, span};
pub use voxel_format::{OutputDtype, VoxelFormat};

use crate::error::{Error, Result};
use crate::formats::codec::{Codec, Filter, RowFilter};
use crate::formats::npz::{Array, Compression, Payload};
use crate::formats::volume_file;
use crate::storage::{Store, Stored};
pub use own::ArrayFormat;
use own::with_voxel_type;
use planned_file::{FileState, PlannedFile};
pub use scratch::DECODER_SCRATCH;
use scratch::{CHUNK_LEN, Scratch};

/// The destination of a volume's bytes, which come in order, from the first to the last.
pub trait Sink {
    /// The memory for the bytes that are not handed on yet; at the start for those of the whole volume.
    fn spare(&mut self) -> &mut [u8];
    /// Hands on the first `len` bytes of [`Self::spare`].
    fn publish(&mut self, len: usize);
    /// Whether the reader no longer wants the rest of the volume; asked between chunks.
    fn cancelled(&mut self) -> bool;
}

/// The end of a fill that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Every voxel was published, and the source's checksum is right.
    Complete,
    /// The sink was cancelled.
    Cancelled,
}

/// A volume that is made from an NPZ, NPY or NIfTI file: the array, and the steps from it to the voxels.
#[derive(Clone, Debug)]
pub struct NpzVolume<'a> {
    /// The store that the file lies in.
    pub store: &'a dyn Store,
    /// The file.
    pub path: PathBuf,
    /// The array in the file.
    pub array: &'a Array,
    /// The steps from the array's values and shape to those of the volume.
    pub recipe: &'a Recipe,
    /// What the elements become.
    pub format: ArrayFormat,
    /// The treatment of values that the voxels cannot hold.
    pub overflow: Overflow,
}

impl NpzVolume<'_> {
    /// The shape of the volume: that of the array for a stored volume; height, width, depth for the other kinds.
    pub fn shape(&self) -> [u64; 3] {
        self.recipe.shape(self.array.shape())
    }

    /// The length of the volume in bytes, known without reading a voxel.
    pub fn byte_len(&self) -> u64 {
        self.shape().iter().product::<u64>() * self.format.voxel_len() as u64
    }

    /// The filter by which blocks of the volume get smaller when they are packed.
    pub fn filter(&self) -> RowFilter {
        let filter = Filter::new(Codec::NEW.method, self.format.voxel_len(), self.format.is_float());
        RowFilter::new(filter, self.shape()[2])
    }

    /// Writes all voxels to `sink`: as they are made, the last ones when the checksum was found right; or, with
    /// `verify_first` or if the file's ctime differs, all of them only then.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file is not the planned one, [`Error::Malformed`] if its data is damaged or a value
    /// does not fit, [`Error::Io`] if reading failed.
    pub fn fill(&self, sink: &mut impl Sink, verify_first: bool) -> Result<Filled> {
        let (file, state) = self.open()?;
        if state == FileState::CtimeDiffers {
            self.check_headers(&*file)?;
        }
        let verify_first = verify_first || state == FileState::CtimeDiffers;
        file.will_read(self.array.member.in_file());
        let filled = Scratch::with(&self.path, |scratch| {
            let filled = self.fill_with(scratch, &*file, sink, verify_first);
            scratch.buffer.give_back();
            filled
        });
        if matches!(filled, Ok(FillEnd::Cancelled)) {
            return Ok(Filled::Cancelled);
        }
        let is_doubtful = self.is_doubtful(&*file)?; // first: a changed file explains every other failure
        let filled = match filled {
            Err(error @ Error::Malformed { .. }) if is_doubtful => Err(self.explain(&*file, error)),
            filled => filled,
        };
        if filled? == FillEnd::Withheld {
            let rest = sink.spare().len();
            sink.publish(rest);
            return Ok(Filled::Complete);
        }
        Ok(Filled::Cancelled)
    }

    fn fill_with(
        &self,
        scratch: &mut Scratch,
        file: &dyn Stored,
        sink: &mut impl Sink,
        verify_first: bool,
    ) -> Result<FillEnd> {
        with_voxel_type!(self, T => self.fill_as::<T>(scratch, file, sink, verify_first))
    }

    /// The work of [`Self::peek`] for `len` bytes at `offset`, in source bytes that are only copied and cast; inflating
    /// a byte costs four times that. `None` where a whole fill is needed (Fortran order, channels that take turns,
    /// preprocessed).
    pub fn peek_cost(&self, offset: u64, len: u64) -> Option<u64> {
        if !self.recipe.keeps_places() {
            return None;
        }
        let element = self.array.header.element.size();
        let ratio = (element / self.format.voxel_len().min(element)) as u64;
        let takes_turns = self.array.part.is_some_and(|part| part.is_interleaved);
        match (self.array.header.fortran_order || takes_turns, self.array.member.compression) {
            (true, _) => None,
            (false, Compression::Stored) => Some(len * ratio),
            (false, Compression::Deflated | Compression::Gzip) => {
                Some((self.array.bytes_before() + (offset + len) * ratio) * 4)
            }
        }
    }

    /// Reads `out.len()` bytes of the volume at `offset` without keeping anything and without the checksum, which
    /// covers the whole volume: for readers that look at the tar headers around it. False, and nothing is read, if the
    /// file's ctime differs: then only a fill tells whether the content is the planned one.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file is not the planned one, [`Error::Malformed`] if its data is damaged or a value
    /// does not fit, [`Error::Io`] if reading failed.
    pub fn peek(&self, offset: u64, out: &mut [u8]) -> Result<bool> {
        let (file, state) = self.open()?;
        if state == FileState::CtimeDiffers {
            return Ok(false);
        }
        let result = Scratch::with(
            &self.path,
            |scratch| with_voxel_type!(self, T => self.peek_as::<T>(&*file, offset, out, scratch)),
        );
        if self.is_doubtful(&*file)? { Ok(false) } else { result.map(|()| true) }
    }

    fn planned_file(&self) -> PlannedFile<'_> {
        let (path, file_id) = (&self.path, &self.array.file_id);
        PlannedFile { path, file_id }
    }

    fn open(&self) -> Result<(Box<dyn Stored>, FileState)> {
        let (file, state) = self.planned_file().open(self.store)?;
        self.check_state(state)?;
        Ok((file, state))
    }

    /// Checks that a checksum tells whether the content is the planned one, if the metadata do not.
    ///
    /// # Errors
    /// [`Error::Changed`] for a file without a checksum whose ctime differs.
    fn check_state(&self, state: FileState) -> Result<()> {
        if state == FileState::CtimeDiffers && self.array.member.crc.is_none() {
            return Err(self.planned_file().changed(planned_file::NO_CHECKSUM));
        }
        Ok(())
    }

    /// Whether the file is in the planned state, by its metadata: then so are its bytes. An object is not asked, as
    /// [`ShardVolume::is_as_planned`] says.
    pub(super) fn is_as_planned(&self) -> bool {
        matches!(self.planned_file().open(self.store), Ok((_, FileState::Planned)))
    }

    /// Whether the open file's ctime differs, so that nothing may be handed on before the checksum was found right.
    ///
    /// # Errors
    /// [`Error::Changed`] if more than that differs or there is no checksum, [`Error::Io`] if `stat` failed.
    fn is_doubtful(&self, file: &dyn Stored) -> Result<bool> {
        let state = self.planned_file().state(file)?;
        self.check_state(state)?;
        Ok(state == FileState::CtimeDiffers)
    }

    /// Checks that the file's zip directory and the array's header are the planned ones.
    ///
    /// # Errors
    /// [`Error::Changed`] if they are not, [`Error::Io`] if reading failed.
    fn check_headers(&self, file: &dyn Stored) -> Result<()> {
        let is_planned = |found: &Array| *found == Array { file_id: found.file_id, ..self.array.clone() };
        match volume_file::inspect_file(&self.path, file, &self.array.choice()) {
            Ok(found) if is_planned(&found) || is_planned(&found.clone().as_stored()) => Ok(()),
            Ok(_) | Err(Error::Malformed { .. }) => {
                Err(self.planned_file().changed("its ctime and its headers differ: it holds other data"))
            }
            Err(error) => Err(error),
        }
    }

    /// The error of a fill from a file whose ctime differs: that the file changed, unless its checksum shows that the
    /// content is the planned one, to which `error` then applies.
    fn explain(&self, file: &dyn Stored, error: Error) -> Error {
        let checked = Scratch::with(&self.path, |scratch| {
            let payload = Payload::open(&self.path, file, self.array, &mut scratch.inflater)?;
            check_rest(payload, &mut scratch.chunk)
        });
        match checked {
            Err(Error::Malformed { .. }) => {
                self.planned_file().changed("its ctime and its checksum differ: it holds other data")
            }
            Err(other) => other,
            Ok(()) => error,
        }
    }

    /// Whether a part of the volume that ends at byte `end` may reach into the last chunk, which a fill publishes only
    /// when the checksum was found right: so a reader of the whole volume cannot miss that it is damaged.
    pub fn reaches_last_chunk(&self, end: u64) -> bool {
        end + (CHUNK_LEN * self.format.voxel_len()) as u64 > self.byte_len()
    }
}

/// Reads the rest of an array to find out whether it is damaged, which would explain a value that does not fit.
///
/// # Errors
/// The damage, or why the rest cannot be read.
fn check_rest(mut payload: Payload<'_>, chunk: &mut [u8]) -> Result<()> {
    payload.skip(payload.remaining(), chunk).and_then(|()| payload.finish())
}

/// The end of the part of a fill that reads the source.
#[derive(PartialEq, Eq)]
enum FillEnd {
    /// All bytes are made and the checksum is right; the last bytes are not published yet.
    Withheld,
    /// The sink was cancelled.
    Cancelled,
}
