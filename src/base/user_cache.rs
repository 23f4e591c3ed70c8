//! Files of the user's cache folder: what took long to find out and can be found out again.
//!
//! They change no result. A file counts only for the program that wrote it, to the byte, and only whole; whatever is
//! wrong with it means that it is not there, and one that cannot be written is no error.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::beneath::Folder;
use super::file_id::FileId;
use super::files::file_name;
use super::partial_name::Writer;

/// A file that was written less than this before a look at it may be written again within the same time stamp.
const SETTLED: Duration = Duration::from_secs(2);
/// Permissions of a file that the user alone may read.
const FOR_USER: u32 = 0o600;

/// The latest modification time and ctime, in nanoseconds since 1970, that can be trusted to tell a change from now on.
pub fn settled_before() -> i128 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(now.saturating_sub(SETTLED).as_nanos()).unwrap_or(i128::MAX)
}

/// Reads what [`store`] wrote to `file`. `None` if the file is missing, damaged, written by another program, or in a
/// folder that is another user's: it decides what is made of the data.
pub fn load<T: DeserializeOwned>(file: &Path) -> Option<T> {
    let folder = Folder::private(file.parent()?, false).inspect_err(|error| not_used(file, error)).ok()?;
    let bytes = folder.read(file.file_name()?).ok()?;
    let (mark, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, content) = rest.split_first_chunk::<4>()?;
    let is_ours = *mark == program()? && u32::from_le_bytes(*crc) == crc32fast::hash(content);
    is_ours.then(|| postcard::from_bytes(content).ok())?
}

/// Writes `content` to `file`, whole or not at all, readable for the user only: study ids are patient data. A failure
/// is only logged, because the file can be done without. True if the file was written.
pub fn store(file: &Path, content: &impl Serialize) -> bool {
    write(file, content).inspect_err(|error| not_used(file, error)).is_ok()
}

fn not_used(file: &Path, error: &io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        log::debug!("{}: not used: {error}", file.display());
    }
}

fn write(file: &Path, content: &impl Serialize) -> io::Result<()> {
    let mark = program().ok_or_else(|| io::Error::other("the program's own file cannot be found"))?;
    let content = postcard::to_stdvec(content).map_err(io::Error::other)?;
    let folder = Folder::private(file.parent().unwrap_or(Path::new(".")), true)?;
    // Not by `base::durable`: a file that a crash loses is made again, and waiting for the disk would delay each start.
    // A name of its own for each process, of other hosts as well: they may share the folder.
    let name = file_name(file);
    let partial = Writer::this_process().name(&name, 0);
    let mut output = folder.open(&partial, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, FOR_USER)?;
    let written = output
        .write_all(&mark)
        .and_then(|()| output.write_all(&crc32fast::hash(&content).to_le_bytes()))
        .and_then(|()| output.write_all(&content))
        .and_then(|()| folder.rename(&partial, &name));
    if written.is_err() {
        let _ = folder.remove(&partial);
    }
    written
}

/// Identifies the running program: its version alone would not tell two builds of it apart, and the format has no names
/// by which a field that was added could be noticed.
fn program() -> Option<[u8; 8]> {
    // The file that runs, also where another one has taken its path while a plan was made.
    let file = fs::metadata("/proc/self/exe").ok()?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    let FileId { size, mtime_ns, ctime_ns, inode: _ } = FileId::of(&file);
    hasher.update(&mtime_ns.to_le_bytes());
    hasher.update(&ctime_ns.to_le_bytes()); // packages may be built with one time for all files
    let [a, b, c, d] = hasher.finalize().to_le_bytes();
    let [e, f, g, h, ..] = size.to_le_bytes();
    Some([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/file.bin");
        store(&file, &("text", 7u32));
        assert_eq!(load::<(String, u32)>(&file), Some(("text".into(), 7)));
        let right = fs::read(&file).unwrap();
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 4;
            fs::write(&file, &wrong).unwrap();
            assert_eq!(load::<(String, u32)>(&file), None, "byte {at} flipped");
            fs::write(&file, &right[..at]).unwrap();
            assert_eq!(load::<(String, u32)>(&file), None, "cut at {at}");
        }
    }
}
