//! Views of a plan: the plain one, and for each epoch one with all samples in a shuffled order.
//!
//! A view is a list of shards, and a shard is a list of places in the order of its view. So one type of shard serves
//! all views, and a view of an epoch takes 600 kB for 47,149 samples.

use std::ops::Range;
use std::sync::OnceLock;

use super::content::MeasuredSample;
use super::layout::{Extent, ShardLayout};
use super::{Plan, Shard, ShardId, shuffle};
use crate::base::num::to_usize;
use crate::dataset::Sample;
use crate::error::{Error, Result};

/// All samples once, as shards whose file names are numbered from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The view in the data set's order.
    Plain,
    /// The view in the shuffled order of an epoch, which is numbered from 0 on.
    Epoch(u32),
}

/// The shuffled views of a seed. Each is laid out when it is first used (3 ms for 47,149 samples).
#[derive(Clone, Debug)]
pub(super) struct Epochs {
    seed: u64,
    /// The number of shards of each view.
    shards_each: u32,
    laid_out: Vec<OnceLock<Epoch>>,
}

/// The shuffled view of one epoch.
#[derive(Clone, Debug)]
struct Epoch {
    /// All samples in the order of the view, as indexes into the samples of the data set.
    order: Vec<u32>,
    shards: Vec<Shard>,
}

/// The samples of a shard, as indexes into the samples of the data set, by their places in the shard from 0 on.
#[derive(Clone, Debug)]
pub struct ShardSamples<'a> {
    /// The range of the view's order that is the shard.
    range: Range<usize>,
    /// The order of the view; `None` for that of the data set.
    order: Option<&'a [u32]>,
}

impl ShardSamples<'_> {
    /// The number of samples in the shard.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether the shard has no sample.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The index of the sample at a place of the shard; `None` behind the last.
    pub fn get(&self, place: usize) -> Option<usize> {
        let position = Some(self.range.start + place).filter(|position| *position < self.range.end)?;
        self.order.map_or(Some(position), |order| order.get(position).map(|index| *index as usize))
    }

    /// The indexes of all samples, in the shard's order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter_map(|place| self.get(place))
    }
}

impl Plan {
    /// Adds views of `epochs` epochs, shuffled by `seed`. The plain view stays as it is.
    ///
    /// # Errors
    /// [`Error::Refused`] if there are more shards than a [`ShardId`] can number.
    pub fn with_epochs(mut self, seed: u64, epochs: u32) -> Result<Self> {
        let refused = || Error::Refused(format!("--epochs {epochs}: these are more than 2^32 shards; give fewer"));
        let per_shard = to_usize(self.options.samples_per_shard.into());
        let shards_each = u32::try_from(self.dataset.samples.len().div_ceil(per_shard)).map_err(|_| refused())?;
        let all = u64::from(epochs) * u64::from(shards_each) + self.shards.len() as u64;
        u32::try_from(all).map_err(|_| refused())?;
        let laid_out = (0..epochs).map(|_| OnceLock::new()).collect();
        self.epochs = Some(Epochs { seed, shards_each, laid_out });
        Ok(self)
    }

    /// The seed of the shuffled views; `None` if the plan has none.
    pub fn shuffle_seed(&self) -> Option<u64> {
        self.epochs.as_ref().map(|epochs| epochs.seed)
    }

    /// The number of epochs that have a view; 0 without a seed.
    pub fn epochs(&self) -> u32 {
        self.epochs.as_ref().map_or(0, |epochs| u32::try_from(epochs.laid_out.len()).unwrap_or(u32::MAX))
    }

    /// Whether the plan has this view.
    pub fn has_view(&self, view: View) -> bool {
        self.view(view).is_some()
    }

    /// The shards of a view, in its order; `None` if the plan has no such view.
    pub fn view(&self, view: View) -> Option<Range<ShardId>> {
        let plain = self.shard_ids();
        match (view, &self.epochs) {
            (View::Plain, _) => Some(plain),
            (View::Epoch(epoch), Some(epochs)) if to_usize(epoch.into()) < epochs.laid_out.len() => {
                let first = plain.end + epoch * epochs.shards_each;
                Some(first..first + epochs.shards_each)
            }
            (View::Epoch(_), _) => None,
        }
    }

    /// The view of a shard and the shard's number in that view; `None` beyond the last shard of the last view.
    pub fn view_of(&self, id: ShardId) -> Option<(View, u32)> {
        let Some(beyond) = to_usize(id.into()).checked_sub(self.shards.len()) else { return Some((View::Plain, id)) };
        let epochs = self.epochs.as_ref().filter(|epochs| epochs.shards_each > 0)?;
        let beyond = u32::try_from(beyond).ok()?;
        let (epoch, number) = (beyond / epochs.shards_each, beyond % epochs.shards_each);
        (to_usize(epoch.into()) < epochs.laid_out.len()).then_some((View::Epoch(epoch), number))
    }

    /// A shard of any view; `None` beyond the last shard of the last view.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        match self.view_of(id)? {
            (View::Plain, number) => self.shards.get(number as usize),
            (View::Epoch(epoch), number) => self.epoch(epoch)?.shards.get(number as usize),
        }
    }

    /// The samples of a shard as indexes into the samples of the data set; empty if there is no such shard.
    pub fn samples(&self, id: ShardId) -> ShardSamples<'_> {
        let range = self.shard(id).map_or(0..0, |shard| shard.samples.clone());
        let order = match self.view_of(id) {
            Some((View::Epoch(epoch), _)) => self.epoch(epoch).map(|epoch| epoch.order.as_slice()),
            _ => None,
        };
        ShardSamples { range, order }
    }

    /// The samples of a shard, in its order; none if there is no such shard.
    pub fn shard_samples(&self, id: ShardId) -> impl Iterator<Item = &Sample> + '_ {
        let samples = self.samples(id);
        (0..samples.len()).filter_map(move |place| self.dataset.samples.get(samples.get(place)?))
    }

    /// The extents of a shard that cover `len` bytes from `offset` on, in order, each with the range of it that is
    /// covered. The last extent ends with the shard, whatever `len` is. Empty if there is no such shard.
    pub fn locate(&self, id: ShardId, offset: u64, len: u64) -> impl Iterator<Item = (Extent, Range<u64>)> + '_ {
        let samples = self.samples(id);
        let sizes = move |place: usize| samples.get(place).map_or(&[][..], |index| self.member_sizes(index));
        self.shard(id)
            .into_iter()
            .flat_map(move |shard| shard.layout.locate(offset, len, self.members.list(), sizes.clone()))
    }

    /// The view of an epoch, laid out now if it was not before.
    fn epoch(&self, epoch: u32) -> Option<&Epoch> {
        let epochs = self.epochs.as_ref()?;
        let laid_out = epochs.laid_out.get(to_usize(epoch.into()))?;
        let per_shard = to_usize(self.options.samples_per_shard.into());
        Some(laid_out.get_or_init(|| Epoch::new(epochs.seed, epoch, &self.measured, per_shard)))
    }
}

impl Epoch {
    /// Lays out full shards, but for the last. Samples that were left out leave no empty place here.
    fn new(seed: u64, epoch: u32, measured: &[MeasuredSample], per_shard: usize) -> Self {
        let order = shuffle::order(seed, epoch.into(), u32::try_from(measured.len()).unwrap_or(u32::MAX));
        let shard = |(number, samples): (usize, &[u32])| {
            let first = number * per_shard;
            let sizes = samples.iter().map(|index| &measured[to_usize((*index).into())].sizes);
            Shard { samples: first..first + samples.len(), layout: ShardLayout::new(sizes) }
        };
        let shards = order.chunks(per_shard).enumerate().map(shard).collect();
        Self { order, shards }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// CT-RATE's training set: 47,149 samples.
    #[test]
    fn a_view_of_a_whole_data_set_is_small_and_quick() {
        let sizes = |n: u64| [110_592_000, 300 + n % 50, 1000 + n % 700, 72];
        let all: Vec<MeasuredSample> =
            (0..47_149).map(|n| MeasuredSample { sizes: sizes(n).into(), digest: [0; 32] }).collect();
        let begun = Instant::now();
        let epochs: Vec<Epoch> = (0..10).map(|epoch| Epoch::new(1, epoch, &all, 100)).collect();
        // 0.03 s where nothing else runs, without optimisation.
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let bytes = |epoch: &Epoch| {
            let starts: usize = epoch.shards.iter().map(|shard| (shard.layout.sample_starts().len() + 1) * 8).sum();
            epoch.order.capacity() * 4 + epoch.shards.capacity() * size_of::<Shard>() + starts
        };
        assert!(epochs.iter().map(bytes).sum::<usize>() < 7 << 20);
        for epoch in &epochs {
            assert_eq!(epoch.shards.len(), 472);
            assert!(epoch.shards[..471].iter().all(|shard| shard.samples.len() == 100));
            assert_eq!(epoch.shards[471].samples, 47_100..47_149);
            let mut all = epoch.order.clone();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..47_149));
        }
        assert_ne!(epochs[0].order, epochs[1].order);
    }
}
