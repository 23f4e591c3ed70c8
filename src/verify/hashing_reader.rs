//! A shard's bytes, hashed as they are read.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::progress::Progress;
use super::walked::Span;
use crate::storage::Stored;

/// Bytes of a tar block: headers have one, and payloads are padded to a multiple of it.
pub(super) const BLOCK: u64 = 512;
/// Bytes of voxels that are read at a time.
const READ: usize = 1 << 20;

/// A shard file that is hashed as it is read. The `tar` crate skips padding without a look, so the reader checks that
/// it is zero.
pub(super) struct HashingReader<'a> {
    /// The shard file.
    pub(super) file: Box<dyn Stored>,
    /// State so far; in a cell, because the `tar` crate reads while the walk asks.
    pub(super) state: RefCell<ReadState>,
    /// Receives the number of bytes of each read.
    pub(super) progress: &'a dyn Progress,
}

/// State of a [`HashingReader`]: the facts about the bytes that were read so far.
#[derive(Default)]
pub(super) struct ReadState {
    /// SHA-256 of all bytes before `position`.
    pub(super) hasher: Sha256,
    /// Bytes that were read.
    pub(super) position: u64,
    /// Bytes of the file that must be zero.
    pub(super) padding: Range<u64>,
    /// Offset of the first byte of padding that is not zero.
    pub(super) nonzero: Option<u64>,
    /// The last error of the operating system.
    pub(super) error: Option<String>,
}

impl Read for &HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let ReadState { hasher, position, padding, nonzero, error } = &mut *state;
        let n = self.file.read_at(buffer, *position).inspect_err(|failure| {
            if failure.kind() != ErrorKind::Interrupted {
                *error = Some(failure.to_string());
            }
        })?;
        hasher.update(&buffer[..n]);
        if nonzero.is_none() && *position < padding.end && padding.start < *position + n as u64 {
            let is_nonzero = |(offset, byte): &(u64, &u8)| padding.contains(offset) && **byte != 0;
            *nonzero = (*position..).zip(&buffer[..n]).find(is_nonzero).map(|(offset, _)| offset);
        }
        *position += n as u64;
        self.progress.advance(n as u64);
        Ok(n)
    }
}

/// The end of a member's last block, for a payload that ends at byte `end`. A size in a header may be any number.
pub(super) fn padded(end: u64) -> u64 {
    end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

/// Checks that a member delivered as many bytes as its header says.
///
/// # Errors
/// The file is cut short.
pub(super) fn check_complete(span: Span, read: u64) -> io::Result<()> {
    if read == span.len { Ok(()) } else { Err(io::Error::new(ErrorKind::UnexpectedEof, "the file is cut short")) }
}

/// Reads to the end of a member, and returns the number of bytes.
///
/// # Errors
/// The file cannot be read.
pub(super) fn pass(entry: &mut impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; READ];
    let mut passed = 0;
    loop {
        match entry.read(&mut buffer) {
            Ok(0) => return Ok(passed),
            Ok(n) => passed += n as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
