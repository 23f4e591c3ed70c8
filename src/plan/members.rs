//! The members of a sample: what they are called, and what the small ones hold, in each profile.

use serde::{Deserialize, Serialize};

use super::json_fields::with_fields;
use crate::dataset::{Origin, Sample, Study};
use crate::formats::codec::{CODEC, Filter, Method, RowFilter};
use crate::formats::npz::npy;
use crate::formats::pyjson;
use crate::volume::{Kind, VoxelFormat, affine};

/// A profile: how the members of a sample are named and encoded (`--format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `.bin`, `.json`, `.txt`, `.labels`, as the CT-CLIP loader reads them.
    #[default]
    Ctclip,
    /// `.volume.npy`, `.meta.json`, `.report.txt`, `.labels.npy`, for readers that decode by extension.
    Npy,
}

/// A member of a sample, by what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The voxels, behind an NPY header in [`Profile::Npy`].
    Volume,
    /// The JSON: study id, shapes, dtype and the values of the metadata table.
    Json,
    /// The report: findings, a newline, impressions.
    Text,
    /// One float32 for each class.
    Labels,
    /// An extra, by its number: an array beside the volume, as NPY in both profiles.
    Extra(u8),
}

impl Member {
    /// Whether the member's bytes are made from an array, as those of a volume are, which take most of a shard.
    pub const fn has_voxels(self) -> bool {
        matches!(self, Self::Volume | Self::Extra(_))
    }
}

/// The members that each sample of a plan has, in their order in the shard: the same for all samples of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    profile: Profile,
    list: Vec<Member>,
    /// The extension of each extra.
    extras: Vec<String>,
}

impl Members {
    /// The members of samples that are named and encoded by a profile, with labels or without, and with extras of these
    /// names, behind the others.
    pub fn new<'a>(profile: Profile, has_labels: bool, extras: impl IntoIterator<Item = &'a str>) -> Self {
        let extras: Vec<String> = extras.into_iter().map(|name| format!("{name}.npy")).collect();
        let mut list = vec![Member::Volume, Member::Json, Member::Text];
        list.extend(has_labels.then_some(Member::Labels));
        list.extend((0..=u8::MAX).take(extras.len()).map(Member::Extra));
        Self { profile, list, extras }
    }

    /// The members of these extensions, in their order in the shard; `None` if no plan has such.
    pub fn of_extensions(profile: Profile, extensions: &[String]) -> Option<Self> {
        [true, false].into_iter().find_map(|has_labels| {
            let fixed = Self::new(profile, has_labels, []).count();
            let extras = extensions.get(fixed..)?.iter().map(|extension| extension.strip_suffix(".npy"));
            let members = Self::new(profile, has_labels, extras.collect::<Option<Vec<&str>>>()?);
            members.extensions().eq(extensions.iter().map(String::as_str)).then_some(members)
        })
    }

    /// Whether samples have labels and no extra, as most data sets': only a manifest of others lists the members.
    pub fn are_usual(&self) -> bool {
        self.place(Member::Labels).is_some() && self.extras.is_empty()
    }

    /// The names of the extras, in their order in the shard.
    pub fn extra_names(&self) -> impl Iterator<Item = &str> + '_ {
        self.extras.iter().map(|extension| extension.strip_suffix(".npy").unwrap_or(extension))
    }

    /// The members whose bytes are made from an array, in their order in the shard: first the volume.
    pub fn with_voxels(&self) -> impl Iterator<Item = Member> + '_ {
        self.list.iter().copied().filter(|member| member.has_voxels())
    }

    /// All members, in their order in the shard.
    pub fn list(&self) -> &[Member] {
        &self.list
    }

    /// The number of members of a sample.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The members that are kept in memory as a whole: all without voxels, in their order in the shard.
    pub fn small(&self) -> impl Iterator<Item = Member> + '_ {
        self.list.iter().copied().filter(|member| !member.has_voxels())
    }

    /// The place of a member among those of a sample; `None` if samples have no such member.
    pub fn place(&self, member: Member) -> Option<usize> {
        self.list.iter().position(|other| *other == member)
    }

    /// The extension of a member, without the dot before it.
    pub fn extension(&self, member: Member) -> &str {
        match member {
            Member::Extra(number) => self.extras.get(usize::from(number)).map_or("", String::as_str),
            Member::Volume => self.profile.extensions()[0],
            Member::Json => self.profile.extensions()[1],
            Member::Text => self.profile.extensions()[2],
            Member::Labels => self.profile.extensions()[3],
        }
    }

    /// The extensions of all members, in their order in the shard.
    pub fn extensions(&self) -> impl Iterator<Item = &str> + '_ {
        self.list.iter().map(|member| self.extension(*member))
    }

    /// The member of this extension; `None` if samples have none.
    pub fn of_extension(&self, extension: &str) -> Option<Member> {
        self.list.iter().copied().find(|member| self.extension(*member) == extension)
    }

    /// The payload of a member; empty for a volume or an extra, whose bytes are made from an array.
    pub fn payload(&self, member: Member, sample: &Sample) -> Vec<u8> {
        match &sample.origin {
            Origin::Study(study) => match member {
                Member::Volume | Member::Extra(_) => Vec::new(),
                Member::Json => with_fields(json(&sample.study_id, study), &study.fields).into_bytes(),
                Member::Text => study.text.clone().into_bytes(),
                Member::Labels => self.profile.labels(&study.labels),
            },
            Origin::Finished(stored) => {
                let place = self.small().position(|small| small == member);
                place.and_then(|place| stored.small.get(place)).cloned().unwrap_or_default()
            }
        }
    }
}

impl Profile {
    /// The extensions of volume, JSON, text and labels, without the dot before them.
    const fn extensions(self) -> [&'static str; 4] {
        match self {
            Self::Ctclip => ["bin", "json", "txt", "labels"],
            Self::Npy => ["volume.npy", "meta.json", "report.txt", "labels.npy"],
        }
    }

    /// The bytes before the elements in a member with voxels, for an array of this dtype and shape: an NPY header, or
    /// none.
    pub fn prefix(self, member: Member, descr: &str, shape: [u64; 3]) -> Vec<u8> {
        match (self, member) {
            (Self::Ctclip, Member::Volume) => Vec::new(),
            _ => npy_header(descr, &shape),
        }
    }

    /// The payload of the labels: little-endian float32, behind an NPY header if the profile has one.
    fn labels(self, labels: &[f32]) -> Vec<u8> {
        let mut bytes = match self {
            Self::Ctclip => Vec::new(),
            Self::Npy => npy_header("<f4", &[labels.len() as u64]),
        };
        bytes.extend(labels.iter().flat_map(|label| label.to_le_bytes()));
        bytes
    }
}

/// The end of a sample's JSON in a compressed shard. In a plain shard the JSON ends with `}` instead.
fn codec_fields(filter: Filter) -> String {
    format!(", \"volume_codec\": \"{CODEC}\", \"volume_filter\": \"{}\"}}", filter.name())
}

/// The JSON of a sample in a compressed shard, from that in a plain one: with the volume's codec and filter at the end.
pub fn with_codec(json: &[u8], filter: Filter) -> Vec<u8> {
    [json.strip_suffix(b"}").unwrap_or(json), codec_fields(filter).as_bytes()].concat()
}

/// The JSON of a sample in a plain shard, from that in a compressed one; `None` if that does not end with the codec and
/// this filter.
pub fn without_codec(json: &[u8], filter: Filter) -> Option<Vec<u8>> {
    json.strip_suffix(codec_fields(filter).as_bytes()).map(|plain| [plain, b"}"].concat())
}

/// The filter that a method has for volumes of this format.
pub fn volume_filter(method: Method, format: VoxelFormat) -> Filter {
    Filter::new(method, format.voxel_len(), !format.is_integer())
}

/// The values in a row of the sample's volume, which is the length of the last axis, by the sample's JSON.
pub fn volume_row(json: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(json).ok()?;
    // No text of the JSON can hold this: its quotes would have backslashes before them.
    let (_, shape) = text.split_once("\"volume_shape\": [")?;
    shape.split_once(']')?.0.rsplit(", ").next()?.parse().ok()
}

/// The filter that a method has for an extra, by the beginning of its member; `None` if that is no NPY header.
pub fn extra_filter(method: Method, head: &[u8]) -> Option<RowFilter> {
    let header = npy::parse(head).ok()?;
    let (element, row) = (header.element, header.shape.last().copied().unwrap_or(1));
    Some(RowFilter::new(Filter::new(method, element.size(), element.is_float()), row))
}

/// The JSON of a stored or rescaled volume. Fields and their order are those of the CT-CLIP converter.
#[derive(Serialize)]
#[allow(non_snake_case)]
struct StoredJson<'a> {
    study_id: &'a str,
    RescaleSlope: f64,
    RescaleIntercept: f64,
    XYSpacing: &'a str,
    ZSpacing: f64,
    original_shape: &'a [u64],
    volume_shape: &'a [u64],
    volume_dtype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_window: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    affine: Option<[[f64; 4]; 4]>,
}

/// The JSON of a preprocessed volume, which has no values of the metadata table any more.
#[derive(Serialize)]
struct PreprocessedJson<'a> {
    study_id: &'a str,
    volume_shape: &'a [u64],
    volume_dtype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_window: Option<[f64; 2]>,
    volume_kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    affine: Option<[[f64; 4]; 4]>,
}

/// The JSON of a sample in a plain shard.
fn json(study_id: &str, study: &Study) -> String {
    let Study { array, meta, recipe, format, .. } = study;
    let source = &array.header.shape;
    let shape = recipe.shape([source[0], source[1], source[2]]);
    let (volume_dtype, volume_window) = (format.name(), format.window());
    let affine = affine(recipe, array);
    // A loader that rescales what it reads gets HU from both kinds.
    let (slope, intercept, volume_kind) = match recipe.kind() {
        Kind::Stored => (meta.rescale_slope, meta.rescale_intercept, None),
        Kind::Rescaled => (1.0, 0.0, Some(Kind::Rescaled)),
        Kind::Preprocessed => {
            let volume_kind = Kind::Preprocessed;
            return pyjson::dumps(&PreprocessedJson {
                study_id,
                volume_shape: &shape,
                volume_dtype,
                volume_window,
                volume_kind,
                affine,
            });
        }
    };
    pyjson::dumps(&StoredJson {
        study_id,
        RescaleSlope: slope,
        RescaleIntercept: intercept,
        XYSpacing: &meta.xy_spacing,
        ZSpacing: meta.z_spacing,
        original_shape: source,
        volume_shape: &shape,
        volume_dtype,
        volume_window,
        volume_kind,
        affine,
    })
}

/// An NPY version 1.0 header for a C-order array, padded to 64 bytes as `numpy.save` does.
fn npy_header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(u64::to_string).collect();
    let comma = if axes.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", axes.join(", "));
    let unpadded = 10 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes()); // three axes take 118 at most
    header.extend(text.bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_and_filter_come_last() {
        let (plain, filter) = (br#"{"study_id": "a", "volume_shape": [1, 2, 3]}"#, Filter::PredictHalf);
        let packed = with_codec(plain, filter);
        let expected: &[u8] =
            br#"{"study_id": "a", "volume_shape": [1, 2, 3], "volume_codec": "zstd", "volume_filter": "predict"}"#;
        assert_eq!(packed, expected);
        assert_eq!(without_codec(&packed, filter).unwrap(), plain);
        assert_eq!(without_codec(&packed, Filter::Predict(2)), None);
        assert_eq!(without_codec(br#"{"study_id": "a"}"#, filter), None);
    }

    #[test]
    fn the_json_says_how_long_rows_are() {
        let row = |json: &str| volume_row(json.as_bytes());
        assert_eq!(row(r#"{"study_id": "a", "volume_shape": [1, 2, 37], "x": [4]}"#), Some(37));
        assert_eq!(row(r#"{"study_id": "\"volume_shape\": [9]", "x": NaN, "volume_shape": [1, 2, 3]}"#), Some(3));
        assert_eq!(row(r#"{"volume_shape": []}"#), None);
        assert_eq!(row("{}"), None);
    }

    #[test]
    fn members_are_known_by_their_extensions() {
        for (has_labels, extras) in
            [(true, vec!["mask"]), (false, vec!["mask", "dose"]), (false, vec![]), (true, vec![])]
        {
            for profile in [Profile::Ctclip, Profile::Npy] {
                let members = Members::new(profile, has_labels, extras.clone());
                let extensions: Vec<String> = members.extensions().map(str::to_owned).collect();
                assert_eq!(Members::of_extensions(profile, &extensions), Some(members));
                assert_eq!(Members::of_extensions(profile, &extensions[1..]), None);
            }
        }
    }

    #[test]
    fn the_header_of_an_extra_says_its_filter() {
        for (descr, method, name) in [
            ("|u1", Method::Predict, "predict1"),
            ("<i2", Method::Predict, "predict2"),
            ("<f2", Method::Predict, "predict"),
            ("<f8", Method::Predict, "shuffle8"),
            ("|u1", Method::Split, "predict1"),
            ("<i2", Method::Split, "split2"),
            ("<f2", Method::Split, "split"),
            ("<i2", Method::Shuffle, "shuffle"),
        ] {
            let found = extra_filter(method, &npy_header(descr, &[1, 2, 3])).unwrap();
            assert_eq!((found, found.filter.name()), (RowFilter::new(found.filter, 3), name));
        }
        assert_eq!(extra_filter(Method::Predict, b"{'descr"), None);
    }

    #[test]
    fn an_independent_reader_understands_the_npy_header() {
        use ndarray_npy::ReadNpyExt;
        let mut bytes = npy_header("<f4", &[3]);
        assert_eq!(bytes.len() % 64, 0);
        bytes.extend([1f32, -2.0, 0.5].iter().flat_map(|x| x.to_le_bytes()));
        let array = ndarray::Array1::<f32>::read_npy(&bytes[..]).unwrap();
        assert_eq!(array.as_slice().unwrap(), [1.0, -2.0, 0.5]);
    }
}
