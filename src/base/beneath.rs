//! Files of a folder in which other users may have put something: no symbolic link is followed below the folder, and
//! nothing but a regular file is opened, so that no pipe makes a command wait.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, renameat, statat};
use rustix::io::Errno;

/// What is said of a link that is not followed.
const LINK: &str = "it is a symbolic link, and none is followed here; put what it leads to in its place";
/// Permissions of a folder, of which the user's umask takes some away.
pub const FOR_ALL: u32 = 0o777;
/// Permissions of a folder that the user alone may look into.
const FOR_USER: u32 = 0o700;

/// An open folder.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder that the user has named: links on the way to it are the user's, and are followed.
    ///
    /// # Errors
    /// The operating system's, if it is missing or no folder.
    pub fn named(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a folder that this user alone may look into; with `create`, it and its parents are made if they are
    /// missing. A folder of the user that is open to others is closed to them.
    ///
    /// # Errors
    /// Those of [`Self::named`] and [`Self::folder`], or that the folder belongs to another user.
    pub fn private(path: &Path, create: bool) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::other("it is no folder in another one"));
        };
        if create {
            DirBuilder::new().recursive(true).mode(FOR_USER).create(parent)?;
        }
        let parent = Self::named(parent)?;
        let folder = if create { parent.create_folder(name, FOR_USER)? } else { parent.folder(name)? };
        let stat = fstat(&folder.0)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("it belongs to another user (uid {})", stat.st_uid)));
        }
        if stat.st_mode & 0o077 != 0 {
            fchmod(&folder.0, Mode::from_raw_mode(FOR_USER))?;
        }
        Ok(folder)
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// The operating system's, if it is missing or no folder; that it is a link.
    pub fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = name.as_ref();
        openat(&self.0, name, flags, Mode::empty()).map(Self).map_err(|error| self.explained(name, error))
    }

    /// Opens a folder in this one, and makes it first if it is missing.
    ///
    /// # Errors
    /// As [`Self::folder`], or the operating system's.
    pub fn create_folder(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        match mkdirat(&self.0, name.as_ref(), Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => self.folder(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file of this folder; `mode` is for one that `flags` create.
    ///
    /// # Errors
    /// The operating system's; that it is a link, or no regular file.
    pub fn open(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: u32) -> io::Result<File> {
        let name = name.as_ref();
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.0, name, flags, Mode::from_raw_mode(mode));
        let file = File::from(file.map_err(|error| self.explained(name, error))?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
    }

    /// The content of a file of this folder.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(&self, name: impl AsRef<OsStr>) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open(name, OFlags::RDONLY, 0)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// The names in this folder, in no order.
    ///
    /// # Errors
    /// The operating system's.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = Dir::read_from(&self.0)?;
        let name = |name: &[u8]| (name != b"." && name != b"..").then(|| OsStr::from_bytes(name).to_owned());
        let names = entries.map(|entry| Ok(name(entry?.file_name().to_bytes())));
        names.filter_map(io::Result::transpose).collect()
    }

    /// The state of an entry; of a link itself.
    ///
    /// # Errors
    /// The operating system's.
    pub fn state(&self, name: impl AsRef<OsStr>) -> io::Result<Stat> {
        Ok(statat(&self.0, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Gives a file of this folder another name in it; a link of that name is replaced, and never what it leads to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(renameat(&self.0, from.as_ref(), &self.0, to.as_ref())?)
    }

    /// Removes a file, or a link itself.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name.as_ref(), AtFlags::empty())?)
    }

    /// Makes the names in this folder durable.
    ///
    /// # Errors
    /// The operating system's.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// The error of an entry; that of a link says so.
    fn explained(&self, name: &OsStr, error: Errno) -> io::Error {
        let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let may_be = matches!(error, Errno::LOOP | Errno::NOTDIR | Errno::MLINK);
        if may_be && self.state(name).is_ok_and(is_link) { io::Error::other(LINK) } else { error.into() }
    }
}

/// Opens the folder at a path below one that the user has named.
///
/// # Errors
/// As [`Folder::named`] and [`Folder::folder`].
pub fn folder(root: &Path, below: &Path) -> io::Result<Folder> {
    below.iter().try_fold(Folder::named(root)?, |folder, name| folder.folder(name))
}

/// The content of a file at a path below a folder that the user has named.
///
/// # Errors
/// As [`folder`] and [`Folder::open`].
pub fn read(root: &Path, below: &Path) -> io::Result<Vec<u8>> {
    let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
        return Err(io::Error::other("it is no file in a folder"));
    };
    folder(root, parent)?.read(name)
}

/// Whether there is a symbolic link of this path; false if that cannot be told.
pub fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}
