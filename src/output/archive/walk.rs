//! Walking the tar headers of a shard on disk: the names of its members, and where their bytes are.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use crate::base::file_id::FileId;
use crate::base::memory;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::tar::{self, MemberHeader};
use crate::storage::Stored;

/// Bytes that are read at a time: enough for the small members of a sample with their headers, and for the first header
/// of the next sample.
const WINDOW: usize = 16 << 10;

/// Bytes before a header that are read with it: the end of the seek table of a volume that ends there, and padding.
const BEFORE: u64 = (8 << 10) + tar::BLOCK;

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

/// Reads a file in windows of at least [`WINDOW`] bytes, and keeps them: the small members and the seek tables of a
/// sample stand around the headers that led to them, so each sample takes one read, which may be a request.
pub(super) struct WindowReader<'a> {
    path: &'a Path,
    file: &'a dyn Stored,
    /// The windows, by the offsets of their first bytes.
    windows: BTreeMap<u64, Vec<u8>>,
}

impl<'a> WindowReader<'a> {
    /// A reader of an open file; `path` is for messages.
    pub(super) fn new(path: &'a Path, file: &'a dyn Stored) -> Self {
        Self { path, file, windows: BTreeMap::new() }
    }

    /// The identity of the file, of which the first bytes are read.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the file is shorter than a header, [`Error::Io`] if it cannot be read.
    pub(super) fn identity(&mut self) -> Result<FileId> {
        self.read(0, to_usize(tar::BLOCK))?;
        let identity = self.file.identity().map_err(|error| Error::io(self.path, "stat the shard", error))?;
        identity.ok_or_else(|| Error::Internal("an object that was read has no identity".into()))
    }

    /// The `len` bytes at `offset`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the file ends before, [`Error::Io`] if it cannot be read.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let end = offset + len as u64;
        let before = self.windows.range(..=offset).next_back();
        let known = before.filter(|(start, bytes)| end <= *start + bytes.len() as u64).map(|(start, _)| *start);
        let start = match known {
            Some(start) => start,
            None => {
                let start = offset.saturating_sub(BEFORE);
                let bytes = self.window(start, to_usize(end - start))?;
                self.windows.insert(start, bytes);
                start
            }
        };
        let from = to_usize(offset - start);
        Ok(&self.windows[&start][from..from + len])
    }

    /// Reads a window that has the first `len` bytes at least.
    fn window(&self, start: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = memory::zeros(len.max(WINDOW + to_usize(BEFORE)))
            .map_err(|error| Error::io(self.path, "get memory for a member", error))?;
        let mut filled = 0;
        while filled < len {
            match self.file.read_at(&mut bytes[filled..], start + filled as u64) {
                Ok(0) => return Err(Error::malformed(self.path, "the shard is cut off")),
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(self.path, "read the shard's headers", error)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
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
