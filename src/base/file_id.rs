//! The identity of a file in one state. Two identities that differ show that the file changed, without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// The identity of a file in one state: a file that was written again or replaced differs in one of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// The file's size in bytes.
    pub size: u64,
    /// The modification time, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// The inode number.
    pub inode: u64,
}

impl FileId {
    /// The identity in a `stat` result of the standard library.
    pub fn of(metadata: &Metadata) -> Self {
        let mtime_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Self { size: metadata.len(), mtime_ns, inode: metadata.ino() }
    }

    /// The identity in a result of the `stat` system call.
    pub fn of_stat(stat: &rustix::fs::Stat) -> Self {
        let mtime_ns = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        Self { size: u64::try_from(stat.st_size).unwrap_or(0), mtime_ns, inode: stat.st_ino }
    }

    /// The first difference to `other`, as a phrase for a message; `None` if the two are equal.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.size != other.size {
            Some(format!("it had {} bytes, now {}", self.size, other.size))
        } else if self.mtime_ns != other.mtime_ns {
            Some("its modification time differs".into())
        } else if self.inode != other.inode {
            Some("it was replaced".into())
        } else {
            None
        }
    }
}
