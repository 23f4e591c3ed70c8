//! Writing a volume: under a temporary name, and renamed when it is whole. Nothing waits for the disk: what a crash of
//! the machine leaves of a file, its checksums show.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::io::Errno;

use super::VolumeDigest;
use super::format::{BLOCK, Header, PAGE, PackedHeader, file_len, header_len};
use super::index::name_of;
use super::queue::Job;
use crate::base::beneath::Folder;
use crate::base::partial_name::Writer;
use crate::formats::codec::{Codec, Encoder, SeekTable};

/// Permissions of a file that the user alone may read: voxels are patient data.
const FOR_USER: u32 = 0o600;
/// Names that are tried for an unfinished file: two caches of one process may write the same volume at one time.
const ATTEMPTS: u32 = 16;

/// Writes a volume into the folder, packed with `codec` if there is one, and returns the size of its file in bytes;
/// `None` if `is_cancelled` was true between two blocks. Nothing is left of a file that did not become whole.
///
/// # Errors
/// The operating system's.
pub(super) fn write(
    folder: &Folder,
    job: &Job,
    codec: Option<Codec>,
    is_cancelled: impl FnMut() -> bool,
) -> io::Result<Option<u64>> {
    let digest = &job.digest;
    let name = name_of(digest);
    let (partial, file) = create(folder, &name)?;
    // The lock tells processes in other containers that the file is being written.
    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
    let written = match codec {
        None => write_plain(&file, digest, &job.volume, is_cancelled),
        Some(codec) => write_packed(&file, job, codec, is_cancelled),
    };
    let renamed = written.and_then(|written| match written {
        Some(bytes) => folder.rename(&partial, &name).map(|()| Some(bytes)),
        None => Ok(None),
    });
    if !matches!(renamed, Ok(Some(_))) {
        let _ = folder.remove(&partial); // what remains, the next daemon removes
    }
    renamed
}

/// Creates the file that becomes `name`, under a temporary name that nobody else uses.
fn create(folder: &Folder, name: &str) -> io::Result<(String, File)> {
    let writer = Writer::this_process();
    let mut attempt = 0;
    loop {
        let partial = writer.name(name, attempt);
        match folder.open(&partial, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, FOR_USER) {
            Ok(file) => return Ok((partial, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

fn write_plain(
    file: &File,
    digest: &VolumeDigest,
    volume: &[u8],
    mut is_cancelled: impl FnMut() -> bool,
) -> io::Result<Option<u64>> {
    let len = volume.len() as u64;
    // A disk without room says so before anything is written. Where this is not known, a write says so.
    if let Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) =
        fallocate(file, FallocateFlags::empty(), 0, file_len(len))
    {
        return Err(error.into());
    }
    let mut at = header_len(len) as u64;
    let mut crcs = Vec::with_capacity(volume.len().div_ceil(BLOCK));
    for block in volume.chunks(BLOCK) {
        if is_cancelled() {
            return Ok(None);
        }
        crcs.push(crc32fast::hash(block)); // which brings it into the processor's cache
        file.write_all_at(block, at)?;
        at += block.len() as u64;
    }
    file.write_all_at(&Header { digest: *digest, len, crcs }.to_bytes(), 0)?;
    Ok(Some(at))
}

/// As [`write_plain`], in frames with their seek table.
fn write_packed(
    file: &File,
    Job { digest, volume, filter }: &Job,
    codec: Codec,
    mut is_cancelled: impl FnMut() -> bool,
) -> io::Result<Option<u64>> {
    let (mut encoder, mut table, mut at) = (Encoder::new(codec)?, SeekTable::default(), PAGE as u64);
    let mut append = |bytes: &[u8]| {
        file.write_all_at(bytes, at)?;
        at += bytes.len() as u64;
        Ok::<_, io::Error>(at)
    };
    append(&filter.begin(&mut table))?;
    for block in volume.chunks(BLOCK) {
        if is_cancelled() {
            return Ok(None);
        }
        let frame = encoder.encode(block, *filter)?;
        table.push(&frame, block.len());
        append(&frame)?;
    }
    let end = append(&table.render())?;
    let (len, packed_len) = (volume.len() as u64, end - PAGE as u64);
    let header = PackedHeader { digest: *digest, len, packed_len, filter: filter.filter };
    file.write_all_at(&header.to_bytes(), 0)?;
    Ok(Some(end))
}
