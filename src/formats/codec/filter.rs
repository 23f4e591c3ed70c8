//! What is done to the values of a block before zstd packs them: names and definitions of the filters, and what a
//! member says of its rows. Pure.

use serde::{Deserialize, Serialize};

use super::running_sum::Order;
use super::seek_table::{BlockEntry, SeekTable};
use super::shuffle::{shuffle, unshuffle};
use super::split::{self, Groups};
use super::{predict, whole};

/// The steps that a folder of compressed shards was begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// All values are shuffled, as versions before 0.2 do.
    Shuffle,
    /// Values are predicted by their neighbours where that pays, then shuffled.
    Predict,
    /// Values of two bytes are predicted and split, others as [`Self::Predict`] has them.
    Split,
}

/// What is done to the values of a block before zstd packs them.
///
/// *Predicted*, values are whole numbers without sign, of 8·width bits, in which all sums are taken. From each value,
/// in the order of the member's bytes, the one before it and the one a row before it are subtracted, and the one a row
/// and a value before it is added; in the place of values before the block's first one stands 0. A difference `d`
/// becomes 2·d, or -2·d - 1 where its highest bit is set, so that small differences of both signs are small numbers;
/// these are shuffled, or *split* as `codec/split.rs` has it. The row's length stands in the member's first frame
/// ([`RowFilter`]); a row does not begin anew at a block's or an NPY header's end, and any length gives the values
/// back.
///
/// A frame of split values holds one byte more than its block, and so the seek table says: the last one, which says how
/// this block was made (`Way`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// Values of so many bytes are shuffled: the lowest bytes of all values, then the next higher ones.
    Shuffle(usize),
    /// Whole numbers of so many bytes, with or without sign, are predicted, and the differences shuffled.
    Predict(usize),
    /// The bits of float16 are predicted, in the order of the numbers: all bits of the negative ones are inverted, of
    /// the others the sign alone.
    PredictHalf,
    /// Whole numbers of two bytes are predicted, and the differences split (`codec/split.rs`).
    Split,
    /// Float16 are predicted, and the differences split.
    SplitHalf,
}

/// How a block of [`Filter::Split`] or [`Filter::SplitHalf`] was made: the last byte of its frame's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// All values are shuffled: the split would take more room.
    Shuffled,
    /// The values are predicted as they are, or float16 by the order of their bits; differences are split.
    Split,
    /// Float16 that are whole numbers were predicted as these numbers.
    Whole,
}

impl Way {
    /// The byte.
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Shuffled => 0,
            Self::Split => 1,
            Self::Whole => 2,
        }
    }

    /// The way with this byte.
    pub(super) fn of(byte: u8) -> Result<Self, String> {
        let known = [Self::Shuffled, Self::Split, Self::Whole].into_iter().find(|way| way.byte() == byte);
        known.ok_or_else(|| format!("it was made in a way that this version does not know: {byte}"))
    }
}

/// All filters. Each has a name of its own, so that no reader takes one for another.
const ALL: [(Filter, &str); 11] = [
    (Filter::Shuffle(2), "shuffle"), // the only one once
    (Filter::Shuffle(1), "shuffle1"),
    (Filter::Shuffle(4), "shuffle4"),
    (Filter::Shuffle(8), "shuffle8"),
    (Filter::PredictHalf, "predict"),
    (Filter::Predict(1), "predict1"),
    (Filter::Predict(2), "predict2"),
    (Filter::Predict(4), "predict4"),
    (Filter::Predict(8), "predict8"),
    (Filter::SplitHalf, "split"),
    (Filter::Split, "split2"),
];
/// What stands behind a filter's name in an extension.
const PACKED: &str = ".zst";

impl Filter {
    /// The filter that a method has for values of `width` bytes. Floats of 4 and 8 bytes are never predicted: their low
    /// bytes are noise that a difference doubles, and those of whole numbers are zeros that it destroys (stored values
    /// as float32 became 20 % larger).
    pub fn new(method: Method, width: usize, is_float: bool) -> Self {
        match (method, is_float, width) {
            (Method::Split, false, 2) => Self::Split,
            (Method::Split, true, 2) => Self::SplitHalf,
            (Method::Predict | Method::Split, false, _) => Self::Predict(width),
            (Method::Predict, true, 2) => Self::PredictHalf,
            _ => Self::Shuffle(width),
        }
    }

    /// The filter's name, as JSON and manifest give it.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(filter, _)| *filter == self).map_or("", |(_, name)| name)
    }

    /// The extension that is added to the name of a compressed file. It names filter and codec, so that no reader takes
    /// the file for plain values.
    pub fn extension(self) -> String {
        format!("{}{PACKED}", self.name())
    }

    /// The filter of a file to whose name `extension` is added; `None` if [`Self::extension`] makes no such one.
    pub fn of_extension(extension: &str) -> Option<Self> {
        Self::named(extension.strip_suffix(PACKED)?)
    }

    /// The name of the filter in such an extension, if it is none of those that this version has.
    pub fn unknown(extension: &str) -> Option<&str> {
        let name = extension.strip_suffix(PACKED)?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_name && Self::named(name).is_none()).then_some(name)
    }

    /// The filter of this name; `None` if there is no such one.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, known)| *known == name).map(|(filter, _)| *filter)
    }

    /// The bytes of a value.
    pub fn width(self) -> usize {
        match self {
            Self::Shuffle(width) | Self::Predict(width) => width,
            Self::PredictHalf | Self::Split | Self::SplitHalf => 2,
        }
    }

    /// The bytes of a frame's content behind those of its block: they say in which way it was made.
    pub fn mark_len(self) -> usize {
        usize::from(matches!(self, Self::Split | Self::SplitHalf))
    }

    /// Whether values are predicted by their neighbours.
    pub(super) fn predicts(self) -> bool {
        !matches!(self, Self::Shuffle(_))
    }
}

/// The filter of one member, and the length of its rows.
///
/// The first frame of a predicted member is a skippable one of [`Self::HEAD`] bytes, which any zstd passes over: magic
/// number, the number 8, the row's length in values, and the CRC-32 of these four bytes, each a little-endian `u32`. In
/// the seek table it is an entry without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowFilter {
    /// The filter.
    pub filter: Filter,
    /// The values of a row: the length of the last axis; 0 where nothing is predicted.
    row: u32,
}

impl RowFilter {
    /// The bytes of a predicted member's first frame.
    pub const HEAD: usize = 16;
    /// One of the magic numbers of skippable frames.
    const MAGIC: u32 = 0x184D_2A50;
    /// The checksum of no bytes (the lower half of their XXH64), as the seek table has it of a frame without content.
    const NO_CONTENT: u32 = 0x51D8_E999;

    /// The filter of a member whose last axis has `row` values.
    pub fn new(filter: Filter, row: u64) -> Self {
        // No block has a row that is longer than the largest number.
        let row = u32::try_from(row).unwrap_or(u32::MAX).max(1);
        Self { filter, row: if filter.predicts() { row } else { 0 } }
    }

    /// Begins a member: returns its first frame, which may be empty, and puts it into the seek table, which is empty.
    pub fn begin(self, table: &mut SeekTable) -> Vec<u8> {
        if !self.filter.predicts() {
            return Vec::new();
        }
        *table = SeekTable::with_mark(self.filter.mark_len());
        let row = self.row.to_le_bytes();
        let crc = crc32fast::hash(&row).to_le_bytes();
        table.begin(Self::HEAD as u64, Self::NO_CONTENT);
        [Self::MAGIC.to_le_bytes(), 8u32.to_le_bytes(), row, crc].concat()
    }

    /// The filter of a member that has this seek table; `read` gives the member's first bytes.
    ///
    /// # Errors
    /// The damage of the first frame as a phrase for a message; the error of `read`.
    pub fn of_member(
        filter: Filter,
        table: &SeekTable,
        read: impl FnOnce(&mut [u8; Self::HEAD]) -> Result<(), String>,
    ) -> Result<Self, String> {
        if !filter.predicts() {
            return Ok(Self::new(filter, 0));
        }
        let head = BlockEntry { packed: 0..Self::HEAD as u64, plain: 0..0, checksum: Some(Self::NO_CONTENT) };
        let mut bytes = [0; Self::HEAD];
        if table.first() != Some(&head) {
            return Err("its seek table does not begin with the frame of its rows' length".into());
        }
        read(&mut bytes)?;
        let [magic, len, row, crc] = [0, 4, 8, 12].map(|at| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let is_right = magic == Self::MAGIC.to_le_bytes() && len == 8u32.to_le_bytes();
        let number = u32::from_le_bytes(row);
        if !is_right || crc32fast::hash(&row) != u32::from_le_bytes(crc) || number == 0 {
            return Err("its first frame, with its rows' length, is damaged".into());
        }
        Ok(Self { filter, row: number })
    }

    /// Filters a block of whole values into `out`, the content of a frame; `scratch` is twice as long as the block.
    /// Returns the borders of parts that zstd is to pack apart.
    pub(super) fn apply(self, block: &[u8], scratch: &mut [u8], out: &mut [u8]) -> Option<[usize; 2]> {
        let row = self.row as usize;
        let scratch = &mut scratch[..2 * block.len()];
        let left = &mut scratch[..block.len()];
        match self.filter {
            Filter::Shuffle(1) => out.copy_from_slice(block),
            Filter::Shuffle(2) => shuffle::<2>(block, out),
            Filter::Shuffle(4) => shuffle::<4>(block, out),
            Filter::Shuffle(_) => shuffle::<8>(block, out),
            Filter::PredictHalf => predict::apply::<u16, 2>(block, row, Order::Half, left, out),
            Filter::Predict(1) => predict::apply::<u8, 1>(block, row, Order::Integer, left, out),
            Filter::Predict(2) => predict::apply::<u16, 2>(block, row, Order::Integer, left, out),
            Filter::Predict(4) => predict::apply::<u32, 4>(block, row, Order::Integer, left, out),
            Filter::Predict(_) => predict::apply::<u64, 8>(block, row, Order::Integer, left, out),
            Filter::Split | Filter::SplitHalf => return self.split(block, scratch, out),
        }
        None
    }

    fn split(self, block: &[u8], scratch: &mut [u8], out: &mut [u8]) -> Option<[usize; 2]> {
        let row = self.row as usize;
        let (content, mark) = out.split_at_mut(block.len());
        let (integers, left) = scratch.split_at_mut(block.len());
        let is_half = self.filter == Filter::SplitHalf;
        let is_whole = is_half && whole::to_integers(block, integers);
        let order = if is_half && !is_whole { Order::Half } else { Order::Integer };
        predict::subtract_above_pairs(if is_whole { integers } else { block }, row, order, left);
        let folded = integers;
        predict::subtract_left(left, folded);
        let borders = split::apply(folded.as_chunks().0, content).filter(|_| split::pays(content, block));
        let way = match (borders, is_whole) {
            (None, _) => Way::Shuffled,
            (Some(_), true) => Way::Whole,
            (Some(_), false) => Way::Split,
        };
        if way == Way::Shuffled {
            shuffle::<2>(block, content);
        }
        mark.fill(way.byte());
        borders
    }

    /// Writes the values into `out` that a frame's content was made of; `out` holds whole values. `scratch` grows to
    /// what few processors, and few rows, need.
    ///
    /// # Errors
    /// The damage as a phrase for a message.
    pub(super) fn undo(self, content: &[u8], scratch: &mut Vec<u8>, out: &mut [u8]) -> Result<(), String> {
        let row = self.row as usize;
        match self.filter {
            Filter::Shuffle(1) => out.copy_from_slice(content),
            Filter::Shuffle(2) => unshuffle::<2>(content, out),
            Filter::Shuffle(4) => unshuffle::<4>(content, out),
            Filter::Shuffle(_) => unshuffle::<8>(content, out),
            Filter::PredictHalf => predict::undo::<u16, 2>(content, row, Order::Half, out),
            Filter::Predict(1) => predict::undo::<u8, 1>(content, row, Order::Integer, out),
            Filter::Predict(2) => predict::undo::<u16, 2>(content, row, Order::Integer, out),
            Filter::Predict(4) => predict::undo::<u32, 4>(content, row, Order::Integer, out),
            Filter::Predict(_) => predict::undo::<u64, 8>(content, row, Order::Integer, out),
            Filter::Split | Filter::SplitHalf => return self.join(content, scratch, out),
        }
        Ok(())
    }

    fn join(self, content: &[u8], scratch: &mut Vec<u8>, out: &mut [u8]) -> Result<(), String> {
        let row = self.row as usize;
        let (content, mark) = content.split_at(out.len());
        let way = Way::of(mark[0])?;
        let order = match (way, self.filter) {
            (Way::Shuffled, _) => {
                unshuffle::<2>(content, out);
                return Ok(());
            }
            (Way::Split, Filter::SplitHalf) => Order::Half,
            (Way::Whole, Filter::Split) => return Err("it says that integers were floats".into()),
            _ => Order::Integer,
        };
        predict::undo_split(Groups::new(content, out.len() / 2)?, row, order, scratch, out);
        if way == Way::Whole {
            whole::to_halves(out);
        }
        Ok(())
    }

    /// Whether the filter leaves the bytes as they are.
    pub(super) fn is_identity(self) -> bool {
        self.filter == Filter::Shuffle(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(filter: RowFilter) -> (SeekTable, [u8; RowFilter::HEAD]) {
        let mut table = SeekTable::default();
        let head = filter.begin(&mut table);
        table.push(&[7; 20], 100);
        (table, head.try_into().unwrap())
    }

    fn read(table: &SeekTable, head: [u8; RowFilter::HEAD]) -> Result<RowFilter, String> {
        RowFilter::of_member(Filter::PredictHalf, table, |bytes| {
            *bytes = head;
            Ok(())
        })
    }

    #[test]
    fn names_and_widths() {
        for (filter, name) in ALL {
            assert_eq!((filter.name(), filter.extension()), (name, format!("{name}.zst")));
            assert_eq!(Filter::of_extension(&format!("{name}.zst")), Some(filter));
            let digit = name.chars().last().and_then(|last| last.to_digit(10));
            assert_eq!(filter.width(), digit.unwrap_or(2) as usize, "{name}");
        }
        for other in ["shuffle2.zst", "zst", "shuffle16.zst", "", "predict", "predict3.zst"] {
            assert_eq!(Filter::of_extension(other), None, "{other}");
        }
        assert_eq!(Filter::unknown("predict3.zst"), Some("predict3"));
        for other in ["predict.zst", ".zst", "predict3", "a.predict3.zst", "zst"] {
            assert_eq!(Filter::unknown(other), None, "{other}");
        }
        let of = |width, is_float| Filter::new(Method::Predict, width, is_float).name();
        assert_eq!([of(2, true), of(4, true), of(8, true)], ["predict", "shuffle4", "shuffle8"]);
        assert_eq!([1, 2, 4, 8].map(|width| of(width, false)), ["predict1", "predict2", "predict4", "predict8"]);
        assert_eq!(Filter::new(Method::Shuffle, 2, true).name(), "shuffle");
    }

    #[test]
    fn the_rows_length_is_read_and_every_damage_to_it_is_found() {
        for row in [1, 2, 511, u32::MAX] {
            let filter = RowFilter::new(Filter::PredictHalf, u64::from(row));
            let (table, head) = head_of(filter);
            assert_eq!(read(&table, head), Ok(filter));
            for bit in 0..head.len() * 8 {
                let mut wrong = head;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&table, wrong).is_err(), "bit {bit}");
            }
        }
        let mut other = SeekTable::default();
        other.push(&[7; 20], 100);
        let (_, head) = head_of(RowFilter::new(Filter::PredictHalf, 3));
        assert!(read(&other, head).unwrap_err().contains("does not begin"));
        assert!(read(&SeekTable::default(), head).is_err());
        let (plain, none) = (RowFilter::new(Filter::Shuffle(2), 7), SeekTable::default());
        assert_eq!((plain.row, plain.begin(&mut SeekTable::default())), (0, Vec::new()));
        let unread = RowFilter::of_member(Filter::Shuffle(2), &none, |_| Err("it was read".into()));
        assert_eq!(unread, Ok(plain));
    }
}
