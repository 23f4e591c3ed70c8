//! How the members of a sample are named, and how the small members and the NPY header of a volume are read.

use ndarray::Array1;
use ndarray_npy::ReadNpyExt;
use serde_json::Value;

use super::dtype::Dtype;
use super::packed::{self, Packing};

/// A member of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleMember {
    /// Voxels.
    Volume,
    /// Metadata as JSON.
    Json,
    /// Text of the report.
    Text,
    /// One float32 a class.
    Labels,
}

impl SampleMember {
    /// All members in the order of a sample.
    const ALL: [Self; 4] = [Self::Volume, Self::Json, Self::Text, Self::Labels];
}

/// How the members of a sample are named and encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Raw voxels and labels, as the CT-CLIP converter writes them.
    Ctclip,
    /// Voxels and labels as NPY.
    Npy,
}

impl Profile {
    /// The profile whose volume has this extension, if there is one.
    pub(super) fn of(extension: &str) -> Option<Self> {
        [Self::Ctclip, Self::Npy].into_iter().find(|profile| profile.extension(SampleMember::Volume) == extension)
    }

    /// The extension of a member's name, without the dot before it.
    pub(super) fn extension(self, member: SampleMember) -> &'static str {
        match (self, member) {
            (Self::Ctclip, SampleMember::Volume) => "bin",
            (Self::Ctclip, SampleMember::Json) => "json",
            (Self::Ctclip, SampleMember::Text) => "txt",
            (Self::Ctclip, SampleMember::Labels) => "labels",
            (Self::Npy, SampleMember::Volume) => "volume.npy",
            (Self::Npy, SampleMember::Json) => "meta.json",
            (Self::Npy, SampleMember::Text) => "report.txt",
            (Self::Npy, SampleMember::Labels) => "labels.npy",
        }
    }

    /// The extensions of all members, in the order of a sample.
    pub(super) fn extensions(self, has_labels: bool) -> Vec<&'static str> {
        let members = SampleMember::ALL.into_iter().filter(|member| has_labels || *member != SampleMember::Labels);
        members.map(|member| self.extension(member)).collect()
    }

    /// The member with this extension, if the profile has one.
    pub(super) fn member(self, extension: &str) -> Option<SampleMember> {
        SampleMember::ALL.into_iter().find(|member| self.extension(*member) == extension)
    }
}

/// End of the extension of an array beside the volume.
const NPY: &str = ".npy";

/// The name of the array beside the volume that has this extension, if it is one.
pub(super) fn extra_name(profile: Profile, extension: &str) -> Option<&str> {
    extension.strip_suffix(NPY).filter(|name| !name.is_empty() && profile.member(extension).is_none())
}

/// Removes from a member's extension what compression adds to it, and says what that is.
pub(super) fn plain_extension(extension: &str) -> (&str, Packing<'_>) {
    match packed::split_suffix(extension) {
        found if Profile::of(found.0).is_some() || found.0.ends_with(NPY) => found,
        _ => (extension, Packing::Plain),
    }
}

/// The fields of a JSON member that every reader needs.
#[derive(Debug)]
pub(super) struct JsonFields {
    /// Study id of the sample.
    pub study_id: String,
    /// Shape of the volume, in voxels.
    pub shape: [u64; 3],
    /// Kind of the volume: `stored`, `rescaled` or `preprocessed`.
    pub kind: String,
    /// Dtype of the voxels.
    pub dtype: Dtype,
    /// Values that 0 and 255 stand for, of uint8.
    pub window: Option<[f64; 2]>,
    /// The filter of the volume, if the JSON says that it is compressed with zstd.
    pub packed: Option<packed::Filter>,
}

impl JsonFields {
    /// What the header of the volume's NPY says otherwise, as a sentence.
    pub(super) fn contradiction(&self, header: &NpyHeader) -> Option<String> {
        if header.shape != self.shape {
            return Some(format!("the volume's own shape is not the {:?} of its JSON", self.shape));
        }
        let (own, said) = (header.dtype.name(), self.dtype.name());
        (own != said).then(|| format!("the volume's own dtype is {own}, and its JSON says {said}"))
    }
}

/// Parses a JSON member. Python's bare `NaN` becomes null.
///
/// # Errors
/// The bytes are no JSON in UTF-8.
pub(super) fn json(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    serde_json::from_str(text)
        .or_else(|error| serde_json::from_str(&without_nan(text)).map_err(|_| error))
        .map_err(|error| format!("it is not JSON: {error}"))
}

/// JSON with null for each bare `NaN`; the texts in it stay as they are.
fn without_nan(text: &str) -> String {
    // Every other piece between quotes is a text; a quote in a text has a backslash before it.
    let mut changed = String::with_capacity(text.len());
    let mut is_text = false;
    for piece in text.split_inclusive('"') {
        changed.push_str(&if is_text { piece.to_owned() } else { piece.replace("NaN", "null") });
        let backslashes = piece.trim_end_matches('"').bytes().rev().take_while(|byte| *byte == b'\\').count();
        is_text ^= !(is_text && backslashes % 2 == 1);
    }
    changed
}

/// Reads a field of three numbers that is the shape of a volume.
///
/// # Errors
/// The field is no list of three numbers from 1 to 2²⁰ - 1.
pub(super) fn shape(json: &Value, field: &str) -> Result<[u64; 3], String> {
    let numbers: Option<Vec<u64>> =
        json[field].as_array().map(|list| list.iter().map(|n| n.as_u64().unwrap_or(0)).collect());
    match numbers.and_then(|numbers| <[u64; 3]>::try_from(numbers).ok()) {
        Some(shape) if shape.iter().all(|n| (1..1 << 20).contains(n)) => Ok(shape),
        _ => Err(format!("{field} is {}, which is no shape of a volume", json[field])),
    }
}

/// Reads the fields that every reader needs, and checks that the fields of the volume's kind are present.
///
/// # Errors
/// A field is missing, has a wrong type, or contradicts another one.
pub(super) fn json_fields(bytes: &[u8]) -> Result<JsonFields, String> {
    let json = json(bytes)?;
    let study_id = json["study_id"].as_str().filter(|id| !id.is_empty()).ok_or("it has no study_id")?.to_owned();
    let shape = shape(&json, "volume_shape")?;
    let dtype = json["volume_dtype"].as_str().and_then(Dtype::of);
    let dtype = dtype.ok_or_else(|| format!("volume_dtype is {}, which no reader knows", json["volume_dtype"]))?;
    let window = window(&json, dtype)?;
    let kind = match &json["volume_kind"] {
        Value::Null => "stored",
        Value::String(kind) if ["rescaled", "preprocessed"].contains(&&**kind) => kind,
        other => return Err(format!("volume_kind is {other}")),
    };
    if kind != "preprocessed" {
        let mut original = self::shape(&json, "original_shape")?;
        let mut voxels = shape;
        if kind == "rescaled" {
            // A rescaled volume may have its axes in another order than its source.
            original.sort_unstable();
            voxels.sort_unstable();
        }
        if original != voxels {
            return Err(format!("volume_shape is {}, original_shape {}", json["volume_shape"], json["original_shape"]));
        }
        for field in ["RescaleSlope", "RescaleIntercept", "ZSpacing"] {
            if !json[field].is_number() && (json.get(field).is_none() || !json[field].is_null()) {
                return Err(format!("{field} is {}, not a number", json[field]));
            }
        }
        if !json["XYSpacing"].is_string() {
            return Err(format!("XYSpacing is {}, not a text", json["XYSpacing"]));
        }
    }
    let packed = packed_filter(&json, bytes)?;
    if packed.is_some_and(|filter| !filter.fits(dtype.size(), dtype.is_float())) {
        return Err(format!("volume_filter is {}, which is not that of {}", json["volume_filter"], dtype.name()));
    }
    Ok(JsonFields { study_id, shape, kind: kind.to_owned(), dtype, window, packed })
}

/// Reads the values that 0 and 255 stand for, which uint8 alone has.
///
/// # Errors
/// The field is missing, or there although the dtype has none, or no ascending pair of numbers.
fn window(json: &Value, dtype: Dtype) -> Result<Option<[f64; 2]>, String> {
    let field = &json["volume_window"];
    if dtype != Dtype::Uint8 {
        return if field.is_null() { Ok(None) } else { Err(format!("volume_window is {field} for {}", dtype.name())) };
    }
    let numbers = field.as_array().map(|list| list.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
    match numbers.as_deref() {
        Some(&[low, high]) if low < high => Ok(Some([low, high])),
        _ => Err(format!("volume_window is {field}, which is no window")),
    }
}

/// The filter of a compressed volume, by the fields of the JSON; none if the volume is plain.
///
/// # Errors
/// Codec or filter are unknown, or do not stand at the end.
fn packed_filter(json: &Value, bytes: &[u8]) -> Result<Option<packed::Filter>, String> {
    let (codec, filter) = (json.get("volume_codec"), json.get("volume_filter"));
    let known = filter.and_then(Value::as_str).and_then(packed::Filter::named);
    match (codec, filter, known) {
        (None, None, _) => Ok(None),
        (Some(codec), _, Some(known)) if codec == packed::CODEC => {
            if !packed::is_at_end(bytes) {
                return Err(
                    "volume_codec and volume_filter do not stand at its end, so no mount can take them off".into()
                );
            }
            Ok(Some(known))
        }
        _ => Err(format!("volume_codec is {codec:?}, volume_filter {filter:?}; nothing reads that")),
    }
}

/// Reads the labels of a sample, one a class.
///
/// # Errors
/// The bytes are no float32 values, or a value is infinite. NaN is a label that is missing.
pub(super) fn labels(profile: Profile, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let labels = match profile {
        Profile::Npy => Array1::<f32>::read_npy(bytes).map_err(|error| error.to_string())?.to_vec(),
        Profile::Ctclip if !bytes.len().is_multiple_of(4) => {
            return Err(format!("{} bytes are no float32 values", bytes.len()));
        }
        Profile::Ctclip => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    };
    match labels.iter().find(|label| label.is_infinite()) {
        Some(label) => Err(format!("a label is {label}")),
        None => Ok(labels),
    }
}

/// Reads the text of a sample, which is made of so many columns of a table, as far as somebody says how many.
///
/// # Errors
/// The bytes are not UTF-8, have too few line breaks, which separate the columns, or are there without a column.
pub(super) fn text(bytes: &[u8], columns: Option<usize>) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let Some(columns) = columns else { return Ok(text) };
    let breaks = text.matches('\n').count();
    match columns {
        0 if text.is_empty() => Ok(text),
        0 => Err("there is a text, and no table of reports".into()),
        2 if breaks == 0 => Err("there is no line break between findings and impressions".into()),
        _ if breaks + 1 < columns => {
            Err(format!("{breaks} line breaks are too few for a text that is made of {columns} columns"))
        }
        _ => Ok(text),
    }
}

/// The header of a volume in NPY.
#[derive(Clone, Copy)]
pub(super) struct NpyHeader {
    /// Bytes before the voxels.
    pub len: u64,
    /// Shape of the volume, in voxels.
    pub shape: [u64; 3],
    /// Dtype of the voxels.
    pub dtype: Dtype,
}

/// Reads the header of a volume in NPY from the first 128 bytes of the member.
///
/// # Errors
/// The header is not that of a little-endian array of a known dtype and three axes in C order, of NPY version 1.0.
pub(super) fn npy_header(head: &[u8]) -> Result<NpyHeader, String> {
    let wrong = |what: &str| format!("the NPY header {what}");
    let (magic, rest) = head.split_at_checked(10).ok_or_else(|| wrong("is cut short"))?;
    if magic[..8] != *b"\x93NUMPY\x01\x00" {
        return Err(wrong("does not begin as one of version 1.0"));
    }
    let len = u16::from_le_bytes([magic[8], magic[9]]);
    let text = rest.get(..usize::from(len)).ok_or_else(|| wrong("is too long"))?;
    let text = std::str::from_utf8(text).map_err(|_| wrong("is no text"))?;
    let descr = text.split_once("'descr': '").and_then(|(_, rest)| rest.split_once('\'')).map(|(descr, _)| descr);
    let Some(dtype) = descr.and_then(Dtype::of_descr).filter(|_| text.contains("'fortran_order': False")) else {
        return Err(wrong("does not say little-endian voxels of a known dtype in C order"));
    };
    let inside = text.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    let numbers: Option<Vec<u64>> = inside.and_then(|text| text.split(", ").map(|n| n.parse().ok()).collect());
    match numbers.and_then(|numbers| <[u64; 3]>::try_from(numbers).ok()) {
        Some(shape) => Ok(NpyHeader { len: 10 + u64::from(len), shape, dtype }),
        None => Err(wrong("has no shape of three axes")),
    }
}
