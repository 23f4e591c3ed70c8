//! What is in the folder, as far as this process knows, and which volume was used least recently.
//!
//! Other daemons may write and remove files in the same folder. So the list is read again now and then, and whoever
//! opens a file of it is ready not to find it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FileType;

use super::VolumeDigest;
use crate::base::beneath::Folder;
use crate::base::file_id::FileId;
use crate::base::partial_name::PartialName;

/// End of a kept volume's file name, behind the digest in hexadecimal.
const SUFFIX: &str = ".volume";
/// A list that is older than this is read again before files are removed: other daemons may have removed some.
const STALE: Duration = Duration::from_secs(10);

/// The name of a volume's file.
pub(super) fn name_of(digest: &VolumeDigest) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex + SUFFIX
}

/// The digest in a file's name; `None` if it is not that of a kept volume.
pub(super) fn digest_in(name: &str) -> Option<VolumeDigest> {
    let hex = name.strip_suffix(SUFFIX)?.as_bytes();
    let mut digest = [0; 32];
    let (pairs, rest) = hex.as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (name_of(&digest) == name).then_some(digest)
}

/// A volume in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The size of the file in bytes.
    pub bytes: u64,
    /// When the volume was read or written last, in nanoseconds since 1970.
    pub used_ns: i128,
}

/// The files of the cache in a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The volumes.
    pub(super) kept: HashMap<VolumeDigest, Kept>,
    /// The names of unfinished files whose writers have ended.
    pub(super) left: Vec<String>,
    /// The number of entries that are none of the cache's.
    pub(super) foreign: usize,
}

impl Listing {
    /// Reads the names and sizes in a folder, whose path is `path`. Names in `known` are the cache's too.
    ///
    /// # Errors
    /// The operating system's, if the folder cannot be read.
    pub(super) fn read(folder: &Folder, path: &Path, known: &str) -> io::Result<Self> {
        let mut listing = Self::default();
        for name in folder.names()? {
            // A file that another daemon has removed since is none.
            let Ok(stat) = folder.state(&name) else { continue };
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            let text = name.to_str().filter(|_| is_file).unwrap_or_default();
            if let Some(digest) = digest_in(text) {
                let id = FileId::of_stat(&stat);
                listing.kept.insert(digest, Kept { bytes: id.size, used_ns: id.mtime_ns });
            } else if let Some(partial) = PartialName::parse(text).filter(|partial| digest_in(partial.output).is_some())
            {
                if partial.is_left(&path.join(text)) {
                    listing.left.push(text.to_owned());
                }
            } else if name != OsStr::new(known) {
                listing.foreign += 1;
            }
        }
        Ok(listing)
    }

    /// The bytes of all volumes.
    pub(super) fn bytes(&self) -> u64 {
        self.kept.values().map(|kept| kept.bytes).sum()
    }
}

/// The volumes in the folder, by their digests.
#[derive(Debug)]
pub(super) struct Index {
    kept: HashMap<VolumeDigest, Kept>,
    bytes: u64,
    read_at: Instant,
}

impl Index {
    /// The index of a folder that was just read.
    pub(super) fn new(listing: Listing) -> Self {
        Self { bytes: listing.bytes(), kept: listing.kept, read_at: Instant::now() }
    }

    /// Whether the folder was read so long ago that it should be read again before files are removed.
    pub(super) fn is_stale(&self) -> bool {
        self.read_at.elapsed() > STALE
    }

    /// Takes over what was read just now. A use that this process knows of counts also where the file's time does not
    /// show it.
    pub(super) fn renew(&mut self, mut listing: Listing) {
        for (digest, kept) in &mut listing.kept {
            if let Some(known) = self.kept.get(digest) {
                kept.used_ns = kept.used_ns.max(known.used_ns);
            }
        }
        *self = Self::new(listing);
    }

    /// Whether a volume is in the folder, as far as is known.
    pub(super) fn has(&self, digest: &VolumeDigest) -> bool {
        self.kept.contains_key(digest)
    }

    /// Notes a volume of this size, used now.
    pub(super) fn add(&mut self, digest: VolumeDigest, bytes: u64) {
        self.remove(&digest);
        self.kept.insert(digest, Kept { bytes, used_ns: now_ns() });
        self.bytes += bytes;
    }

    /// Notes that a volume is not in the folder any more, and returns the bytes that it had.
    pub(super) fn remove(&mut self, digest: &VolumeDigest) -> u64 {
        let bytes = self.kept.remove(digest).map_or(0, |kept| kept.bytes);
        self.bytes -= bytes;
        bytes
    }

    /// The volume that was used least recently.
    pub(super) fn oldest(&self) -> Option<VolumeDigest> {
        self.kept.iter().min_by_key(|(digest, kept)| (kept.used_ns, **digest)).map(|(digest, _)| *digest)
    }

    /// The bytes of all volumes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of volumes.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

/// The time in nanoseconds since 1970.
fn now_ns() -> i128 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(now.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_digests_and_others_are_none() {
        let digest: VolumeDigest = std::array::from_fn(|place| u8::try_from(place * 7).unwrap());
        let name = name_of(&digest);
        assert_eq!(digest_in(&name), Some(digest));
        let upper = name.to_uppercase().replace(".VOLUME", SUFFIX);
        for wrong in [&name[1..], &upper, "x.volume", ".volume", &name.replace(".volume", ""), "", &format!("+{name}")]
        {
            assert_eq!(digest_in(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let kept = |used_ns| Kept { bytes: 10, used_ns };
        let listing = |times: &[(u8, i128)]| Listing {
            kept: times.iter().map(|(number, used)| ([*number; 32], kept(*used))).collect(),
            ..Listing::default()
        };
        let mut index = Index::new(listing(&[(1, 5), (2, 3), (3, 9)]));
        assert_eq!((index.oldest(), index.bytes(), index.len()), (Some([2; 32]), 30, 3));
        index.add([2; 32], 12); // written again: used now
        assert_eq!((index.oldest(), index.bytes(), index.len()), (Some([1; 32]), 32, 3));
        index.remove(&[1; 32]);
        index.remove(&[1; 32]);
        assert_eq!((index.oldest(), index.bytes()), (Some([3; 32]), 22));
        // What this process knows to be used lately stays so, whatever the times of the files say.
        index.renew(listing(&[(2, 4), (3, 9), (4, 20)]));
        assert_eq!((index.oldest(), index.bytes(), index.has(&[1; 32])), (Some([3; 32]), 30, false));
    }
}
