//! The bytes behind a plan's extents: the tar header of a member, its payload, and the volume that makes its voxels.
//! Nothing here reads a file.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::digests::{self, SampleDigest};
use super::layout::{Content, MemberId};
use super::members::{Member, Members};
use super::{Options, Plan, ShardId};
use crate::dataset::{Dataset, ExtraArray, Origin, Sample};
use crate::error::{Error, Result};
use crate::formats::tar;
use crate::volume::{ArrayFormat, NpzVolume, ShardVolume, Volume};

impl Plan {
    /// The key of a sample, `000012_000034`: the number of its plain shard and the number of its slot in that shard,
    /// both from 0. A shuffled view changes no key.
    pub fn key(&self, sample: &Sample) -> String {
        let per_shard = self.options.samples_per_shard;
        format!("{:06}_{:06}", sample.slot / per_shard, sample.slot % per_shard)
    }

    /// The sample of a member of a shard, as an index into the samples of the data set.
    ///
    /// # Panics
    /// The shard does not have this member.
    pub fn sample_index(&self, shard: ShardId, member: MemberId) -> usize {
        self.samples(shard).get(member.sample as usize).expect("the layout has this sample")
    }

    /// The tar header of a member of a shard: its name, `<key>.<extension>`, and the size of its payload.
    ///
    /// # Panics
    /// The shard does not have this member.
    pub fn header(&self, shard: ShardId, member: MemberId) -> [u8; 512] {
        let index = self.sample_index(shard, member);
        let key = self.key(&self.dataset.samples[index]);
        let extension = self.members.extension(member.member);
        tar::header(&format!("{key}.{extension}"), self.member_size(index, member.member))
    }

    /// The payload of a member of a shard, without voxels: of the volume's member, only the bytes before the voxels.
    ///
    /// # Panics
    /// The shard does not have this member.
    pub fn small_payload(&self, shard: ShardId, member: MemberId) -> Bytes {
        let sample = &self.dataset.samples[self.sample_index(shard, member)];
        match member.member {
            member if member.has_voxels() => {
                prefix(self.options, member, &volume(&self.dataset, self.options, sample, member))
            }
            small => self.members.payload(small, sample),
        }
        .into()
    }

    /// The payload sizes of a sample's members in bytes, in the order of [`Plan::members`]; the sample is an index into
    /// the samples of the data set.
    pub fn member_sizes(&self, sample: usize) -> &[u64] {
        &self.measured[sample].sizes
    }

    /// The payload size of one member of a sample in bytes; 0 if samples have no such member.
    pub fn member_size(&self, sample: usize, member: Member) -> u64 {
        self.members.place(member).map_or(0, |place| self.member_sizes(sample)[place])
    }

    /// The plain shard of a sample and the bytes of a member's payload in it; `None` if samples have no such member.
    /// The sample is an index into the samples of the data set.
    pub fn member_range(&self, sample: usize, member: Member) -> Option<(ShardId, Range<u64>)> {
        let id = self.shard_of(sample);
        let shard = self.shard(id)?;
        let place = sample.checked_sub(shard.samples.start)?;
        let start = *shard.layout.sample_starts().get(place)?;
        let is_wanted = |content| match content {
            Content::Payload(found) => found.sample as usize == place && found.member == member,
            Content::Header(_) | Content::Zeros => false,
        };
        let mut extents = self.locate(id, start, u64::MAX);
        let (extent, _) = extents.find(|(extent, _)| is_wanted(extent.content))?;
        Some((id, extent.start..extent.start + extent.len))
    }

    /// The volume that makes the voxels of a member of a sample: of its volume, or of an extra.
    pub fn volume<'a>(&'a self, sample: &'a Sample, member: Member) -> Volume<'a> {
        volume(&self.dataset, self.options, sample, member)
    }

    /// The number of a volume or extra among those of all samples: the samples have as many each. The sample is an
    /// index into the samples of the data set.
    pub fn volume_number(&self, sample: usize, member: Member) -> usize {
        let each = self.members.with_voxels().count();
        sample * each + self.members.with_voxels().position(|other| other == member).unwrap_or(0)
    }

    /// The sample and the member of a [`Self::volume_number`].
    pub fn volume_numbered(&self, number: usize) -> (usize, Member) {
        let each = self.members.with_voxels().count();
        (number / each, self.members.with_voxels().nth(number % each).unwrap_or(Member::Volume))
    }
}

/// The volume that makes the voxels of a member of a sample.
fn volume<'a>(dataset: &'a Dataset, options: Options, sample: &'a Sample, member: Member) -> Volume<'a> {
    let extra = match member {
        Member::Extra(number) => Some(usize::from(number)),
        _ => None,
    };
    match &sample.origin {
        Origin::Study(study) => {
            let (store, overflow) = (&*dataset.store, options.overflow);
            Volume::Npz(match extra {
                None => NpzVolume {
                    store,
                    path: dataset.root.join(&sample.path),
                    array: &study.array,
                    recipe: &study.recipe,
                    format: ArrayFormat::Voxels(study.format),
                    overflow,
                },
                Some(number) => {
                    let ExtraArray { path, array, recipe } = &study.extras[number];
                    let path = dataset.extras[number].root.join(path);
                    let format = ArrayFormat::Own(array.header.element);
                    NpzVolume { store, path, array, recipe, format, overflow }
                }
            })
        }
        Origin::Finished(stored) => {
            let member = extra.map_or(&stored.volume, |number| &stored.extras[number]);
            Volume::Shard(ShardVolume { store: &*dataset.store, path: dataset.root.join(&member.file), member })
        }
    }
}

/// The bytes before the voxels in a member: an NPY header, or none. Where the sample is read from a shard on disk, the
/// whole member counts as the volume, and nothing is before it.
fn prefix(options: Options, member: Member, volume: &Volume<'_>) -> Vec<u8> {
    match volume {
        Volume::Npz(volume) => options.format.prefix(member, &volume.format.descr(), volume.shape()),
        Volume::Shard(_) => Vec::new(),
    }
}

/// What layouts and digests need of a sample, so that its small members need not be made again for them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MeasuredSample {
    /// The payload sizes of all members in bytes.
    pub(super) sizes: Box<[u64]>,
    /// The digest of the sample.
    pub(super) digest: SampleDigest,
}

impl MeasuredSample {
    /// Makes the small members of a sample once, for their sizes and for the digest.
    ///
    /// # Errors
    /// [`Error::Refused`] if a member is too large for a tar file of the USTAR format.
    pub(super) fn new(dataset: &Dataset, options: Options, members: &Members, sample: &Sample) -> Result<Self> {
        let small: Vec<Vec<u8>> = members.small().map(|member| members.payload(member, sample)).collect();
        let mut small_sizes = small.iter().map(|payload| payload.len() as u64);
        let size = |member: &Member| match member {
            Member::Volume | Member::Extra(_) => {
                let volume = volume(dataset, options, sample, *member);
                prefix(options, *member, &volume).len() as u64 + volume.byte_len()
            }
            Member::Json | Member::Text | Member::Labels => small_sizes.next().unwrap_or(0),
        };
        let sizes: Box<[u64]> = members.list().iter().map(size).collect();
        match sizes.iter().max() {
            Some(&largest) if largest > tar::MAX_PAYLOAD => Err(Error::Refused(format!(
                "{}: a member of {largest} bytes does not fit a tar file of the USTAR format (8 GiB at most); \
                 leave the volume out of the data folder",
                sample.path.display()
            ))),
            _ => Ok(Self { sizes, digest: digests::sample_digest(dataset, sample, small.iter().map(Vec::as_slice)) }),
        }
    }
}
