//! Memory that a decoding thread keeps for its whole life: fresh pages cost more than the decoding itself
//! (first touch was measured at 0.2 to 0.7 GB/s on virtual machines).

use std::cell::RefCell;

use half::f16;
use memmap2::{Advice, MmapMut};

use crate::formats::codec::Decoder;
use crate::formats::inflate::Inflater;

/// Source bytes that are unpacked, checked and cast at a time: chunk, window and result together stay in L2.
pub(super) const CHUNK_LEN: usize = 128 * 1024;

/// A decoder's buffers. Page-aligned, because the kernel copies into a buffer at a page offset of 8 to 24 five
/// times slower.
pub(super) struct Scratch {
    /// For deflated arrays.
    pub inflater: Inflater,
    /// Unpacked bytes, [`CHUNK_LEN`] of them.
    pub chunk: MmapMut,
    /// A block of planes, for Fortran order; grows to what the largest volume needs.
    pub block: Block,
    packed: Option<Packed>,
}

/// For compressed shards: a block's frame, and what unpacks it.
pub(super) struct Packed {
    frame: MmapMut,
    decoder: Decoder,
}

impl Packed {
    /// Room for a frame of `len` bytes, and the decoder.
    pub(super) fn parts(&mut self, len: usize) -> std::io::Result<(&mut [u8], &mut Decoder)> {
        if self.frame.len() < len {
            self.frame = MmapMut::map_anon(len)?;
        }
        Ok((&mut self.frame[..len], &mut self.decoder))
    }
}

/// Memory of a size that is known when it is used.
pub(super) struct Block(Option<MmapMut>);

impl Block {
    /// At least `len` voxels of it.
    pub(super) fn with_len(&mut self, len: usize) -> std::io::Result<&mut [f16]> {
        let bytes = len * size_of::<f16>();
        if self.0.as_ref().is_none_or(|map| map.len() < bytes) {
            let map = MmapMut::map_anon(bytes)?;
            let _ = map.advise(Advice::HugePage); // its strided reads would miss the TLB on small pages
            self.0 = Some(map);
        }
        Ok(self.0.as_mut().map_or(&mut [], |map| bytemuck::cast_slice_mut(map)))
    }
}

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let (inflater, chunk) = (Inflater::new()?, MmapMut::map_anon(CHUNK_LEN)?);
        Ok(Self { inflater, chunk, block: Block(None), packed: None })
    }

    /// What a compressed shard is read with.
    pub(super) fn packed(&mut self) -> std::io::Result<&mut Packed> {
        match &mut self.packed {
            Some(packed) => Ok(packed),
            none => Ok(none
                .insert(Packed { frame: MmapMut::map_anon(crate::formats::codec::BLOCK)?, decoder: Decoder::new()? })),
        }
    }

    /// Runs `work` with this thread's buffers.
    pub(super) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static SCRATCH: RefCell<Scratch> =
                RefCell::new(Scratch::new().expect("half a megabyte of memory for a decoder"));
        }
        SCRATCH.with_borrow_mut(work)
    }
}
