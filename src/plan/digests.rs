//! The digests of samples, shards and the plan: SHA-256 of all that determines their bytes, and of nothing else.
//!
//! Never hashed: times, inodes, absolute paths, numbers of threads. A plan that differs in one sample differs in the
//! digest of that sample, in that of its shard, and in its own.

use std::os::unix::ffi::OsStrExt;

use sha2::{Digest, Sha256};

use super::digest_text::DigestText;
use super::{Options, ShardId};
use crate::dataset::{Dataset, Extra, ExtraArray, Sample, Study};
use crate::formats::npz::{Array, Conversion, Turn};
use crate::volume::{Recipe, VoxelFormat};

/// SHA-256 of all that determines a sample's members and key.
pub type SampleDigest = [u8; 32];

/// SHA-256 over fields. Each is hashed behind its length in bytes, as little-endian u64, so that no two lists of fields
/// give the same stream.
pub(super) struct FieldHasher(Sha256);

impl FieldHasher {
    /// A hasher without a field.
    pub(super) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds a field.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The digest of all fields.
    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    /// The digest of all fields, in hexadecimal.
    pub(super) fn finish_hex(self) -> String {
        format!("{:x}", self.0.finalize())
    }
}

/// The digest of a sample: its slot, its path relative to the data folder, the NPZ's size, its array's name, CRC-32 and
/// header, the elements of a NIfTI file, the recipe, the voxels' format if it is not float16, for each extra its name,
/// path and the like, and the payloads of the small members in their order.
pub(super) fn sample_digest<'a>(
    dataset: &Dataset,
    sample: &Sample,
    payloads: impl Iterator<Item = &'a [u8]>,
) -> SampleDigest {
    let mut fields = FieldHasher::new();
    fields.add(&sample.slot.to_le_bytes());
    fields.add(sample.path.as_os_str().as_bytes());
    if let Some(Study { array, recipe, format, extras, .. }) = sample.study() {
        add_array(&mut fields, array, recipe);
        if *format != VoxelFormat::Float16 {
            fields.add(format.digest_text().as_bytes());
        }
        for (Extra { name, .. }, ExtraArray { path, array, recipe }) in dataset.extras.iter().zip(extras) {
            fields.add(format!("extra {name}").as_bytes());
            fields.add(path.as_os_str().as_bytes());
            add_array(&mut fields, array, recipe);
        }
    }
    payloads.for_each(|payload| fields.add(payload));
    fields.finish()
}

/// Adds what determines the voxels that are made of an array.
pub(super) fn add_array(fields: &mut FieldHasher, array: &Array, recipe: &Recipe) {
    let header = &array.header;
    fields.add(&array.file_id.size.to_le_bytes());
    fields.add(array.member.name.as_bytes());
    fields.add(array.member.crc.map(u32::to_le_bytes).as_ref().map_or(&[], |crc| &crc[..]));
    let (descr, shape) = (header.descr(), header.shape.digest_text());
    fields.add(format!("{descr} {} {shape}", header.fortran_order.digest_text()).as_bytes());
    if array.nifti.is_some() {
        fields.add(stored_elements(array).as_bytes());
    }
    if let Some(part) = array.part {
        fields.add(format!("channel {}", part.channel()).as_bytes());
    }
    if *recipe != Recipe::Stored {
        fields.add(recipe.digest_text().as_bytes());
    }
}

/// The elements of a NIfTI file: where they begin, their dtype, the slope and intercept that are applied, and
/// the axes in the file, where the array is turned.
fn stored_elements(array: &Array) -> String {
    let (begin, descr) = (array.header.header_len, array.header.descr());
    let turn = array.placed().and_then(|placed| placed.turn);
    let turned = turn.map_or_else(String::new, |Turn { axes, flipped }| {
        let of_axis = |at: usize| format!(" {}{}", if flipped[at] { '-' } else { '+' }, axes[at]);
        [0, 1, 2].map(of_axis).concat()
    });
    let Some(Conversion { element, big_endian, slope, intercept }) = array.conversion else {
        return format!("nifti {begin} {descr}{turned}");
    };
    let [slope, intercept] = [slope, intercept].map(|value| value.digest_text());
    format!("nifti {begin} {} {slope} {intercept}{turned}", element.descr(big_endian))
}

/// The digest of a plain shard in hexadecimal: the options, its number, and the digests of its samples in their order.
pub(super) fn shard_digest<'a>(
    options: Options,
    number: ShardId,
    samples: impl Iterator<Item = &'a SampleDigest>,
) -> String {
    let mut fields = FieldHasher::new();
    fields.add(b"ctwds-fs shard 1");
    fields.add(format!("{} {number}", options_text(options)).as_bytes());
    samples.for_each(|digest| fields.add(digest));
    fields.finish_hex()
}

/// The digest of a plan in hexadecimal: the options, the number of slots, the label names, and the digests of all
/// samples in their order.
pub(super) fn plan_digest<'a>(
    options: Options,
    dataset: &Dataset,
    samples: impl Iterator<Item = &'a SampleDigest>,
) -> String {
    let mut fields = FieldHasher::new();
    fields.add(b"ctwds-fs plan 1");
    fields.add(format!("{} {}", options_text(options), dataset.slots).as_bytes());
    fields.add(dataset.label_names.join("\n").as_bytes());
    samples.for_each(|digest| fields.add(digest));
    fields.finish_hex()
}

/// The options that change a shard's bytes, with spaces between them: `Ctclip Error 100`.
pub(super) fn options_text(options: Options) -> String {
    let Options { samples_per_shard, format, overflow, labels_empty } = options;
    let labels = if labels_empty { " labels-empty" } else { "" };
    format!("{} {} {samples_per_shard}{labels}", format.digest_text(), overflow.digest_text())
}
