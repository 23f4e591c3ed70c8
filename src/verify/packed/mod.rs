//! Compressed members of volumes: the zstd seekable format with filtered blocks. The code follows the format's
//! description (zstd's `contrib/seekable_format/zstd_seekable_compression_format.md`, version 0.1.0) and that of the
//! filters in `docs/architecture.md`, and shares nothing with the code that compresses but the `zstd` crate.

mod filter;

use std::io::{self, BufRead, Cursor, Read};

use super::unread::Unread;
use crate::base::num::to_usize;

use filter::FILTERS;
pub(super) use filter::{Filter, Packing, split_suffix};

/// Value of `volume_codec` in the JSON of a sample whose volume is compressed.
pub(super) const CODEC: &str = "zstd";

/// Bytes of the largest block that a mount reads.
const MAX_BLOCK: u32 = 16 << 20;
/// What zstd says when it gets no memory.
const NO_MEMORY: &str = "not enough memory";
const FRAME_MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
/// Magic number of the frame in which a predicted member has the length of its rows.
const ROW_MAGIC: u32 = 0x184D_2A50;
/// Bytes of that frame, and the checksum that the seek table has of it: that of no bytes.
const ROW_FRAME: (u32, u32) = (16, 0x51D8_E999);
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
/// Flag in the descriptor of a frame.
const FRAME_HAS_CHECKSUM: u8 = 0x04;
/// Flag in the descriptor of the seek table.
const TABLE_HAS_CHECKSUMS: u8 = 0x80;

/// A row of the seek table: one block.
struct SeekTableRow {
    /// Bytes of the frame.
    packed: u32,
    /// Bytes of the frame's content: those of the block, and what its filter adds.
    content: u32,
    /// Checksum of that content; none where the seek table has no checksums.
    checksum: Option<u32>,
}

/// End of the JSON of a sample whose volume is compressed; a plain shard has a brace in its place.
fn json_ends() -> [String; FILTERS.len()] {
    FILTERS.map(|filter| format!(r#", "volume_codec": "{CODEC}", "volume_filter": "{}"}}"#, filter.name))
}

/// Whether codec and filter stand at the end of a sample's JSON.
pub(super) fn is_at_end(json: &[u8]) -> bool {
    added_to_json(json) > 0
}

/// Unpacks a member that was filtered so: passes each block to `each`, in order, and returns the bytes of the plain
/// member.
///
/// # Errors
/// The seek table is damaged, or blocks are: then one message for each damaged block; the sound blocks were passed on.
pub(super) fn unpack(member: &[u8], filter: Filter, mut each: impl FnMut(&[u8])) -> Result<u64, Vec<Unread>> {
    let rows = seek_table(member).map_err(|what| vec![what.into()])?;
    let row_len = if filter.has_rows() { row_len(member, &rows).map_err(|what| vec![what.into()])? } else { 0 };
    let (mut at, mut len, mut wrong) = (0, 0, Vec::new());
    let (head, rows) = rows.split_at(usize::from(filter.has_rows()));
    at += head.iter().map(|row| to_usize(u64::from(row.packed))).sum::<usize>();
    for (number, row) in rows.iter().enumerate() {
        let end = at + to_usize(u64::from(row.packed));
        match content(&member[at..end], row, filter).and_then(|content| filter.undone(&content, row_len)) {
            Ok(plain) => each(&plain),
            Err(what) => wrong.push(what.behind(format_args!("block {number}"))),
        }
        at = end;
        len += u64::from(row.content.saturating_sub(filter.added()));
    }
    if wrong.is_empty() { Ok(len) } else { Err(wrong) }
}

/// Unpacks a member that was filtered so to the end of `plain`.
///
/// # Errors
/// There is no memory, or the member is damaged.
pub(super) fn unpack_to(plain: &mut Vec<u8>, member: &[u8], filter: Filter) -> Result<(), Unread> {
    let rows = seek_table(member)?;
    let len: u64 = rows.iter().map(|row| u64::from(row.content.saturating_sub(filter.added()))).sum();
    plain.try_reserve_exact(to_usize(len)).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    unpack(member, filter, |block| plain.extend(block)).map_err(|wrong| Unread::all(&wrong))?;
    Ok(())
}

/// Bytes by which a sample's JSON is longer than in a plain shard.
pub(super) fn added_to_json(json: &[u8]) -> u64 {
    json_ends().iter().find(|end| json.ends_with(end.as_bytes())).map_or(0, |end| end.len() as u64 - 1)
}

/// The little-endian number of four bytes at `at`; 0 where there are fewer.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Reads the seek table at the end of a member, and checks that the rows account for every byte of the member.
fn seek_table(member: &[u8]) -> Result<Vec<SeekTableRow>, String> {
    let wrong = |what: &str| Err(format!("its seek table {what}"));
    let Some(footer) = member.len().checked_sub(9).filter(|_| word(member, member.len() - 4) == SEEKABLE_MAGIC) else {
        return wrong("is not at its end");
    };
    let (count, descriptor) = (word(member, footer), member[footer + 4]);
    if descriptor & !TABLE_HAS_CHECKSUMS != 0 {
        return wrong("has reserved bits that are set");
    }
    let has_checksums = descriptor & TABLE_HAS_CHECKSUMS != 0;
    let width = if has_checksums { 12 } else { 8 };
    let size = u64::from(count) * width as u64;
    let Some(first) = (footer as u64).checked_sub(size).map(to_usize).filter(|first| *first >= 8) else {
        return wrong(&format!("counts {count} blocks, for which it has no room"));
    };
    if word(member, first - 8) != SKIPPABLE_MAGIC || u64::from(word(member, first - 4)) != size + 9 {
        return wrong("does not begin as a skippable frame of its size");
    }
    let rows: Vec<SeekTableRow> = member[first..footer]
        .chunks_exact(width)
        .map(|row| SeekTableRow {
            packed: word(row, 0),
            content: word(row, 4),
            checksum: has_checksums.then(|| word(row, 8)),
        })
        .collect();
    let packed: u64 = rows.iter().map(|row| u64::from(row.packed)).sum();
    if packed != (first - 8) as u64 {
        return wrong(&format!("is of {packed} packed bytes, and there are {}", first - 8));
    }
    Ok(rows)
}

/// Values of a row of a predicted member, by its first frame.
fn row_len(member: &[u8], rows: &[SeekTableRow]) -> Result<usize, String> {
    let (len, checksum) = ROW_FRAME;
    if rows.first().is_none_or(|row| (row.packed, row.content, row.checksum) != (len, 0, Some(checksum))) {
        return Err("its seek table does not begin with the frame that has the length of its rows".into());
    }
    let row = word(member, 8);
    let is_right = word(member, 0) == ROW_MAGIC && word(member, 4) == len - 8 && row > 0;
    if !is_right || crc32(&member[8..12]) != word(member, 12) {
        return Err("its first frame, which has the length of its rows, is damaged".into());
    }
    Ok(to_usize(u64::from(row)))
}

/// CRC-32 of bytes.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The content of one block's frame.
fn content(frame: &[u8], row: &SeekTableRow, filter: Filter) -> Result<Vec<u8>, Unread> {
    let SeekTableRow { content: len, checksum, .. } = *row;
    let plain = len
        .checked_sub(filter.added())
        .filter(|plain| *plain <= MAX_BLOCK && to_usize(u64::from(*plain)).is_multiple_of(filter.width))
        .filter(|plain| *plain > 0 || filter.added() == 0);
    if plain.is_none() {
        return Err(format!("the seek table says that it holds {len} bytes, which no reader takes").into());
    }
    if word(frame, 0) != FRAME_MAGIC {
        return Err("it is no zstd frame".into());
    }
    if frame[4..].first().is_none_or(|descriptor| descriptor & FRAME_HAS_CHECKSUM == 0) {
        return Err("it has no checksum".into());
    }
    if checksum.is_some_and(|checksum| checksum != word(frame, frame.len() - 4)) {
        return Err("its checksum is not that of the seek table".into());
    }
    // zstd computes the checksum of what it has unpacked, and compares.
    let mut rest = Cursor::new(frame);
    let mut content = Vec::new();
    let no_memory = |_| io::Error::from(io::ErrorKind::OutOfMemory);
    content.try_reserve_exact(to_usize(u64::from(len))).map_err(no_memory)?;
    let failed = |error: io::Error| match error.to_string() {
        lacking if lacking.contains(NO_MEMORY) => Unread::from(io::Error::from(io::ErrorKind::OutOfMemory)),
        _ => Unread::from(error).behind("it cannot be unpacked"),
    };
    let decoder = zstd::stream::read::Decoder::with_buffer(&mut rest).map_err(failed)?;
    let mut decoder = decoder.single_frame().take(u64::from(len) + 1);
    decoder.read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 != u64::from(len) {
        return Err(format!("it does not hold the {len} bytes that the seek table says").into());
    }
    drop(decoder);
    if rest.fill_buf().is_ok_and(|behind| !behind.is_empty()) {
        return Err("there is something behind its frame".into());
    }
    Ok(content)
}
