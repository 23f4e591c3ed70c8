//! Volumes in finished shard files: reads a volume's member, plain or in blocks, as the plain bytes of that member.
//!
//! Plain bytes have no checksum of their own; of blocks, each is checked before any of it is handed on. So a file of
//! which only the ctime differs is read on where the volume stands in blocks, and the seek table with their checksums
//! is the planned one; a plain volume in it counts as changed.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::planned_file::{FileState, GONE, NO_CHECKSUM, PlannedFile};
use super::scratch::{FrameDecoder, Scratch};
use super::{Filled, Sink};
use crate::base::file_id::FileId;
use crate::base::memory;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::codec::{BlockEntry, FOOTER, Filter, Method, RowFilter, SeekTable};
use crate::storage::{Store, Stored, bytes_ahead};

/// The plain bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// The bytes at the end of a compressed member that are read for its seek table, the end of which says how long it is.
const TABLE_GUESS: u64 = 8 << 10;

/// The place of a volume's member in a shard file. The volume's bytes are those of the whole member, with the NPY
/// header where the format has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMember {
    /// The shard file, relative to the folder of shards.
    pub file: PathBuf,
    /// The state of the shard file when its headers were read.
    pub file_id: FileId,
    /// The offset of the member's first byte in the shard file.
    pub offset: u64,
    /// The length of the member in plain bytes.
    pub len: u64,
    /// The way in which the plain bytes are stored.
    pub storage: Storage,
}

/// The way in which a member's plain bytes are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Storage {
    /// Plain: the bytes as they are.
    Plain,
    /// Compressed blocks and their seek table.
    Blocks {
        /// The bytes that blocks and seek table take in the shard file.
        packed_len: u64,
        /// The plain bytes of the largest block.
        largest: u64,
        /// What was done to the blocks before they were packed.
        filter: RowFilter,
        /// The CRC-32 of the seek table; `None` if it has not the checksum of every block.
        table_crc: Option<u32>,
    },
}

impl Storage {
    /// What was done to the blocks before they were packed; `None` for plain bytes.
    pub fn filter(&self) -> Option<Filter> {
        match self {
            Self::Plain => None,
            Self::Blocks { filter, .. } => Some(filter.filter),
        }
    }
}

/// A volume that is read from a finished shard file.
#[derive(Clone, Debug)]
pub struct ShardVolume<'a> {
    /// The place that the shard file lies in.
    pub store: &'a dyn Store,
    /// The shard file.
    pub path: PathBuf,
    /// The volume's place in the shard file.
    pub member: &'a VolumeMember,
}

impl ShardVolume<'_> {
    /// The length of the member in plain bytes.
    pub fn byte_len(&self) -> u64 {
        self.member.len
    }

    /// The filter by which blocks of the member get smaller when they are packed: that of the shard, or, where it has
    /// plain bytes, one for values of two bytes, as most volumes have.
    pub fn filter(&self) -> RowFilter {
        match &self.member.storage {
            Storage::Blocks { filter, .. } => *filter,
            Storage::Plain => {
                let width = if self.member.len.is_multiple_of(2) { 2 } else { 1 };
                RowFilter::new(Filter::new(Method::Shuffle, width, false), 1)
            }
        }
    }

    /// Writes all plain bytes of the member to `sink`, block by block.
    ///
    /// # Errors
    /// [`Error::Changed`] if the shard is not the one whose headers were read, [`Error::Malformed`] if a block is
    /// damaged, [`Error::Io`] if reading failed.
    pub fn fill(&self, sink: &mut impl Sink) -> Result<Filled> {
        let file = self.open()?;
        let file = &*file;
        file.will_read(self.stored_range());
        let filled = match self.member.storage {
            Storage::Plain => self.fill_plain(file, sink),
            Storage::Blocks { packed_len, table_crc, filter, .. } => {
                let table = self.table(file, packed_len, table_crc, filter);
                table.and_then(|table| self.fill_blocks(file, &table, filter, sink))
            }
        };
        self.check_unchanged(file)?; // first: a changed file explains every other failure
        filled
    }

    fn fill_plain(&self, file: &dyn Stored, sink: &mut impl Sink) -> Result<Filled> {
        let mut done = 0;
        while done < self.member.len {
            if sink.cancelled() {
                return Ok(Filled::Cancelled);
            }
            let len = PIECE.min(to_usize(self.member.len - done));
            self.read(file, done, &mut sink.spare()[..len])?;
            self.check_unchanged(file)?;
            sink.publish(len);
            done += len as u64;
        }
        Ok(Filled::Complete)
    }

    fn fill_blocks(
        &self,
        file: &dyn Stored,
        table: &SeekTable,
        filter: RowFilter,
        sink: &mut impl Sink,
    ) -> Result<Filled> {
        Scratch::with(&self.path, |scratch| {
            let packed = scratch.frame_decoder().map_err(|error| self.no_memory(error))?;
            for (number, block) in table.covering(&(0..self.member.len)) {
                if sink.cancelled() {
                    return Ok(Filled::Cancelled);
                }
                let len = to_usize(block.plain.end - block.plain.start);
                self.unpack(file, packed, (number, block), filter, &mut sink.spare()[..len])?;
                self.check_unchanged(file)?; // an fstat a block: what was published stays
                sink.publish(len);
            }
            Ok(Filled::Complete)
        })
    }

    /// The work of [`Self::peek`] for `len` bytes, in bytes that are only copied: unpacking a byte costs twice that.
    pub fn peek_cost(&self, len: u64) -> u64 {
        match self.member.storage {
            Storage::Plain => len,
            Storage::Blocks { largest, .. } => 2 * (len + 2 * largest),
        }
    }

    /// Reads `out.len()` plain bytes of the member at `offset` without keeping anything.
    ///
    /// # Errors
    /// [`Error::Changed`] if the shard is not the one whose headers were read, [`Error::Malformed`] if a block is
    /// damaged, [`Error::Io`] if reading failed.
    pub fn peek(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let file = self.open()?;
        let file = &*file;
        let result = match self.member.storage {
            Storage::Plain => self.read(file, offset, out),
            Storage::Blocks { packed_len, table_crc, filter, .. } => {
                self.peek_blocks(file, &self.table(file, packed_len, table_crc, filter)?, filter, offset, out)
            }
        };
        self.check_unchanged(file)?;
        result
    }

    fn peek_blocks(
        &self,
        file: &dyn Stored,
        table: &SeekTable,
        filter: RowFilter,
        offset: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let wanted = offset..offset + out.len() as u64;
        Scratch::with(&self.path, |scratch| {
            let packed = scratch.frame_decoder().map_err(|error| self.no_memory(error))?;
            let mut plain = Vec::new();
            for (number, block) in table.covering(&wanted) {
                let len = to_usize(block.plain.end - block.plain.start);
                memory::resize(&mut plain, len).map_err(|error| self.no_memory(error))?;
                self.unpack(file, packed, (number, block), filter, &mut plain)?;
                let part = wanted.start.max(block.plain.start)..wanted.end.min(block.plain.end);
                let within = |base: u64, part: &Range<u64>| to_usize(part.start - base)..to_usize(part.end - base);
                out[within(offset, &part)].copy_from_slice(&plain[within(block.plain.start, &part)]);
            }
            Ok(())
        })
    }

    /// Reads and checks every byte of the member without keeping any, and returns their number. Plain bytes have no
    /// checksum to check.
    ///
    /// # Errors
    /// [`Error::Changed`] if the shard is not the one whose headers were read, [`Error::Malformed`] if a block is
    /// damaged, [`Error::Io`] if reading failed.
    pub fn check(&self) -> Result<u64> {
        struct Nowhere(Vec<u8>, u64);
        impl Sink for Nowhere {
            fn spare(&mut self) -> &mut [u8] {
                &mut self.0
            }
            fn publish(&mut self, len: usize) {
                self.1 += len as u64;
            }
            fn cancelled(&mut self) -> bool {
                false
            }
        }
        let largest = match self.member.storage {
            Storage::Plain => PIECE as u64,
            Storage::Blocks { largest, .. } => largest,
        };
        let buffer = memory::zeros(to_usize(largest)).map_err(|error| self.no_memory(error))?;
        let mut nowhere = Nowhere(buffer, 0);
        self.fill(&mut nowhere)?;
        Ok(nowhere.1)
    }

    fn unpack(
        &self,
        file: &dyn Stored,
        packed: &mut FrameDecoder,
        (number, block): (usize, &BlockEntry),
        filter: RowFilter,
        out: &mut [u8],
    ) -> Result<()> {
        let len = to_usize(block.packed.end - block.packed.start);
        let (frame, decoder) = packed.parts(len).map_err(|error| self.no_memory(error))?;
        self.read(file, block.packed.start, frame)?;
        decoder.decode(block, frame, filter, out).map_err(|reason| self.damaged(&format!("block {number}: {reason}")))
    }

    fn table(
        &self,
        file: &dyn Stored,
        packed_len: u64,
        table_crc: Option<u32>,
        filter: RowFilter,
    ) -> Result<SeekTable> {
        let read = |out: &mut [u8], at| file.read_exact_at(out, at).map_err(|error| read_error(&self.path, error));
        let table = read_table(&self.path, (self.member.offset, packed_len), filter.filter, read)?;
        if table.plain_len() != self.member.len || table.crc() != table_crc {
            return Err(self.planned_file().changed("a seek table in it differs: it holds other data"));
        }
        Ok(table)
    }

    fn read(&self, file: &dyn Stored, at: u64, out: &mut [u8]) -> Result<()> {
        file.read_exact_at(out, self.member.offset + at).map_err(|error| read_error(&self.path, error))
    }

    /// Opens the shard, and looks at its state as far as that is known: of an object, the first answer tells it.
    fn open(&self) -> Result<Box<dyn Stored>> {
        let file = self.store.open(&self.path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => self.planned_file().changed(GONE),
            _ => Error::io(&self.path, "open the shard", error),
        })?;
        self.check_unchanged(&*file).map(|()| file)
    }

    /// Whether the file is in the planned state, by its metadata: then so are its bytes. An object is not asked: what
    /// was kept of it is known by its size and `ETag`, and is right whatever has become of it.
    pub(super) fn is_as_planned(&self) -> bool {
        self.store.is_remote(&self.path)
            || self.store.open(&self.path).is_ok_and(|file| {
                let identity = file.identity().ok().flatten();
                identity.is_some_and(|found| matches!(self.planned_file().compare(&found), Ok(FileState::Planned)))
            })
    }

    fn check_unchanged(&self, file: &dyn Stored) -> Result<()> {
        let identity = file.identity().map_err(|error| Error::io(&self.path, "stat the shard", error))?;
        identity.map_or(Ok(()), |identity| self.check_state(self.planned_file().compare(&identity)?))
    }

    /// The bytes of the member in the shard file.
    fn stored_range(&self) -> Range<u64> {
        let len = match self.member.storage {
            Storage::Plain => self.member.len,
            Storage::Blocks { packed_len, .. } => packed_len,
        };
        self.member.offset..self.member.offset + len
    }

    /// The memory in bytes that [`Self::fill`] takes beside the volume: what is read ahead of a store over a network.
    /// What a block takes is the same for all volumes.
    pub fn scratch_bytes(&self) -> u64 {
        if self.store.is_remote(&self.path) { bytes_ahead(&self.stored_range()) } else { 0 }
    }

    /// Checks that checksums tell whether the bytes are the planned ones, if the metadata do not.
    fn check_state(&self, state: FileState) -> Result<()> {
        match (state, &self.member.storage) {
            (FileState::Planned, _) | (FileState::CtimeDiffers, Storage::Blocks { table_crc: Some(_), .. }) => Ok(()),
            (FileState::CtimeDiffers, Storage::Plain | Storage::Blocks { table_crc: None, .. }) => {
                Err(self.planned_file().changed(NO_CHECKSUM))
            }
        }
    }

    fn planned_file(&self) -> PlannedFile<'_> {
        let (path, file_id) = (&self.path, &self.member.file_id);
        PlannedFile { path, file_id }
    }

    fn damaged(&self, reason: &str) -> Error {
        damaged(&self.path, self.member.offset, reason)
    }

    fn no_memory(&self, error: std::io::Error) -> Error {
        Error::io(&self.path, "get memory to unpack a block", error)
    }
}

/// Reads the seek table of a compressed member that takes `packed_len` bytes at `offset` of the shard file and was
/// filtered so, by `read`, which reads as many bytes as it is given room for.
///
/// # Errors
/// [`Error::Malformed`] if the member has no sound seek table, and the errors of `read`.
pub fn read_table(
    path: &Path,
    (offset, packed_len): (u64, u64),
    filter: Filter,
    mut read: impl FnMut(&mut [u8], u64) -> Result<()>,
) -> Result<SeekTable> {
    let wrong = |reason: String| damaged(path, offset, &reason);
    let mut read = |out: &mut [u8]| read(out, offset + packed_len - out.len() as u64);
    // One read for most tables: that of a volume of 50 MB takes 2.4 KB.
    let mut end = memory::zeros(to_usize(packed_len.min(TABLE_GUESS)))
        .map_err(|error| Error::io(path, "get memory for the seek table", error))?;
    read(&mut end)?;
    let Some(footer) = end.last_chunk::<FOOTER>() else {
        return Err(wrong("it is too short for a seek table".into()));
    };
    let len = SeekTable::len_in(footer, packed_len).map_err(wrong)?;
    let mark = filter.mark_len();
    if let Some(before) = end.len().checked_sub(len) {
        return SeekTable::parse(&end[before..], packed_len, mark).map_err(wrong);
    }
    let table = memory::zeros(len);
    let mut table = table.map_err(|error| Error::io(path, "get memory for the seek table", error))?;
    read(&mut table)?;
    SeekTable::parse(&table, packed_len, mark).map_err(wrong)
}

/// Reads what the first bytes of a compressed member at `offset` of the shard file say about its filter, by `read`.
///
/// # Errors
/// [`Error::Malformed`] if they are damaged, and the errors of `read`.
pub fn read_filter(
    path: &Path,
    (offset, filter): (u64, Filter),
    table: &SeekTable,
    mut read: impl FnMut(&mut [u8], u64) -> Result<()>,
) -> Result<RowFilter> {
    let mut failed = None;
    let read = |head: &mut [u8; RowFilter::HEAD]| {
        read(head, offset).map_err(|error| {
            failed = Some(error);
            String::new()
        })
    };
    RowFilter::of_member(filter, table, read).map_err(|reason| failed.unwrap_or_else(|| damaged(path, offset, &reason)))
}

fn damaged(path: &Path, offset: u64, reason: &str) -> Error {
    Error::malformed(path, format!("compressed volume at byte {offset}: {reason}: the shard is damaged"))
}

fn read_error(path: &Path, error: std::io::Error) -> Error {
    let changed = |detail: &str| Error::Changed { path: path.to_owned(), detail: detail.to_owned() };
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::malformed(path, "the shard ends within a member: it is cut off"),
        ErrorKind::NotFound => changed(GONE),
        ErrorKind::StaleNetworkFileHandle => changed("it was replaced while it was read"),
        _ => Error::io(path, "read the shard", error),
    }
}
