//! The SHA-256 of a finished shard's file, read from the disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::base::files;
use crate::error::{Error, Result};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// The SHA-256 of the file at `path`, in hexadecimal. Once `stop` is set, only of the beginning of the file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn of_path(path: &Path, stop: &AtomicBool) -> Result<String> {
    let mut file = files::open(path).map_err(|error| Error::io(path, "read the finished shard", error))?;
    of_file(&mut file, path, stop, &|_| ())
}

/// The SHA-256 of the rest of an open file, in hexadecimal. `path` is for messages; `progress` gets the number of bytes
/// of each read. Once `stop` is set, only of the bytes that were read before.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn of_file(file: &mut File, path: &Path, stop: &AtomicBool, progress: &dyn Fn(u64)) -> Result<String> {
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    while !stop.load(Ordering::Relaxed) {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => {
                hasher.update(&piece[..len]);
                progress(len as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path, "read the finished shard", error)),
        }
    }
    Ok(format!("{:x}", hasher.finalize()))
}
