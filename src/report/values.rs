//! How often which HU occur, of each sampled volume and of all, and what rounding costs.

use super::hu;
use super::volume::{HuVolume, Voxels};
use crate::volume::VoxelFormat;

/// The lowest and the highest HU of a histogram; what is beyond counts in the first and the last bin.
const RANGE: [f64; 2] = [-2048.0, 3072.0];
/// The width of a bin, in HU.
pub(super) const BIN: f64 = 16.0;
/// The bins of a histogram.
pub(super) const BINS: usize = 320;
/// The shares of the voxels that are below the percentiles.
const SHARES: [f64; 3] = [0.01, 0.5, 0.99];
/// The different voxels of two bytes.
const PATTERNS: usize = 1 << 16;
/// The counts of the same two bytes, which are used by turns: neighbours are often equal, and to count one more in the
/// same place must wait for the last count to be written. They stand side by side, because a processor takes places of
/// tables that are a multiple of 4 KiB apart for the same one.
const LANES: usize = 4;
/// The bytes that are counted before the counts, which have 32 bits to stay in the processor's cache, are added up.
const BLOCK: usize = 1 << 30;
/// The voxels that are read at a time to be compared.
const COMPARED: usize = 4096;
/// The voxels that are passed over together where all are equal, as integers below 2048 are in float16.
const EQUAL: usize = 16;

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
    /// The HU below which 1, 50 and 99 % of the voxels are; `None` if no voxel is a number.
    pub(super) percentiles: Option<[f64; 3]>,
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

/// Counts the voxels of a volume, which costs little beside making them: two bytes have 65,536 values, and HU are made
/// of these.
pub(super) fn of_volume(volume: &HuVolume) -> VolumeValues {
    let (mut histogram, mut found) = (Histogram::default(), Vec::new());
    for (pattern, count) in (0..=u16::MAX).zip(counts(volume.bytes(), volume.format())) {
        if count > 0 {
            let hu = f64::from(volume.hu_of(hu::value_of(pattern, volume.format())));
            histogram.count(hu, count);
            if !hu.is_nan() {
                found.push((hu, count));
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let percentiles = found.last().map(|(highest, _)| SHARES.map(|share| percentile(&found, share, *highest)));
    VolumeValues { histogram, percentiles }
}

/// The number of voxels of each two bytes; those of float32 count by the nearest finite float16, those of one byte by
/// it.
fn counts(bytes: &[u8], format: VoxelFormat) -> Vec<u64> {
    let mut all = vec![0; PATTERNS];
    let mut counts = vec![[0; LANES]; PATTERNS];
    for block in bytes.chunks(BLOCK) {
        let counts = counts.first_chunk_mut().expect("there are as many as patterns");
        match format {
            VoxelFormat::Float16 | VoxelFormat::Int16 => {
                count(block.as_chunks().0, |voxel| u16::from_le_bytes(*voxel), counts);
            }
            VoxelFormat::Float32 => {
                let rounded = |voxel: &[u8; 4]| {
                    // A number stays one: beyond the largest float16 there would be an infinity.
                    let voxel = f32::from_le_bytes(*voxel);
                    let largest = half::f16::MAX.to_f32();
                    half::f16::from_f32(if voxel.is_finite() { voxel.clamp(-largest, largest) } else { voxel })
                        .to_bits()
                };
                count(block.as_chunks().0, rounded, counts);
            }
            VoxelFormat::Uint8 { .. } => count(block, |voxel| u16::from(*voxel), counts),
        }
        for (all, lanes) in all.iter_mut().zip(counts) {
            *all += std::mem::take(lanes).map(u64::from).iter().sum::<u64>();
        }
    }
    all
}

fn count<T>(voxels: &[T], pattern: impl Fn(&T) -> u16, counts: &mut [[u32; LANES]; PATTERNS]) {
    let (groups, rest) = voxels.as_chunks::<LANES>();
    for group in groups {
        for (lane, voxel) in group.iter().enumerate() {
            counts[usize::from(pattern(voxel))][lane] += 1;
        }
    }
    rest.iter().for_each(|voxel| counts[usize::from(pattern(voxel))][0] += 1);
}

/// The value below which a share of all is, of values in ascending order with their numbers.
fn percentile(found: &[(f64, u64)], share: f64, highest: f64) -> f64 {
    let all: u64 = found.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    for (hu, count) in found {
        below += count;
        if below as f64 >= share * all as f64 {
            return *hu;
        }
    }
    highest
}

/// The differences between volumes as shards hold them and the same in float32, by the shards' HU.
#[derive(Clone, Debug)]
pub(super) struct Rounding {
    bins: Vec<Differences>,
    /// The voxels that are a number in float32 and none, or an infinity, in the shard, or the other way round.
    pub(super) lost: u64,
}

/// The differences of the voxels of one bin.
#[derive(Clone, Copy, Debug, Default)]
struct Differences {
    sum: f64,
    largest: f32,
    count: u64,
}

impl Default for Rounding {
    fn default() -> Self {
        Self { bins: vec![Differences::default(); BINS], lost: 0 }
    }
}

impl Rounding {
    /// Adds all voxels of a volume, whose HU in the shard are counted already: the largest difference may be that of a
    /// single one.
    pub(super) fn compare(&mut self, shard: &Voxels<'_>, source: &Voxels<'_>, counted: &Histogram) {
        self.bins.iter_mut().zip(&counted.bins).for_each(|(bin, count)| bin.count += count);
        let mut buffers = [[0.0; COMPARED]; 2];
        let [of_shard, of_source] = &mut buffers;
        for first in (0..shard.len()).step_by(COMPARED) {
            let len = COMPARED.min(shard.len() - first);
            shard.read(first, &mut of_shard[..len]);
            source.read(first, &mut of_source[..len]);
            for (shard, source) in of_shard[..len].chunks(EQUAL).zip(of_source[..len].chunks(EQUAL)) {
                let differs =
                    shard.iter().zip(source).fold(false, |differs, (shard, source)| differs | (shard != source));
                if differs {
                    shard.iter().zip(source).for_each(|(shard, source)| self.add_difference(*shard, *source));
                }
            }
        }
    }

    fn add_difference(&mut self, shard: f32, source: f32) {
        let difference = (shard - source).abs();
        if difference.is_finite() {
            let bin = &mut self.bins[bin(f64::from(shard))];
            bin.sum += f64::from(difference);
            bin.largest = bin.largest.max(difference);
        } else if shard.is_finite() != source.is_finite() {
            self.lost += 1;
        }
    }

    /// Adds the differences of another one.
    pub(super) fn add(&mut self, other: &Self) {
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            bin.sum += other.sum;
            bin.largest = bin.largest.max(other.largest);
            bin.count += other.count;
        }
        self.lost += other.lost;
    }

    /// The mean difference of all voxels in HU, and the largest one; `None` if nothing was compared.
    pub(super) fn overall(&self) -> Option<(f64, f32)> {
        let count = self.bins.iter().map(|bin| bin.count).sum::<u64>();
        let largest = self.bins.iter().map(|bin| bin.largest).fold(0.0, f32::max);
        (count > 0).then(|| (self.bins.iter().map(|bin| bin.sum).sum::<f64>() / count as f64, largest))
    }

    /// Of the bins with voxels, the middle in HU, the mean difference and the largest.
    pub(super) fn by_hu(&self) -> Vec<(f64, f64, f64)> {
        let filled = self.bins.iter().enumerate().filter(|(_, bin)| bin.count > 0);
        filled.map(|(at, bin)| (Histogram::middle(at), bin.sum / bin.count as f64, f64::from(bin.largest))).collect()
    }
}
