//! The plan: a data set laid out as shards, and the digest that identifies it.
//!
//! Pure: the shards are known from headers and tables alone. What others saw of the voxels is kept with them.
//!
//! | module | what it says of a plan |
//! |---|---|
//! | `mod` | which shards there are and which samples are in them |
//! | [`layout`] | at which offset of a shard each member stands |
//! | `content` | what the bytes of a header and of a small member are, and which volume makes the others |
//! | [`members`] | what the members of a sample are called, and what the small ones hold |
//! | `json_fields` | what stands in the JSON of a sample behind its own fields |
//! | `views` | which shards a shuffled epoch has |
//! | [`shuffle`] | in which order a shuffled epoch has the samples |
//! | [`split`] | which studies are for training, and which for validation and test |
//! | `digests`, `digest_text` | what the bytes depend on |
//! | `volume_digest` | what the bytes of one volume depend on, whatever plan it is in |
//! | [`values`] | what the first values of some volumes showed |
//! | `user_cache` | whether an earlier run made the same plan |

mod content;
mod digest_text;
mod digests;
mod json_fields;
pub mod layout;
pub mod members;
pub mod shuffle;
pub mod split;
mod user_cache;
pub mod values;
mod views;
mod volume_digest;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::base::parallel::{available_cores, try_map};
use crate::dataset::{Dataset, Origin, Sample};
use crate::error::{Error, Result};
use crate::volume::{Kind, Overflow, Storage, VoxelFormat};
use content::MeasuredSample;
pub use digests::SampleDigest;
use layout::ShardLayout;
use members::{Members, Profile};
use values::ValueGroup;
use views::Epochs;
pub use views::{ShardSamples, View};

/// The options that change a shard's bytes, besides those of the data set.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The number of slots of a shard: of its samples, if none is left out.
    pub samples_per_shard: u32,
    /// The members' names and encodings.
    pub format: Profile,
    /// What becomes of values that the voxels cannot hold.
    pub overflow: Overflow,
    /// Whether samples without labels have an empty member for them.
    pub labels_empty: bool,
}

impl Options {
    /// The members of the samples of a data set.
    fn members(self, dataset: &Dataset) -> Members {
        let has_labels = !dataset.label_names.is_empty() || self.labels_empty;
        Members::new(self.format, has_labels, dataset.extras.iter().map(|extra| &*extra.name))
    }
}

/// Names a shard of a plan: its number. The plain shards come first, then those of the epochs, epoch by epoch.
pub type ShardId = u32;

/// The ids of `count` plain shards, in their order.
pub fn shard_ids(count: usize) -> Range<ShardId> {
    0..ShardId::try_from(count).unwrap_or(ShardId::MAX)
}

/// A shard as it is planned.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The samples, as a range of the order of the shard's view. In the plain view that is the data set's order, so
    /// that these are indexes into [`Dataset::samples`].
    pub samples: Range<usize>,
    /// The offset of each sample, and the shard's length.
    pub layout: ShardLayout,
}

/// A data set laid out as shards.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The data set.
    pub dataset: Dataset,
    /// The options that the plan was made with.
    pub options: Options,
    /// The members of each sample.
    pub members: Members,
    /// The plain shards, by number. A shard whose samples are all left out is an empty tar file.
    pub shards: Vec<Shard>,
    /// SHA-256 of all that determines the bytes of each plain shard, in hexadecimal.
    shard_digests: Vec<String>,
    /// Member sizes and digests of the samples, in the order of the data set.
    measured: Vec<MeasuredSample>,
    /// The shuffled views, if there are any.
    epochs: Option<Epochs>,
    /// The bytes of all members of all samples, without headers and padding.
    pub payload_bytes: u64,
    /// SHA-256 of all that determines the shards' bytes, in hexadecimal.
    pub digest: String,
    /// What the values of the volumes show; `None` where nobody looked.
    pub values: Option<Vec<ValueGroup>>,
}

impl Plan {
    /// Lays a data set out.
    ///
    /// # Errors
    /// [`Error::Refused`] if a member is too large for USTAR, or a shard is to have no slot.
    pub fn new(dataset: Dataset, options: Options) -> Result<Self> {
        let (measured, digest) = Self::measure(&dataset, options)?;
        Ok(Self::lay_out(dataset, options, measured, digest))
    }

    /// The plan of finished shards, as they were planned: `digest` is that of the plan, `shard_digests` those of its
    /// shards, which cannot be computed without the NPZ files.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn of_shards(dataset: Dataset, options: Options, digest: String, shard_digests: Vec<String>) -> Result<Self> {
        let (measured, _) = Self::measure(&dataset, options)?;
        Ok(Self { shard_digests, ..Self::lay_out(dataset, options, measured, digest) })
    }

    /// A plan without some of the samples: `left_out` maps indexes into [`Dataset::samples`] to the reasons. The slots
    /// of these samples stay empty, so that only their own shards change. The digest stays that of the plan with them.
    pub fn without(&self, left_out: &BTreeMap<usize, String>) -> Self {
        let is_kept = |index: &usize| !left_out.contains_key(index);
        let (mut dataset, indexes) = (self.dataset.clone(), 0..self.measured.len());
        let measured = indexes.filter(is_kept).map(|index| self.measured[index].clone()).collect();
        let samples = std::mem::take(&mut dataset.samples);
        for (index, sample) in samples.into_iter().enumerate() {
            match left_out.get(&index) {
                None => dataset.samples.push(sample),
                Some(reason) => dataset.left_out.push(sample.left_out(reason.clone())),
            }
        }
        dataset.left_out.sort_by_key(|left_out| left_out.slot);
        let mut plan = Self::lay_out(dataset, self.options, measured, self.digest.clone());
        plan.values.clone_from(&self.values);
        for (id, shard) in self.shards.iter().enumerate() {
            if left_out.range(shard.samples.clone()).next().is_none() {
                plan.shard_digests[id].clone_from(&self.shard_digests[id]);
            }
        }
        plan
    }

    /// The member sizes and digests of all samples, and the plan's digest.
    fn measure(dataset: &Dataset, options: Options) -> Result<(Vec<MeasuredSample>, String)> {
        if options.samples_per_shard == 0 {
            return Err(Error::Refused("--samples-per-shard must be at least 1".into()));
        }
        let members = options.members(dataset);
        let measure = |sample: &Sample| MeasuredSample::new(dataset, options, &members, sample);
        let measured = try_map(&dataset.samples, available_cores(), measure)?;
        let digest = digests::plan_digest(options, dataset, measured.iter().map(|sample| &sample.digest));
        Ok((measured, digest))
    }

    /// Cuts the slots of a data set into plain shards.
    fn lay_out(dataset: Dataset, options: Options, measured: Vec<MeasuredSample>, digest: String) -> Self {
        let count = dataset.slots.div_ceil(options.samples_per_shard);
        let mut shards = Vec::with_capacity(count as usize);
        let mut shard_digests = Vec::with_capacity(count as usize);
        let mut next = 0;
        for number in 0..count {
            let first = next;
            while dataset.samples.get(next).is_some_and(|sample| sample.slot / options.samples_per_shard == number) {
                next += 1;
            }
            let samples = &measured[first..next];
            let layout = ShardLayout::new(samples.iter().map(|sample| &sample.sizes));
            shards.push(Shard { samples: first..next, layout });
            shard_digests.push(digests::shard_digest(options, number, samples.iter().map(|sample| &sample.digest)));
        }
        let payload_bytes = measured.iter().flat_map(|sample| &sample.sizes).sum();
        let members = options.members(&dataset);
        Self {
            dataset,
            options,
            members,
            shards,
            shard_digests,
            measured,
            epochs: None,
            payload_bytes,
            digest,
            values: None,
        }
    }

    /// The plan, with what the values of its volumes show.
    #[must_use]
    pub fn with_values(self, values: Option<Vec<ValueGroup>>) -> Self {
        Self { values, ..self }
    }

    /// The ids of the plain shards, in their order.
    pub fn shard_ids(&self) -> Range<ShardId> {
        shard_ids(self.shards.len())
    }

    /// The file name of a shard, from its number in its view: `shard-000012.tar`.
    pub fn shard_name(number: u32) -> String {
        format!("shard-{number:06}.tar")
    }

    /// The number of the shard that has this file name in its view; `None` for other names.
    pub fn shard_named(name: &str) -> Option<ShardId> {
        let id: ShardId = name.strip_prefix("shard-")?.strip_suffix(".tar")?.parse().ok()?;
        (Self::shard_name(id) == name).then_some(id)
    }

    /// The plain shard of a sample, which is given as an index into [`Dataset::samples`].
    pub fn shard_of(&self, sample: usize) -> ShardId {
        self.dataset.samples[sample].slot / self.options.samples_per_shard
    }

    /// The bytes of all members of a shard, without headers and padding; 0 if there is no such shard.
    pub fn shard_payload(&self, id: ShardId) -> u64 {
        self.samples(id).iter().map(|index| self.member_sizes(index).iter().sum::<u64>()).sum()
    }

    /// The bytes of all plain shard files.
    pub fn shard_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.layout.len()).sum()
    }

    /// SHA-256 of all that determines the bytes of a plain shard, in hexadecimal; `None` for the shards of epochs. A
    /// plan that differs in one sample differs in the digest of that sample's shard alone.
    pub fn shard_digest(&self, id: ShardId) -> Option<&str> {
        self.shard_digests.get(id as usize).map(String::as_str)
    }

    /// The digest of a sample, which is given as an index into [`Dataset::samples`].
    pub fn sample_digest(&self, sample: usize) -> &SampleDigest {
        &self.measured[sample].digest
    }

    /// The digest, as [`Plan::shard_digest`], of a plain shard that has samples of these digests in this order and was
    /// made with this plan's options.
    pub fn shard_digest_of_samples<'a>(
        &self,
        number: ShardId,
        samples: impl Iterator<Item = &'a SampleDigest>,
    ) -> String {
        digests::shard_digest(self.options, number, samples)
    }

    /// The kind of all volumes; that of stored values if there is no sample.
    pub fn kind(&self) -> Kind {
        self.dataset.samples.first().map_or(Kind::Stored, Sample::kind)
    }

    /// The format of all voxels; float16 if there is no sample.
    pub fn voxel_format(&self) -> VoxelFormat {
        self.dataset.samples.first().map_or(VoxelFormat::Float16, Sample::format)
    }

    /// Whether all volumes are plain members of shards on disk.
    pub fn is_stored_plain(&self) -> bool {
        self.dataset.samples.iter().all(|sample| match &sample.origin {
            Origin::Finished(stored) => {
                let mut members = stored.extras.iter().chain([&stored.volume]);
                members.all(|member| member.storage == Storage::Plain)
            }
            Origin::Study(_) => false,
        })
    }
}
