//! The way in which a volume is made of its array, and the memory that this takes beside the volume.

use std::borrow::Cow;

use super::NpzVolume;
use super::kind::{Preprocess, Recipe};
use super::own::with_voxel_type;
use super::planes::{InPlanes, PlaneSteps};
use super::transpose::BlockSize;
use crate::storage::bytes_ahead;

impl NpzVolume<'_> {
    /// The steps plane by plane; `None` where every voxel is made of the element at its own place in the array.
    pub(super) fn steps(&self) -> Option<Cow<'_, Preprocess>> {
        if self.recipe.keeps_places() {
            return None;
        }
        match self.recipe {
            Recipe::Stored => None,
            Recipe::Rescaled { slope, intercept, axes } => {
                let (clip, shape) = ([f64::NEG_INFINITY, f64::INFINITY], self.shape());
                let (slope, intercept, axes) = (*slope, *intercept, *axes);
                Some(Cow::Owned(Preprocess {
                    slope,
                    intercept,
                    clip,
                    resampled: shape,
                    is_resampled: false,
                    divisor: 1.0,
                    shape,
                    pad_value: 0.0,
                    axes,
                }))
            }
            Recipe::Preprocessed(steps) => Some(Cow::Borrowed(steps)),
        }
    }

    /// Whether the voxels are made in the order in which the elements lie in the file; only for volumes without
    /// [`Self::steps`].
    pub(super) fn is_in_order(&self) -> bool {
        !self.array.header.fortran_order || self.shape().iter().filter(|&&n| n > 1).count() <= 1
    }

    /// The memory in bytes that [`Self::fill`] takes to turn the array, for planes and their transposition, and for
    /// what is read ahead over a network, beside the volume.
    pub fn scratch_bytes(&self) -> u64 {
        let ahead = if self.store.is_remote(&self.path) { bytes_ahead(&self.array.member.in_file()) } else { 0 };
        ahead + self.array.bytes_to_turn() + with_voxel_type!(self, T => self.scratch_bytes_of::<T>())
    }

    fn scratch_bytes_of<T: InPlanes>(&self) -> u64 {
        match self.steps() {
            Some(steps) => PlaneSteps::<T>::scratch_bytes(&self.array.header, &steps),
            None if self.is_in_order() => 0,
            None => (BlockSize::new(self.shape(), size_of::<T>()).scratch_len() * size_of::<T>()) as u64,
        }
    }
}
