//! USTAR bytes exactly as Python's `tarfile` writes them (`format=USTAR_FORMAT`, mode 0644, zero owner and times).
//!
//! Pure arithmetic and formatting; knows no files. Source: CPython `Lib/tarfile.py`, `TarInfo.create_ustar_header`.

/// The bytes of a tar block: a header takes one, and payloads are padded to a multiple of it.
pub const BLOCK: u64 = 512;
/// The bytes of a tar record: the whole file is padded to a multiple of it (`tarfile.RECORDSIZE`).
pub const RECORD: u64 = 10_240;
/// The largest payload that the 11 octal digits of a USTAR size field hold: 8 GiB − 1.
pub const MAX_PAYLOAD: u64 = 0o77_777_777_777;
/// The bytes of the longest member name that fits without a prefix field.
pub const MAX_NAME: usize = 100;

/// The header block of a regular file. `name` is ASCII of at most [`MAX_NAME`] bytes and `size` at most
/// [`MAX_PAYLOAD`]: the planner checks both.
pub fn header(name: &str, size: u64) -> [u8; 512] {
    debug_assert!(name.len() <= MAX_NAME && size <= MAX_PAYLOAD);
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0"); // mode
    put(108, b"0000000\0"); // uid
    put(116, b"0000000\0"); // gid
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0"); // mtime
    put(148, b"        "); // the checksum counts as spaces while it is summed
    put(156, b"0"); // regular file
    put(257, b"ustar\x0000");
    // `tarfile` leaves the device fields of regular files empty, unlike GNU tar.
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The name and size that a header gives of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHeader {
    /// The member's name.
    pub name: String,
    /// The bytes of the member's payload, without padding.
    pub size: u64,
}

/// Reads the header block of a regular file in the dialect that [`header`] writes; `None` if it is anything else, such
/// as the zeros at the end or a damaged block.
pub fn parse(block: &[u8]) -> Option<MemberHeader> {
    let name = block.get(..MAX_NAME)?.split(|byte| *byte == 0).next()?;
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?.to_owned();
    let size = std::str::from_utf8(block.get(124..135)?).ok()?;
    let size = u64::from_str_radix(size, 8).ok()?;
    (header(&name, size) == block).then_some(MemberHeader { name, size })
}

/// The number of zero bytes after a payload of `size` bytes.
pub const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

/// The number of zero bytes after the last member, whose padded end is at byte `end`: two blocks, then up to a full
/// record.
pub const fn trailer(end: u64) -> u64 {
    let with_end_blocks = end + 2 * BLOCK;
    with_end_blocks.next_multiple_of(RECORD) - end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_trailer_fill_up() {
        assert_eq!((padding(0), padding(1), padding(511), padding(512)), (0, 511, 1, 0));
        for end in (0..40_960).step_by(512) {
            assert_eq!((end + trailer(end)) % RECORD, 0);
            assert!(trailer(end) >= 1024 && trailer(end) < 1024 + RECORD);
        }
    }

    #[test]
    fn what_was_written_is_parsed() {
        let right = header("000001_000002.bin", 110_592_000);
        assert_eq!(parse(&right), Some(MemberHeader { name: "000001_000002.bin".into(), size: 110_592_000 }));
        assert_eq!(parse(&[0; 512]), None);
        for at in 0..512 {
            let mut wrong = right;
            wrong[at] ^= 2;
            assert_eq!(parse(&wrong), None, "byte {at}");
        }
    }

    #[test]
    fn an_independent_reader_understands_the_header() {
        let block = header("000001_000002.bin", 110_592_000);
        let parsed = tar::Header::from_byte_slice(&block);
        assert!(parsed.as_ustar().is_some());
        assert_eq!(parsed.path().unwrap().to_str(), Some("000001_000002.bin"));
        assert_eq!(parsed.size().unwrap(), 110_592_000);
        assert_eq!(parsed.mode().unwrap(), 0o644);
        let sum: u32 =
            block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        assert_eq!(parsed.cksum().unwrap(), sum);
    }
}
