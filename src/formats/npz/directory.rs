//! The zip directory of an NPZ: which members there are and where their bytes lie.
//!
//! Scanning tens of thousands of files is bound by system calls, so every read fetches a window of the file and
//! later look-ups are served from it: a one-array NPZ costs two `pread`s, one at each end; in a bucket, two requests.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;

use rawzip::{CompressionMethod, ErrorKind, ReaderAt, ZipEntry, ZipFileHeaderRecord, ZipLocator};

use super::{Compression, ZipMember};
use crate::base::file_id::FileId;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::formats::opened;
use crate::storage::Stored;

/// Holds the directory and the first header of an ordinary NPZ (an entry takes about 100 bytes, a header 128).
const WINDOW: usize = 4096;
/// An end record can lie this far from the end: its own 22 bytes and a comment of at most 65,535.
const END_RECORD_REACH: u64 = 22 + 65_535;
/// The number of windows that are remembered: the directory's, and those of a few headers.
const MAX_WINDOWS: usize = 8;
/// A local header's name and extra fields; longer ones, of writers that align their data, are read again.
const USUAL_FIELDS: usize = 256;
/// NPZ files hold a handful of arrays; more than this is not a volume and would only cost memory.
const MAX_MEMBERS: usize = 10_000;

/// A file that is read through remembered windows. Remembers an I/O error, because the zip reader may drop it while it
/// tries several places.
pub(super) struct WindowedFile<'a> {
    file: &'a dyn Stored,
    len: u64,
    seen: RefCell<Vec<(u64, Vec<u8>)>>,
    failed: Cell<Option<io::Error>>,
}

impl<'a> WindowedFile<'a> {
    /// An open file, and its state before it was read. Of an object the first window is read, as it tells the state.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Malformed`] if it is no regular file.
    pub(super) fn open(path: &Path, file: &'a dyn Stored) -> Result<(Self, FileId)> {
        let mut seen = Vec::new();
        let state = match opened::state(path, file)? {
            Some(state) => state,
            None => {
                let mut head = vec![0; WINDOW];
                let len = file.read_at(&mut head, 0).map_err(|error| Error::io(path, "read the headers", error))?;
                head.truncate(len);
                seen.push((0, head));
                opened::state_when_read(path, file)?
            }
        };
        Ok((Self { file, len: state.size, seen: RefCell::new(seen), failed: Cell::new(None) }, state))
    }

    fn fetch(&self, offset: u64, len: usize) -> io::Result<(u64, Vec<u8>)> {
        let wanted = len.max(WINDOW) as u64;
        // At the end of the file, reach back: the directory lies before the end record.
        let start = if offset + wanted > self.len { offset.min(self.len.saturating_sub(wanted)) } else { offset };
        let mut bytes = vec![0; to_usize(wanted.min(self.len - start))];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok((start, bytes))
    }
}

impl ReaderAt for WindowedFile<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.len || buf.is_empty() {
            return Ok(0);
        }
        let copy = |(start, bytes): &(u64, Vec<u8>), buf: &mut [u8]| {
            let from = to_usize(offset.checked_sub(*start)?);
            let found = bytes.get(from..).filter(|found| !found.is_empty())?;
            let n = found.len().min(buf.len());
            buf[..n].copy_from_slice(&found[..n]);
            Some(n)
        };
        let mut seen = self.seen.borrow_mut();
        if let Some(n) = seen.iter().find_map(|window| copy(window, buf)) {
            return Ok(n);
        }
        match self.fetch(offset, buf.len()) {
            Ok(window) => {
                let n = copy(&window, buf).unwrap_or(0);
                if seen.len() == MAX_WINDOWS {
                    seen.remove(0);
                }
                seen.push(window);
                Ok(n)
            }
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.failed.set(Some(error));
                Err(copy)
            }
        }
    }
}

/// A member of the zip file that may hold an array.
pub(super) struct Listed {
    /// The name of the array: that of the member, without `.npy`.
    pub(super) name: String,
    /// Whether the name ends in `.npy`. NumPy reads an array under any name.
    pub(super) is_npy: bool,
    /// The member, or the reason why it cannot be read.
    pub(super) member: Result<ZipMember, String>,
}

/// The members of the zip file, in the directory's order.
///
/// # Errors
/// [`Error::Io`] if reading failed, [`Error::Malformed`] for anything that is not a sound zip directory.
pub(super) fn members(path: &Path, windows: &WindowedFile<'_>) -> Result<Vec<Listed>> {
    let result = read_directory(path, windows);
    match windows.failed.take() {
        // A file that became shorter while it was read is malformed; any other error is one of the storage.
        Some(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(Error::io(path, "read the zip directory", error))
        }
        _ => result,
    }
}

fn read_directory(path: &Path, windows: &WindowedFile<'_>) -> Result<Vec<Listed>> {
    let broken = |error: rawzip::Error| Error::malformed(path, format!("not a readable zip file: {error}"));
    let mut buffer = vec![0; WINDOW];
    let locator = ZipLocator::new().max_search_space(END_RECORD_REACH);
    let archive = locator.locate_in_reader(windows, &mut buffer, windows.len).map_err(|(_, error)| broken(error))?;
    let mut members = Vec::new();
    let mut entries = archive.entries(&mut buffer);
    let mut count = 0;
    while let Some(entry) = entries.next_entry().map_err(broken)? {
        count += 1;
        if count > MAX_MEMBERS {
            let reason = format!("the zip directory lists more than {MAX_MEMBERS} members, which is no volume file");
            return Err(Error::malformed(path, reason));
        }
        let name = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
        let located = archive.get_entry(entry.wayfinder()).map_err(broken)?;
        // The directory has no checksum: were `data` misspelled in it, another array of the file would be taken.
        let local = local_name(&located).map_err(broken)?;
        if local != entry.file_path().as_bytes() {
            let other = String::from_utf8_lossy(&local);
            let reason = format!("the zip directory says '{name}' where the file has '{other}': the file is damaged");
            return Err(Error::malformed(path, reason));
        }
        let (array, is_npy) = name.strip_suffix(".npy").map_or((&*name, false), |array| (array, true));
        let span = located.compressed_data_range();
        let found = match compression(array, &entry) {
            Ok(compression) => Ok(member(path, windows.len, array, compression, span, &entry)?),
            Err(reason) => Err(reason),
        };
        members.push(Listed { name: array.into(), is_npy, member: found });
    }
    let promised = archive.entries_hint();
    if promised != count as u64 {
        let reason = format!("the zip directory lists {count} members, its end record {promised}: the file is damaged");
        return Err(Error::malformed(path, reason));
    }
    Ok(members)
}

/// The compression of an array's member.
///
/// # Errors
/// The reason why the member cannot be read, with the remedy.
fn compression(array: &str, entry: &ZipFileHeaderRecord<'_>) -> Result<Compression, String> {
    if entry.flags().is_encrypted() {
        return Err(format!("array '{array}' is encrypted; write the file again without a password"));
    }
    match entry.compression_method() {
        CompressionMethod::STORE => Ok(Compression::Stored),
        CompressionMethod::DEFLATE => Ok(Compression::Deflated),
        other => {
            // The numbers are those of the zip specification (APPNOTE.TXT 6.3.10, 4.4.5).
            let name = match other.as_u16() {
                9 => "deflate64",
                12 => "bzip2",
                14 => "lzma",
                20 | 93 => "zstd",
                95 => "xz",
                _ => "an unknown method",
            };
            Err(format!(
                "array '{array}' is packed with {name} (zip compression method {}); stored and deflated arrays are \
                 read: write the file again with np.savez or np.savez_compressed",
                other.as_u16()
            ))
        }
    }
}

/// The name that stands before the member's bytes.
fn local_name<R: ReaderAt>(entry: &ZipEntry<'_, R>) -> Result<Vec<u8>, rawzip::Error> {
    let mut buffer = vec![0; USUAL_FIELDS];
    if let Err(error) = entry.local_header(&mut buffer)
        && let ErrorKind::BufferTooSmall { required } = error.kind()
    {
        buffer.resize(*required, 0); // at most 128 KiB
    }
    Ok(entry.local_header(&mut buffer)?.file_path().as_bytes().to_vec())
}

/// The description of a member whose bytes lie from `start` to `end` in a file of `file_len` bytes.
fn member(
    path: &Path,
    file_len: u64,
    array: &str,
    compression: Compression,
    (start, end): (u64, u64),
    entry: &ZipFileHeaderRecord<'_>,
) -> Result<ZipMember> {
    let (crc, len) = (entry.crc32(), entry.uncompressed_size_hint());
    if end > file_len {
        let reason = format!("the file is cut short: array '{array}' ends at byte {end}, the file has {file_len}");
        return Err(Error::malformed(path, reason));
    }
    if compression == Compression::Stored && end - start != len {
        return Err(Error::malformed(
            path,
            format!("the zip directory contradicts itself about the length of '{array}'"),
        ));
    }
    Ok(ZipMember { name: array.into(), compression, offset: start, packed_len: end - start, len, crc: Some(crc) })
}
