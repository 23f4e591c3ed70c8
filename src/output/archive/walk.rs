//! Walking the tar headers of a shard on disk: the names of its members, and where their bytes are.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::base::memory;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::tar::{self, MemberHeader};

/// Bytes that are read at a time: enough for the small members of a sample with their headers, and for the first header
/// of the next sample.
const WINDOW: usize = 16 << 10;

/// A member of a shard's tar file.
#[derive(Debug)]
pub(super) struct TarMember {
    /// Name of the member.
    pub(super) name: String,
    /// Offset of the payload in the file, in bytes.
    pub(super) offset: u64,
    /// Length of the payload in bytes.
    pub(super) len: u64,
}

/// Reads a file in windows of at least [`WINDOW`] bytes, and keeps the last one.
pub(super) struct WindowReader<'a> {
    path: &'a Path,
    file: &'a File,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> WindowReader<'a> {
    /// A reader of an open file; `path` is for messages.
    pub(super) fn new(path: &'a Path, file: &'a File) -> Self {
        Self { path, file, start: 0, bytes: Vec::new() }
    }

    /// The `len` bytes at `offset`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the file ends before, [`Error::Io`] if it cannot be read.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let end = offset + len as u64;
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            memory::resize(&mut self.bytes, len.max(WINDOW))
                .map_err(|error| Error::io(self.path, "get memory for a member", error))?;
            self.start = offset;
            let mut filled = 0;
            while filled < len {
                match self.file.read_at(&mut self.bytes[filled..], offset + filled as u64) {
                    Ok(0) => return Err(Error::malformed(self.path, "the shard is cut off")),
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Error::io(self.path, "read the shard's headers", error)),
                }
            }
            self.bytes.truncate(filled);
        }
        let from = to_usize(offset - self.start);
        Ok(&self.bytes[from..from + len])
    }
}

/// All members of a shard whose file has `size` bytes.
///
/// # Errors
/// [`Error::Malformed`] if the file is not a tar file of the dialect that this program writes, [`Error::Io`] if it
/// cannot be read.
pub(super) fn members(reader: &mut WindowReader<'_>, size: u64) -> Result<Vec<TarMember>> {
    let mut members = Vec::new();
    let mut at = 0;
    loop {
        let header = reader.read(at, to_usize(tar::BLOCK))?;
        let Some(MemberHeader { name, size: len }) = tar::parse(header) else {
            let is_end = header.iter().all(|byte| *byte == 0) && at + tar::trailer(at) == size;
            if is_end {
                return Ok(members);
            }
            return Err(Error::malformed(reader.path, format!("no tar header of this program at byte {at}")));
        };
        let offset = at + tar::BLOCK;
        at = offset + len + tar::padding(len);
        if at >= size {
            return Err(Error::malformed(reader.path, format!("the shard is cut off within {name}")));
        }
        members.push(TarMember { name, offset, len });
    }
}
