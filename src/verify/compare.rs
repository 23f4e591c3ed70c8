//! A sample of a shard against its NPZ file and its rows of the tables.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::f16;
use serde_json::Value;

use super::expected::{Expected, Voxel};
use super::finding::{Finding, Verdict};
use super::packed;
use super::payload;
use super::progress::Progress;
use super::source::Source;
use super::walked::{Sample, Span};
use crate::base::num::to_usize;
use crate::dataset::Study;
use crate::plan::Plan;
use crate::volume::{Dialect, Recipe};

/// Bytes of voxels that are read at a time.
const READ: usize = 1 << 20;
/// Of the resampled voxels that are no padding, so many must be right to the bit,
const EXACT: f64 = 0.99;
/// and the others within a unit of float16's last place or this.
const NEAR: f64 = 1e-6;

/// How a comparison ended.
pub(super) struct Compared {
    /// None where the source cannot be read.
    pub result: Option<Difference>,
    pub findings: Vec<Finding>,
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub key: String,
    pub study_id: String,
    pub voxels: u64,
    pub exact: u64,
    pub different: u64,
    /// Sum of the squared distances from the values before rounding, of `finite` voxels.
    pub squares: f64,
    pub finite: u64,
    pub hu_per_unit: f64,
    pub max_error: f64,
    pub nan: u64,
    pub infinite: u64,
    /// Voxels that are no padding, and those of them that are right to the bit.
    inside: u64,
    inside_exact: u64,
    first: Option<String>,
}

impl Difference {
    fn count(&mut self, found: f16, voxel: &Voxel, place: [usize; 3], must_be_exact: bool) {
        // Any NaN is the NaN of the source: its payload means nothing to a reader.
        let same = |right: f16| found.to_bits() == right.to_bits() || found.is_nan() && right.is_nan();
        let exact = same(voxel.rounded) || same(voxel.in_f32);
        self.voxels += 1;
        self.exact += u64::from(exact);
        self.inside += u64::from(!voxel.padding);
        self.inside_exact += u64::from(exact && !voxel.padding);
        self.nan += u64::from(found.is_nan());
        self.infinite += u64::from(found.is_infinite());
        if !exact && (must_be_exact || voxel.padding || !is_near(found, voxel.rounded)) {
            self.different += 1;
            if self.first.is_none() {
                self.first = Some(format!("voxel {place:?} is {found}, and {} by its source", voxel.rounded));
            }
        }
        let error = (found.to_f64() - voxel.value).abs();
        if error.is_finite() {
            self.max_error = self.max_error.max(error);
            self.squares += error * error;
            self.finite += 1;
        }
    }
}

/// Within a unit of the last place of the larger, or almost.
fn is_near(found: f16, right: f16) -> bool {
    let larger = found.to_f64().abs().max(right.to_f64().abs());
    let exponent = larger.max(f16::MIN_POSITIVE.to_f64()).log2().floor();
    (found.to_f64() - right.to_f64()).abs() <= (exponent - 10.0).exp2().max(NEAR)
}

/// Compares everything of a sample.
pub(super) fn compare(
    plan: &Plan,
    (npz, study): (&Path, &Study),
    sample: &Sample,
    shard: &Path,
    progress: &dyn Progress,
) -> Compared {
    let place = format!("{} {}", sample.key, sample.study_id);
    let unchecked = |what: String| Compared {
        result: None,
        findings: vec![Finding::new(
            Verdict::Unchecked,
            &place,
            format!("it cannot be compared with its source: {what}"),
        )],
    };
    let array = match Source::read(&plan.dataset.root.join(npz), &study.array.member.name) {
        Ok(array) => array,
        Err(reason) => return unchecked(reason),
    };
    let file = match File::open(shard) {
        Ok(file) => file,
        Err(error) => return unchecked(format!("{}: {error}", shard.display())),
    };
    let mut wrong = small_members(&file, plan, study, sample, &array);
    let expected = Expected::new(&array, &study.recipe, plan.options.overflow);
    let mut result = None;
    if expected.shape() != sample.shape.map(to_usize) {
        wrong.push(format!("its shape is {:?}, and {:?} by its source", sample.shape, expected.shape()));
    } else {
        match voxels(&file, sample, &expected, progress) {
            Ok(difference) => {
                wrong.extend(judge(&difference, &expected));
                let hu_per_unit = hu_per_unit(study);
                result = Some(Difference {
                    key: sample.key.clone(),
                    study_id: sample.study_id.clone(),
                    hu_per_unit,
                    ..difference
                });
            }
            Err(error) => return unchecked(format!("{}: {error}", shard.display())),
        }
    }
    let findings = wrong.into_iter().map(|what| Finding::damaged(&place, what)).collect();
    Compared { result, findings }
}

fn judge(difference: &Difference, expected: &Expected<'_>) -> Option<String> {
    let Difference { voxels, different, inside, inside_exact, first, .. } = difference;
    if let Some(first) = first {
        return Some(format!("{different} of {voxels} voxels are wrong; {first}"));
    }
    let share = *inside_exact as f64 / (*inside).max(1) as f64;
    (!expected.is_exact() && *inside > 0 && share < EXACT)
        .then(|| format!("only {:.2} % of its voxels are right to the bit", 100.0 * share))
}

/// What a unit of the shard's values is in HU.
fn hu_per_unit(study: &Study) -> f64 {
    let dialect = Dialect::of(&study.array);
    match (&study.recipe, dialect) {
        (Recipe::Rescaled { .. }, _) | (Recipe::Stored, Some(Dialect::Hu)) => 1.0,
        (Recipe::Preprocessed(_), _) | (Recipe::Stored, Some(Dialect::Normalized)) => 1000.0,
        (Recipe::Stored, _) => study.meta.rescale_slope.abs(),
    }
}

fn voxels(file: &File, sample: &Sample, expected: &Expected<'_>, progress: &dyn Progress) -> io::Result<Difference> {
    let Span { start, len } = sample.members[0];
    let [_, width, depth] = expected.shape();
    let mut difference = Difference::default();
    let unpacked = sample.packed.map(|packed| unpack(file, packed)).transpose()?;
    let mut buffer = vec![0; READ];
    let mut place = [0, 0, 0];
    let mut at = 0;
    while at < len {
        let n = READ.min(to_usize(len - at));
        match &unpacked {
            Some(volume) => (&volume[to_usize(start + at)..]).read_exact(&mut buffer[..n])?,
            None => file.read_exact_at(&mut buffer[..n], start + at)?,
        }
        for bytes in buffer[..n].chunks_exact(2) {
            let found = f16::from_le_bytes([bytes[0], bytes[1]]);
            difference.count(found, &expected.voxel(place), place, expected.is_exact());
            place[2] += 1;
            if place[2] == depth {
                (place[1], place[2]) = (place[1] + 1, 0);
            }
            if place[1] == width {
                (place[0], place[1]) = (place[0] + 1, 0);
            }
        }
        at += n as u64;
        progress.advance(n as u64 / 2);
    }
    Ok(difference)
}

/// A compressed volume's member, as it is without compression.
fn unpack(file: &File, Span { start, len }: Span) -> io::Result<Vec<u8>> {
    let mut member = vec![0; to_usize(len)];
    file.read_exact_at(&mut member, start)?;
    let mut volume = Vec::new();
    packed::unpack(&member, |block| volume.extend(block)).map_err(|wrong| io::Error::other(wrong.join("; ")))?;
    Ok(volume)
}

/// Text, labels and JSON against the tables.
fn small_members(file: &File, plan: &Plan, study: &Study, sample: &Sample, array: &Source) -> Vec<String> {
    let member = |which: usize| {
        let Span { start, len } = sample.members[which];
        let mut bytes = vec![0; to_usize(len)];
        file.read_exact_at(&mut bytes, start).map(|()| bytes).map_err(|error| error.to_string())
    };
    let mut wrong = Vec::new();
    match member(1).and_then(|bytes| payload::json(&bytes)) {
        Ok(json) => fields(&json, study, array, &mut wrong),
        Err(reason) => wrong.push(reason),
    }
    match member(2) {
        Ok(bytes) if bytes != study.text.as_bytes() => wrong.push("its text is not that of the reports table".into()),
        Ok(_) => {}
        Err(reason) => wrong.push(reason),
    }
    match member(3).and_then(|bytes| payload::labels(sample.profile, &bytes)) {
        Ok(labels) if labels != study.labels => {
            let place = labels.iter().zip(&study.labels).position(|(a, b)| a != b).unwrap_or(0);
            let name = plan.dataset.label_names.get(place).map_or("", String::as_str);
            wrong.push(format!("its labels are not those of the table, from '{name}' on"));
        }
        Ok(_) => {}
        Err(reason) => wrong.push(reason),
    }
    wrong
}

fn fields(json: &Value, study: &Study, array: &Source, wrong: &mut Vec<String>) {
    let meta = &study.meta;
    let (slope, intercept) = match study.recipe {
        Recipe::Stored => (meta.rescale_slope, meta.rescale_intercept),
        Recipe::Rescaled { .. } => (1.0, 0.0),
        Recipe::Preprocessed(_) => return,
    };
    // pandas reads some numbers off by a unit in the last place.
    let same = |found: &Value, right: f64| match found.as_f64() {
        Some(found) => (found - right).abs() <= 4.0 * f64::EPSILON * right.abs(),
        None => right.is_nan(),
    };
    for (field, right) in [("RescaleSlope", slope), ("RescaleIntercept", intercept), ("ZSpacing", meta.z_spacing)] {
        if !same(&json[field], right) {
            wrong.push(format!("{field} is {}, and {right} by the metadata table", json[field]));
        }
    }
    if json["XYSpacing"] != meta.xy_spacing.as_str() {
        wrong.push(format!("XYSpacing is {}, and {:?} by the metadata table", json["XYSpacing"], meta.xy_spacing));
    }
    let shape = payload::shape(json, "original_shape").map(|shape| shape.map(to_usize));
    if shape.as_ref() != Ok(&array.shape()) {
        wrong.push(format!("original_shape is {}, and {:?} by its source", json["original_shape"], array.shape()));
    }
}
