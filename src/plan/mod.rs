//! The plan: a data set laid out as shards, and the digest that identifies it.
//!
//! Pure: everything is known from headers and tables; no voxel was read.

mod digests;
mod epochs;
pub mod layout;
pub mod members;
mod saved;
pub mod shuffle;

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::parallel::{available_cores, try_map};
use crate::dataset::{Dataset, Origin, Sample, Study};
use crate::error::{Error, Result};
use crate::formats::tar;
use crate::plan::layout::{Extent, MemberId, ShardLayout};
use crate::plan::members::{Format, MEMBERS, VOLUME};
use crate::volume::{Kind, NpzVolume, Overflow, Recipe, ShardVolume, Storage, Volume};
pub use digests::SampleDigest;
use digests::shard_digest;
use epochs::Epochs;

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

/// Names a shard: its number. Those of the epochs' views follow the plain ones, epoch by epoch.
pub type ShardId = u32;

/// All samples once, as shards that are numbered from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// In the data set's order.
    Plain,
    /// In the order of this epoch.
    Epoch(u32),
}

/// One shard.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Its samples, as places in the order of its view; in the plain view these are indexes into [`Dataset::samples`].
    pub samples: Range<usize>,
    /// Where its bytes come from.
    pub layout: ShardLayout,
}

/// Data set, options, layouts and digest.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The samples.
    pub dataset: Dataset,
    /// The options.
    pub options: Options,
    /// The plain shards, by number. One whose samples are all left out is an empty tar file.
    pub shards: Vec<Shard>,
    /// SHA-256 of all that determines the bytes of each plain shard, in hexadecimal.
    shard_digests: Vec<String>,
    /// Of the samples, in their order.
    measured: Vec<Measured>,
    /// The shuffled views.
    epochs: Option<Epochs>,
    /// Payload bytes of all members of all samples.
    pub payload_bytes: u64,
    /// SHA-256 of all that determines the shards' bytes, in hexadecimal.
    pub digest: String,
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

    /// The plan of shards that are on disk already: these are the digests, of the whole and by shard, that they were made
    /// with.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn of_shards(dataset: Dataset, options: Options, digest: String, shard_digests: Vec<String>) -> Result<Self> {
        let (measured, _) = Self::measure(&dataset, options)?;
        Ok(Self { shard_digests, ..Self::lay_out(dataset, options, measured, digest) })
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
        let mut plan = Self::lay_out(dataset, self.options, measured, self.digest.clone());
        for (id, shard) in self.shards.iter().enumerate() {
            if left_out.range(shard.samples.clone()).next().is_none() {
                plan.shard_digests[id].clone_from(&self.shard_digests[id]);
            }
        }
        plan
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
        let mut shard_digests = Vec::with_capacity(count as usize);
        let mut next = 0;
        for number in 0..count {
            let first = next;
            while dataset.samples.get(next).is_some_and(|sample| sample.slot / options.samples_per_shard == number) {
                next += 1;
            }
            let here = &measured[first..next];
            let layout = ShardLayout::new(here.iter().map(|measured| measured.sizes));
            shards.push(Shard { samples: first..next, layout });
            shard_digests.push(shard_digest(options, number, here.iter().map(|measured| &measured.digest)));
        }
        let payload_bytes = measured.iter().flat_map(|measured| measured.sizes).sum();
        Self { dataset, options, shards, shard_digests, measured, epochs: None, payload_bytes, digest }
    }

    /// SHA-256 of all that determines the bytes of a plain shard, in hexadecimal; `None` for those of epochs. A plan that
    /// differs in one sample differs in the digest of that sample's shard alone.
    pub fn shard_digest(&self, id: ShardId) -> Option<&str> {
        self.shard_digests.get(id as usize).map(String::as_str)
    }

    /// Bytes of all members of a shard.
    pub fn shard_payload(&self, id: ShardId) -> u64 {
        self.samples(id).iter().map(|index| self.measured[index].sizes.iter().sum::<u64>()).sum()
    }

    /// The file name of a shard, from its number in its view.
    pub fn shard_name(number: u32) -> String {
        format!("shard-{number:06}.tar")
    }

    /// A shard of any view.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        match self.view_of(id)? {
            (View::Plain, number) => self.shards.get(number as usize),
            (View::Epoch(epoch), number) => self.epoch(epoch)?.shards.get(number as usize),
        }
    }

    /// The samples of a shard, as indexes into [`Dataset::samples`]; none if there is no such shard.
    pub fn samples(&self, id: ShardId) -> Samples<'_> {
        let places = self.shard(id).map_or(0..0, |shard| shard.samples.clone());
        let order = match self.view_of(id) {
            Some((View::Epoch(epoch), _)) => self.epoch(epoch).map(|epoch| epoch.order.as_slice()),
            _ => None,
        };
        Samples { places, order }
    }

    /// The extents that cover `len` bytes of a shard from `offset` on, each with the wanted range within it.
    pub fn locate(&self, id: ShardId, offset: u64, len: u64) -> impl Iterator<Item = (Extent, Range<u64>)> + '_ {
        let samples = self.samples(id);
        let sizes = move |sample: usize| samples.get(sample).map_or(&[][..], |index| &self.measured[index].sizes);
        self.shard(id).into_iter().flat_map(move |shard| shard.layout.locate(offset, len, sizes.clone()))
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
        self.samples(shard).get(member.sample as usize).expect("the layout has this sample")
    }

    /// The tar header of a member.
    pub fn header(&self, shard: ShardId, member: MemberId) -> [u8; 512] {
        let index = self.sample_index(shard, member);
        let (sample, size) = (&self.dataset.samples[index], self.measured[index].sizes[usize::from(member.member)]);
        let extension = self.options.format.extensions()[usize::from(member.member)];
        tar::header(&format!("{}.{extension}", self.key(sample)), size)
    }

    /// The bytes of a member, except for the voxels: those of the volume's member before them.
    pub fn small_payload(&self, shard: ShardId, member: MemberId) -> Bytes {
        let sample = &self.dataset.samples[self.sample_index(shard, member)];
        match member.member {
            VOLUME => volume_prefix(self.options, sample),
            other => self.options.format.payload(other, sample),
        }
        .into()
    }

    /// The payload sizes of a sample's members.
    pub fn member_sizes(&self, sample: usize) -> &[u64; MEMBERS] {
        &self.measured[sample].sizes
    }

    /// A sample's volume.
    pub fn volume<'a>(&self, sample: &'a Sample) -> Volume<'a> {
        let root = &self.dataset.root;
        match &sample.origin {
            Origin::Study(study) => Volume::Npz(npz_volume(root.join(&sample.path), study, self.options.overflow)),
            Origin::Finished(finished) => {
                Volume::Shard(ShardVolume { path: root.join(&finished.volume.file), member: &finished.volume })
            }
        }
    }

    /// The kind of all volumes.
    pub fn kind(&self) -> Kind {
        self.dataset.samples.first().map_or(Kind::Stored, Sample::kind)
    }

    /// Whether all volumes are plain members of shards on disk.
    pub fn is_stored_plain(&self) -> bool {
        let is_plain = |sample: &Sample| matches!(&sample.origin, Origin::Finished(finished) if finished.volume.storage == Storage::Plain);
        self.dataset.samples.iter().all(is_plain)
    }

    /// Bytes of all plain shard files.
    pub fn shard_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.layout.len()).sum()
    }
}

fn npz_volume(path: PathBuf, study: &Study, overflow: Overflow) -> NpzVolume<'_> {
    NpzVolume { path, array: &study.array, recipe: &study.recipe, overflow }
}

/// What stands before a volume's bytes in its member. A member of a shard on disk is a volume with all of it.
fn volume_prefix(options: Options, sample: &Sample) -> Vec<u8> {
    sample.study().map_or_else(Vec::new, |study| {
        options.format.volume_prefix(npz_volume(PathBuf::new(), study, options.overflow).shape())
    })
}

fn volume_member_len(options: Options, sample: &Sample) -> u64 {
    let volume_len = match &sample.origin {
        Origin::Study(study) => npz_volume(PathBuf::new(), study, options.overflow).byte_len(),
        Origin::Finished(finished) => finished.volume.len,
    };
    volume_prefix(options, sample).len() as u64 + volume_len
}

/// The samples of a shard, by their place in it.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    places: Range<usize>,
    /// `None` for that of the data set.
    order: Option<&'a [u32]>,
}

impl Samples<'_> {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The index of the sample at a place.
    pub fn get(&self, place: usize) -> Option<usize> {
        let place = Some(self.places.start + place).filter(|place| *place < self.places.end)?;
        self.order.map_or(Some(place), |order| order.get(place).map(|index| *index as usize))
    }

    /// The indexes, in the shard's order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter_map(|place| self.get(place))
    }
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
    let mut fields = Fields(Sha256::new());
    fields.add(&sample.slot.to_le_bytes());
    fields.add(sample.path.as_os_str().as_bytes());
    if let Some(Study { array, recipe, .. }) = sample.study() {
        let header = &array.header;
        fields.add(&array.file_id.size.to_le_bytes());
        fields.add(array.member.name.as_bytes());
        fields.add(&array.member.crc.to_le_bytes());
        fields.add(format!("{} {} {:?}", header.descr(), header.fortran_order, header.shape).as_bytes());
        if *recipe != Recipe::Stored {
            fields.add(format!("{recipe:?}").as_bytes());
        }
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
