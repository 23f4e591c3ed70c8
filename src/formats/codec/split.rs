//! The split of differences of two bytes: what is noise stands apart, so that zstd packs half as many bytes. Pure.
//!
//! The content of a block of n values, of which each is a folded difference, in groups of 32:
//!
//! | bytes | what |
//! |---|---|
//! | n | the upper bits of each: the difference, shifted right by 0, 4 or 8 bits |
//! | n / 32, rounded up | this number of lower bits, for each group |
//! | 0, 16 or 32 for each group | the lower bits |
//! | the rest of 2·n | zeros |
//!
//! Of 4 lower bits, byte `i` of the group's 16 has those of value `i`, and 16 times those of value `16 + i`; of 8, byte
//! `i` of 32 has those of value `i`.
//!
//! Of noise, the lower bits are as good as random: they are left as they are, and zstd packs the upper ones, in one
//! byte a value. The number of bits follows the noise, of which the body and the air around it have different
//! strengths. Any number of them from 0 to 8 made no volume smaller, and took longer to undo.

/// The values whose differences are split alike.
pub(super) const GROUP: usize = 32;
/// The bits that zstd is given of the mean of a group, at least: with fewer, 2 % more bytes come out.
const MEAN_BITS: u32 = 2;

/// Splits folded differences into `out`, which is as long; returns where the numbers of lower bits and these bits
/// begin. `None` if `out` has no room for them, because nearly all values have 16 random bits.
pub(super) fn apply(folded: &[[u8; 2]], out: &mut [u8]) -> Option<[usize; 2]> {
    let in_full = |group: &[u16; GROUP]| lower_bits(group, MEAN_BITS);
    let sparingly = |group: &[u16; GROUP]| lower_bits(group, u16::BITS);
    apply_by(in_full, folded, out).or_else(|| apply_by(sparingly, folded, out))
}

fn apply_by(lower_bits: impl Fn(&[u16; GROUP]) -> u8, folded: &[[u8; 2]], out: &mut [u8]) -> Option<[usize; 2]> {
    let (upper, rest) = out.split_at_mut(folded.len());
    let (numbers, mut lower) = rest.split_at_mut_checked(folded.len().div_ceil(GROUP))?;
    let borders = [upper.len(), upper.len() + numbers.len()];
    for ((values, upper), number) in folded.chunks(GROUP).zip(upper.chunks_mut(GROUP)).zip(numbers) {
        let mut group = [0; GROUP];
        group.iter_mut().zip(values).for_each(|(value, bytes)| *value = u16::from_le_bytes(*bytes));
        let bits = lower_bits(&group);
        *number = bits;
        let (own, others) = std::mem::take(&mut lower).split_at_mut_checked(lower_len(bits))?;
        upper.copy_from_slice(&group.map(|value| (value >> bits).to_le_bytes()[0])[..upper.len()]);
        let bytes = group.map(|value| value.to_le_bytes()[0]);
        match own.first_chunk_mut::<GROUP>() {
            Some(own) => *own = bytes,
            None => own.copy_from_slice(&nibbles(&bytes)[..own.len()]),
        }
        lower = others;
    }
    lower.fill(0);
    Some(borders)
}

/// The lower four bits of two values in a byte.
fn nibbles(bytes: &[u8; GROUP]) -> [u8; GROUP / 2] {
    std::array::from_fn(|at| bytes[at] & 15 | bytes[at + GROUP / 2] << 4)
}

/// The number of lower bits of a group: the upper ones must fit a byte, and should be few where the values are large.
fn lower_bits(group: &[u16; GROUP], mean_bits: u32) -> u8 {
    let all = group.iter().fold(0, |all, value| all | value);
    let sum: u32 = group.iter().map(|value| u32::from(*value)).sum();
    let len_of = |number: u32| u32::BITS - number.leading_zeros();
    let needed = len_of(all.into()).saturating_sub(8);
    let noise = len_of(sum / 32).saturating_sub(mean_bits); // a constant: a division by shifts
    match (needed, noise) {
        (5.., _) | (_, 8..) => 8,
        (1.., _) | (_, 4..) => 4,
        _ => 0,
    }
}

/// Whether a split content gets smaller than the block's bytes, shuffled: by the entropy of single bytes, in one of so
/// many groups. It does not where values are whole multiples of something that float16 do not have exactly.
pub(super) fn pays(content: &[u8], block: &[u8]) -> bool {
    const SAMPLE: usize = 32;
    let values = block.len() / 2;
    let lower: usize = content[values..][..values.div_ceil(GROUP)].iter().map(|bits| lower_len(*bits)).sum();
    let upper = bits_of(content[..values].chunks(GROUP).step_by(SAMPLE).flatten().copied());
    let plane = |place: usize| {
        let groups = block.as_chunks::<2>().0.chunks(GROUP).step_by(SAMPLE).flatten();
        bits_of(groups.map(move |value| value[place]))
    };
    upper + (8 * lower / SAMPLE) as f64 <= plane(0) + plane(1)
}

/// The bits that a code of single bytes needs for these, at least.
fn bits_of(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0u32; 256];
    bytes.for_each(|byte| counts[usize::from(byte)] += 1);
    let all = f64::from(counts.iter().sum::<u32>());
    counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) * (all / f64::from(*count)).log2()).sum()
}

/// The bytes that the lower bits of a group take.
fn lower_len(bits: u8) -> usize {
    GROUP / 8 * usize::from(bits)
}

/// The split differences of a block, group by group.
pub(super) struct Groups<'a> {
    upper: &'a [u8],
    numbers: &'a [u8],
    lower: &'a [u8],
}

/// A group of split differences; the last one of a block may have fewer upper parts.
pub(super) struct Group<'a> {
    /// The upper bits of each value.
    pub(super) upper: &'a [u8],
    /// The lower bits: 0, 16 or 32 bytes.
    pub(super) lower: &'a [u8],
}

impl<'a> Groups<'a> {
    /// The differences of a content of so many values.
    ///
    /// # Errors
    /// The damage as a phrase for a message.
    pub(super) fn new(content: &'a [u8], values: usize) -> Result<Self, String> {
        let (upper, rest) = content.split_at(values);
        let (numbers, lower) = rest.split_at_checked(values.div_ceil(GROUP)).ok_or("it is too short for its groups")?;
        let len: usize = numbers.iter().map(|bits| lower_len(*bits)).sum();
        if numbers.iter().any(|bits| !matches!(bits, 0 | 4 | 8)) || len > lower.len() {
            return Err("its groups have other numbers of bits than there are".into());
        }
        Ok(Self { upper, numbers, lower })
    }

    /// Writes the low bytes of all differences, then the high ones, as a shuffled block has them.
    pub(super) fn shuffle(self, out: &mut [u8]) {
        let (low, high) = out.split_at_mut(self.upper.len());
        for (group, (low, high)) in self.zip(low.chunks_mut(GROUP).zip(high.chunks_mut(GROUP))) {
            for ((value, low), high) in group.values().into_iter().zip(low).zip(high) {
                [*low, *high] = value.to_le_bytes();
            }
        }
    }
}

impl Group<'_> {
    /// The folded differences; of values that the group does not have, anything.
    pub(super) fn values(&self) -> [u16; GROUP] {
        let (bits, half) = (self.lower.len() / 4, GROUP / 2);
        let lower = |at: usize| match (self.lower.len(), at < half) {
            (0, _) => 0,
            (16, true) => self.lower[at] & 15,
            (16, false) => self.lower[at - half] >> 4,
            _ => self.lower[at],
        };
        std::array::from_fn(|at| u16::from(*self.upper.get(at).unwrap_or(&0)) << bits | u16::from(lower(at)))
    }
}

impl<'a> Iterator for Groups<'a> {
    type Item = Group<'a>;

    fn next(&mut self) -> Option<Group<'a>> {
        let (bits, numbers) = self.numbers.split_first()?;
        let (upper, others) = self.upper.split_at(GROUP.min(self.upper.len()));
        let (lower, later) = self.lower.split_at(lower_len(*bits));
        *self = Self { upper: others, numbers, lower: later };
        Some(Group { upper, lower })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A content by the definition, value by value.
    fn defined(folded: &[u16], numbers: &[u8]) -> Vec<u8> {
        let byte = |number: u16| u8::try_from(number).unwrap();
        let bits_of = |at: usize| u32::from(numbers[at / GROUP]);
        let mut content: Vec<u8> = folded.iter().enumerate().map(|(at, d)| byte(d >> bits_of(at))).collect();
        content.extend(numbers);
        for (group, bits) in folded.chunks(GROUP).zip(numbers) {
            let value = |at: usize| group.get(at).copied().unwrap_or(0);
            match bits {
                4 => content.extend((0..16).map(|at| byte(value(at) % 16 + 16 * (value(16 + at) % 16)))),
                8 => content.extend((0..32).map(|at| byte(value(at) % 256))),
                _ => {}
            }
        }
        content.resize(2 * folded.len(), 0);
        content
    }

    fn bytes(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Groups whose differences are as large as the numbers of bits allow, in blocks of every length.
    #[test]
    fn contents_are_as_defined_and_come_back() {
        let largest = [0u16, 1, 15, 16, 255, 256, 1000, 4095, 4096, 65_535];
        for len in (1..200).chain([1000, 4093]) {
            for turn in 0..largest.len() {
                let value = |at: usize| match largest[(turn + at / GROUP) % largest.len()] {
                    0 => 0,
                    most => u16::try_from(at * 40_503 % (usize::from(most) + 1)).unwrap(),
                };
                let folded: Vec<u16> = (0..len).map(value).collect();
                let mut content = vec![0xaa; 2 * len];
                let Some([upper, numbers]) = apply(bytes(&folded).as_chunks().0, &mut content) else {
                    assert!(len < 64 || turn > 6, "there was no room for {len} values, {turn}");
                    continue;
                };
                assert_eq!((upper, numbers), (len, len + len.div_ceil(GROUP)));
                assert!(content == defined(&folded, &content[upper..numbers]), "{len} values, {turn}");
                let mut shuffled = vec![0xaa; 2 * len];
                Groups::new(&content, len).unwrap().shuffle(&mut shuffled);
                let back: Vec<u16> =
                    (0..len).map(|at| u16::from_le_bytes([shuffled[at], shuffled[len + at]])).collect();
                assert!(back == folded, "{len} values, {turn}");
            }
        }
    }

    #[test]
    fn random_values_have_no_room_and_damage_is_told() {
        let random: Vec<u16> = (0..4000u32).map(|n| u16::try_from(n * 40_503 % 65_521).unwrap()).collect();
        assert_eq!(apply(bytes(&random).as_chunks().0, &mut vec![0; 8000]), None);
        let mut content = vec![0; 128];
        apply(bytes(&[7; 64]).as_chunks().0, &mut content).unwrap();
        for wrong in [1, 2, 3, 5, 7, 9, 16, 255] {
            content[64] = wrong;
            assert!(Groups::new(&content, 64).is_err(), "{wrong} bits");
        }
        content[64..66].fill(8);
        assert!(Groups::new(&content, 64).is_err(), "more bits than bytes");
        assert!(Groups::new(&[0; 2], 1).is_ok() && Groups::new(&[0; 1], 1).is_err());
    }
}
