//! A volume in memory, and its slices in HU, as pictures need them.

use std::sync::Arc;

use bytes::Bytes;
use bytesize::ByteSize;

use super::facts;
use super::hu::{self, Reading, ToHu};
use super::means::in_float32;
use super::picture::{Plane, Slice};
use super::place::Place;
use crate::base::memory;
use crate::base::num::to_usize;
use crate::dataset::Sample;
use crate::error::{Error, Result, shown};
use crate::plan::Plan;
use crate::plan::members::Member;
use crate::shard::ShardSet;
use crate::volume::{Filled, Sink, VoxelFormat};

/// A volume, of which HU are made where they are asked for.
pub(super) struct HuVolume {
    bytes: Bytes,
    format: VoxelFormat,
    to_hu: ToHu,
    /// The voxels along the array's axes.
    shape: [usize; 3],
}

/// The bytes of a sample's volume, as its shard holds them, without the header of an NPY file: in one read, so that it
/// is made from its beginning to its end, once, and is not copied.
///
/// # Errors
/// The volume cannot be made or read.
fn shard_bytes(set: &ShardSet, index: usize) -> Result<Bytes> {
    let plan = set.plan();
    let sample = &plan.dataset.samples[index];
    let (shard, range) = plan
        .member_range(index, Member::Volume)
        .ok_or_else(|| Error::Internal(format!("sample {index} is in no shard")))?;
    let len = plan.volume(sample, Member::Volume).byte_len();
    set.read_with(&Arc::new(set.cursor(shard)), range.end - len, to_usize(len))
}

/// The shape of a sample's volume, which has as many voxels as its shard has bytes for.
///
/// # Errors
/// [`Error::Malformed`] if it has others: the JSON of a finished shard may be damaged.
pub(super) fn checked_shape(plan: &Plan, sample: &Sample) -> Result<[u64; 3]> {
    let shape = facts::shape(plan, sample);
    let len = plan.volume(sample, Member::Volume).byte_len();
    let voxels = shape.iter().try_fold(1u64, |product, len| product.checked_mul(*len));
    if voxels.and_then(|voxels| voxels.checked_mul(sample.format().voxel_len() as u64)) == Some(len) {
        return Ok(shape);
    }
    let [one, two, three] = shape;
    let what = format!("volume_shape {one} × {two} × {three} does not fit {len} bytes; verify --shards says more");
    Err(Error::malformed(&plan.dataset.root.join(&sample.path), what))
}

/// Memory that a volume is made into.
struct Memory {
    bytes: Vec<u8>,
    done: usize,
}

impl Sink for Memory {
    fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.done..]
    }

    fn publish(&mut self, len: usize) {
        self.done += len;
    }

    fn cancelled(&mut self) -> bool {
        false
    }
}

impl HuVolume {
    /// A volume as its shard holds it.
    ///
    /// # Errors
    /// The volume cannot be made or read.
    pub(super) fn of_shard(set: &ShardSet, index: usize) -> Result<Self> {
        let plan = set.plan();
        let sample = &plan.dataset.samples[index];
        let shape = checked_shape(plan, sample)?.map(to_usize);
        let (to_hu, format) = (Reading::new(plan, sample).to_hu, sample.format());
        Ok(Self { bytes: shard_bytes(set, index)?, format, to_hu, shape })
    }

    /// A volume in float32, made of its file by the steps of the shard; `None` for a finished shard, beside which there
    /// is no file.
    ///
    /// # Errors
    /// The volume cannot be made, or there is no memory for it.
    pub(super) fn of_source(set: &ShardSet, index: usize) -> Result<Option<Self>> {
        let plan = set.plan();
        let sample = &plan.dataset.samples[index];
        let Some(volume) = in_float32(&plan.volume(sample, Member::Volume)) else { return Ok(None) };
        let bytes = memory::zeros(to_usize(volume.byte_len())).map_err(|_| no_memory(sample, volume.byte_len()))?;
        let mut memory = Memory { bytes, done: 0 };
        match volume.fill(&mut memory, true)? {
            Filled::Complete => {}
            Filled::Cancelled => return Err(Error::Internal("a volume for a report was cancelled".into())),
        }
        Ok(Some(Self {
            bytes: memory.bytes.into(),
            format: VoxelFormat::Float32,
            to_hu: Reading::new(plan, sample).to_hu,
            shape: volume.shape().map(to_usize),
        }))
    }

    /// The voxels' bytes, little-endian.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The format of the voxels.
    pub(super) fn format(&self) -> VoxelFormat {
        self.format
    }

    /// The HU of a voxel of this value.
    pub(super) fn hu_of(&self, voxel: f32) -> f32 {
        self.to_hu.of(voxel)
    }

    /// The voxels in HU, in the array's order.
    pub(super) fn voxels(&self) -> Voxels<'_> {
        let table = || (0..=u16::MAX).map(|pattern| self.hu_of(hu::value_of(pattern, self.format))).collect();
        match self.format {
            VoxelFormat::Float16 | VoxelFormat::Int16 => Voxels::Pairs(self.bytes.as_chunks().0, table()),
            VoxelFormat::Uint8 { .. } => Voxels::Bytes(&self.bytes, table()),
            VoxelFormat::Float32 => Voxels::Floats(self.bytes.as_chunks().0, self.to_hu),
        }
    }

    /// The volume as it lies.
    pub(super) fn laid(&self, place: Place) -> Laid<'_> {
        let strides = [self.shape[1] * self.shape[2], self.shape[2], 1];
        let axis = |hwd: usize| Axis {
            len: self.shape[place.axes[hwd]],
            stride: strides[place.axes[hwd]],
            is_flipped: place.flipped[hwd],
        };
        Laid { voxels: self.voxels(), hwd: [0, 1, 2].map(axis), spacing: place.spacing.unwrap_or([1.0; 3]) }
    }
}

/// Voxels by their bytes, with what makes HU of them: where these are two or one, the HU of all that there are.
pub(super) enum Voxels<'a> {
    Bytes(&'a [u8], Vec<f32>),
    Pairs(&'a [[u8; 2]], Vec<f32>),
    Floats(&'a [[u8; 4]], ToHu),
}

impl Voxels<'_> {
    /// The number of voxels.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes, _) => bytes.len(),
            Self::Pairs(pairs, _) => pairs.len(),
            Self::Floats(floats, _) => floats.len(),
        }
    }

    /// The HU of the voxels from number `first` on.
    pub(super) fn read(&self, first: usize, out: &mut [f32]) {
        let range = first..first + out.len();
        match self {
            Self::Bytes(bytes, hu) => {
                out.iter_mut().zip(&bytes[range]).for_each(|(out, byte)| *out = hu[usize::from(*byte)]);
            }
            Self::Pairs(pairs, hu) => {
                let of = |pair: &[u8; 2]| hu[usize::from(u16::from_le_bytes(*pair))];
                out.iter_mut().zip(&pairs[range]).for_each(|(out, pair)| *out = of(pair));
            }
            Self::Floats(floats, to_hu) => {
                let of = |float: &[u8; 4]| to_hu.of(f32::from_le_bytes(*float));
                out.iter_mut().zip(&floats[range]).for_each(|(out, float)| *out = of(float));
            }
        }
    }

    fn at(&self, index: usize) -> f32 {
        match self {
            Self::Bytes(bytes, hu) => hu[usize::from(bytes[index])],
            Self::Pairs(pairs, hu) => hu[usize::from(u16::from_le_bytes(pairs[index]))],
            Self::Floats(floats, to_hu) => to_hu.of(f32::from_le_bytes(floats[index])),
        }
    }
}

/// An axis of the pictures.
#[derive(Clone, Copy)]
struct Axis {
    /// The voxels along it.
    len: usize,
    /// The voxels of the array from one to the next.
    stride: usize,
    /// Whether it runs against the array's.
    is_flipped: bool,
}

impl Axis {
    fn offset(self, at: usize) -> usize {
        self.stride * if self.is_flipped { self.len - 1 - at } else { at }
    }

    fn reversed(self) -> Self {
        Self { is_flipped: !self.is_flipped, ..self }
    }
}

/// A volume as it lies for pictures.
pub(super) struct Laid<'a> {
    /// The voxels.
    pub(super) voxels: Voxels<'a>,
    /// Height, width and depth.
    hwd: [Axis; 3],
    /// Their spacing in mm.
    spacing: [f64; 3],
}

impl Laid<'_> {
    /// The number of slices of a plane.
    pub(super) fn slices_of(&self, plane: Plane) -> usize {
        self.hwd[plane.axis()].len
    }

    /// Slices of a plane; rows lead downwards. In coronal and sagittal ones the last depth is on top. What lies side by
    /// side in memory is read at once, for all slices.
    pub(super) fn slices(&self, plane: Plane, numbers: &[usize]) -> Vec<Slice> {
        let [height, width, depth] = self.hwd;
        let [mm_h, mm_w, mm_d] = self.spacing;
        let (rows, columns, aspect) = match plane {
            Plane::Axial => (height, width, mm_h / mm_w),
            Plane::Coronal => (depth.reversed(), width, mm_d / mm_w),
            Plane::Sagittal => (depth.reversed(), height, mm_d / mm_h),
        };
        let through = self.hwd[plane.axis()];
        let starts: Vec<usize> = numbers.iter().map(|number| through.offset(*number)).collect();
        let mut slices: Vec<Slice> = starts
            .iter()
            .map(|_| Slice { values: vec![0.0; rows.len * columns.len], width: columns.len, height: rows.len, aspect })
            .collect();
        for row in 0..rows.len {
            for column in 0..columns.len {
                let (from, to) = (rows.offset(row) + columns.offset(column), row * columns.len + column);
                for (slice, start) in slices.iter_mut().zip(&starts) {
                    slice.values[to] = self.voxels.at(from + start);
                }
            }
        }
        slices
    }
}

fn no_memory(sample: &Sample, bytes: u64) -> Error {
    Error::Refused(format!(
        "{}: there is no memory for the volume in float32, {}; take fewer --threads, or raise the limit (the memory of \
         the job or the container, or ulimit -v)",
        shown(&sample.study_id),
        ByteSize(bytes)
    ))
}
