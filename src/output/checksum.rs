//! The SHA-256 of a finished shard, read from the disk or from a bucket.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::storage::Store;

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;
/// What is tried, for messages.
const DOING: &str = "read the finished shard";

/// The SHA-256 of a finished shard in a store, in hexadecimal. So many bytes are asked for ahead. Once `stop` is set,
/// only of the beginning of the file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn of_stored(store: &dyn Store, path: &Path, len: u64, stop: &AtomicBool) -> Result<String> {
    let failed = |error| Error::io(path, DOING, error);
    let stored = store.open(path).map_err(failed)?;
    stored.will_read(0..len);
    let (mut hasher, mut piece, mut offset) = (Sha256::new(), vec![0; PIECE], 0);
    while !stop.load(Ordering::Relaxed) {
        match stored.read_at(&mut piece, offset) {
            Ok(0) => break,
            Ok(len) => {
                hasher.update(&piece[..len]);
                offset += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(format!("{:x}", hasher.finalize()))
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
            Err(error) => return Err(Error::io(path, DOING, error)),
        }
    }
    Ok(format!("{:x}", hasher.finalize()))
}
