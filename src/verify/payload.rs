//! What the small members of a sample hold, and the header of a volume in NPY.

use ndarray::Array1;
use ndarray_npy::ReadNpyExt;
use serde_json::Value;

use super::packed;

/// How members are named and encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// The CT-CLIP converter's.
    Ctclip,
    /// NPY for the arrays.
    Npy,
}

impl Profile {
    /// The profile whose first member has this extension.
    pub(super) fn of(extension: &str) -> Option<Self> {
        [Self::Ctclip, Self::Npy].into_iter().find(|profile| profile.extensions()[0] == extension)
    }

    /// In the order of a sample.
    pub(super) fn extensions(self) -> [&'static str; 4] {
        match self {
            Self::Ctclip => ["bin", "json", "txt", "labels"],
            Self::Npy => ["volume.npy", "meta.json", "report.txt", "labels.npy"],
        }
    }
}

/// A member's extension without what compression adds to it, and whether it did.
pub(super) fn plain_extension(extension: &str) -> (&str, bool) {
    match extension.strip_suffix(packed::SUFFIX) {
        Some(plain) if Profile::of(plain).is_some() => (plain, true),
        _ => (extension, false),
    }
}

/// What the JSON member says.
#[derive(Debug)]
pub(super) struct Facts {
    pub study_id: String,
    pub shape: [u64; 3],
    pub kind: String,
    /// Whether its volume is compressed, in the one way there is.
    pub is_packed: bool,
}

/// The JSON member as a value; Python's bare `NaN` is null.
pub(super) fn json(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    serde_json::from_str(text)
        .or_else(|error| serde_json::from_str(&text.replace(": NaN", ": null")).map_err(|_| error))
        .map_err(|error| format!("it is not JSON: {error}"))
}

/// The three numbers of a field.
pub(super) fn shape(json: &Value, field: &str) -> Result<[u64; 3], String> {
    let numbers: Option<Vec<u64>> =
        json[field].as_array().map(|list| list.iter().map(|n| n.as_u64().unwrap_or(0)).collect());
    match numbers.and_then(|numbers| <[u64; 3]>::try_from(numbers).ok()) {
        Some(shape) if shape.iter().all(|n| (1..1 << 20).contains(n)) => Ok(shape),
        _ => Err(format!("{field} is {}, which is no shape of a volume", json[field])),
    }
}

/// Reads the fields that every reader needs, and checks that those of the kind are there.
pub(super) fn facts(bytes: &[u8]) -> Result<Facts, String> {
    let json = json(bytes)?;
    let study_id = json["study_id"].as_str().filter(|id| !id.is_empty()).ok_or("it has no study_id")?.to_owned();
    let shape = shape(&json, "volume_shape")?;
    if json["volume_dtype"] != "float16" {
        return Err(format!("volume_dtype is {}, not \"float16\"", json["volume_dtype"]));
    }
    let kind = match &json["volume_kind"] {
        Value::Null => "stored",
        Value::String(kind) if ["rescaled", "preprocessed"].contains(&&**kind) => kind,
        other => return Err(format!("volume_kind is {other}")),
    };
    if kind != "preprocessed" {
        let mut original = self::shape(&json, "original_shape")?;
        let mut voxels = shape;
        if kind == "rescaled" {
            // Its axes may have been put in another order.
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
    let is_packed = match (json.get("volume_codec"), json.get("volume_filter")) {
        (None, None) => false,
        (Some(codec), Some(filter)) if codec == packed::CODEC && filter == packed::FILTER => {
            if !bytes.ends_with(packed::JSON_END.as_bytes()) {
                return Err(
                    "volume_codec and volume_filter do not stand at its end, so no mount can take them off".into()
                );
            }
            true
        }
        (codec, filter) => {
            return Err(format!("volume_codec is {codec:?}, volume_filter {filter:?}; nothing reads that"));
        }
    };
    Ok(Facts { study_id, shape, kind: kind.to_owned(), is_packed })
}

/// The labels.
pub(super) fn labels(profile: Profile, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let labels = match profile {
        Profile::Npy => Array1::<f32>::read_npy(bytes).map_err(|error| error.to_string())?.to_vec(),
        Profile::Ctclip if !bytes.len().is_multiple_of(4) => {
            return Err(format!("{} bytes are no float32 values", bytes.len()));
        }
        Profile::Ctclip => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    };
    match labels.iter().find(|label| !label.is_finite()) {
        Some(label) => Err(format!("a label is {label}")),
        None => Ok(labels),
    }
}

/// The text.
pub(super) fn text(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    if text.contains('\n') { Ok(text) } else { Err("there is no line break between findings and impressions".into()) }
}

/// The bytes before the voxels of a volume in NPY, from its first bytes, of which it needs 128; and its shape.
pub(super) fn npy_volume(head: &[u8]) -> Result<(u64, [u64; 3]), String> {
    let wrong = |what: &str| format!("the NPY header {what}");
    let (magic, rest) = head.split_at_checked(10).ok_or_else(|| wrong("is cut short"))?;
    if magic[..8] != *b"\x93NUMPY\x01\x00" {
        return Err(wrong("does not begin as one of version 1.0"));
    }
    let len = u16::from_le_bytes([magic[8], magic[9]]);
    let text = rest.get(..usize::from(len)).ok_or_else(|| wrong("is too long"))?;
    let text = std::str::from_utf8(text).map_err(|_| wrong("is no text"))?;
    if !text.contains("'descr': '<f2'") || !text.contains("'fortran_order': False") {
        return Err(wrong("does not say little-endian float16 in C order"));
    }
    let inside = text.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    let numbers: Option<Vec<u64>> = inside.and_then(|text| text.split(", ").map(|n| n.parse().ok()).collect());
    match numbers.and_then(|numbers| <[u64; 3]>::try_from(numbers).ok()) {
        Some(shape) => Ok((10 + u64::from(len), shape)),
        None => Err(wrong("has no shape of three axes")),
    }
}
