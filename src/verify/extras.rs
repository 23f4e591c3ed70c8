//! Arrays beside the volumes: what they should hold, element by element, by definition.

use std::path::Path;

use super::dtype::Rounding;
use super::expected::{Expected, hwd, source_place};
use super::npy_header::{self, ElementType};
use super::packed::{self, Filter};
use super::source::{SourceArray, SourceVolume};
use super::unread::Unread;
use super::walked::WalkedExtra;
use crate::base::num::to_usize;
use crate::dataset::ExtraArray;
use crate::storage::{Store, Stored};
use crate::volume::{Overflow, Preprocess, Recipe, VoxelFormat};

/// Largest error of a float that is resampled, as a part of the largest number of its array: the steps are done in f32.
const SLACK: f64 = 64.0 * f32::EPSILON as f64;
/// The same for half precision, which is rounded once more.
const HALF: f64 = 1.0 / 1024.0;

/// Checks the header of an array's member, of which `bytes` are the first, or all of a compressed one that
/// was filtered so; returns the length of the plain member. `len` is that of the member as it stands in the shard.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(bytes: &[u8], len: u64, filter: Option<Filter>) -> Result<u64, Vec<Unread>> {
    let mut head = Vec::new();
    let len = match filter {
        None => {
            head.extend(bytes);
            len
        }
        Some(filter) => packed::unpack(bytes, filter, |block| {
            head.extend(&block[..block.len().min(128 - head.len())]);
        })?,
    };
    let mut rest = &head[..];
    let header = npy_header::read(&mut rest).map_err(|what| vec![what.into()])?;
    let size = match header.element {
        ElementType::Float(size) | ElementType::Signed(size) | ElementType::Unsigned(size) => size,
        ElementType::Truth => 1,
    };
    let elements = header.shape.iter().try_fold(size as u64, |product, n| product.checked_mul(*n as u64));
    let planned = elements.and_then(|elements| elements.checked_add((head.len() - rest.len()) as u64));
    let shape = &header.shape;
    if planned != Some(len) || header.is_fortran || header.is_big_endian {
        let what = format!("its header does not fit its {len} bytes: {shape:?} of {size} bytes, C order");
        return Err(vec![what.into()]);
    }
    let is_float = matches!(header.element, ElementType::Float(_));
    match filter {
        Some(filter) if !filter.fits(size, is_float) => {
            Err(vec![format!("values of {size} bytes are not filtered as such values are").into()])
        }
        _ => Ok(len),
    }
}

/// Compares an array of a sample with its source; a sentence says what is wrong.
///
/// # Errors
/// Why it cannot be compared.
pub(super) fn compare(
    file: &dyn Stored,
    found: &WalkedExtra,
    (store, root): (&dyn Store, &Path),
    extra: &ExtraArray,
) -> Result<Option<String>, Unread> {
    let volume = SourceVolume {
        array: &extra.array.member.name,
        channel: None,
        turn: extra.array.turned_axes(),
        is_extra: true,
    };
    let source = SourceArray::read(store, &root.join(&extra.path), &volume)?;
    let mut bytes = found.span.read(file)?;
    if let Some(filter) = found.packed {
        let mut plain = Vec::new();
        packed::unpack_to(&mut plain, &bytes, filter)?;
        bytes = plain;
    }
    let member = SourceArray::to_end(&mut &bytes[..], None)?;
    if !member.has_type_of(&source) {
        return Ok(Some("its dtype is not that of its source".into()));
    }
    let rounding = Rounding { format: VoxelFormat::Float32, overflow: Overflow::Inf };
    let expected = Expected::new(&source, &extra.recipe, rounding);
    if member.shape() != expected.shape() {
        return Ok(Some(format!("its shape is {:?}, and {:?} by its source", member.shape(), expected.shape())));
    }
    let is_computed = source.is_float() && extra.recipe.kind().is_resampled();
    let largest = if is_computed { largest(&source) } else { 0.0 };
    let slack = largest * if extra.array.header.element.size() == 2 { HALF } else { SLACK };
    let places = Places::new(&source, &extra.recipe);
    let (mut wrong, mut first) = (0u64, None);
    for place in all(member.shape()) {
        let is_right = if is_computed {
            let (found, right) = (member.at(place), expected.voxel(place).value);
            found == right || (found - right).abs() <= slack || found.is_nan() && right.is_nan()
        } else {
            member.bits(place)
                == places.element(place).map_or_else(|| pad_bits(&extra.recipe, extra), |at| source.bits(at))
        };
        if !is_right {
            wrong += 1;
            first.get_or_insert((place, member.at(place)));
        }
    }
    Ok(first.map(|(place, value)| format!("{wrong} of its elements are wrong; that at {place:?} is {value}")))
}

/// All positions of an array of this shape.
fn all([height, width, depth]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..height).flat_map(move |h| (0..width).flat_map(move |w| (0..depth).map(move |d| [h, w, d])))
}

/// The largest magnitude among the finite elements.
fn largest(source: &SourceArray) -> f64 {
    all(source.shape()).map(|place| source.at(place).abs()).filter(|value| value.is_finite()).fold(0.0, f64::max)
}

/// The bits of the padding.
fn pad_bits(recipe: &Recipe, extra: &ExtraArray) -> u64 {
    let pad_value = match recipe {
        Recipe::Preprocessed(Preprocess { pad_value, .. }) => pad_value,
        Recipe::Stored | Recipe::Rescaled { .. } => return 0, // nothing is padded
    };
    #[expect(clippy::cast_possible_truncation, reason = "a whole number that the dtype holds, by the plan")]
    let value = (*pad_value as i128).to_le_bytes();
    let mut bytes = [0; 8];
    let size = extra.array.header.element.size();
    bytes[..size].copy_from_slice(&value[..size]);
    u64::from_le_bytes(bytes)
}

/// Where the elements of an array lie that is not computed.
struct Places<'a> {
    recipe: &'a Recipe,
    /// The position in the source along height, width and depth, for each position of the result; none at padding.
    nearest: [Vec<Option<usize>>; 3],
}

impl<'a> Places<'a> {
    fn new(source: &SourceArray, recipe: &'a Recipe) -> Self {
        let nearest = match recipe {
            Recipe::Preprocessed(steps) => {
                let from = hwd(steps.axes, source.shape());
                [0, 1, 2].map(|at| nearest(from[at], to_usize(steps.resampled[at]), to_usize(steps.shape[at])))
            }
            _ => Default::default(),
        };
        Self { recipe, nearest }
    }

    /// The position of the element in the source; none at padding.
    fn element(&self, place: [usize; 3]) -> Option<[usize; 3]> {
        match self.recipe {
            Recipe::Stored => Some(place),
            Recipe::Rescaled { axes, .. } => Some(source_place(*axes, place)),
            Recipe::Preprocessed(steps) => {
                let [h, w, d] = [0, 1, 2].map(|axis| self.nearest[axis][place[axis]]);
                Some(source_place(steps.axes, [h?, w?, d?]))
            }
        }
    }
}

/// The nearest voxels along an axis of `source` voxels that is resampled to `resampled` voxels, then cropped or padded
/// to `len` around the middle: as PyTorch's `nearest-exact`, which computes half-pixel centres in f32.
fn nearest(source: usize, resampled: usize, len: usize) -> Vec<Option<usize>> {
    let (start, before) = (resampled.saturating_sub(len) / 2, len.saturating_sub(resampled) / 2);
    let scale = source as f32 / resampled as f32;
    let voxel = |at: usize| {
        let at = at.checked_sub(before)? + start;
        let centre = (scale * (at as f32 + 0.5) - 0.5).max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `source`")]
        let nearest = (centre + 0.5).floor() as usize;
        (at < resampled).then_some(nearest.min(source - 1))
    };
    (0..len).map(voxel).collect()
}
