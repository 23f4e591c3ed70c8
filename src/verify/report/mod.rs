//! What was found, for programs and for people.

mod text;

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compare::Difference;
use super::finding::{Finding, Verdict};
use super::manifest::Manifest;
use super::packed;
use super::walked::Walk;

/// What the folder holds.
#[derive(Debug, Default, Serialize)]
pub struct Information {
    /// Samples that are whole.
    pub samples: usize,
    /// Shard files.
    pub shards: usize,
    /// Bytes of the shard files.
    pub shard_bytes: u64,
    /// Bytes of the members.
    pub payload_bytes: u64,
    /// Voxels, by the shapes in the JSON members.
    pub voxels: u64,
    /// Bytes of these voxels as float32.
    pub f32_bytes: u64,
    /// Bytes of the samples' NPZ files, from the files or the manifest; none where neither is known.
    pub npz_bytes: Option<u64>,
    /// The shards' bytes over those of the NPZ files.
    pub ratio_to_npz: Option<f64>,
    /// The shards' bytes over those of float32.
    pub ratio_to_f32: f64,
    /// Classes.
    pub labels: Option<usize>,
    /// The kind of volume.
    pub volume_kind: Option<String>,
    /// How volumes are compressed; none where all are plain.
    pub codec: Option<&'static str>,
    /// The program that wrote the manifest.
    pub tool: Option<String>,
    /// The plan that the manifest names.
    pub plan_digest: Option<String>,
}

/// What was looked at in the shards themselves.
#[derive(Debug, Default, Serialize)]
pub struct Integrity {
    /// Shards that were read from the first to the last byte.
    pub read: usize,
    /// Those with nothing wrong.
    pub sound: usize,
    /// Those whose SHA-256 the manifest has.
    pub digests: usize,
}

/// A comparison with the sources.
#[derive(Debug, Serialize)]
pub struct SourceCheck {
    /// Samples of the folder.
    pub samples: usize,
    /// Those compared.
    pub compared: usize,
    /// Voxels of these.
    pub voxels: u64,
    /// Voxels that are to the bit what was computed.
    pub exact: u64,
    /// Voxels that differ by more than their kind allows.
    pub different: u64,
    /// How far float16 is from the values it was rounded from.
    pub precision: Precision,
    /// The samples in which that is most, in HU.
    pub worst: Vec<Worst>,
}

/// Distances between the shards' values and those that they were rounded from.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Precision {
    /// The largest, in the unit of the shards' values.
    pub max_error: f64,
    /// Root mean square, in the same unit.
    pub rms_error: f64,
    /// The largest in HU.
    pub max_error_hu: f64,
    /// Root mean square in HU.
    pub rms_error_hu: f64,
    /// Voxels that are no number.
    pub nan: u64,
    /// Voxels that are infinite.
    pub infinite: u64,
}

/// A sample and its precision.
#[derive(Clone, Debug, Serialize)]
pub struct Worst {
    /// Its key.
    pub key: String,
    /// Its study.
    pub study_id: String,
    /// Its own figures.
    #[serde(flatten)]
    pub precision: Precision,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The folder.
    pub folder: String,
    /// What all findings come to.
    pub verdict: Verdict,
    /// What is there.
    pub information: Information,
    /// Whether it is sound in itself.
    pub integrity: Integrity,
    /// Whether it is what the sources hold; none where they were not named.
    pub source: Option<SourceCheck>,
    /// What is wrong, missing, or could not be looked at; the worst first.
    pub findings: Vec<Finding>,
    /// Where each sample is.
    #[serde(skip)]
    pub places: Vec<Place>,
}

/// A sample's place in the folder.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its study.
    pub study_id: String,
    /// Its shard.
    pub shard: PathBuf,
    /// From the header of its first member to the padding of its last.
    pub range: Range<u64>,
    /// Its voxels.
    pub voxels: u64,
}

impl Precision {
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
    pub(super) fn new<'a>(samples: usize, compared: impl Iterator<Item = &'a Difference>, named: usize) -> Self {
        let mut check = Self {
            samples,
            compared: 0,
            voxels: 0,
            exact: 0,
            different: 0,
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
            check.worst.push(Worst { key: one.key.clone(), study_id: one.study_id.clone(), precision: own });
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

fn places(walk: &Walk) -> impl Iterator<Item = Place> + '_ {
    walk.samples.iter().map(|sample| Place {
        study_id: sample.study_id.clone(),
        shard: walk.path.clone(),
        range: sample.place.clone(),
        voxels: sample.shape.iter().product(),
    })
}

impl Report {
    pub(super) fn new(folder: &Path, manifest: Option<&Manifest>, walks: &[Walk]) -> Self {
        let samples = || walks.iter().flat_map(|walk| &walk.samples);
        let voxels = samples().map(|sample| sample.shape.iter().product::<u64>()).sum();
        let digests = |walk: &&Walk| manifest.is_some_and(|manifest| manifest.sha256(&walk.name).is_some());
        let information = Information {
            samples: samples().count(),
            shards: walks.len(),
            shard_bytes: walks.iter().map(|walk| walk.len).sum(),
            payload_bytes: walks.iter().map(|walk| walk.payload_bytes).sum(),
            voxels,
            f32_bytes: voxels * 4,
            npz_bytes: manifest.and_then(Manifest::npz_bytes),
            labels: samples().next().map(|sample| sample.labels),
            volume_kind: samples().next().map(|sample| sample.kind.clone()),
            codec: walks.iter().any(|walk| walk.has_packed).then_some(packed::CODEC),
            tool: manifest.and_then(|manifest| manifest.tool.clone()),
            plan_digest: manifest.and_then(|manifest| manifest.plan_digest.clone()),
            ..Information::default()
        };
        let read = walks.iter().filter(|walk| walk.whole).count();
        let integrity = Integrity { read, sound: 0, digests: walks.iter().filter(digests).count() };
        let is_damage = |finding: &Finding| finding.verdict == Verdict::Damaged;
        let sound = walks.iter().filter(|walk| walk.whole && !walk.findings.iter().any(is_damage)).count();
        Self {
            folder: folder.display().to_string(),
            verdict: Verdict::Fine,
            information,
            integrity: Integrity { sound, ..integrity },
            source: None,
            findings: Vec::new(),
            places: walks.iter().flat_map(places).collect(),
        }
    }

    pub(super) fn finish(&mut self, mut findings: Vec<Finding>) {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
        self.verdict = findings.first().map_or(Verdict::Fine, |finding| finding.verdict);
        self.findings = findings;
        let information = &mut self.information;
        let bytes = information.shard_bytes as f64;
        information.ratio_to_npz = information.npz_bytes.map(|npz| bytes / npz.max(1) as f64);
        information.ratio_to_f32 = bytes / information.f32_bytes.max(1) as f64;
    }

    /// Adds something that could not be looked at.
    pub fn unchecked(&mut self, place: &str, what: impl Into<String>) {
        self.findings.push(Finding::new(Verdict::Unchecked, place, what));
        self.verdict = self.verdict.max(Verdict::Unchecked);
    }
}
