//! The plan: a data set laid out as shards, and the digest that identifies it.
//!
//! Pure: everything is known from headers and tables; no voxel was read.

mod saved;

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dataset::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::layout::{MemberId, ShardLayout};
use crate::members::{Format, MEMBERS, VOLUME};
use crate::parallel::{available_cores, try_map};
use crate::tar;
use crate::volume::{Kind, Overflow, Recipe, Volume};

/// The options that change a shard's bytes, besides those of the data set.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Slots of a shard.
    pub samples_per_shard: u32,
    /// The members' names and encodings.
    pub format: Format,
    /// What becomes of values beyond float16.
    pub overflow: Overflow,
}

/// Names a shard: its number.
pub type ShardId = u32;

/// One shard.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Its samples, as indexes into [`Dataset::samples`].
    pub samples: Range<usize>,
    /// Where its bytes come from.
    pub layout: ShardLayout,
    /// SHA-256 of all that determines its bytes, in hexadecimal. A plan that differs in one sample differs in the
    /// digest of that sample's shard alone.
    pub digest: String,
}

/// Data set, options, layouts and digest.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The samples.
    pub dataset: Dataset,
    /// The options.
    pub options: Options,
    /// The shards, by number. One whose samples are all left out is an empty tar file.
    pub shards: Vec<Shard>,
    /// Payload bytes of all members of all samples.
    pub payload_bytes: u64,
    /// SHA-256 of all that determines the shards' bytes, in hexadecimal.
    pub digest: String,
    /// Of the samples, in their order.
    measured: Vec<Measured>,
}

impl Plan {
    /// Lays the data set out.
    ///
    /// # Errors
    /// [`Error::Refused`] if a shard cannot be written as USTAR.
    pub fn new(dataset: Dataset, options: Options) -> Result<Self> {
        let (measured, digest) = Self::measure(&dataset, options)?;
        Ok(Self::lay_out(dataset, options, measured, digest))
    }

    /// The same without some samples (indexes into [`Dataset::samples`], and why): their slots stay empty, so that only
    /// their own shards change. The digest stays that of the plan which was asked for.
    pub fn without(&self, left_out: &BTreeMap<usize, String>) -> Self {
        let kept = |index: &usize| !left_out.contains_key(index);
        let (mut dataset, indexes) = (self.dataset.clone(), 0..self.measured.len());
        let measured = indexes.filter(kept).map(|index| self.measured[index].clone()).collect();
        let samples = std::mem::take(&mut dataset.samples);
        for (index, sample) in samples.into_iter().enumerate() {
            match left_out.get(&index) {
                None => dataset.samples.push(sample),
                Some(reason) => dataset.left_out.push(sample.left_out(reason.clone())),
            }
        }
        dataset.left_out.sort_by_key(|left_out| left_out.slot);
        Self::lay_out(dataset, self.options, measured, self.digest.clone())
    }

    /// The sizes and digests of all samples' members, and the plan's digest.
    fn measure(dataset: &Dataset, options: Options) -> Result<(Vec<Measured>, String)> {
        if options.samples_per_shard == 0 {
            return Err(Error::Refused("--samples-per-shard must be at least 1".into()));
        }
        let measured = try_map(&dataset.samples, available_cores(), |sample| measure(options, sample))?;
        let digest = digest(dataset, options, &measured);
        Ok((measured, digest))
    }

    fn lay_out(dataset: Dataset, options: Options, measured: Vec<Measured>, digest: String) -> Self {
        let count = dataset.slots.div_ceil(options.samples_per_shard);
        let mut shards = Vec::with_capacity(count as usize);
        let mut next = 0;
        for number in 0..count {
            let first = next;
            while dataset.samples.get(next).is_some_and(|sample| sample.slot / options.samples_per_shard == number) {
                next += 1;
            }
            let here = &measured[first..next];
            let layout = ShardLayout::new(here.iter().map(|measured| measured.sizes));
            shards.push(Shard { samples: first..next, layout, digest: shard_digest(options, number, here) });
        }
        let payload_bytes = measured.iter().flat_map(|measured| measured.sizes).sum();
        Self { dataset, options, shards, payload_bytes, digest, measured }
    }

    /// A shard's file name.
    pub fn shard_name(id: ShardId) -> String {
        format!("shard-{id:06}.tar")
    }

    /// The shard of a file name.
    pub fn shard_named(name: &str) -> Option<ShardId> {
        let id: ShardId = name.strip_prefix("shard-")?.strip_suffix(".tar")?.parse().ok()?;
        (Self::shard_name(id) == name).then_some(id)
    }

    /// The shard of a sample, given as an index into [`Dataset::samples`].
    pub fn shard_of(&self, sample: usize) -> ShardId {
        self.dataset.samples[sample].slot / self.options.samples_per_shard
    }

    /// The key of a sample: its shard's number and its index there.
    pub fn key(&self, sample: &Sample) -> String {
        let per_shard = self.options.samples_per_shard;
        format!("{:06}_{:06}", sample.slot / per_shard, sample.slot % per_shard)
    }

    /// The sample of a member, as an index into [`Dataset::samples`].
    pub fn sample_index(&self, shard: ShardId, member: MemberId) -> usize {
        self.shards[shard as usize].samples.start + member.sample as usize
    }

    /// The tar header of a member.
    pub fn header(&self, shard: ShardId, member: MemberId) -> [u8; 512] {
        let sample = &self.dataset.samples[self.sample_index(shard, member)];
        let extension = self.options.format.extensions()[usize::from(member.member)];
        let size = match member.member {
            VOLUME => volume_member_len(self.options, sample),
            other => self.options.format.payload(other, sample).len() as u64,
        };
        tar::header(&format!("{}.{extension}", self.key(sample)), size)
    }

    /// The bytes of a member, except for the voxels: those of the volume's member before them.
    pub fn small_payload(&self, shard: ShardId, member: MemberId) -> Bytes {
        let sample = &self.dataset.samples[self.sample_index(shard, member)];
        match member.member {
            VOLUME => self.options.format.volume_prefix(self.volume(sample).shape()),
            other => self.options.format.payload(other, sample),
        }
        .into()
    }

    /// A sample's volume.
    pub fn volume<'a>(&self, sample: &'a Sample) -> Volume<'a> {
        Volume {
            path: self.dataset.root.join(&sample.path),
            array: &sample.array,
            recipe: &sample.recipe,
            overflow: self.options.overflow,
        }
    }

    /// The kind of all volumes.
    pub fn kind(&self) -> Kind {
        self.dataset.samples.first().map_or(Kind::Stored, |sample| sample.recipe.kind())
    }

    /// Bytes of all shard files.
    pub fn shard_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.layout.len()).sum()
    }
}

fn volume_member_len(options: Options, sample: &Sample) -> u64 {
    let (path, overflow) = (Default::default(), options.overflow);
    let volume = Volume { path, array: &sample.array, recipe: &sample.recipe, overflow };
    options.format.volume_prefix(volume.shape()).len() as u64 + volume.byte_len()
}

/// The payload bytes of a sample's members.
type Sizes = [u64; MEMBERS];

/// What a sample contributes to the layout and to the digests.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    sizes: Sizes,
    digest: [u8; 32],
}

/// Makes the small members once, for their sizes and for the digest.
fn measure(options: Options, sample: &Sample) -> Result<Measured> {
    let (array, header) = (&sample.array, &sample.array.header);
    let mut fields = Fields(Sha256::new());
    fields.add(&sample.slot.to_le_bytes());
    fields.add(sample.path.as_os_str().as_bytes());
    fields.add(&array.fingerprint.size.to_le_bytes());
    fields.add(array.member.name.as_bytes());
    fields.add(&array.member.crc.to_le_bytes());
    fields.add(format!("{} {} {:?}", header.descr(), header.fortran_order, header.shape).as_bytes());
    if sample.recipe != Recipe::Stored {
        fields.add(format!("{:?}", sample.recipe).as_bytes());
    }
    let mut sizes = [volume_member_len(options, sample), 0, 0, 0];
    for (member, size) in (1..).zip(&mut sizes[1..]) {
        let payload = options.format.payload(member, sample);
        *size = payload.len() as u64;
        fields.add(&payload);
    }
    match sizes.iter().max() {
        Some(&largest) if largest > tar::MAX_PAYLOAD => Err(Error::Refused(format!(
            "{}: a member of {largest} bytes does not fit a tar file of the USTAR format (8 GiB at most); \
             leave the volume out of the data folder",
            sample.path.display()
        ))),
        _ => Ok(Measured { sizes, digest: fields.0.finalize().into() }),
    }
}

/// A hash over fields, each with its length, so that none runs into the next.
struct Fields(Sha256);

impl Fields {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

/// Hashes what determines the bytes: never times, inodes, absolute paths or thread counts.
fn digest(dataset: &Dataset, options: Options, measured: &[Measured]) -> String {
    let mut fields = Fields(Sha256::new());
    fields.add(b"ctwds-fs plan 1");
    let Options { samples_per_shard, format, overflow } = options;
    fields.add(format!("{format:?} {overflow:?} {samples_per_shard} {}", dataset.slots).as_bytes());
    fields.add(dataset.label_names.join("\n").as_bytes());
    measured.iter().for_each(|measured| fields.add(&measured.digest));
    format!("{:x}", fields.0.finalize())
}

/// The same for one shard.
fn shard_digest(options: Options, number: ShardId, measured: &[Measured]) -> String {
    let mut fields = Fields(Sha256::new());
    fields.add(b"ctwds-fs shard 1");
    let Options { samples_per_shard, format, overflow } = options;
    fields.add(format!("{format:?} {overflow:?} {samples_per_shard} {number}").as_bytes());
    measured.iter().for_each(|measured| fields.add(&measured.digest));
    format!("{:x}", fields.0.finalize())
}
