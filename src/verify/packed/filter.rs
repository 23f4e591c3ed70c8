//! The filters of compressed members, undone by their definition in `docs/architecture.md`: value by value, in numbers
//! that are wide enough for all of them.

use std::io;

use half::f16;

use crate::verify::unread::Unread;

/// A filter: by its name a member's name ends, and the JSON names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) struct Filter {
    pub(super) name: &'static str,
    /// Bytes of a value.
    pub(in crate::verify) width: usize,
    /// Whether values are predicted by their neighbours.
    predicts: Predicts,
    /// How the bytes of a block stand in the content of its frame.
    arranged: Arranged,
}

/// What the end of a member's name says of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum Packing<'a> {
    /// Plain values.
    Plain,
    /// Filtered and compressed values.
    Known(Filter),
    /// Values of a filter of this name, which this version does not know.
    Later(&'a str),
}

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Predicts {
    Nothing,
    Integers,
    /// Numbers in the order of float16.
    Halves,
}

/// The order of a block's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arranged {
    /// The first byte of all values, then the second one, and so on.
    Shuffled,
    /// As the byte behind them says.
    ByBlock,
}

/// Values whose numbers of lower bits are one.
const GROUP: usize = 32;

/// All filters.
pub(super) const FILTERS: [Filter; 11] = [
    Filter { name: "shuffle1", width: 1, predicts: Predicts::Nothing, arranged: Arranged::Shuffled },
    Filter { name: "shuffle", width: 2, predicts: Predicts::Nothing, arranged: Arranged::Shuffled },
    Filter { name: "shuffle4", width: 4, predicts: Predicts::Nothing, arranged: Arranged::Shuffled },
    Filter { name: "shuffle8", width: 8, predicts: Predicts::Nothing, arranged: Arranged::Shuffled },
    Filter { name: "predict1", width: 1, predicts: Predicts::Integers, arranged: Arranged::Shuffled },
    Filter { name: "predict", width: 2, predicts: Predicts::Halves, arranged: Arranged::Shuffled },
    Filter { name: "predict2", width: 2, predicts: Predicts::Integers, arranged: Arranged::Shuffled },
    Filter { name: "predict4", width: 4, predicts: Predicts::Integers, arranged: Arranged::Shuffled },
    Filter { name: "predict8", width: 8, predicts: Predicts::Integers, arranged: Arranged::Shuffled },
    Filter { name: "split", width: 2, predicts: Predicts::Halves, arranged: Arranged::ByBlock },
    Filter { name: "split2", width: 2, predicts: Predicts::Integers, arranged: Arranged::ByBlock },
];

impl Filter {
    /// The filter that has this name; none if there is no such one.
    pub(in crate::verify) fn named(name: &str) -> Option<Self> {
        FILTERS.into_iter().find(|filter| filter.name == name)
    }

    /// Whether values of `width` bytes are filtered so; only float16 has filters of its own.
    pub(in crate::verify) fn fits(self, width: usize, is_float: bool) -> bool {
        let of_type = match self.predicts {
            Predicts::Nothing => true,
            Predicts::Integers => !is_float,
            Predicts::Halves => is_float,
        };
        of_type && self.width == width
    }

    /// Whether the first frame of a member has the length of its rows.
    pub(super) fn has_rows(self) -> bool {
        self.predicts != Predicts::Nothing
    }

    /// Bytes by which a frame's content is longer than the block.
    pub(super) fn added(self) -> u32 {
        u32::from(self.arranged == Arranged::ByBlock)
    }

    /// The plain bytes of a block whose frame has this content, and whose rows have `row_len` values.
    ///
    /// # Errors
    /// There is no memory, or the content is none that this filter makes.
    pub(super) fn undone(self, content: &[u8], row_len: usize) -> Result<Vec<u8>, Unread> {
        if self.arranged == Arranged::Shuffled {
            return Ok(unpredicted(unshuffled(content, self.width)?, self, row_len));
        }
        let Some((way, content)) = content.split_last() else { return Err("it holds no block".into()) };
        match (way, self.predicts) {
            (0, _) => unshuffled(content, self.width),
            (1, _) => Ok(unpredicted(joined(content)?, self, row_len)),
            (2, Predicts::Halves) => {
                let integers = Self { predicts: Predicts::Integers, ..self };
                Ok(as_halves(unpredicted(joined(content)?, integers, row_len)))
            }
            (2, _) => Err("it says that its integers were floats".into()),
            (way, _) => Err(format!("it was made in a way that this version does not know: {way}").into()),
        }
    }
}

/// Splits what compression adds off the end of a member's name or extension, and says what it is.
pub(in crate::verify) fn split_suffix(name: &str) -> (&str, Packing<'_>) {
    let split = name.strip_suffix(".zst").and_then(|name| name.rsplit_once('.'));
    let Some((plain, filter)) = split.filter(|(_, filter)| !filter.is_empty()) else { return (name, Packing::Plain) };
    (plain, Filter::named(filter).map_or(Packing::Later(filter), Packing::Known))
}

/// Room for a block of so many bytes.
fn room(len: usize) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    Ok(bytes)
}

/// Puts the bytes of each value together again.
fn unshuffled(shuffled: &[u8], width: usize) -> Result<Vec<u8>, Unread> {
    let mut values = room(shuffled.len())?;
    let count = shuffled.len() / width;
    values.extend((0..shuffled.len()).map(|at| shuffled[at % width * count + at / width]));
    Ok(values)
}

/// Puts upper and lower bits of split values together again, in little-endian numbers of two bytes.
fn joined(content: &[u8]) -> Result<Vec<u8>, Unread> {
    let mut values = room(content.len())?;
    let (upper, behind) = content.split_at(content.len() / 2);
    let groups = upper.chunks(GROUP);
    let Some((sizes, mut lower)) = behind.split_at_checked(groups.len()) else {
        return Err("it has no room for the numbers of its lower bits".into());
    };
    for (number, (group, size)) in groups.zip(sizes).enumerate() {
        let len = match size {
            0 => 0,
            4 => GROUP / 2,
            8 => GROUP,
            _ => return Err(format!("it says that values of group {number} have {size} lower bits").into()),
        };
        let Some((own, of_others)) = lower.split_at_checked(len) else {
            return Err(format!("it ends before the lower bits of group {number}").into());
        };
        for (at, upper) in group.iter().enumerate() {
            let lower = match size {
                0 => 0,
                4 if at < len => own[at] & 0x0f,
                4 => own[at - len] >> 4,
                _ => own[at],
            };
            values.extend((u16::from(*upper) << size | u16::from(lower)).to_le_bytes());
        }
        lower = of_others;
    }
    Ok(values)
}

/// The values of a block, of which each is what the block holds in its place, and the values before it and above it,
/// less that before the one above it.
fn unpredicted(mut block: Vec<u8>, filter: Filter, row_len: usize) -> Vec<u8> {
    let Filter { width, predicts, .. } = filter;
    if predicts == Predicts::Nothing {
        return block;
    }
    let bits = 8 * width;
    let mask = u64::MAX >> (64 - bits);
    let mut values: Vec<u64> = Vec::with_capacity(block.len() / width);
    for bytes in block.chunks_exact_mut(width) {
        let folded = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let difference = if folded & 1 == 1 { !(folded >> 1) } else { folded >> 1 };
        let at = values.len();
        let neighbour = |back: usize| at.checked_sub(back).map_or(0, |at| values[at]);
        let (before, above, above_before) = (neighbour(1), neighbour(row_len), neighbour(row_len.saturating_add(1)));
        let value = difference.wrapping_add(before).wrapping_add(above).wrapping_sub(above_before) & mask;
        values.push(value);
        let value = match predicts {
            Predicts::Halves if value < 0x8000 => 0xffff - value,
            Predicts::Halves => value - 0x8000,
            _ => value,
        };
        bytes.copy_from_slice(&value.to_le_bytes()[..width]);
    }
    block
}

/// Float16 of integers: each is a magnitude, with all bits inverted if the number has a minus, as -0.0 has.
fn as_halves(mut block: Vec<u8>) -> Vec<u8> {
    for bytes in block.as_chunks_mut::<2>().0 {
        let integer = i16::from_le_bytes(*bytes);
        let half = match integer {
            0.. => f16::from_f32(f32::from(integer)),
            _ => -f16::from_f32(f32::from(!integer)),
        };
        *bytes = half.to_le_bytes();
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undone(name: &str, content: &[u8]) -> Result<Vec<u8>, String> {
        Filter::named(name).unwrap().undone(content, 3).map_err(|error| error.reason)
    }

    #[test]
    fn split_blocks_of_each_way() {
        let bytes = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        // Differences 1, 1, -1 and 2, folded, in rows of three values.
        let mut content = vec![2, 2, 1, 4, 0, 0, 0, 0, 1];
        assert_eq!(undone("split2", &content), Ok(bytes(&[1, 2, 1, 4])));
        assert_eq!(undone("split", &content), Ok(bytes(&[0xfffe, 0xfffd, 0xfffe, 0xfffb])));
        content[8] = 2;
        assert_eq!(undone("split", &content), Ok(bytes(&[0x3c00, 0x4000, 0x3c00, 0x4400])));
        assert!(undone("split2", &content).unwrap_err().contains("were floats"));
        content[8] = 0;
        assert_eq!(undone("split2", &content), Ok(vec![2, 0, 2, 0, 1, 0, 4, 0]));
        assert_eq!(undone("split", &content), undone("split2", &content));
    }

    /// A group of four lower bits and one of eight, with room and without.
    #[test]
    fn lower_bits_of_each_number() {
        let mut content = vec![0; 128];
        (content[31], content[32 + 7]) = (1, 2);
        content[64..66].copy_from_slice(&[4, 8]);
        (content[66], content[66 + 15], content[66 + 16 + 7]) = (0x05, 0x60, 0x90);
        let found = joined(&content).unwrap();
        let found: Vec<_> = found.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
        let mut right = vec![0; 64];
        (right[0], right[31], right[39]) = (0x05, 0x16, 0x290);
        assert_eq!(found, right);
        let mut content = vec![0; 68];
        content[34..36].copy_from_slice(&[4, 0]);
        assert_eq!(joined(&content), Ok(vec![0; 68]));
        content[35] = 8;
        assert!(joined(&content).unwrap_err().reason.contains("before the lower bits of group 1"));
        assert_eq!(joined(&[1, 0]), Ok(vec![1, 0]));
    }

    #[test]
    fn whole_numbers_with_and_without_a_minus() {
        let integers = [0i16, 1, 2048, -1, -2, -2049].map(i16::to_le_bytes).as_flattened().to_vec();
        let right = [0.0f32, 1.0, 2048.0, -0.0, -1.0, -2048.0].map(|value| f16::from_f32(value).to_le_bytes());
        assert_eq!(as_halves(integers), right.as_flattened());
    }

    #[test]
    fn what_no_block_holds_is_told() {
        assert!(undone("split", &[]).unwrap_err().contains("no block"));
        for way in 3..=u8::MAX {
            assert!(undone("split", &[0, 0, way]).unwrap_err().contains("does not know"), "{way}");
        }
        for size in (0..=u8::MAX).filter(|size| ![0, 4, 8].contains(size)) {
            assert!(undone("split", &[0, size, 1]).unwrap_err().contains(&format!("{size} lower bits")));
        }
        for size in [4, 8] {
            assert!(undone("split", &[0, size, 2]).unwrap_err().contains("before the lower bits of group 0"));
        }
    }
}
