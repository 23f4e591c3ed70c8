//! The estimate of what shards would take: a seeded sample of the volumes is made and compressed, and the measured
//! sizes and times are scaled up to all volumes.
//!
//! Every figure is measured on the data set itself; bytes come from [`crate::shard`], frames from the codec.

use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use serde::{Serialize, Serializer};

use crate::base::num::to_usize;
use crate::base::parallel::try_map;
use crate::dataset::{Origin, Sample, Study};
use crate::error::{Error, Result};
use crate::formats::codec::{BLOCK, CODEC, Codec, Encoder, RowFilter, SeekTable};
use crate::plan::Plan;
use crate::plan::layout::Content;
use crate::plan::members::{Member, volume_filter, volume_row};
use crate::plan::shuffle;
use crate::shard::{Serving, ShardSet};
use crate::volume::{Kind, KindOptions, Recipe};

/// The bytes that are asked for at a time.
const READ: u64 = 4 << 20;
/// The codecs that are compared with plain volumes: the default level, and a slow one.
const CODECS: [&str; 2] = [CODEC, "zstd:9"];

/// The options of an estimate.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The number of volumes that are made, at most.
    pub samples: usize,
    /// The seed by which the volumes are chosen.
    pub seed: u64,
    /// The number of threads, and of the cores that times are projected to.
    pub cores: usize,
    /// The memory for volumes, in bytes.
    pub cache_bytes: u64,
}

/// The estimate for shards of one kind.
#[derive(Debug, Serialize)]
pub struct Estimate {
    /// The kind of the volumes.
    pub kind: Kind,
    /// The number of samples of which a volume of this kind can be made.
    pub volumes: usize,
    /// The study ids of the volumes that were made and compressed.
    pub sampled: Vec<String>,
    /// The bytes of the NPZ files of all volumes.
    pub npz_bytes: u64,
    /// The bytes that the arrays of all volumes would take as float32.
    pub f32_bytes: u64,
    /// The bytes of the members of all plain volumes; known without reading one.
    #[serde(rename = "f16_bytes")] // the name that version 0.1 gave it in --json
    pub plain_bytes: u64,
    /// The estimates for plain volumes and for each codec.
    pub codecs: Vec<CodecEstimate>,
}

/// The estimate for shards of one kind with one codec.
#[derive(Debug, Serialize)]
pub struct CodecEstimate {
    /// The codec; `None` for plain volumes.
    #[serde(serialize_with = "codec_name")]
    pub codec: Option<Codec>,
    /// The bytes of a voxel after compression.
    pub bytes_per_voxel: f64,
    /// The bytes of the members of all volumes.
    pub volume_bytes: u64,
    /// The bytes of all shard files: the volumes, and all else that plain shards hold.
    pub bytes: u64,
    /// The bounds of the 95 % confidence interval of `bytes`; `None` from one volume of several.
    pub interval: Option<[u64; 2]>,
    /// The percentage of the NPZ files' bytes that is saved; less than 0 where shards take more.
    pub saved_of_npz: f64,
    /// The percentage of the arrays' bytes as float32 that is saved.
    pub saved_of_f32: f64,
    /// The speed of making volumes from their NPZ files, in MB of voxels per second of one core.
    pub make_mb_s: f64,
    /// The speed of compressing volumes, in MB of voxels per second of one core; `None` for plain volumes.
    pub encode_mb_s: Option<f64>,
    /// The hours of making and compressing all volumes on all cores. Storage that is slower adds to it.
    pub hours: f64,
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn codec_name<S: Serializer>(codec: &Option<Codec>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&name(*codec))
}

/// The name of a codec as the user writes it; "none" for plain volumes.
pub fn name(codec: Option<Codec>) -> String {
    codec.map_or_else(|| "none".into(), |codec| codec.to_string())
}

/// Why one of the samples cannot be made in a kind, if none of them can; `None` for shards on disk.
pub fn impossible(plan: &Plan, options: &KindOptions) -> Option<String> {
    let recipe = |study: &Study| Recipe::new(options, &study.array, study.meta.geometry());
    let reasons: Vec<Option<String>> =
        plan.dataset.samples.iter().filter_map(Sample::study).map(|study| recipe(study).err()).collect();
    reasons.into_iter().collect::<Option<Vec<_>>>()?.into_iter().next()
}

/// The plan with volumes of another kind, without the samples of which this kind cannot be made.
///
/// # Errors
/// The errors of [`Plan::new`].
pub fn plan_of(plan: &Plan, options: &KindOptions) -> Result<Plan> {
    let mut dataset = plan.dataset.clone();
    dataset.samples.retain_mut(|sample| match &mut sample.origin {
        Origin::Study(study) => match Recipe::new(options, &study.array, study.meta.geometry()) {
            Ok(recipe) => {
                study.recipe = recipe;
                true
            }
            Err(_) => false,
        },
        Origin::Finished(_) => false,
    });
    Ok(Plan::new(dataset, plan.options)?.with_values(plan.values.clone()))
}

/// Chooses the volumes that are made, by their slots: the same ones for every kind.
pub fn choose(plan: &Plan, request: &Request) -> Vec<u32> {
    let samples = &plan.dataset.samples;
    let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
    let order = shuffle::order(request.seed, 0, count);
    let mut slots: Vec<u32> = order.iter().take(request.samples).map(|n| samples[*n as usize].slot).collect();
    slots.sort_unstable();
    slots
}

/// The bytes that [`estimate`] reads of a plan.
pub fn work(plan: &Plan, slots: &[u32]) -> u64 {
    taken(plan, slots).iter().map(|index| volume_len(plan, *index)).sum()
}

/// Makes and compresses the volumes in `slots`, and scales the figures up to all volumes; `advance` is called with the
/// number of bytes of each read.
///
/// # Errors
/// The error of a volume that cannot be made; [`Error::Refused`] if no slot has a sample in the plan.
pub fn estimate(plan: Plan, slots: &[u32], request: &Request, advance: impl Fn(u64) + Sync) -> Result<Estimate> {
    let taken = taken(&plan, slots);
    if taken.is_empty() {
        return Err(Error::Refused(
            "none of the sampled volumes can be made; take more with --estimate-samples".into(),
        ));
    }
    let Request { cores, cache_bytes, .. } = *request;
    let serving = Serving { cache_bytes, threads: cores, read_ahead: 0, read_once: true };
    let set = ShardSet::new(plan, serving)?;
    let codecs = CODECS.map(|text| text.parse::<Codec>()).into_iter().collect::<std::result::Result<Vec<_>, _>>();
    let codecs = codecs.map_err(Error::Internal)?;
    let begin = cpu_seconds(ClockId::ProcessCPUTime);
    let measured = try_map(&taken, cores, |index| measure(&set, *index, &codecs, &advance))?;
    let all = cpu_seconds(ClockId::ProcessCPUTime) - begin;
    let make = all - measured.iter().flatten().map(|one| one.seconds).sum::<f64>();
    let plan = set.plan();
    let studies: Vec<&Study> = plan.dataset.samples.iter().filter_map(Sample::study).collect();
    let (npz_bytes, f32_bytes) = source_bytes(&studies);
    let population = Population {
        voxels: studies.iter().map(|study| voxels(study)).sum(),
        plain_bytes: (0..studies.len()).map(|index| volume_len(plan, index)).sum(),
        shard_bytes: plan.shard_bytes(),
        volumes: studies.len(),
        npz_bytes,
        f32_bytes,
    };
    let plain: Vec<f64> = taken.iter().map(|index| volume_len(plan, *index) as f64).collect();
    let mut rows = vec![population.packed(None, &plain, &plain, [make, 0.0], cores)];
    for (n, codec) in codecs.into_iter().enumerate() {
        let packed: Vec<f64> = measured.iter().map(|volume| volume[n].bytes as f64).collect();
        let seconds = measured.iter().map(|volume| volume[n].seconds).sum();
        rows.push(population.packed(Some(codec), &plain, &packed, [make, seconds], cores));
    }
    Ok(Estimate {
        kind: plan.kind(),
        volumes: population.volumes,
        sampled: taken.iter().map(|index| plan.dataset.samples[*index].study_id.clone()).collect(),
        npz_bytes,
        f32_bytes,
        plain_bytes: population.plain_bytes,
        codecs: rows,
    })
}

fn taken(plan: &Plan, slots: &[u32]) -> Vec<usize> {
    let samples = &plan.dataset.samples;
    slots.iter().filter_map(|slot| samples.binary_search_by_key(slot, |sample| sample.slot).ok()).collect()
}

fn volume_len(plan: &Plan, index: usize) -> u64 {
    plan.member_size(index, Member::Volume)
}

/// The bytes of the NPZ files, and the bytes that their arrays would take as float32.
pub fn source_bytes(studies: &[&Study]) -> (u64, u64) {
    let npz = studies.iter().map(|study| study.array.file_id.size).sum();
    let f32 = studies.iter().map(|study| study.array.header.shape.iter().product::<u64>() * 4).sum();
    (npz, f32)
}

fn voxels(study: &Study) -> u64 {
    study.recipe.shape(study.array.shape()).iter().product()
}

/// The measurement of one volume with one codec: its compressed bytes, and the CPU time of compressing it.
#[derive(Clone, Copy)]
struct Measurement {
    bytes: u64,
    seconds: f64,
}

/// Reads a volume's member once, and compresses it with each codec in the blocks of a compressed shard.
fn measure(
    set: &ShardSet,
    index: usize,
    codecs: &[Codec],
    advance: &(impl Fn(u64) + Sync),
) -> Result<Vec<Measurement>> {
    let plan = set.plan();
    let row = volume_row(&plan.members.payload(Member::Json, &plan.dataset.samples[index])).unwrap_or(1);
    let id = plan.shard_of(index);
    let is_wanted = |content| match content {
        Content::Payload(member) => member.member == Member::Volume && plan.sample_index(id, member) == index,
        _ => false,
    };
    let extent = plan.locate(id, 0, u64::MAX).find(|(extent, _)| is_wanted(extent.content));
    let (extent, _) = extent.ok_or_else(|| Error::Internal(format!("sample {index} is in no shard")))?;
    let no_memory = |error: std::io::Error| Error::system("compress a block", error);
    let mut encoders = Vec::new();
    for codec in codecs {
        let encoder = Encoder::new(*codec).map_err(no_memory)?;
        let filter = RowFilter::new(volume_filter(codec.method, plan.voxel_format()), row);
        let mut table = SeekTable::default();
        let bytes = filter.begin(&mut table).len() as u64;
        encoders.push(((encoder, filter), table, Measurement { bytes, seconds: 0.0 }));
    }
    let cursor = Arc::new(set.cursor(id));
    let (mut at, end) = (extent.start, extent.start + extent.len);
    while at < end {
        let bytes = set.read_with(&cursor, at, to_usize(READ.min(end - at)))?;
        for ((encoder, filter), table, one) in &mut encoders {
            let begin = cpu_seconds(ClockId::ThreadCPUTime);
            for block in bytes.chunks(BLOCK) {
                let frame = encoder.encode(block, *filter).map_err(no_memory)?;
                table.push(&frame, block.len());
                one.bytes += frame.len() as u64;
            }
            one.seconds += cpu_seconds(ClockId::ThreadCPUTime) - begin;
        }
        at += bytes.len() as u64;
        advance(bytes.len() as u64);
    }
    let with_table = |(_, table, one): ((Encoder, RowFilter), SeekTable, Measurement)| Measurement {
        bytes: one.bytes + table.render().len() as u64,
        ..one
    };
    Ok(encoders.into_iter().map(with_table).collect())
}

/// CPU time, which other programs on the machine and slow storage do not stretch.
fn cpu_seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The figures of all volumes that are known without reading them.
struct Population {
    volumes: usize,
    voxels: u64,
    plain_bytes: u64,
    shard_bytes: u64,
    npz_bytes: u64,
    f32_bytes: u64,
}

impl Population {
    /// Scales the figures of the sampled volumes up to all volumes: `plain` and `packed` are their bytes before and
    /// after compression, `seconds` the CPU time of making and of compressing all of them.
    fn packed(
        &self,
        codec: Option<Codec>,
        plain: &[f64],
        packed: &[f64],
        seconds: [f64; 2],
        cores: usize,
    ) -> CodecEstimate {
        let (total, half) = ratio_estimate(plain, packed, self.plain_bytes as f64, self.volumes);
        let beside = (self.shard_bytes - self.plain_bytes) as f64;
        let saved = |of: u64| 100.0 * (1.0 - (beside + total) / of.max(1) as f64);
        let read: f64 = plain.iter().sum();
        let [make, encode] = seconds.map(|seconds| seconds.max(1e-9));
        CodecEstimate {
            codec,
            bytes_per_voxel: total / self.voxels.max(1) as f64,
            volume_bytes: whole(total),
            bytes: whole(beside + total),
            interval: half.map(|half| [whole(beside + (total - half).max(0.0)), whole(beside + total + half)]),
            saved_of_npz: saved(self.npz_bytes),
            saved_of_f32: saved(self.f32_bytes),
            make_mb_s: read / make / 1e6,
            encode_mb_s: codec.map(|_| read / encode / 1e6),
            hours: (make + encode) / read.max(1.0) * self.plain_bytes as f64 / cores.max(1) as f64 / 3600.0,
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes, below 2^53 and not negative")]
fn whole(bytes: f64) -> u64 {
    bytes.round() as u64
}

/// The total of y over a population of `volumes` whose total of x is known, and half of its 95 % confidence interval.
///
/// The ratio estimator of survey sampling (Cochran, Sampling Techniques, ch. 6): r = Σy / Σx, total = r · X, and
/// variance N² · (1 − n/N) / n · Σ(y − r·x)² / (n − 1), with Student's t of n − 1 degrees of freedom. What one volume's
/// size says of its compressed size is so taken out, and a sample of all has no error.
fn ratio_estimate(x: &[f64], y: &[f64], all_x: f64, volumes: usize) -> (f64, Option<f64>) {
    let (n, all) = (y.len() as f64, volumes as f64);
    if y.len() >= volumes {
        return (y.iter().sum(), Some(0.0));
    }
    let ratio = y.iter().sum::<f64>() / x.iter().sum::<f64>().max(1.0);
    if y.len() < 2 {
        return (ratio * all_x, None);
    }
    let squares: f64 = x.iter().zip(y).map(|(x, y)| (y - ratio * x).powi(2)).sum();
    let deviation = all * ((1.0 - n / all) / n * squares / (n - 1.0)).sqrt();
    (ratio * all_x, Some(student_t(y.len() - 1) * deviation))
}

/// The 97.5 % quantile of Student's t: exact to 3 digits from tables for few degrees of freedom, from there on by its
/// expansion about the normal quantile (Abramowitz and Stegun 26.7.5), which is as exact.
fn student_t(freedom: usize) -> f64 {
    const FEW: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    let (z, v) = (1.959_964_f64, freedom as f64);
    let far = z
        + (z.powi(3) + z) / (4.0 * v)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * v.powi(3));
    FEW.get(freedom.wrapping_sub(1)).copied().unwrap_or(far)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of SciPy's `t.ppf(0.975, v)`.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, right) in [(1, 12.706), (7, 2.365), (10, 2.228), (11, 2.201), (30, 2.042), (1000, 1.962)] {
            assert!((student_t(freedom) - right).abs() < 2e-3, "{freedom}: {}", student_t(freedom));
        }
    }

    /// Whatever the volumes are, about 95 of 100 intervals hold the true total.
    #[test]
    fn intervals_hold_the_total() {
        let x: Vec<f64> = (0..200).map(|n| 1000.0 + f64::from(n * 37 % 101) * 20.0).collect();
        let y: Vec<f64> = (0..200).map(|n| x[n as usize] * (0.4 + f64::from(n * 53 % 89) / 400.0)).collect();
        let (all_x, all_y) = (x.iter().sum(), y.iter().sum::<f64>());
        let mut held = 0;
        for seed in 0..1000 {
            let order = shuffle::order(seed, 0, 200);
            let take = |values: &[f64]| order.iter().take(8).map(|n| values[*n as usize]).collect::<Vec<_>>();
            let (total, half) = ratio_estimate(&take(&x), &take(&y), all_x, 200);
            held += usize::from((total - all_y).abs() <= half.unwrap());
        }
        assert!((930..=970).contains(&held), "{held} of 1000");
        assert_eq!(ratio_estimate(&x, &y, all_x, 200), (all_y, Some(0.0)));
        assert_eq!(ratio_estimate(&x[..1], &y[..1], all_x, 200).1, None);
    }
}
