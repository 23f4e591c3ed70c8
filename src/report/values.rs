//! How often which HU occur, of each sampled volume and of all, and what rounding costs.

use super::hu::ToHu;
use super::volume::{HuVolume, shard_bytes};
use crate::error::Result;
use crate::shard::ShardSet;
use crate::volume::VoxelFormat;

/// The lowest and the highest HU of a histogram; what is beyond counts in the first and the last bin.
const RANGE: [f64; 2] = [-2048.0, 3072.0];
/// The width of a bin, in HU.
pub(super) const BIN: f64 = 16.0;
/// The bins of a histogram.
pub(super) const BINS: usize = 320;
/// The different voxels of two bytes.
const PATTERNS: usize = 1 << 16;

/// The number of voxels by HU.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    /// The counts of the bins.
    pub(super) bins: Vec<u64>,
    /// The voxels that are no number.
    pub(super) not_a_number: u64,
}

/// What the voxels of one volume are.
#[derive(Clone, Debug)]
pub(super) struct VolumeValues {
    /// How often which HU occur.
    pub(super) histogram: Histogram,
    /// The HU below which 1, 50 and 99 % of the voxels are.
    pub(super) percentiles: [f64; 3],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; BINS], not_a_number: 0 }
    }
}

impl Histogram {
    /// The middle of a bin, in HU.
    pub(super) fn middle(bin: usize) -> f64 {
        RANGE[0] + (bin as f64 + 0.5) * BIN
    }

    /// Adds the counts of another one.
    pub(super) fn add(&mut self, other: &Self) {
        self.bins.iter_mut().zip(&other.bins).for_each(|(bin, other)| *bin += other);
        self.not_a_number += other.not_a_number;
    }

    fn count(&mut self, hu: f64, count: u64) {
        if hu.is_nan() {
            self.not_a_number += count;
        } else {
            self.bins[bin(hu)] += count;
        }
    }
}

/// The bin of a number of HU.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bins")]
fn bin(hu: f64) -> usize {
    (((hu - RANGE[0]) / BIN).clamp(0.0, (BINS - 1) as f64)) as usize
}

/// Counts the voxels of a sample's volume as its shard holds them, which costs little beside making them: two bytes
/// have 65,536 values, and HU are made of these.
///
/// # Errors
/// The volume cannot be made or read.
pub(super) fn of_volume(set: &ShardSet, index: usize) -> Result<VolumeValues> {
    let sample = &set.plan().dataset.samples[index];
    let (format, to_hu) = (sample.format(), ToHu::new(set.plan(), sample));
    let mut counts = vec![0u64; PATTERNS];
    shard_bytes(set, index, |bytes| {
        count_patterns(bytes, format, &mut counts);
        Ok(())
    })?;
    let mut found: Vec<(f64, u64)> = Vec::new();
    let mut histogram = Histogram::default();
    for (pattern, count) in (0u16..=u16::MAX).zip(&counts).filter(|(_, count)| **count > 0) {
        let hu = f64::from(to_hu.of(value_of(pattern, format)));
        histogram.count(hu, *count);
        if !hu.is_nan() {
            found.push((hu, *count));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    Ok(VolumeValues { histogram, percentiles: [0.01, 0.5, 0.99].map(|share| percentile(&found, share)) })
}

/// Counts voxels by their two bytes; those of float32 by the float16 that they round to, those of one byte by it.
fn count_patterns(bytes: &[u8], format: VoxelFormat, counts: &mut [u64]) {
    match format {
        VoxelFormat::Float16 | VoxelFormat::Int16 => {
            for voxel in bytes.as_chunks().0 {
                counts[usize::from(u16::from_le_bytes(*voxel))] += 1;
            }
        }
        VoxelFormat::Float32 => {
            for voxel in bytes.as_chunks().0 {
                counts[usize::from(half::f16::from_f32(f32::from_le_bytes(*voxel)).to_bits())] += 1;
            }
        }
        VoxelFormat::Uint8 { .. } => bytes.iter().for_each(|voxel| counts[usize::from(*voxel)] += 1),
    }
}

/// The value of a voxel by its bytes as [`count_patterns`] counts them.
fn value_of(pattern: u16, format: VoxelFormat) -> f32 {
    match format {
        VoxelFormat::Float16 | VoxelFormat::Float32 => half::f16::from_bits(pattern).to_f32(),
        VoxelFormat::Int16 => f32::from(pattern.cast_signed()),
        VoxelFormat::Uint8 { .. } => super::hu::values(&pattern.to_le_bytes()[..1], format)[0],
    }
}

/// The value below which a share of all is, of values in ascending order with their numbers.
fn percentile(found: &[(f64, u64)], share: f64) -> f64 {
    let all: u64 = found.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    for (hu, count) in found {
        below += count;
        if below as f64 >= share * all as f64 {
            return *hu;
        }
    }
    0.0
}

/// The differences between volumes as shards hold them and the same in float32, by HU.
#[derive(Clone, Debug)]
pub(super) struct Rounding {
    /// Of each bin, the sum of the differences, the largest one, and their number.
    bins: Vec<(f64, f64, u64)>,
}

impl Default for Rounding {
    fn default() -> Self {
        Self { bins: vec![(0.0, 0.0, 0); BINS] }
    }
}

impl Rounding {
    /// Adds the voxels of a volume.
    pub(super) fn compare(&mut self, shard: &HuVolume, source: &HuVolume) {
        for (shard, source) in shard.values().iter().zip(source.values()) {
            let difference = f64::from(shard - source).abs();
            if difference.is_finite() {
                let (sum, most, count) = &mut self.bins[bin(f64::from(*source))];
                *sum += difference;
                *most = most.max(difference);
                *count += 1;
            }
        }
    }

    /// Of the bins with voxels, the middle in HU, the mean difference and the largest.
    pub(super) fn by_hu(&self) -> Vec<(f64, f64, f64)> {
        let filled = self.bins.iter().enumerate().filter(|(_, (_, _, count))| *count > 0);
        filled.map(|(bin, (sum, most, count))| (Histogram::middle(bin), sum / *count as f64, *most)).collect()
    }
}
