//! Memory that a decoding thread keeps for its whole life: fresh pages cost more than the decoding itself
//! (first touch was measured at 0.2 to 0.7 GB/s on virtual machines).

use std::cell::RefCell;
use std::path::Path;

use bytemuck::Pod;
use memmap2::{Advice, MmapMut};

use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::codec::{BLOCK, Decoder};
use crate::formats::inflate::Inflater;

/// The source bytes that are unpacked, checked and cast at a time: chunk, window and result together stay in L2.
pub(super) const CHUNK_LEN: usize = 128 * 1024;

/// The memory in bytes that a decoding thread may take for planes and their transposition, and keep, whatever the limit
/// for volumes is: 32 MiB, and the gaps between planes. What a volume takes beyond it is counted as the volume is.
pub const DECODER_SCRATCH: u64 = (32 << 20) + (64 << 10);

/// The buffers of a decoding thread. Page-aligned, because the kernel copies into a buffer at a page offset of 8 to 24
/// five times slower.
pub(super) struct Scratch {
    /// The decompressor for deflated arrays.
    pub inflater: Inflater,
    /// The memory for unpacked bytes, [`CHUNK_LEN`] of them.
    pub chunk: MmapMut,
    /// The memory for a block of planes that are transposed; grows to what the largest volume needs.
    pub buffer: VoxelBuffer,
    frame_decoder: Option<FrameDecoder>,
}

/// The memory for one compressed block, and its decompressor.
pub(super) struct FrameDecoder {
    frame: MmapMut,
    decoder: Decoder,
}

impl FrameDecoder {
    /// The memory for a frame of `len` bytes, and the decompressor.
    ///
    /// # Errors
    /// The error of `mmap` if the operating system has no memory left.
    pub(super) fn parts(&mut self, len: usize) -> std::io::Result<(&mut [u8], &mut Decoder)> {
        if self.frame.len() < len {
            self.frame = MmapMut::map_anon(len)?;
        }
        Ok((&mut self.frame[..len], &mut self.decoder))
    }
}

/// Memory for voxels that grows to the largest size that was asked for.
pub(super) struct VoxelBuffer(Option<MmapMut>);

impl VoxelBuffer {
    /// The memory, of `len` voxels.
    ///
    /// # Errors
    /// The error of `mmap` if the operating system has no memory left.
    pub(super) fn with_len<T: Pod>(&mut self, len: usize) -> std::io::Result<&mut [T]> {
        let bytes = len * size_of::<T>();
        if self.0.as_ref().is_none_or(|map| map.len() < bytes) {
            let map = MmapMut::map_anon(bytes)?;
            let _ = map.advise(Advice::HugePage); // its strided reads would miss the TLB on small pages
            self.0 = Some(map);
        }
        Ok(self.0.as_mut().map_or(&mut [], |map| bytemuck::cast_slice_mut(&mut map[..bytes])))
    }
}

impl VoxelBuffer {
    /// Gives memory back that only a volume with unusually large planes needs: a thread keeps [`DECODER_SCRATCH`]
    /// bytes.
    pub(super) fn give_back(&mut self) {
        let most = to_usize(DECODER_SCRATCH);
        self.0.take_if(|map| map.len() > most);
    }
}

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let (inflater, chunk) = (Inflater::new()?, MmapMut::map_anon(CHUNK_LEN)?);
        Ok(Self { inflater, chunk, buffer: VoxelBuffer(None), frame_decoder: None })
    }

    /// The memory and decompressor for compressed blocks, made at the first use.
    ///
    /// # Errors
    /// The error of `mmap` or zstd if there is no memory left.
    pub(super) fn frame_decoder(&mut self) -> std::io::Result<&mut FrameDecoder> {
        match &mut self.frame_decoder {
            Some(frame_decoder) => Ok(frame_decoder),
            none => Ok(none.insert(FrameDecoder { frame: MmapMut::map_anon(BLOCK)?, decoder: Decoder::new()? })),
        }
    }

    /// Runs `work` with this thread's buffers, to decode the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no memory for the buffers; the error of `work`.
    pub(super) fn with<R>(path: &Path, work: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        thread_local! {
            static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
        }
        SCRATCH.with_borrow_mut(|scratch| match scratch {
            Some(scratch) => work(scratch),
            none => {
                let made = Self::new().map_err(|error| Error::io(path, "get memory to decode", error))?;
                work(none.insert(made))
            }
        })
    }
}
