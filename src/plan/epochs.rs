//! Shuffled views: for each epoch, shards with all samples in another order.

use std::sync::OnceLock;

use super::{Measured, Plan, Shard, ShardId, View};
use crate::base::num::to_usize;
use crate::dataset::Sample;
use crate::error::{Error, Result};
use crate::plan::layout::ShardLayout;
use crate::plan::shuffle;

/// The views of a seed. Each is laid out when it is first looked at (3 ms and 600 kB for 47,149 samples).
#[derive(Clone, Debug)]
pub(super) struct Epochs {
    seed: u64,
    shards_each: u32,
    laid_out: Vec<OnceLock<Epoch>>,
}

#[derive(Clone, Debug)]
pub(super) struct Epoch {
    /// Indexes of all samples.
    pub(super) order: Vec<u32>,
    pub(super) shards: Vec<Shard>,
}

impl Plan {
    /// The same plan with views for `epochs` epochs, shuffled by `seed`.
    ///
    /// # Errors
    /// [`Error::Refused`] if these are more shards than can be numbered.
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

    /// The seed of the shuffled views, if there are any.
    pub fn shuffle_seed(&self) -> Option<u64> {
        self.epochs.as_ref().map(|epochs| epochs.seed)
    }

    /// How many epochs have a view; 0 without a seed.
    pub fn epochs(&self) -> u32 {
        self.epochs.as_ref().map_or(0, |epochs| u32::try_from(epochs.laid_out.len()).unwrap_or(u32::MAX))
    }

    /// Whether there is such a view.
    pub fn has_view(&self, view: View) -> bool {
        self.view(view).is_some()
    }

    /// The shards of a view; `None` if there is no such epoch.
    pub fn view(&self, view: View) -> Option<impl ExactSizeIterator<Item = ShardId> + use<>> {
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

    /// The view of a shard and its number there; `None` beyond the last.
    pub fn view_of(&self, id: ShardId) -> Option<(View, u32)> {
        let Some(beyond) = to_usize(id.into()).checked_sub(self.shards.len()) else { return Some((View::Plain, id)) };
        let epochs = self.epochs.as_ref().filter(|epochs| epochs.shards_each > 0)?;
        let beyond = u32::try_from(beyond).ok()?;
        let (epoch, number) = (beyond / epochs.shards_each, beyond % epochs.shards_each);
        (to_usize(epoch.into()) < epochs.laid_out.len()).then_some((View::Epoch(epoch), number))
    }

    pub(super) fn epoch(&self, epoch: u32) -> Option<&Epoch> {
        let epochs = self.epochs.as_ref()?;
        let laid_out = epochs.laid_out.get(to_usize(epoch.into()))?;
        let per_shard = to_usize(self.options.samples_per_shard.into());
        Some(laid_out.get_or_init(|| Epoch::new(epochs.seed, epoch, &self.measured, per_shard)))
    }

    /// The samples of a shard, in its order.
    pub fn shard_samples(&self, id: ShardId) -> impl Iterator<Item = &Sample> + '_ {
        let samples = self.samples(id);
        (0..samples.len()).filter_map(move |place| self.dataset.samples.get(samples.get(place)?))
    }
}

impl Epoch {
    /// Full shards but for the last, whichever volumes were left out.
    fn new(seed: u64, epoch: u32, measured: &[Measured], per_shard: usize) -> Self {
        let order = shuffle::order(seed, epoch.into(), u32::try_from(measured.len()).unwrap_or(u32::MAX));
        let shard = |(number, samples): (usize, &[u32])| {
            let first = number * per_shard;
            let sizes = samples.iter().map(|index| measured[to_usize((*index).into())].sizes);
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
        let all: Vec<Measured> = (0..47_149).map(|n| Measured { sizes: sizes(n), digest: [0; 32] }).collect();
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
