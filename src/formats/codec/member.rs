//! A whole compressed member that is in memory: first frame, blocks, seek table. Pure.

use super::{Decoder, FOOTER, Filter, RowFilter, SeekTable};
use crate::base::num::to_usize;

/// Unpacks a member that was filtered so into `out`, which has the length that the blocks have together.
///
/// # Errors
/// The damage as a phrase for a message; `out` then holds nothing of use.
pub fn unpack(decoder: &mut Decoder, member: &[u8], filter: Filter, out: &mut [u8]) -> Result<(), String> {
    let len = member.len() as u64;
    let footer: &[u8; FOOTER] = member.last_chunk().ok_or("it is cut off")?;
    let table_len = SeekTable::len_in(footer, len)?;
    let (frames, table) = member.split_at(member.len() - table_len);
    let table = SeekTable::parse(table, len, filter.mark_len())?;
    if table.plain_len() != out.len() as u64 {
        return Err(format!("it holds {} bytes, {} were expected", table.plain_len(), out.len()));
    }
    let filter = RowFilter::of_member(filter, &table, |head| {
        *head = *frames.first_chunk().ok_or_else(|| "it is cut off".to_owned())?;
        Ok(())
    })?;
    for (number, block) in table.covering(&(0..table.plain_len())) {
        let [packed, plain] = [&block.packed, &block.plain].map(|range| to_usize(range.start)..to_usize(range.end));
        let unpacked = decoder.decode(block, &frames[packed], filter, &mut out[plain]);
        unpacked.map_err(|reason| format!("block {number}: {reason}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Encoder, Method};
    use super::*;

    #[test]
    fn a_member_comes_back_and_what_is_cut_or_longer_does_not() {
        let plain: Vec<u8> = (0..5000u32).flat_map(|n| (n * n % 991).to_le_bytes()).collect();
        for (method, width) in [(Method::Shuffle, 4), (Method::Predict, 4), (Method::Split, 2)] {
            let (filter, mut table) = (RowFilter::new(Filter::new(method, width, false), 70), SeekTable::default());
            let mut member = filter.begin(&mut table);
            let mut encoder = Encoder::new("zstd".parse().unwrap()).unwrap();
            for block in plain.chunks(1200) {
                let frame = encoder.encode(block, filter).unwrap();
                table.push(&frame, block.len());
                member.extend(frame);
            }
            member.extend(table.render());
            let (mut decoder, mut out) = (Decoder::new().unwrap(), vec![0; plain.len()]);
            unpack(&mut decoder, &member, filter.filter, &mut out).unwrap();
            assert!(out == plain);
            for len in [0, 8, 9, 16, 17, 200, member.len() - 1] {
                assert!(unpack(&mut decoder, &member[..len], filter.filter, &mut out).is_err(), "{len} bytes");
            }
            out.push(0);
            assert!(unpack(&mut decoder, &member, filter.filter, &mut out).unwrap_err().contains("were expected"));
        }
    }
}
