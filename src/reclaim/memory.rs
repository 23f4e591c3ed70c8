//! Whether a folder of shards is in memory alone: such shards are gone with the next restart, and are no copy.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor, statfs};

use crate::base::mounts::{self, MountLine, OWN_TABLE};
use crate::error::{Error, Result};

/// File systems in memory, by the magic numbers of `linux/magic.h`.
const IN_MEMORY: [(u64, &str); 3] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x9584_58f6, "hugetlbfs")];
/// Beginnings of the names of block devices in memory.
const MEMORY_DEVICES: [&str; 3] = ["zram", "ram", "nullb"];
/// What lies on what (images in images, layers on layers) that is looked into.
const DEPTH: u32 = 8;

/// Refuses a folder that is in memory alone.
///
/// # Errors
/// [`Error::Refused`] if it is; [`Error::Io`] if the file system cannot tell.
pub(super) fn refuse(folder: &Path) -> Result<()> {
    match kind(folder, DEPTH)? {
        Some(kind) => Err(Error::Refused(format!(
            "{}: these shards are in memory ({kind}) and gone with the next restart, so no source file is removed for them; \
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
    if depth == 0 {
        return Ok(None);
    }
    let device = fs::metadata(path).map_err(|error| Error::io(path, "look at the folder", error))?.dev();
    let number = format!("{}:{}", major(device), minor(device));
    if let Ok(link) = fs::read_link(Path::new("/sys/dev/block").join(&number)) {
        return kind_of_device(&Path::new("/sys/dev/block").join(link), depth);
    }
    // Networks, layers, and file systems of several disks, have no block device of their own.
    let path = fs::canonicalize(path).map_err(|error| Error::io(path, "look at the folder", error))?;
    let mounts = mounts::read(Path::new(OWN_TABLE)).unwrap_or_default();
    let is_over = |mount: &MountLine| mount.device == number && path.starts_with(&mount.path);
    let Some(mount) = mounts.into_iter().rfind(is_over) else { return Ok(None) };
    for below in lies_on(&mount, &path) {
        let found = match below.strip_prefix("/dev") {
            Ok(name) => kind_of_device(&Path::new("/sys/class/block").join(name), depth)?,
            Err(_) if below.exists() => kind(&below, depth - 1)?, // layers of a container are not seen from inside
            Err(_) => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// What a file system without a block device of its own has the files of a folder in: the layers of an overlay, the
/// upper one first; the device of a file system of several; the folder below one that only changes what passes through.
fn lies_on(mount: &MountLine, folder: &Path) -> Vec<PathBuf> {
    let option = |name: &str| {
        let values = mount.options.split(|byte| *byte == b',');
        values.filter_map(|option| option.strip_prefix(name.as_bytes())).collect::<Vec<_>>()
    };
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let lower = [option("lowerdir="), option("lowerdir+=")].concat();
    let lower = lower.into_iter().flat_map(|layers| layers.split(|byte| *byte == b':'));
    let layers: Vec<PathBuf> = option("upperdir=").into_iter().chain(lower).map(path).collect();
    if layers.is_empty() {
        return Some(PathBuf::from(&mount.source)).filter(|source| source.is_absolute()).into_iter().collect();
    }
    let within = folder.strip_prefix(&mount.path).unwrap_or(Path::new(""));
    layers.into_iter().map(|layer| layer.join(within)).filter(|layer| layer.exists()).collect()
}

/// What memory a block device is in, by its folder in `/sys`: itself, the image behind it, the disk that it is a part
/// of, or one of those that it is mapped to.
fn kind_of_device(device: &Path, depth: u32) -> Result<Option<String>> {
    let Ok(device) = fs::canonicalize(device) else { return Ok(None) };
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if MEMORY_DEVICES.iter().any(|memory| name.starts_with(memory)) {
        return Ok(Some(name));
    }
    if depth == 0 {
        return Ok(None);
    }
    if let Ok(image) = fs::read_to_string(device.join("loop/backing_file"))
        && Path::new(image.trim_end()).exists()
    {
        return kind(Path::new(image.trim_end()), depth - 1);
    }
    let disk = device.join("partition").exists().then(|| device.parent().map(Path::to_owned)).flatten();
    let mapped = fs::read_dir(device.join("slaves")).into_iter().flatten().flatten().map(|entry| entry.path());
    for below in disk.into_iter().chain(mapped) {
        if let Some(found) = kind_of_device(&below, depth - 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
