//! Where every byte of a shard comes from: extents and the look-up by offset. Pure arithmetic; knows no files.
//!
//! Extents start at 0, are contiguous and sum to the shard's length; headers and payloads are 512-aligned. The length
//! is known from the members' sizes alone.

use std::ops::Range;

use crate::tar;

/// What fills an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The tar header of a member.
    Header(MemberId),
    /// A member's bytes.
    Payload(MemberId),
    /// Zeros.
    Zeros,
}

/// A member of the shard: which sample of the shard, and which member of that sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberId {
    /// The sample's number among those in the shard (not its index in the key, which skips empty slots).
    pub sample: u32,
    /// The member's number in the sample.
    pub member: u8,
}

/// A run of bytes with one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset of its first byte in the shard.
    pub start: u64,
    /// Its bytes; never 0.
    pub len: u64,
    /// Its origin.
    pub content: Content,
}

/// The plan of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardLayout {
    extents: Vec<Extent>,
    len: u64,
}

impl ShardLayout {
    /// Lays out samples, each given as the payload sizes of its members in order.
    pub fn new<S: AsRef<[u64]>>(samples: impl IntoIterator<Item = S>) -> Self {
        let mut layout = Self::default();
        for (sample, sizes) in (0u32..).zip(samples) {
            for (member, &size) in (0u8..).zip(sizes.as_ref()) {
                let id = MemberId { sample, member };
                layout.push(tar::BLOCK, Content::Header(id));
                layout.push(size, Content::Payload(id));
                layout.push(tar::padding(size), Content::Zeros);
            }
        }
        layout.push(tar::trailer(layout.len), Content::Zeros);
        layout
    }

    fn push(&mut self, len: u64, content: Content) {
        if len > 0 {
            self.extents.push(Extent { start: self.len, len, content });
            self.len += len;
        }
    }

    /// The shard's size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The bytes of its members.
    pub fn payload_len(&self) -> u64 {
        let payloads = self.extents.iter().filter(|extent| matches!(extent.content, Content::Payload(_)));
        payloads.map(|extent| extent.len).sum()
    }

    /// Never true: a shard without samples still has its end blocks.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All extents, in order.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The extents that cover `len` bytes from `offset`, each with the wanted range within it. Ends with the shard.
    pub fn locate(&self, offset: u64, len: u64) -> impl Iterator<Item = (Extent, Range<u64>)> + '_ {
        let end = offset.saturating_add(len).min(self.len);
        let first = self.extents.partition_point(|extent| extent.start + extent.len <= offset);
        self.extents[first..].iter().take_while(move |extent| extent.start < end).map(move |extent| {
            let from = offset.max(extent.start) - extent.start;
            (*extent, from..(end - extent.start).min(extent.len))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ShardLayout {
        ShardLayout::new([vec![1024, 10, 0, 72], vec![512, 513, 1, 72]])
    }

    #[test]
    fn extents_are_contiguous_and_aligned() {
        let layout = example();
        let mut at = 0;
        for extent in layout.extents() {
            assert_eq!(extent.start, at);
            assert!(extent.len > 0);
            assert!(extent.content == Content::Zeros || extent.start % 512 == 0);
            at += extent.len;
        }
        assert_eq!(at, layout.len());
        assert_eq!(layout.len() % tar::RECORD, 0);
        assert_eq!(ShardLayout::new(Vec::<Vec<u64>>::new()).len(), tar::RECORD);
    }

    #[test]
    fn locate_at_edges() {
        let layout = example();
        let all: Vec<_> = layout.locate(0, u64::MAX).collect();
        assert_eq!(all.len(), layout.extents().len());
        assert!(all.iter().all(|(extent, range)| *range == (0..extent.len)));
        assert_eq!(layout.locate(layout.len(), 1).count(), 0);
        assert_eq!(layout.locate(u64::MAX, u64::MAX).count(), 0);
        assert_eq!(layout.locate(0, 0).count(), 0);
        let across: Vec<_> = layout.locate(511, 2).collect();
        assert_eq!(across.iter().map(|(e, r)| (e.start, r.clone())).collect::<Vec<_>>(), [(0, 511..512), (512, 0..1)]);
        let last: Vec<_> = layout.locate(layout.len() - 1, 100).collect();
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].1.end, last[0].0.len);
    }

    #[test]
    fn every_byte_is_located_once() {
        let layout = example();
        for offset in (0..layout.len()).step_by(37) {
            let found: u64 = layout.locate(offset, 1000).map(|(_, range)| range.end - range.start).sum();
            assert_eq!(found, 1000.min(layout.len() - offset));
        }
    }
}
