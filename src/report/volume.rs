//! A volume in memory, and its slices in HU, as pictures need them.

use std::sync::Arc;

use super::facts;
use super::hu::{self, Reading, ToHu};
use super::picture::{Plane, Slice};
use super::place::Place;
use crate::base::memory;
use crate::base::num::to_usize;
use crate::dataset::Sample;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::members::Member;
use crate::shard::ShardSet;
use crate::volume::{ArrayFormat, Filled, NpzVolume, Overflow, Sink, Volume, VoxelFormat};

/// The bytes that are asked for at a time: few enough to stay in the processor's cache until they are looked at.
const READ: u64 = 256 << 10;

/// A volume, of which HU are made where they are asked for.
pub(super) struct HuVolume {
    bytes: Vec<u8>,
    format: VoxelFormat,
    to_hu: ToHu,
    /// The voxels along the array's axes.
    shape: [usize; 3],
    place: Place,
}

/// The bytes of a sample's volume, as its shard holds them, without the header of an NPY file.
///
/// # Errors
/// The volume cannot be made or read.
pub(super) fn shard_bytes(set: &ShardSet, index: usize, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let plan = set.plan();
    let sample = &plan.dataset.samples[index];
    let (shard, range) = plan
        .member_range(index, Member::Volume)
        .ok_or_else(|| Error::Internal(format!("sample {index} is in no shard")))?;
    let cursor = Arc::new(set.cursor(shard));
    let mut at = range.end - plan.volume(sample, Member::Volume).byte_len();
    while at < range.end {
        let bytes = set.read_with(&cursor, at, to_usize(READ.min(range.end - at)))?;
        each(&bytes)?;
        at += bytes.len() as u64;
    }
    Ok(())
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
    /// The volume cannot be made, or there is no memory for it.
    pub(super) fn of_shard(set: &ShardSet, index: usize, place: Place) -> Result<Self> {
        let plan = set.plan();
        let sample = &plan.dataset.samples[index];
        let (to_hu, format) = (Reading::new(plan, sample).to_hu, sample.format());
        let mut bytes = Vec::new();
        let len = to_usize(plan.volume(sample, Member::Volume).byte_len());
        bytes.try_reserve_exact(len).map_err(|_| no_memory())?;
        shard_bytes(set, index, |more| {
            bytes.extend_from_slice(more);
            Ok(())
        })?;
        let shape = checked_shape(plan, sample)?.map(to_usize);
        Ok(Self { bytes, format, to_hu, shape, place })
    }

    /// A volume in float32, made of its file by the steps of the shard; `None` for a finished shard, beside which there
    /// is no file.
    ///
    /// # Errors
    /// The volume cannot be made, or there is no memory for it.
    pub(super) fn of_source(set: &ShardSet, index: usize, place: Place) -> Result<Option<Self>> {
        let plan = set.plan();
        let sample = &plan.dataset.samples[index];
        let Volume::Npz(volume) = plan.volume(sample, Member::Volume) else { return Ok(None) };
        let volume =
            NpzVolume { format: ArrayFormat::Voxels(VoxelFormat::Float32), overflow: Overflow::default(), ..volume };
        let bytes = memory::zeros(to_usize(volume.byte_len())).map_err(|_| no_memory())?;
        let mut memory = Memory { bytes, done: 0 };
        match volume.fill(&mut memory, true)? {
            Filled::Complete => {}
            Filled::Cancelled => return Err(Error::Internal("a volume for a report was cancelled".into())),
        }
        Ok(Some(Self {
            bytes: memory.bytes,
            format: VoxelFormat::Float32,
            to_hu: Reading::new(plan, sample).to_hu,
            shape: volume.shape().map(to_usize),
            place,
        }))
    }

    /// The number of voxels.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The HU of the voxel at `index`, in the array's order.
    pub(super) fn hu(&self, index: usize) -> f32 {
        self.to_hu.of(hu::value(&self.bytes, index, self.format))
    }

    /// The number of slices of a plane.
    pub(super) fn slices(&self, plane: Plane) -> usize {
        self.hwd()[plane.axis()]
    }

    fn hwd(&self) -> [usize; 3] {
        self.place.axes.map(|axis| self.shape[axis])
    }

    /// A slice of a plane; rows lead downwards. In coronal and sagittal ones the last depth is on top.
    pub(super) fn slice(&self, plane: Plane, at: usize) -> Slice {
        let lengths = self.hwd();
        let [height, width, depth] = lengths;
        let of_axes = [self.shape[1] * self.shape[2], self.shape[2], 1];
        let steps = self.place.axes.map(|axis| of_axes[axis]);
        let voxel = |hwd: [usize; 3]| {
            let mut index = 0;
            for (axis, at) in hwd.into_iter().enumerate() {
                index += steps[axis] * if self.place.flipped[axis] { lengths[axis] - 1 - at } else { at };
            }
            self.hu(index)
        };
        let [mm_h, mm_w, mm_d] = self.place.spacing.unwrap_or([1.0; 3]);
        let (rows, columns, aspect) = match plane {
            Plane::Axial => (height, width, mm_h / mm_w),
            Plane::Coronal => (depth, width, mm_d / mm_w),
            Plane::Sagittal => (depth, height, mm_d / mm_h),
        };
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            values.extend((0..columns).map(|column| match plane {
                Plane::Axial => voxel([row, column, at]),
                Plane::Coronal => voxel([at, column, depth - 1 - row]),
                Plane::Sagittal => voxel([column, at, depth - 1 - row]),
            }));
        }
        Slice { values, width: columns, height: rows, aspect }
    }
}

fn no_memory() -> Error {
    Error::Refused(
        "there is no memory for a volume and its source in float32; take fewer --threads, or --shards".into(),
    )
}
