//! The loop over a block's symbols.

use super::bits::{Bits, Input};
use super::tables::{ALONE, DISTANCE_MASK, END_OF_BLOCK, LENGTH_MASK, SPECIAL, SUBTABLE, Tables, literal, subtable};
use super::window::{END, Window, copy, put};
use super::{InflateError, Result};

/// Unpacks symbols from `bits` into `window` at `at`, at least one if `bits` is before `limit`. Stops when the window
/// is full, when the position `limit` of the input is reached, or at the block's end; true if that was the block's end.
///
/// # Errors
/// [`InflateError::Damaged`] for a code without meaning, or a match from before the stream's beginning.
pub(super) fn unpack(
    tables: &Tables,
    bits: &mut Bits,
    input: &Input,
    limit: usize,
    window: &mut Window,
    at: &mut usize,
) -> Result<bool> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
        // SAFETY: the processor has both features.
        return unsafe { with_bmi2(tables, bits, input, limit, window, at) };
    }
    portable(tables, bits, input, limit, window, at)
}

/// Does what [`portable`] does, compiled for processors that shift by a register in one instruction: a twelfth faster.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2")]
pub(super) fn with_bmi2(
    tables: &Tables,
    bits: &mut Bits,
    input: &Input,
    limit: usize,
    window: &mut Window,
    at: &mut usize,
) -> Result<bool> {
    portable(tables, bits, input, limit, window, at)
}

/// Does what [`unpack`] says, on every processor.
#[inline(always)]
pub(super) fn portable(
    tables: &Tables,
    bits: &mut Bits,
    input: &Input,
    limit: usize,
    window: &mut Window,
    at: &mut usize,
) -> Result<bool> {
    let (mut ahead, mut to) = (*bits, *at); // in registers
    ahead.refill(input);
    let mut entry = tables.lengths[ahead.peek(LENGTH_MASK)];
    let mut is_over = false;
    // The refill went 7 bytes ahead, and a symbol may begin at the limit itself.
    while ahead.pos < limit + 8 && to < END {
        if entry & SPECIAL != 0 {
            entry = special(tables, &mut ahead, entry)?;
            if entry == END_OF_BLOCK {
                is_over = true;
                break;
            }
        }
        if entry & ALONE != 0 {
            // Up to three of them: 33 bits, or 15 and 22 after a subtable.
            for _ in 0..3 {
                put(window, to, literal(entry));
                to += 1;
                ahead.skip(entry);
                entry = tables.lengths[ahead.peek(LENGTH_MASK)];
                if entry & ALONE == 0 {
                    break;
                }
            }
            ahead.refill(input);
            continue;
        }
        // A literal, if there is one, and a match: 48 bits at most. The next entry needs 11 more, and is known before
        // the refill, because all 64 bits of the buffer are the stream's.
        put(window, to, literal(entry));
        to += (entry >> 20 & 1) as usize;
        let len = (entry >> 21) as usize + ahead.extra(entry);
        ahead.skip(entry);
        let mut entry_of_distance = tables.distances[ahead.peek(DISTANCE_MASK)];
        if entry_of_distance & SPECIAL != 0 {
            entry_of_distance = special_distance(tables, &mut ahead, entry_of_distance)?;
        }
        let distance = (entry_of_distance >> 16) as usize + ahead.extra(entry_of_distance);
        ahead.skip(entry_of_distance);
        entry = tables.lengths[ahead.peek(LENGTH_MASK)];
        ahead.refill(input);
        if distance > to {
            return Err(InflateError::Damaged("a match from before the beginning"));
        }
        copy(window, to, distance, len);
        to += len;
    }
    ahead.give_back();
    (*bits, *at) = (ahead, to);
    Ok(is_over)
}

/// The entry of the subtable, or [`END_OF_BLOCK`], whose bits are then skipped.
#[inline(always)]
fn special(tables: &Tables, bits: &mut Bits, mut entry: u32) -> Result<u32> {
    if entry & SUBTABLE != 0 {
        bits.skip(entry);
        entry = tables.lengths[subtable(entry, *bits) % tables.lengths.len()];
    }
    if entry & SPECIAL == 0 {
        return Ok(entry);
    }
    if entry & END_OF_BLOCK == 0 {
        return Err(InflateError::Damaged("a code that stands for nothing"));
    }
    bits.skip(entry);
    Ok(END_OF_BLOCK)
}

#[inline(always)]
fn special_distance(tables: &Tables, bits: &mut Bits, entry: u32) -> Result<u32> {
    let mut found = entry;
    if entry & SUBTABLE != 0 {
        bits.skip(entry);
        found = tables.distances[subtable(entry, *bits) % tables.distances.len()];
    }
    if found & SPECIAL == 0 { Ok(found) } else { Err(InflateError::Damaged("a code that stands for no distance")) }
}
