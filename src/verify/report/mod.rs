//! The report of a run: what the folder holds, and what was found. Programs get it as JSON, people as text.

mod text;

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compare::Difference;
use super::finding::{Finding, Verdict};
use super::manifest::Manifest;
use super::packed;
use super::walked::{WalkedSample, WalkedShard};

/// Facts about the content of the folder.
#[derive(Debug, Default, Serialize)]
pub struct Information {
    /// Number of samples with all members and nothing wrong in them.
    pub samples: usize,
    /// Number of shard files.
    pub shards: usize,
    /// Bytes of the shard files.
    pub shard_bytes: u64,
    /// Bytes of the members; a compressed volume counts with the bytes of its plain member.
    pub payload_bytes: u64,
    /// Number of voxels, by the shapes in the JSON members.
    pub voxels: u64,
    /// Bytes of these voxels as float32.
    pub f32_bytes: u64,
    /// Bytes of the samples' NPZ files, by the files or the manifest; none where neither is known.
    pub npz_bytes: Option<u64>,
    /// Bytes of the shards divided by the bytes of the NPZ files.
    pub ratio_to_npz: Option<f64>,
    /// Bytes of the shards divided by the bytes of the voxels as float32.
    pub ratio_to_f32: f64,
    /// Number of classes, by the first sample.
    pub labels: Option<usize>,
    /// Kind of the volumes, by the first sample: `stored`, `rescaled` or `preprocessed`.
    pub volume_kind: Option<String>,
    /// Codec of compressed volumes; none where all volumes are plain.
    pub codec: Option<&'static str>,
    /// Program that wrote the manifest, with its version.
    pub tool: Option<String>,
    /// Digest of the plan that the manifest names.
    pub plan_digest: Option<String>,
}

/// Counts of the shards by what reading them showed.
#[derive(Debug, Default, Serialize)]
pub struct Integrity {
    /// Shards that were read from the first to the last byte.
    pub read: usize,
    /// Shards that were read to the end and in which nothing is wrong.
    pub sound: usize,
    /// Shards whose SHA-256 the manifest has.
    pub digests: usize,
}

/// The result of comparing samples with their sources.
#[derive(Debug, Serialize)]
pub struct SourceCheck {
    /// Number of samples of the folder.
    pub samples: usize,
    /// Number of samples that were compared.
    pub compared: usize,
    /// Number of voxels that were compared.
    pub voxels: u64,
    /// Voxels that are right to the bit.
    pub exact: u64,
    /// Voxels that differ by more than their kind allows.
    pub different: u64,
    /// Dtype of the voxels.
    pub dtype: &'static str,
    /// Precision over all voxels that were compared.
    pub precision: Precision,
    /// The samples with the largest errors in HU, the largest first.
    pub worst: Vec<WorstSample>,
}

/// Errors of rounding: distances between the voxels of the shards and the values from which they were rounded.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Precision {
    /// Largest error, in the unit of the shards' values.
    pub max_error: f64,
    /// Root mean square error, in the unit of the shards' values.
    pub rms_error: f64,
    /// Largest error in HU.
    pub max_error_hu: f64,
    /// Root mean square error in HU.
    pub rms_error_hu: f64,
    /// Voxels that are NaN.
    pub nan: u64,
    /// Voxels that are infinite.
    pub infinite: u64,
}

/// A sample that a report names for its errors.
#[derive(Clone, Debug, Serialize)]
pub struct WorstSample {
    /// Key of the sample.
    pub key: String,
    /// Study id of the sample.
    pub study_id: String,
    /// Errors of the sample.
    #[serde(flatten)]
    pub precision: Precision,
}

/// The report of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Folder of the shards.
    pub folder: String,
    /// The worst verdict of all findings.
    pub verdict: Verdict,
    /// Facts about the content of the folder.
    pub information: Information,
    /// Whether the shards are sound in themselves.
    pub integrity: Integrity,
    /// Whether the samples are what their sources hold; none where no sources were named.
    pub source: Option<SourceCheck>,
    /// All findings, the worst first.
    pub findings: Vec<Finding>,
    /// Locations of all samples; not part of the JSON.
    #[serde(skip)]
    pub locations: Vec<SampleLocation>,
}

/// Location of a sample in the folder.
#[derive(Clone, Debug)]
pub struct SampleLocation {
    /// Study id of the sample.
    pub study_id: String,
    /// Path of the shard.
    pub shard: PathBuf,
    /// Bytes of the shard from the header of the sample's first member to the padding of the last.
    pub range: Range<u64>,
    /// Number of voxels.
    pub voxels: u64,
}

impl Precision {
    /// The precision of one sample.
    fn of(difference: &Difference) -> Self {
        let rms_error = (difference.squares / difference.finite.max(1) as f64).sqrt();
        Self {
            max_error: difference.max_error,
            rms_error,
            max_error_hu: difference.max_error * difference.hu_per_unit,
            rms_error_hu: rms_error * difference.hu_per_unit,
            nan: difference.nan,
            infinite: difference.infinite,
        }
    }
}

impl SourceCheck {
    /// Sums up the comparisons of a folder of `samples` samples with voxels of a dtype. The `named` samples with the
    /// largest errors are named.
    pub(super) fn new<'a>(
        samples: usize,
        dtype: &'static str,
        compared: impl Iterator<Item = &'a Difference>,
        named: usize,
    ) -> Self {
        let mut check = Self {
            samples,
            compared: 0,
            voxels: 0,
            exact: 0,
            different: 0,
            dtype,
            precision: Precision::default(),
            worst: Vec::new(),
        };
        let (mut squares, mut squares_hu, mut finite) = (0.0, 0.0, 0u64);
        for one in compared {
            check.compared += 1;
            check.voxels += one.voxels;
            check.exact += one.exact;
            check.different += one.different;
            let (own, all) = (Precision::of(one), &mut check.precision);
            all.max_error = all.max_error.max(own.max_error);
            all.max_error_hu = all.max_error_hu.max(own.max_error_hu);
            all.nan += own.nan;
            all.infinite += own.infinite;
            squares += one.squares;
            squares_hu += one.squares * one.hu_per_unit * one.hu_per_unit;
            finite += one.finite;
            check.worst.push(WorstSample { key: one.key.clone(), study_id: one.study_id.clone(), precision: own });
        }
        let mean = |sum: f64| (sum / finite.max(1) as f64).sqrt();
        (check.precision.rms_error, check.precision.rms_error_hu) = (mean(squares), mean(squares_hu));
        check.worst.sort_by(|a, b| b.precision.max_error_hu.total_cmp(&a.precision.max_error_hu));
        let is_perfect = |precision: &Precision| precision.max_error == 0.0 && precision.nan + precision.infinite == 0;
        check.worst.retain(|worst| !is_perfect(&worst.precision));
        check.worst.truncate(named);
        check
    }
}

/// Locations of the samples of a shard.
fn locations(walk: &WalkedShard) -> impl Iterator<Item = SampleLocation> + '_ {
    walk.samples.iter().map(|sample| SampleLocation {
        study_id: sample.study_id.clone(),
        shard: walk.path.clone(),
        range: sample.range.clone(),
        voxels: sample.voxels(),
    })
}

impl Report {
    /// The report of shards that were walked. It has no finding yet, and no comparison with sources.
    pub(super) fn new(folder: &Path, manifest: Option<&Manifest>, walks: &[WalkedShard]) -> Self {
        let samples = || walks.iter().flat_map(|walk| &walk.samples);
        let voxels = samples().map(WalkedSample::voxels).sum();
        let digests = |walk: &&WalkedShard| manifest.is_some_and(|manifest| manifest.sha256(&walk.name).is_some());
        let information = Information {
            samples: samples().count(),
            shards: walks.len(),
            shard_bytes: walks.iter().map(|walk| walk.len).sum(),
            payload_bytes: walks.iter().map(|walk| walk.payload_bytes).sum(),
            voxels,
            f32_bytes: voxels * 4,
            npz_bytes: manifest.and_then(Manifest::npz_bytes),
            labels: samples().next().map(|sample| sample.label_count),
            volume_kind: samples().next().map(|sample| sample.kind.clone()),
            codec: walks.iter().any(|walk| walk.has_packed).then_some(packed::CODEC),
            tool: manifest.and_then(|manifest| manifest.tool.clone()),
            plan_digest: manifest.and_then(|manifest| manifest.plan_digest.clone()),
            ..Information::default()
        };
        let read = walks.iter().filter(|walk| walk.is_read_to_end).count();
        let integrity = Integrity { read, sound: 0, digests: walks.iter().filter(digests).count() };
        let is_damage = |finding: &Finding| finding.verdict == Verdict::Damaged;
        let sound = walks.iter().filter(|walk| walk.is_read_to_end && !walk.findings.iter().any(is_damage)).count();
        Self {
            folder: folder.display().to_string(),
            verdict: Verdict::Fine,
            information,
            integrity: Integrity { sound, ..integrity },
            source: None,
            findings: Vec::new(),
            locations: walks.iter().flat_map(locations).collect(),
        }
    }

    /// Adds all findings, and computes what follows from them and from the sizes.
    pub(super) fn finish(&mut self, mut findings: Vec<Finding>) {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
        self.verdict = findings.first().map_or(Verdict::Fine, |finding| finding.verdict);
        self.findings = findings;
        let information = &mut self.information;
        let bytes = information.shard_bytes as f64;
        information.ratio_to_npz = information.npz_bytes.map(|npz| bytes / npz.max(1) as f64);
        information.ratio_to_f32 = bytes / information.f32_bytes.max(1) as f64;
    }

    /// The first finding whose reason is that this process lacks memory or descriptors, if nothing worse was found.
    pub fn limited(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.is_limit && finding.verdict == self.verdict)
    }

    /// Adds a finding of the verdict [`Verdict::Unchecked`] about `place`.
    pub fn unchecked(&mut self, place: &str, what: impl Into<String>) {
        self.findings.push(Finding::new(Verdict::Unchecked, place, what));
        self.verdict = self.verdict.max(Verdict::Unchecked);
    }
}
