//! The layout of a shard: which extent of it comes from which member, found by offset. Pure arithmetic; knows no files.
//!
//! Extents start at 0, are contiguous and sum to the shard's length; headers and payloads begin at multiples of 512.
//! The length is known from the members' sizes alone. Extents are computed when they are asked for: stored, they took
//! 480 bytes a sample, and a data set has a dozen views.

use std::ops::Range;

use crate::formats::tar;
use crate::plan::members::Member;

/// The origin of an extent's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The tar header of a member.
    Header(MemberId),
    /// The payload of a member.
    Payload(MemberId),
    /// Zeros: the padding behind a payload, or the end of the file.
    Zeros,
}

/// Names a member of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberId {
    /// The place of the sample among those of the shard, from 0 on. The slot in the sample's key counts empty slots
    /// too.
    pub sample: u32,
    /// The member of that sample.
    pub member: Member,
}

/// Consecutive bytes of a shard that have one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the first byte in the shard.
    pub start: u64,
    /// The number of bytes; never 0.
    pub len: u64,
    /// The origin of the bytes.
    pub content: Content,
}

/// The offsets of the samples of one shard. The sizes of the members are not in it, because a sample is in a shard of
/// each view and its sizes are stored once: whoever asks for extents hands the sizes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLayout {
    /// The offset of each sample's first byte, then the end of the last sample.
    starts: Vec<u64>,
}

impl ShardLayout {
    /// Lays out samples. Each is given as the payload sizes of its members in bytes, in the order of the
    /// members.
    pub fn new<S: AsRef<[u64]>>(samples: impl IntoIterator<Item = S>) -> Self {
        let samples = samples.into_iter();
        let mut starts = Vec::with_capacity(samples.size_hint().0 + 1);
        let mut end = 0;
        starts.push(end);
        for sizes in samples {
            end += sizes.as_ref().iter().map(|&size| tar::BLOCK + size + tar::padding(size)).sum::<u64>();
            starts.push(end);
        }
        Self { starts }
    }

    /// The shard's size in bytes.
    pub fn len(&self) -> u64 {
        self.end() + tar::trailer(self.end())
    }

    /// Whether the shard's size is 0: never, because a shard without samples still has the end of a tar file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset at which the last sample ends and the end of the tar file begins.
    pub fn end(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The offset of each sample's first byte.
    pub fn sample_starts(&self) -> &[u64] {
        self.starts.split_last().map_or(&[], |(_, starts)| starts)
    }

    /// The extents that cover `len` bytes from `offset` on, in order, each with the range of it that is covered. The
    /// last extent ends with the shard, whatever `len` is. `members` are those of each sample; `sizes` gives the
    /// payload sizes that the sample at a place of the shard was laid out with.
    pub fn locate<'a>(
        &'a self,
        offset: u64,
        len: u64,
        members: &'a [Member],
        sizes: impl Fn(usize) -> &'a [u64] + 'a,
    ) -> impl Iterator<Item = (Extent, Range<u64>)> + 'a {
        let end = offset.saturating_add(len).min(self.len());
        let samples = self.sample_starts();
        let first = samples.partition_point(|start| *start <= offset).saturating_sub(1);
        let extents = move |sample: usize| extents(samples[sample], sample, members, sizes(sample));
        let members = (first..samples.len()).flat_map(extents);
        let trailer = Extent { start: self.end(), len: tar::trailer(self.end()), content: Content::Zeros };
        members
            .chain([trailer])
            .skip_while(move |extent| extent.start + extent.len <= offset)
            .take_while(move |extent| extent.start < end)
            .map(move |extent| {
                let from = offset.max(extent.start) - extent.start;
                (extent, from..(end - extent.start).min(extent.len))
            })
    }
}

/// The extents of one sample: for each member the header, the payload and the padding. An empty one is left out.
fn extents<'a>(
    mut start: u64,
    sample: usize,
    members: &'a [Member],
    sizes: &'a [u64],
) -> impl Iterator<Item = Extent> + 'a {
    let sample = u32::try_from(sample).unwrap_or(u32::MAX);
    let member = move |(&member, &size): (&Member, &u64)| {
        let id = MemberId { sample, member };
        [(tar::BLOCK, Content::Header(id)), (size, Content::Payload(id)), (tar::padding(size), Content::Zeros)]
    };
    members.iter().zip(sizes).flat_map(member).filter(|(len, _)| *len > 0).map(move |(len, content)| {
        start += len;
        Extent { start: start - len, len, content }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [Member; 4] = [Member::Volume, Member::Json, Member::Text, Member::Labels];
    const SIZES: [[u64; 4]; 2] = [[1024, 10, 0, 72], [512, 513, 1, 72]];

    fn example() -> ShardLayout {
        ShardLayout::new(SIZES)
    }

    fn locate(layout: &ShardLayout, offset: u64, len: u64) -> Vec<(Extent, Range<u64>)> {
        layout.locate(offset, len, &MEMBERS, |sample| &SIZES[sample]).collect()
    }

    #[test]
    fn extents_are_contiguous_and_aligned() {
        let layout = example();
        let mut at = 0;
        for (extent, range) in locate(&layout, 0, u64::MAX) {
            assert_eq!(range, 0..extent.len);
            assert_eq!(extent.start, at);
            assert!(extent.len > 0);
            assert!(extent.content == Content::Zeros || extent.start % 512 == 0);
            at += extent.len;
        }
        assert_eq!(at, layout.len());
        assert_eq!(layout.len() % tar::RECORD, 0);
        assert_eq!(layout.sample_starts(), [0, 4 * 512 + 1024 + 512 + 512]);
        let empty = ShardLayout::new(Vec::<Vec<u64>>::new());
        assert_eq!((empty.len(), empty.end(), empty.sample_starts()), (tar::RECORD, 0, &[][..]));
        assert_eq!(locate(&empty, 0, u64::MAX).len(), 1);
    }

    #[test]
    fn locate_at_edges() {
        let layout = example();
        for (offset, len) in [(layout.len(), 1), (u64::MAX, u64::MAX), (0, 0)] {
            assert_eq!(locate(&layout, offset, len), []);
        }
        let across = locate(&layout, 511, 2);
        assert_eq!(across.iter().map(|(e, r)| (e.start, r.clone())).collect::<Vec<_>>(), [(0, 511..512), (512, 0..1)]);
        let last = locate(&layout, layout.len() - 1, 100);
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].1.end, last[0].0.len);
    }

    #[test]
    fn every_byte_is_located_once() {
        let layout = example();
        for offset in (0..layout.len()).step_by(37) {
            let found: u64 = locate(&layout, offset, 1000).iter().map(|(_, range)| range.end - range.start).sum();
            assert_eq!(found, 1000.min(layout.len() - offset));
        }
    }
}
