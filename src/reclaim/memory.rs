//! Whether a folder of shards is in memory alone: such shards are gone with the next restart, and are no copy.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor, statfs};

use crate::error::{Error, Result};

/// File systems in memory, by the magic numbers of `linux/magic.h`.
const IN_MEMORY: [(u64, &str); 3] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x9584_58f6, "hugetlbfs")];
/// Beginnings of the names of block devices in memory.
const MEMORY_DEVICES: [&str; 2] = ["zram", "ram"];
/// Images in images that are looked into.
const DEPTH: u32 = 8;

/// Refuses a folder that is in memory alone.
///
/// # Errors
/// [`Error::Refused`] if it is; [`Error::Io`] if the file system cannot tell.
pub(super) fn refuse(folder: &Path) -> Result<()> {
    match kind(folder, DEPTH)? {
        Some(kind) => Err(Error::Refused(format!(
            "{}: these shards are in memory ({kind}) and gone with the next restart, so no NPZ file is removed for them; \
             materialize to a disk, and reclaim from there",
            folder.display()
        ))),
        None => Ok(()),
    }
}

/// What memory a path is in; `None` for a disk, a network, and what cannot be told.
fn kind(path: &Path, depth: u32) -> Result<Option<String>> {
    let stat = statfs(path).map_err(|error| Error::io(path, "ask for the kind of file system", error.into()))?;
    // The kernel's number has 32 bits, whatever the width and sign of the field are.
    let number = (i128::from(stat.f_type) & 0xffff_ffff).unsigned_abs();
    if let Some((_, name)) = IN_MEMORY.iter().find(|(magic, _)| u128::from(*magic) == number) {
        return Ok(Some((*name).to_owned()));
    }
    let device = fs::metadata(path).map_err(|error| Error::io(path, "look at the folder", error))?.dev();
    // Networks, and file systems of several disks, have no block device of their own.
    let link = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let Ok(link) = fs::read_link(&link).map(|name| Path::new("/sys/dev/block").join(name)) else { return Ok(None) };
    let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if MEMORY_DEVICES.iter().any(|memory| name.starts_with(memory)) {
        return Ok(Some(name));
    }
    match fs::read_to_string(link.join("loop/backing_file")) {
        Ok(image) if depth > 0 && Path::new(image.trim_end()).exists() => kind(Path::new(image.trim_end()), depth - 1),
        _ => Ok(None),
    }
}
