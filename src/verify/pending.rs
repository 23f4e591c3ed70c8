//! A sample while its members are read: what they say, and where they contradict each other.

use std::ops::Range;

use super::packed::Filter;
use super::payload::{JsonFields, NpyHeader, Profile, SampleMember};
use super::walked::{MemberSpans, SampleRules};

/// A sample whose members are being read.
pub(super) struct PendingSample {
    /// What the names of its members begin with.
    pub key: String,
    /// Index within the shard, if the key is one.
    pub index: Option<u64>,
    /// Extensions of the members so far, without what compression adds.
    pub extensions: Vec<String>,
    /// The places of the members.
    pub members: MemberSpans,
    /// Header of a volume in NPY.
    pub npy: Option<NpyHeader>,
    /// The filter, by the name of a compressed volume.
    pub filter: Option<Filter>,
    /// The fields of the JSON member.
    pub fields: Option<JsonFields>,
    /// How many labels it has.
    pub label_count: Option<usize>,
    /// Bytes of the shard so far.
    pub range: Range<u64>,
    /// Whether a member has a filter that this version does not know, so that the sample cannot be looked into.
    pub is_later: bool,
    /// Whether something is wrong with the sample.
    pub is_broken: bool,
}

impl PendingSample {
    /// The sample's profile, by the extension of its first member; ctclip if that is unknown.
    pub(super) fn profile(&self) -> Profile {
        Profile::of(&self.extensions[0]).unwrap_or(Profile::Ctclip)
    }

    /// Sentences that name missing members, a wrong order, and members that contradict each other.
    pub(super) fn contradictions(&self, rules: &SampleRules) -> Vec<String> {
        let Self { extensions, members, npy, filter, .. } = self;
        let MemberSpans { voxels, packed, extras, .. } = members;
        let profile = self.profile();
        let mut wrong = Vec::new();
        // Where nobody says whether there are labels, the samples of a folder are compared with each other.
        let has_labels = rules.has_labels.unwrap_or(members.labels.is_some());
        let extras = rules.extras.clone().unwrap_or_else(|| extras.iter().map(|extra| extra.name.clone()).collect());
        let fixed = profile.extensions(has_labels).into_iter().map(str::to_owned);
        let expected: Vec<String> = fixed.chain(extras.iter().map(|name| format!("{name}.npy"))).collect();
        if *extensions != expected {
            let expected = expected.join(" ");
            wrong.push(format!("its members are {}, and should be {expected}", extensions.join(" ")));
        }
        if let Some(fields @ JsonFields { shape, dtype, packed: packed_in_json, .. }) = &self.fields {
            if packed_in_json != filter {
                wrong.push("its JSON does not say how its volume is compressed, or says it of a plain one".into());
            }
            let (name, len) = (dtype.name(), dtype.size() as u64 * shape.iter().product::<u64>());
            let is_known = packed.is_none() || voxels.len > 0; // else it could not be unpacked
            let has_volume = extensions.iter().any(|extension| extension == profile.extension(SampleMember::Volume));
            if is_known && has_volume && voxels.len != len {
                wrong.push(format!(
                    "{shape:?} voxels of {name} (its volume_dtype) are {len} bytes, the volume has {}",
                    voxels.len
                ));
            }
            wrong.extend(npy.as_ref().and_then(|header| fields.contradiction(header)));
        }
        wrong
    }
}
