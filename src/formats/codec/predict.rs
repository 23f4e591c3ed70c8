//! The prediction of values by their neighbours, and its inverse: two running sums. [`super::Filter`] defines it. Pure.

use super::running_sum::{Differences, Order, Word, has_undo_pairs, undo_pairs};
use super::split::Groups;

/// The shortest row that is added to the next one as a row; of shorter ones, value by value is faster.
const SHORT_ROW: usize = 24;

/// Predicts a block of whole values: writes what is left, shuffled, into `out`. `scratch` and `out` are as long.
pub(super) fn apply<W: Word<N>, const N: usize>(
    block: &[u8],
    row: usize,
    order: Order,
    scratch: &mut [u8],
    out: &mut [u8],
) {
    let (values, left) = (block.as_chunks::<N>().0, scratch.as_chunks_mut::<N>().0);
    match order {
        Order::Integer => subtract_above(values, row, |value: W| value, left),
        Order::Half => subtract_above(values, row, W::ordered, left),
    }
    let Some((begin, _)) = left.split_first() else { return };
    for (place, plane) in out.chunks_exact_mut(left.len()).enumerate() {
        plane[0] = W::of(*begin).folded().bytes()[place];
        for (byte, (value, before)) in plane[1..].iter_mut().zip(left[1..].iter().zip(&*left)) {
            *byte = W::of(*value).minus(W::of(*before)).folded().bytes()[place];
        }
    }
}

fn subtract_above<W: Word<N>, const N: usize>(
    values: &[[u8; N]],
    row: usize,
    ordered: impl Fn(W) -> W,
    out: &mut [[u8; N]],
) {
    let (first, others) = out.split_at_mut(row.min(values.len()));
    for (left, value) in first.iter_mut().zip(values) {
        *left = ordered(W::of(*value)).bytes();
    }
    for (left, (value, above)) in others.iter_mut().zip(values[first.len()..].iter().zip(values)) {
        *left = ordered(W::of(*value)).minus(ordered(W::of(*above))).bytes();
    }
}

/// Writes the values into `out` that [`apply`] was given.
pub(super) fn undo<W: Word<N>, const N: usize>(shuffled: &[u8], row: usize, order: Order, out: &mut [u8]) {
    let values = out.as_chunks_mut::<N>().0;
    if !W::undo_at_once(shuffled, row, order, values) {
        undo_in_two::<W, N>(shuffled, row, order, values);
    }
}

/// Subtracts from each value of two bytes the one a row before it; `out` is as long as the block.
pub(super) fn subtract_above_pairs(block: &[u8], row: usize, order: Order, out: &mut [u8]) {
    let (values, out) = (block.as_chunks::<2>().0, out.as_chunks_mut::<2>().0);
    match order {
        Order::Integer => subtract_above(values, row, |value: u16| value, out),
        Order::Half => subtract_above(values, row, <u16 as Word<2>>::ordered, out),
    }
}

/// Subtracts from each value of two bytes the one before it, and folds what is left into `out`, which is as long.
pub(super) fn subtract_left(left: &[u8], out: &mut [u8]) {
    let (left, out) = (left.as_chunks::<2>().0, out.as_chunks_mut::<2>().0);
    let (Some(begin), Some((first, others))) = (left.first(), out.split_first_mut()) else { return };
    *first = u16::of(*begin).folded().bytes();
    for (folded, (value, before)) in others.iter_mut().zip(left[1..].iter().zip(left)) {
        *folded = u16::of(*value).minus(u16::of(*before)).folded().bytes();
    }
}

/// Writes the values into `out` that were predicted, by what is left of them, split. `scratch` grows to the length of
/// `out` where the processor, or the row, wants two passes.
pub(super) fn undo_split(groups: Groups<'_>, row: usize, order: Order, scratch: &mut Vec<u8>, out: &mut [u8]) {
    if has_undo_pairs(row) {
        return undo_pairs(Differences::Split(groups), row, order, out.as_chunks_mut().0);
    }
    scratch.resize(scratch.len().max(out.len()), 0);
    let shuffled = &mut scratch[..out.len()];
    groups.shuffle(shuffled);
    undo_in_two::<u16, 2>(shuffled, row, order, out.as_chunks_mut().0);
}

/// Undoes a prediction by a running sum and the sum with the values above it, one after the other.
fn undo_in_two<W: Word<N>, const N: usize>(shuffled: &[u8], row: usize, order: Order, values: &mut [[u8; N]]) {
    W::running_sum(shuffled, values);
    match order {
        Order::Integer => add_above(values, row, |value: W| value),
        Order::Half => add_above(values, row, W::unordered),
    }
}

/// Adds to each value the one a row before it, which then is `finished`: both are in the processor's first cache.
fn add_above<W: Word<N>, const N: usize>(values: &mut [[u8; N]], row: usize, finished: impl Fn(W) -> W) {
    let finish = |value: &mut [u8; N]| *value = finished(W::of(*value)).bytes();
    let add = |value: &mut [u8; N], above: [u8; N]| *value = W::of(*value).plus(W::of(above)).bytes();
    if row < SHORT_ROW {
        for at in row..values.len() {
            let above = values[at - row];
            add(&mut values[at], above);
        }
        return values.iter_mut().for_each(finish);
    }
    let mut at = row;
    while at < values.len() {
        let (before, rest) = values.split_at_mut(at);
        let before = &mut before[at - row..];
        let len = row.min(rest.len());
        for (value, above) in rest[..len].iter_mut().zip(before.iter_mut()) {
            add(value, *above);
            finish(above);
        }
        before[len..].iter_mut().for_each(finish);
        at += row;
    }
    values[at - row..].iter_mut().for_each(finish);
}

#[cfg(test)]
mod tests {
    use super::super::running_sum::portable_sum;
    use super::super::split;
    use super::*;

    /// The definition, value by value, in numbers that are large enough for all widths.
    fn defined(block: &[u8], width: usize, row: usize, is_half: bool) -> Vec<u8> {
        let bits = 8 * u32::try_from(width).unwrap();
        let modulus = 1i128 << bits;
        let values: Vec<i128> = block
            .chunks_exact(width)
            .map(|bytes| bytes.iter().rev().fold(0, |number, byte| number << 8 | i128::from(*byte)))
            .map(|value| match is_half {
                false => value,
                true if value >= 0x8000 => 0xffff - value,
                true => value + 0x8000,
            })
            .collect();
        let at = |place: usize, back: usize| place.checked_sub(back).map_or(0, |place| values[place]);
        let mut out = vec![0; block.len()];
        for place in 0..values.len() {
            let left = at(place, 0) - at(place, 1) - at(place, row) + at(place, row + 1);
            let left = left.rem_euclid(modulus);
            let folded = if left >= modulus / 2 { 2 * (modulus - left) - 1 } else { 2 * left };
            for byte in 0..width {
                out[byte * values.len() + place] = u8::try_from(folded >> (8 * byte) & 0xff).unwrap();
            }
        }
        out
    }

    fn check<W: Word<N>, const N: usize>(block: &[u8], row: usize, order: Order) {
        let [mut scratch, mut left, mut back, mut portable] = [(); 4].map(|()| vec![0xaa; block.len()]);
        apply::<W, N>(block, row, order, &mut scratch, &mut left);
        let about = format!("{} values of {N} bytes in rows of {row}", block.len() / N);
        assert!(left == defined(block, N, row, order == Order::Half), "{about}");
        undo::<W, N>(&left, row, order, &mut back);
        assert!(back == block, "{about}");
        back.fill(0xaa);
        undo_in_two::<W, N>(&left, row, order, back.as_chunks_mut::<N>().0);
        assert!(back == block, "in two passes: {about}");
        portable_sum::<W, N>(&left, portable.as_chunks_mut::<N>().0);
        W::running_sum(&left, back.as_chunks_mut::<N>().0);
        assert!(back == portable, "the processor's instructions: {about}");
    }

    /// The same values by split differences, by the processor's instructions and without them.
    fn check_split(block: &[u8], row: usize, order: Order) {
        let [mut left, mut folded, mut content, mut scratch, mut back] = [(); 5].map(|()| vec![0xaa; block.len()]);
        subtract_above_pairs(block, row, order, &mut left);
        subtract_left(&left, &mut folded);
        if split::apply(folded.as_chunks().0, &mut content).is_none() {
            return;
        }
        let about = format!("{} values in rows of {row}", block.len() / 2);
        let groups = || Groups::new(&content, block.len() / 2).unwrap();
        undo_split(groups(), row, order, &mut Vec::new(), &mut back);
        assert!(back == block, "{about}");
        back.fill(0xaa);
        groups().shuffle(&mut scratch);
        undo_in_two::<u16, 2>(&scratch, row, order, back.as_chunks_mut().0);
        assert!(back == block, "in two passes: {about}");
    }

    /// Smooth values with noise and jumps, of which every byte changes.
    fn example(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        };
        (0..len).map(|_| u8::try_from(next()).unwrap()).collect()
    }

    #[test]
    fn blocks_of_every_length_and_rows_of_every_kind() {
        let lengths = (0..70).chain([127, 1000, 4093]);
        for len in lengths {
            for row in [1, 2, 3, 7, 16, SHORT_ROW - 1, SHORT_ROW, 31, 32, 33, 97, 4093, 100_000] {
                check::<u8, 1>(&example(len), row, Order::Integer);
                check::<u16, 2>(&example(2 * len), row, Order::Integer);
                check::<u16, 2>(&example(2 * len), row, Order::Half);
                for order in [Order::Integer, Order::Half] {
                    // Of differences that are small, larger, and as large as they can be.
                    for most in [3, 0x1f, 0xff] {
                        let values = example(len).into_iter().map(|byte| [byte, byte & most]);
                        check_split(values.collect::<Vec<_>>().as_flattened(), row, order);
                    }
                }
                check::<u32, 4>(&example(4 * len), row, Order::Integer);
                check::<u64, 8>(&example(8 * len), row, Order::Integer);
            }
        }
    }

    #[test]
    fn every_float16_comes_back_beside_every_kind_of_neighbour() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let backwards: Vec<u8> = (0..=u16::MAX).rev().flat_map(u16::to_le_bytes).collect();
        let kinds = [0u16, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x7bff, 0x7c00, 0xfc00, 0x7c01, 0x7e00, 0xffff];
        let mixed: Vec<u8> = (0..=u16::MAX)
            .zip(kinds.into_iter().cycle())
            .flat_map(|(value, kind)| [value, kind])
            .flat_map(u16::to_le_bytes)
            .collect();
        for row in [1, 13, 256, 65_535, 65_536] {
            for block in [&all, &backwards, &mixed] {
                check::<u16, 2>(block, row, Order::Half);
                check_split(block, row, Order::Half);
            }
        }
    }

    #[test]
    fn float16_is_in_the_order_of_its_numbers() {
        let mut bits: Vec<u16> = (0..=u16::MAX).filter(|bits| !half::f16::from_bits(*bits).is_nan()).collect();
        bits.sort_by_key(|bits| Word::<2>::ordered(*bits));
        let numbers: Vec<f32> = bits.iter().map(|bits| half::f16::from_bits(*bits).to_f32()).collect();
        assert!(numbers.is_sorted());
    }
}
