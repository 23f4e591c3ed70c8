//! Compares a sample of a shard with its NPZ file and its rows of the tables.

use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use super::affine;
use super::dtype::{Dtype, Rounding};
use super::expected::{Expected, ExpectedVoxel};
use super::extras;
use super::finding::Finding;
use super::packed::{self, Filter};
use super::payload;
use super::progress::Progress;
use super::source::{SourceArray, SourceVolume};
use super::unread::Unread;
use super::walked::{Span, WalkedSample};
use crate::base::num::to_usize;
use crate::dataset::{FieldValue, JsonField, Study};
use crate::error::shown;
use crate::plan::Plan;
use crate::storage::{Store, Stored};
use crate::volume::{Dialect, Recipe};

/// Bytes of voxels that are read at a time.
const READ: usize = 1 << 20;
/// Smallest share of a resampled float16 volume's voxels without padding that must be right to the bit.
const EXACT: f64 = 0.99;

/// A sample of a shard, and the source with which it is compared.
pub(super) struct Comparison<'a> {
    /// The sample as it was found.
    pub sample: &'a WalkedSample,
    /// Store in which the shard lies.
    pub store: &'a dyn Store,
    /// Path of the shard that holds the sample.
    pub shard: &'a Path,
    /// Path of the NPZ file, relative to the data folder.
    pub npz: &'a Path,
    /// Content that the sample should have, by the plan: array, recipe, and rows of the tables.
    pub study: &'a Study,
}

/// The result of a comparison.
pub(super) struct Compared {
    /// Counts over the voxels; none if they could not be compared.
    pub difference: Option<Difference>,
    /// Findings about the sample, or the reason why it could not be compared.
    pub findings: Vec<Finding>,
    /// Whether something did not come in time.
    pub is_late: bool,
}

/// Counts and sums over the voxels of one sample. Errors are distances between a voxel of the shard and the value
/// before rounding, in the unit of the shard's values.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Key of the sample.
    pub key: String,
    /// Study id of the sample.
    pub study_id: String,
    /// HU that one unit of the shard's values stands for.
    pub hu_per_unit: f64,
    /// Number of voxels.
    pub voxels: u64,
    /// Voxels that are right to the bit.
    pub exact: u64,
    /// Voxels that differ by more than their kind allows.
    pub different: u64,
    /// Voxels whose error is finite.
    pub finite: u64,
    /// Sum of the squared errors of these voxels.
    pub squares: f64,
    /// Largest error of these voxels.
    pub max_error: f64,
    /// Voxels that are NaN.
    pub nan: u64,
    /// Voxels that are infinite.
    pub infinite: u64,
    /// Voxels that are no padding.
    inside: u64,
    /// Voxels that are no padding and right to the bit.
    inside_exact: u64,
    /// The first voxel that differs by more than its kind allows, as a sentence.
    first: Option<String>,
}

impl Difference {
    /// Counts one voxel of the shard, `found`, against the value that it should have.
    fn count(&mut self, found: f64, voxel: &ExpectedVoxel, place: [usize; 3], expected: &Expected<'_>) {
        // Any NaN is the NaN of the source: its payload means nothing to a reader.
        let same = |right: f64| found.to_bits() == right.to_bits() || found.is_nan() && right.is_nan();
        let exact = same(voxel.rounded) || same(voxel.in_f32);
        self.voxels += 1;
        self.exact += u64::from(exact);
        self.inside += u64::from(!voxel.is_padding);
        self.inside_exact += u64::from(exact && !voxel.is_padding);
        self.nan += u64::from(found.is_nan());
        self.infinite += u64::from(found.is_infinite());
        if !exact && (expected.is_exact() || voxel.is_padding || !expected.is_near(found, voxel)) {
            self.different += 1;
            if self.first.is_none() {
                self.first = Some(format!("voxel {place:?} is {found}, and {} by its source", voxel.rounded));
            }
        }
        let error = (expected.rounding().value_of(found) - voxel.value).abs();
        if error.is_finite() {
            self.max_error = self.max_error.max(error);
            self.squares += error * error;
            self.finite += 1;
        }
    }
}

/// The volume of a study in its NPZ file.
fn source_volume(study: &Study) -> SourceVolume<'_> {
    let channel = study.array.part.map(|part| (part.is_last(), to_usize(part.asked.index)));
    SourceVolume { array: &study.array.member.name, channel, turn: study.array.turned_axes(), is_extra: false }
}

/// Compares all members of a sample with its source.
pub(super) fn compare(plan: &Plan, comparison: &Comparison<'_>, progress: &dyn Progress) -> Compared {
    let Comparison { store, sample, shard, npz, study } = *comparison;
    let place = format!("{} {}", sample.key, sample.study_id);
    let unchecked = |unread: Unread| Compared {
        difference: None,
        is_late: unread.is_late,
        findings: vec![Finding::unread(&place, "it cannot be compared with its source", unread)],
    };
    let (path, sources) = (plan.dataset.root.join(npz), &*plan.dataset.store);
    let array = match SourceArray::read(sources, &path, &source_volume(study)) {
        Ok(array) => array,
        Err(reason) => return unchecked(reason),
    };
    let file = match store.open(shard) {
        Ok(file) => file,
        Err(error) => return unchecked(Unread::from(error).behind(shard.display())),
    };
    let (mut wrong, json) = match small_members(&*file, plan, comparison, &array) {
        Ok(found) => found,
        Err(error) => return unchecked(Unread::from(error).behind(shard.display())),
    };
    let expected =
        Expected::new(&array, &study.recipe, Rounding { format: study.format, overflow: plan.options.overflow });
    if let Some(json) = json {
        match affine::check(&json, (sources, &path), study, expected.shape()) {
            Ok(found) => wrong.extend(found),
            Err(unread) => return unchecked(unread),
        }
    }
    let mut difference = None;
    if (sample.dtype, sample.window) != (Dtype::planned(study.format), study.format.window()) {
        wrong.push(format!(
            "its voxels are {}{}, and the flags ask for {}{}",
            sample.dtype.name(),
            window(sample.window),
            study.format.name(),
            window(study.format.window())
        ));
    } else if expected.shape() != sample.shape.map(to_usize) {
        wrong.push(format!("its shape is {:?}, and {:?} by its source", sample.shape, expected.shape()));
    } else {
        match voxels(&*file, comparison, &expected, progress) {
            Ok(found) => {
                wrong.extend(judge(&found, &expected));
                difference = Some(found);
            }
            Err(unread) => return unchecked(unread.behind(shard.display())),
        }
    }
    let mut findings: Vec<Finding> = wrong.into_iter().map(|what| Finding::damaged(&place, what)).collect();
    let mut is_late = false;
    for ((extra, array), found) in plan.dataset.extras.iter().zip(&study.extras).zip(&sample.members.extras) {
        let place = format!("{place} '{}'", extra.name);
        findings.extend(match extras::compare(&*file, found, (sources, &extra.root), array) {
            Ok(wrong) => wrong.map(|what| Finding::damaged(&place, what)),
            Err(reason) => {
                is_late |= reason.is_late;
                Some(Finding::unread(&place, "it cannot be compared with its source", reason))
            }
        });
    }
    Compared { difference, findings, is_late }
}

/// What to add to the name of a dtype for its window.
fn window(window: Option<[f64; 2]>) -> String {
    window.map_or_else(String::new, |[low, high]| format!(" of the window {low},{high}"))
}

/// A sentence that says what is wrong with the voxels; none if nothing is.
fn judge(difference: &Difference, expected: &Expected<'_>) -> Option<String> {
    let Difference { voxels, different, inside, inside_exact, first, .. } = difference;
    if let Some(first) = first {
        return Some(format!("{different} of {voxels} voxels are wrong; {first}"));
    }
    let share = *inside_exact as f64 / (*inside).max(1) as f64;
    let is_half = Dtype::planned(expected.rounding().format) == Dtype::Float16;
    (!expected.is_exact() && is_half && *inside > 0 && share < EXACT)
        .then(|| format!("only {:.2} % of its voxels are right to the bit", 100.0 * share))
}

/// HU that one unit of the shard's values stands for.
fn hu_per_unit(study: &Study) -> f64 {
    let dialect = Dialect::of(&study.array);
    match (&study.recipe, dialect) {
        (Recipe::Rescaled { .. }, _) | (Recipe::Stored, Some(Dialect::Hu)) => 1.0,
        (Recipe::Preprocessed(_), _) if study.format.is_integer() => 1.0,
        (Recipe::Preprocessed(_), _) | (Recipe::Stored, Some(Dialect::Normalized)) => 1000.0,
        (Recipe::Stored, _) => study.meta.rescale_slope.abs(),
    }
}

/// Compares all voxels, in the order of the shard.
///
/// # Errors
/// The shard cannot be read, or there is no memory.
fn voxels(
    file: &dyn Stored,
    comparison: &Comparison<'_>,
    expected: &Expected<'_>,
    progress: &dyn Progress,
) -> Result<Difference, Unread> {
    let Comparison { sample, study, .. } = *comparison;
    let Span { start, len } = sample.members.voxels;
    let [_, width, depth] = expected.shape();
    let dtype = Dtype::planned(study.format);
    let mut difference = Difference {
        key: sample.key.clone(),
        study_id: sample.study_id.clone(),
        hu_per_unit: hu_per_unit(study),
        ..Difference::default()
    };
    let unpacked = sample.members.packed.map(|packed| unpack(file, packed)).transpose()?;
    if unpacked.is_none() {
        file.will_read(start..start + len);
    }
    let mut buffer = vec![0; READ];
    let mut place = [0, 0, 0];
    let mut at = 0;
    while at < len {
        let n = READ.min(to_usize(len - at));
        match &unpacked {
            Some(volume) => (&volume[to_usize(start + at)..]).read_exact(&mut buffer[..n])?,
            None => file.read_exact_at(&mut buffer[..n], start + at)?,
        }
        for bytes in buffer[..n].chunks_exact(dtype.size()) {
            difference.count(dtype.read(bytes), &expected.voxel(place), place, expected);
            place[2] += 1;
            if place[2] == depth {
                (place[1], place[2]) = (place[1] + 1, 0);
            }
            if place[1] == width {
                (place[0], place[1]) = (place[0] + 1, 0);
            }
        }
        at += n as u64;
        progress.advance((n / dtype.size()) as u64);
    }
    Ok(difference)
}

/// Reads a compressed volume member, and unpacks it.
fn unpack(file: &dyn Stored, (span, filter): (Span, Filter)) -> Result<Vec<u8>, Unread> {
    let member = span.read(file)?;
    let mut volume = Vec::new();
    packed::unpack_to(&mut volume, &member, filter)?;
    Ok(volume)
}

/// Compares text, labels and JSON with the tables, and returns what is wrong, and the JSON if it is one.
///
/// # Errors
/// The shard cannot be read, or there is no memory.
fn small_members(
    file: &dyn Stored,
    plan: &Plan,
    comparison: &Comparison<'_>,
    array: &SourceArray,
) -> io::Result<(Vec<String>, Option<Value>)> {
    let Comparison { sample, study, .. } = *comparison;
    let mut wrong = Vec::new();
    let json = payload::json(&sample.members.json.read(file)?);
    match &json {
        Ok(json) => {
            fields(json, study, array, &mut wrong);
            wrong.extend(study.fields.iter().filter_map(|one| field(json, one)));
        }
        Err(reason) => wrong.push(reason.clone()),
    }
    if sample.members.text.read(file)? != study.text.as_bytes() {
        wrong.push("its text is not that of the reports table".into());
    }
    let labels = sample.members.labels.map(|span| span.read(file)).transpose()?;
    let labels = labels.map(|bytes| payload::labels(sample.profile, &bytes)).transpose();
    let are_same = |(found, right): (&f32, &f32)| found == right || found.is_nan() && right.is_nan();
    match labels.map(Option::unwrap_or_default) {
        Ok(labels) if labels.len() != study.labels.len() || !labels.iter().zip(&study.labels).all(are_same) => {
            let pairs = labels.iter().zip(&study.labels);
            let place = pairs.take_while(|pair| are_same(*pair)).count();
            let name = plan.dataset.label_names.get(place).map_or("", String::as_str);
            wrong.push(format!("its labels are not those of the table, from '{name}' on"));
        }
        Ok(_) => {}
        Err(reason) => wrong.push(reason),
    }
    Ok((wrong, json.ok()))
}

/// Compares the value of a further column with the table's, and returns what is wrong.
fn field(json: &Value, JsonField { name, value }: &JsonField) -> Option<String> {
    let right = match value {
        FieldValue::Missing => Value::Null,
        FieldValue::Integer(number) => Value::from(*number),
        FieldValue::Float(number) => Value::from(*number),
        FieldValue::Text(text) => Value::from(&**text),
    };
    let (found, name) = (json.get(name), shown(name));
    match found {
        None => Some(format!("its JSON has no field '{name}', a column of a table (--extra-columns)")),
        Some(found) if *found == right => None,
        Some(found) => Some(format!("{name} is {found}, and {right} by its table (--extra-columns)")),
    }
}

/// Compares the fields of the JSON with the metadata table and the source; what is wrong is added to `wrong`.
fn fields(json: &Value, study: &Study, array: &SourceArray, wrong: &mut Vec<String>) {
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
        if right.is_nan() && json[field].is_number() {
            wrong.push(format!("{field} is {}, and the metadata table (--meta-file) does not say it", json[field]));
        } else if !same(&json[field], right) {
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
