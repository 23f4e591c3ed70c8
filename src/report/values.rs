//! How often which HU occur, of each sampled volume and of all, and what rounding costs.

use super::hu::{self, Reading};
use super::volume::{HuVolume, checked_shape, shard_bytes};
use crate::error::Result;
use crate::shard::ShardSet;
use crate::volume::VoxelFormat;

/// The lowest and the highest HU of a histogram; what is beyond counts in the first and the last bin.
const RANGE: [f64; 2] = [-2048.0, 3072.0];
/// The width of a bin, in HU.
pub(super) const BIN: f64 = 16.0;
/// The bins of a histogram.
pub(super) const BINS: usize = 320;
/// One voxel of so many is compared with its source. A prime number, so that no axis is left out.
const STEP: usize = 7;
/// The different voxels of two bytes.
const PATTERNS: usize = 1 << 16;
/// The tables that voxels are counted in by turns. Neighbours are often equal, and to count one more in the same place
/// must wait for the last count to be written.
const TABLES: usize = 4;

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
    checked_shape(set.plan(), sample)?;
    let (format, to_hu) = (sample.format(), Reading::new(set.plan(), sample).to_hu);
    let mut tables = vec![[0u64; PATTERNS]; TABLES];
    shard_bytes(set, index, |bytes| {
        count_patterns(bytes, format, &mut tables);
        Ok(())
    })?;
    let mut found: Vec<(f64, u64)> = Vec::new();
    let mut histogram = Histogram::default();
    for pattern in 0u16..=u16::MAX {
        let count = tables.iter().map(|table| table[usize::from(pattern)]).sum();
        if count > 0 {
            let hu = f64::from(to_hu.of(value_of(pattern, format)));
            histogram.count(hu, count);
            if !hu.is_nan() {
                found.push((hu, count));
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    Ok(VolumeValues { histogram, percentiles: [0.01, 0.5, 0.99].map(|share| percentile(&found, share)) })
}

/// Counts voxels by their two bytes; those of float32 by the float16 that they round to, those of one byte by it.
fn count_patterns(bytes: &[u8], format: VoxelFormat, tables: &mut [[u64; PATTERNS]]) {
    match format {
        VoxelFormat::Float16 | VoxelFormat::Int16 => {
            count(bytes.as_chunks().0, |voxel| u16::from_le_bytes(*voxel), tables);
        }
        VoxelFormat::Float32 => {
            let rounded = |voxel: &[u8; 4]| half::f16::from_f32(f32::from_le_bytes(*voxel)).to_bits();
            count(bytes.as_chunks().0, rounded, tables);
        }
        VoxelFormat::Uint8 { .. } => count(bytes, |voxel| u16::from(*voxel), tables),
    }
}

fn count<T>(voxels: &[T], pattern: impl Fn(&T) -> u16, tables: &mut [[u64; PATTERNS]]) {
    for voxels in voxels.chunks(TABLES) {
        for (voxel, table) in voxels.iter().zip(&mut *tables) {
            table[usize::from(pattern(voxel))] += 1;
        }
    }
}

/// The value of a voxel by its bytes as [`count_patterns`] counts them.
fn value_of(pattern: u16, format: VoxelFormat) -> f32 {
    match format {
        VoxelFormat::Float16 | VoxelFormat::Float32 => half::f16::from_bits(pattern).to_f32(),
        VoxelFormat::Int16 => f32::from(pattern.cast_signed()),
        VoxelFormat::Uint8 { .. } => hu::value(&pattern.to_le_bytes(), 0, format),
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
    /// Adds voxels of a volume: one of [`STEP`], since no more are needed to see how far rounding goes.
    pub(super) fn compare(&mut self, shard: &HuVolume, source: &HuVolume) {
        for index in (0..shard.len()).step_by(STEP) {
            let (shard, source) = (shard.hu(index), source.hu(index));
            let difference = f64::from(shard - source).abs();
            if difference.is_finite() {
                let (sum, most, count) = &mut self.bins[bin(f64::from(source))];
                *sum += difference;
                *most = most.max(difference);
                *count += 1;
            }
        }
    }

    /// Adds the differences of another one.
    pub(super) fn add(&mut self, other: &Self) {
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            *bin = (bin.0 + other.0, bin.1.max(other.1), bin.2 + other.2);
        }
    }

    /// Of the bins with voxels, the middle in HU, the mean difference and the largest.
    pub(super) fn by_hu(&self) -> Vec<(f64, f64, f64)> {
        let filled = self.bins.iter().enumerate().filter(|(_, (_, _, count))| *count > 0);
        filled.map(|(bin, (sum, most, count))| (Histogram::middle(bin), sum / *count as f64, *most)).collect()
    }
}
