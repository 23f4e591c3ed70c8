//! The plan: a data set laid out as shards, and the digest that identifies it.
//!
//! Pure: everything is known from headers and tables; no voxel was read.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::dataset::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::layout::{MemberId, ShardLayout};
use crate::members::{Format, MEMBERS, VOLUME};
use crate::tar;
use crate::volume::{Overflow, Volume};

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
#[derive(Debug)]
pub struct Shard {
    /// Its samples, as indexes into [`Dataset::samples`].
    pub samples: Range<usize>,
    /// Where its bytes come from.
    pub layout: ShardLayout,
}

/// Data set, options, layouts and digest.
#[derive(Debug)]
pub struct Plan {
    /// The samples.
    pub dataset: Dataset,
    /// The options.
    pub options: Options,
    /// The shards, by number. One whose samples are all left out is an empty tar file.
    pub shards: Vec<Shard>,
    /// SHA-256 of all that determines the shards' bytes, in hexadecimal.
    pub digest: String,
}

impl Plan {
    /// Lays the data set out.
    ///
    /// # Errors
    /// [`Error::Refused`] if a shard cannot be written as USTAR.
    pub fn new(dataset: Dataset, options: Options) -> Result<Self> {
        if options.samples_per_shard == 0 {
            return Err(Error::Refused("--samples-per-shard must be at least 1".into()));
        }
        let count = dataset.slots.div_ceil(options.samples_per_shard);
        let mut shards = Vec::with_capacity(count as usize);
        let mut next = 0;
        for number in 0..count {
            let first = next;
            while dataset.samples.get(next).is_some_and(|sample| sample.slot / options.samples_per_shard == number) {
                next += 1;
            }
            let sizes: Vec<[u64; MEMBERS]> = dataset.samples[first..next]
                .iter()
                .map(|sample| member_sizes(options, sample))
                .collect::<Result<_>>()?;
            shards.push(Shard { samples: first..next, layout: ShardLayout::new(&sizes) });
        }
        let digest = digest(&dataset, options);
        Ok(Self { dataset, options, shards, digest })
    }

    /// A shard's file name.
    pub fn shard_name(id: ShardId) -> String {
        format!("shard-{id:06}.tar")
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
        Volume { path: self.dataset.root.join(&sample.path), array: &sample.array, overflow: self.options.overflow }
    }

    /// Payload bytes of all members of all samples.
    pub fn payload_bytes(&self) -> u64 {
        let sizes = |sample: &Sample| member_sizes(self.options, sample).map_or(0, |sizes| sizes.iter().sum());
        self.dataset.samples.iter().map(sizes).sum()
    }

    /// Bytes of all shard files.
    pub fn shard_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.layout.len()).sum()
    }
}

fn volume_member_len(options: Options, sample: &Sample) -> u64 {
    let volume = Volume { path: Default::default(), array: &sample.array, overflow: options.overflow };
    options.format.volume_prefix(volume.shape()).len() as u64 + volume.byte_len()
}

fn member_sizes(options: Options, sample: &Sample) -> Result<[u64; MEMBERS]> {
    let small = |member| options.format.payload(member, sample).len() as u64;
    let sizes = [volume_member_len(options, sample), small(1), small(2), small(3)];
    match sizes.iter().max() {
        Some(&largest) if largest > tar::MAX_PAYLOAD => Err(Error::Refused(format!(
            "{}: a member of {largest} bytes does not fit a tar file of the USTAR format (8 GiB at most); \
             leave the volume out of the data folder",
            sample.path.display()
        ))),
        _ => Ok(sizes),
    }
}

/// Hashes what determines the bytes: never times, inodes, absolute paths or thread counts.
fn digest(dataset: &Dataset, options: Options) -> String {
    let mut hasher = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(b"ctwds-fs plan 1");
    add(format!("{:?} {:?} {} {}", options.format, options.overflow, options.samples_per_shard, dataset.slots)
        .as_bytes());
    add(dataset.label_names.join("\n").as_bytes());
    for sample in &dataset.samples {
        let (array, header) = (&sample.array, &sample.array.header);
        add(&sample.slot.to_le_bytes());
        add(sample.path.as_os_str().as_bytes());
        add(&array.fingerprint.size.to_le_bytes());
        add(array.member.name.as_bytes());
        add(&array.member.crc.to_le_bytes());
        add(format!("{} {} {:?}", header.descr(), header.fortran_order, header.shape).as_bytes());
        for member in 1..4 {
            add(&options.format.payload(member, sample));
        }
    }
    format!("{:x}", hasher.finalize())
}
