//! The identity of a file in one state. Two identities that differ show that the file may have changed, without reading
//! it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// The identity of a file in one state: a file that was written again or replaced differs in one of the fields. Size,
/// modification time and inode number can all be the same afterwards (`touch -r`, `tar` that gets the freed inode): the
/// ctime cannot be set, and shows that too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// The file's size in bytes.
    pub size: u64,
    /// The modification time, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// The time of the last change of content or status (permissions, owner, links), in nanoseconds since 1970.
    pub ctime_ns: i128,
    /// The inode number.
    pub inode: u64,
}

impl FileId {
    /// The identity in a `stat` result of the standard library.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// The identity in a result of the `stat` system call.
    pub fn of_stat(stat: &rustix::fs::Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
        }
    }

    /// What stands for the `ETag` of an object, whose identity has no times; `None` for a file.
    pub fn tag(&self) -> Option<u64> {
        (self.mtime_ns == 0 && self.ctime_ns == 0).then_some(self.inode)
    }

    /// The later of modification time and ctime, in nanoseconds since 1970.
    pub fn latest_ns(&self) -> i128 {
        self.mtime_ns.max(self.ctime_ns)
    }

    /// Whether only the ctime differs from that of `other`: permissions or links changed, or the content under a
    /// modification time that was set back. Only the content itself tells which.
    pub fn differs_in_ctime_only(&self, other: &Self) -> bool {
        self.ctime_ns != other.ctime_ns && Self { ctime_ns: other.ctime_ns, ..*self } == *other
    }

    /// The first difference to `other`, as a phrase for a message; `None` if the two are equal.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.size != other.size {
            Some(format!("it had {} bytes, now {}", self.size, other.size))
        } else if self.mtime_ns != other.mtime_ns {
            Some("its modification time differs".into())
        } else if self.inode != other.inode {
            Some("it was replaced".into())
        } else if self.ctime_ns != other.ctime_ns {
            Some("its ctime differs: its content, permissions or links were changed".into())
        } else {
            None
        }
    }
}

fn nanoseconds(seconds: impl Into<i128>, rest: impl Into<i128>) -> i128 {
    seconds.into() * 1_000_000_000 + rest.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts_and_the_ctime_alone_is_told_apart() {
        let id = FileId { size: 1, mtime_ns: 2, ctime_ns: 3, inode: 4 };
        assert!(id.difference(&id).is_none() && !id.differs_in_ctime_only(&id));
        let others = [
            FileId { size: 9, ..id },
            FileId { mtime_ns: 9, ..id },
            FileId { inode: 9, ..id },
            FileId { ctime_ns: 9, inode: 9, ..id },
        ];
        for other in others {
            assert!(id.difference(&other).is_some() && !id.differs_in_ctime_only(&other), "{other:?}");
        }
        let other = FileId { ctime_ns: 9, ..id };
        assert!(id.difference(&other).is_some() && id.differs_in_ctime_only(&other));
        assert_eq!((id.latest_ns(), FileId { mtime_ns: 7, ..id }.latest_ns()), (3, 7));
    }

    #[test]
    fn both_kinds_of_stat_give_the_same_identity() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stat = rustix::fs::stat(file.path()).unwrap();
        let id = FileId::of(&file.as_file().metadata().unwrap());
        assert_eq!(id, FileId::of_stat(&stat));
        assert!(id.ctime_ns > 0);
    }
}
