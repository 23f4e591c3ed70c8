//! The folder of a disk cache: which one is taken, how it is made, and how it is known again.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::base::beneath::Folder;
use crate::base::mounts::{self, OWN_TABLE};
use crate::error::{Error, Result, shown};

/// The file by which the folder is known: programs that copy folders leave one with such a file out.
pub(super) const TAG: &str = "CACHEDIR.TAG";
/// What stands in it: the signature that those programs know, and whose cache it is.
const TAG_CONTENT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # Volumes that ctwds-fs keeps (mount --disk-cache). `ctwds-fs cache clear` removes them.\n";

/// Permissions of a folder that the user alone may look into.
const FOR_USER: u32 = 0o700;
/// Permissions of a file that the user alone may read.
const FILE_FOR_USER: u32 = 0o600;
/// The permissions by which others may write.
const OTHERS_WRITE: u32 = 0o022;

/// Types of file systems whose files are on other machines. With `fuse.` before it, a type is looked up as well.
const NETWORK: [&str; 35] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cephfs",
    "cifs",
    "coda",
    "curlftpfs",
    "davfs",
    "fhgfs",
    "gcsfuse",
    "glusterfs",
    "gpfs",
    "juicefs",
    "lustre",
    "moosefs",
    "mfs",
    "ncpfs",
    "nfs",
    "nfs4",
    "orangefs",
    "panfs",
    "pvfs2",
    "quobyte",
    "rclone",
    "s3fs",
    "seaweedfs",
    "smb3",
    "smbfs",
    "smbnetfs",
    "goofys",
    "sshfs",
    "vastfs",
    "wekafs",
    "mountpoint-s3",
];

/// An open folder of a disk cache.
#[derive(Debug)]
pub(super) struct Place {
    /// The folder's path, absolute and without links.
    pub(super) path: PathBuf,
    /// The folder.
    pub(super) folder: Folder,
}

/// A folder in which there must be no cache, and what it is, for messages.
pub type Forbidden<'a> = (&'static str, &'a Path);

impl Place {
    /// Opens the folder of a cache, and makes it if it is missing: for this user alone. It must be on a disk of this
    /// machine and outside of the `forbidden` folders.
    ///
    /// # Errors
    /// [`Error::Refused`] with the remedy if the folder cannot be a cache's; [`Error::Io`] if it cannot be made.
    pub(super) fn prepare(path: &Path, forbidden: &[Forbidden<'_>]) -> Result<Self> {
        let resolved = resolved(path)?;
        for (what, folder) in forbidden {
            if fs::canonicalize(folder).is_ok_and(|folder| resolved.starts_with(folder)) {
                let folder = folder.display();
                return Err(refused(path, &format!("it lies inside {what} {folder}; name a folder outside")));
            }
        }
        check_local(path, &resolved)?;
        let made = DirBuilder::new().recursive(true).mode(FOR_USER).create(&resolved);
        made.map_err(|error| Error::io(&resolved, "make the folder of the disk cache", error))?;
        let place = Self::open(path, resolved)?;
        match place.tag()? {
            Tag::Own => {}
            Tag::Missing if place.names()?.is_empty() => place.mark()?,
            Tag::Missing | Tag::Other => {
                let reason =
                    "it holds other files, and is no disk cache of this program; name a new or an empty folder";
                return Err(refused(path, reason));
            }
        }
        Ok(place)
    }

    /// Opens the folder of a cache that was made before.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is none; [`Error::Io`] if it cannot be opened.
    pub(super) fn existing(path: &Path) -> Result<Self> {
        let resolved = fs::canonicalize(path).map_err(|error| Error::io(path, "open the disk cache", error))?;
        let place = Self::open(path, resolved)?;
        match place.tag()? {
            Tag::Own => Ok(place),
            Tag::Missing | Tag::Other => {
                let reason = format!(
                    "no disk cache of this program (its file {TAG} is missing): nothing was changed; name the folder of \
                     `mount --disk-cache`"
                );
                Err(Error::Refused(format!("{}: {reason}", path.display())))
            }
        }
    }

    /// Opens a folder, and checks that nobody else may write in it.
    fn open(given: &Path, path: PathBuf) -> Result<Self> {
        let failed = |error| Error::io(&path, "open the disk cache", error);
        let folder = Folder::named(&path).map_err(failed)?;
        let metadata = fs::metadata(&path).map_err(failed)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            let reason = format!("it belongs to another user (uid {}); name a folder of your own", metadata.uid());
            return Err(refused(given, &reason));
        }
        if metadata.mode() & OTHERS_WRITE != 0 {
            let reason = format!("others may write in it; name another folder, or chmod go-w {}", shown(given));
            return Err(refused(given, &reason));
        }
        Ok(Self { path, folder })
    }

    fn names(&self) -> Result<Vec<std::ffi::OsString>> {
        self.folder.names().map_err(|error| Error::io(&self.path, "list the disk cache", error))
    }

    /// What the file says by which a cache is known.
    fn tag(&self) -> Result<Tag> {
        match self.folder.read(TAG) {
            Ok(content) if content == TAG_CONTENT.as_bytes() => Ok(Tag::Own),
            Ok(_) => Ok(Tag::Other),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Tag::Missing),
            Err(error) => Err(Error::io(&self.path.join(TAG), "read what marks a disk cache", error)),
        }
    }

    /// Writes the file by which the cache is known. Another daemon may do it at the same time, with the same content.
    fn mark(&self) -> Result<()> {
        let file = self.folder.open(TAG, OFlags::WRONLY | OFlags::CREATE, FILE_FOR_USER);
        file.and_then(|mut file| file.write_all(TAG_CONTENT.as_bytes()))
            .map_err(|error| Error::io(&self.path.join(TAG), "mark the disk cache", error))
    }
}

/// What the file says by which a cache is known.
enum Tag {
    Own,
    Other,
    Missing,
}

fn refused(path: &Path, reason: &str) -> Error {
    Error::Refused(format!("--disk-cache {}: {reason}", path.display()))
}

/// The path of a folder that may be missing, absolute and without links.
fn resolved(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| Error::io(path, "find the disk cache", error))?;
    for above in absolute.ancestors() {
        match fs::canonicalize(above) {
            Ok(found) if !found.is_dir() => return Err(refused(path, "it is no folder; name a new or an empty one")),
            // Joined one by one: with nothing to join, the path would get a slash at its end.
            Ok(found) => {
                let missing = absolute.strip_prefix(above).unwrap_or(Path::new(""));
                return Ok(missing.iter().fold(found, |path, name| path.join(name)));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(above, "find the disk cache", error)),
        }
    }
    Ok(absolute)
}

/// Refuses a folder on a file system of another machine. Where the mount table cannot be read, no folder is refused.
fn check_local(given: &Path, resolved: &Path) -> Result<()> {
    let mount = mounts::of_folder(Path::new(OWN_TABLE), resolved).ok().flatten();
    match mount.filter(|mount| is_network(&mount.fs_type)) {
        None => Ok(()),
        Some(mount) => {
            let reason = format!(
                "it lies on a network file system ({} of {}), from which a volume comes no faster than from its source; \
                 name a folder on a disk of this machine, or leave --disk-cache out",
                shown(&mount.fs_type),
                shown(&mount.source)
            );
            Err(refused(given, &reason))
        }
    }
}

/// Whether the files of a file system of this type are on other machines.
fn is_network(fs_type: &OsStr) -> bool {
    let name = fs_type.to_str().unwrap_or_default();
    let name = name.strip_prefix("fuse.").unwrap_or(name);
    NETWORK.contains(&name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_told_from_local_ones() {
        for name in ["nfs", "nfs4", "lustre", "cifs", "smb3", "ceph", "gpfs", "beegfs", "fuse.sshfs", "fuse.glusterfs"]
        {
            assert!(is_network(OsStr::new(name)), "{name}");
        }
        for name in ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs", "f2fs", ""] {
            assert!(!is_network(OsStr::new(name)), "{name}");
        }
        assert!(NETWORK.iter().all(|name| !name.starts_with("fuse.")));
    }

    #[test]
    fn a_folder_is_made_for_the_user_alone_and_known_again() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("new/cache");
        assert!(Place::existing(&path).is_err());
        let made = Place::prepare(&path, &[]).unwrap();
        assert_eq!(fs::metadata(&made.path).unwrap().mode() & 0o777, FOR_USER);
        for again in [Place::existing(&path).unwrap(), Place::prepare(&path, &[]).unwrap()] {
            assert_eq!(again.path.as_os_str(), fs::canonicalize(&path).unwrap().as_os_str());
        }
        assert_eq!(made.path.as_os_str(), fs::canonicalize(&path).unwrap().as_os_str());
        fs::write(path.join(TAG), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
        assert!(Place::existing(&path).unwrap_err().to_string().contains("no disk cache"));
        assert!(Place::prepare(&path, &[]).unwrap_err().to_string().contains("other files"));
    }

    #[test]
    fn other_folders_are_refused_and_left_as_they_are() {
        let above = tempfile::tempdir().unwrap();
        let says = |path: &Path, forbidden: &[Forbidden<'_>]| {
            Place::prepare(path, forbidden).map(|_| ()).unwrap_err().to_string()
        };
        let full = above.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("a.npz"), "").unwrap();
        assert!(says(&full, &[]).contains("other files"));
        assert!(!full.join(TAG).exists());
        assert!(says(&full.join("a.npz"), &[]).contains("no folder"));
        let open = above.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(says(&open, &[]).contains("chmod go-w"));
        let inside = full.join("below/cache");
        assert!(says(&inside, &[("the data folder", &full)]).contains("inside the data folder"));
        std::os::unix::fs::symlink(&full, above.path().join("link")).unwrap();
        let by_link = above.path().join("link/cache");
        assert!(says(&by_link, &[("the data folder", &full)]).contains("inside the data folder"));
        assert!(!full.join("below").exists() && !full.join("cache").exists());
        assert!(Place::prepare(&above.path().join("cache"), &[("the data folder", &full)]).is_ok());
    }
}
