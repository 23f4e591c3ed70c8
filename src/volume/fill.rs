//! Filling and peeking at a volume from the elements of its array, for voxels of any type.

use super::cast::{Linear, Unfit};
use super::kind::Recipe;
use super::planes::{InPlanes, PlaneSteps};
use super::scratch::{CHUNK_LEN, Scratch, VoxelBuffer};
use super::transpose::{BlockSize, PlaneBlock};
use super::voxel::{Elements, Rules, Voxel};
use super::{FillEnd, NpzVolume, Sink, check_rest};
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::npz::{self, Compression, Payload};
use crate::storage::Stored;

impl NpzVolume<'_> {
    /// Makes the volume of the open file in `sink`, of voxels of type `T`; the last bytes are not published, and with
    /// `verify_first` nothing is.
    pub(super) fn fill_as<T: InPlanes>(
        &self,
        scratch: &mut Scratch,
        file: &dyn Stored,
        sink: &mut impl Sink,
        verify_first: bool,
    ) -> Result<FillEnd> {
        let payload = Payload::open(&self.path, file, self.array, &mut scratch.inflater)?;
        match self.steps() {
            Some(steps) => {
                let planes = PlaneSteps::<T>::new(&self.array.header, &steps, self.rules())
                    .map_err(|pad| self.misfit(&format!("the padding is {}", self.format.refusal(pad))))?;
                planes.fill(self, file, payload, &mut scratch.buffer, sink, verify_first)
            }
            None if self.is_in_order() => {
                self.fill_in_order::<T>(file, payload, &mut scratch.chunk, sink, verify_first)
            }
            None => self.fill_transposed::<T>(payload, &mut scratch.chunk, &mut scratch.buffer, sink),
        }
    }

    /// Reads `out.len()` bytes of the volume at `offset`, of voxels of type `T`, as [`Self::peek`] does.
    pub(super) fn peek_as<T: Voxel>(
        &self,
        file: &dyn Stored,
        offset: u64,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        const VOXELS: usize = 8192;
        let element = self.array.header.element.size();
        // Whole elements around the wanted bytes.
        let (mut at, mut skip) = (to_usize(offset) / size_of::<T>(), to_usize(offset) % size_of::<T>());
        let mut payload = match self.array.member.compression {
            Compression::Stored => None,
            Compression::Deflated | Compression::Gzip => {
                Some(Payload::open(&self.path, file, self.array, &mut scratch.inflater)?)
            }
        };
        if let Some(payload) = &mut payload {
            payload.skip((at * element) as u64, &mut scratch.chunk)?;
        }
        let mut voxels = [T::zeroed(); VOXELS];
        let mut done = 0;
        while done < out.len() {
            let count = (skip + out.len() - done).div_ceil(size_of::<T>()).min(VOXELS);
            let source = &mut scratch.chunk[..count * element];
            match &mut payload {
                Some(payload) => payload.read_exact(source)?,
                None => npz::read_stored(&self.path, file, self.array, (at * element) as u64, source)?,
            }
            self.cast(source, &mut voxels[..count], at)?;
            let bytes: &[u8] = &bytemuck::cast_slice(&voxels[..count])[skip..];
            let n = bytes.len().min(out.len() - done);
            out[done..done + n].copy_from_slice(&bytes[..n]);
            (done, at, skip) = (done + n, at + count, 0);
        }
        Ok(())
    }

    /// The block in which the volume's planes are transposed, in `buffer`.
    pub(super) fn plane_block<'b, T: Voxel>(&self, buffer: &'b mut VoxelBuffer) -> Result<PlaneBlock<'b, T>> {
        let size = BlockSize::new(self.shape(), size_of::<T>());
        let scratch = buffer.with_len(size.scratch_len());
        let scratch = scratch.map_err(|error| Error::io(&self.path, "get memory to transpose", error))?;
        Ok(PlaneBlock::new(scratch, size))
    }

    fn rules(&self) -> Rules {
        let element = self.array.header.element;
        Rules { overflow: self.overflow, window: self.format.window().unwrap_or_default(), element }
    }

    /// Converts the elements from number `first` of the array on, which are in `source`.
    fn cast<T: Voxel>(&self, source: &mut [u8], voxels: &mut [T], first: usize) -> Result<()> {
        let header = &self.array.header;
        let linear = match *self.recipe {
            Recipe::Rescaled { slope, intercept, .. } if (slope, intercept) != (1.0, 0.0) => {
                Some(Linear { slope, intercept })
            }
            Recipe::Stored | Recipe::Rescaled { .. } | Recipe::Preprocessed(_) => None,
        };
        let elements = Elements { element: header.element, big_endian: header.big_endian, bytes: source };
        T::of_elements(elements, linear, voxels, self.rules()).map_err(|Unfit { index, value }| {
            let place = self.place(first + index);
            self.misfit(&format!("voxel {place:?} is {}", self.format.refusal(value)))
        })
    }

    fn misfit(&self, reason: &str) -> Error {
        Error::malformed(&self.path, reason)
    }

    /// All but the last chunk is published as it comes; the last one waits for the checksum.
    fn fill_in_order<T: Voxel>(
        &self,
        file: &dyn Stored,
        mut payload: Payload<'_>,
        chunk: &mut [u8],
        sink: &mut impl Sink,
        mut verify_first: bool,
    ) -> Result<FillEnd> {
        let element = self.array.header.element.size();
        let mut first = 0;
        let mut withheld = 0;
        loop {
            if sink.cancelled() {
                return Ok(FillEnd::Cancelled);
            }
            let spare = &mut sink.spare()[withheld..];
            let left = spare.len() / size_of::<T>();
            let count = left.min(CHUNK_LEN / element);
            let bytes = count * size_of::<T>();
            let source = &mut chunk[..count * element];
            payload.read_exact(source)?;
            if let Err(error) = self.cast::<T>(source, bytemuck::cast_slice_mut(&mut spare[..bytes]), first) {
                return Err(check_rest(payload, chunk).err().unwrap_or(error));
            }
            if count == left {
                payload.finish()?;
                return Ok(FillEnd::Withheld);
            }
            // An fstat a chunk, 0.1 % of the time: what was published stays.
            verify_first = verify_first || self.is_doubtful(file)?;
            if verify_first {
                withheld += bytes;
            } else {
                sink.publish(bytes);
            }
            first += count;
        }
    }

    fn fill_transposed<T: Voxel>(
        &self,
        mut payload: Payload<'_>,
        chunk: &mut [u8],
        buffer: &mut VoxelBuffer,
        sink: &mut impl Sink,
    ) -> Result<FillEnd> {
        let mut block = self.plane_block::<T>(buffer)?;
        let depth = to_usize(self.shape()[2]);
        let element = self.array.header.element.size();
        let mut first = 0;
        for start in (0..depth).step_by(block.step()) {
            let range = start..depth.min(start + block.step());
            for plane in range.clone() {
                if sink.cancelled() {
                    return Ok(FillEnd::Cancelled);
                }
                for voxels in block.plane(plane).chunks_mut(CHUNK_LEN / element) {
                    let source = &mut chunk[..voxels.len() * element];
                    payload.read_exact(source)?;
                    if let Err(error) = self.cast(source, voxels, first) {
                        return Err(check_rest(payload, chunk).err().unwrap_or(error));
                    }
                    first += voxels.len();
                }
            }
            block.scatter(range, bytemuck::cast_slice_mut(sink.spare()));
        }
        payload.finish()?;
        Ok(FillEnd::Withheld)
    }

    /// The indexes of element number `index` of the array, in the array's own order of axes.
    fn place(&self, index: usize) -> [u64; 3] {
        let header = &self.array.header;
        let mut rest = index as u64;
        let mut place = [0; 3];
        let axes: [usize; 3] = if header.fortran_order { [0, 1, 2] } else { [2, 1, 0] };
        for axis in axes {
            place[axis] = rest % header.shape[axis];
            rest /= header.shape[axis];
        }
        place
    }
}
