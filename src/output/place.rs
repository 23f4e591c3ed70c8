//! The folder that shards are written to: on a disk, or a prefix in a bucket. What differs between the two is here, and
//! in the journals ([`super::part_lock`], [`super::object_journal`]).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::checksum;
use crate::base::{beneath, durable, files};
use crate::error::{Error, Result};
use crate::storage::{self, Objects, Over, StorageOptions, Store};

/// Attempts to write a small object over what is there, where others write it at the same time.
const ATTEMPTS: u32 = 8;

/// An output folder.
#[derive(Clone)]
pub struct Place {
    path: PathBuf,
    store: Arc<dyn Store>,
    guard: Option<Arc<dyn Guard>>,
}

/// Tells whether a run may still write to a folder in a bucket, where no lock keeps others out.
pub trait Guard: Send + Sync {
    /// Looks once more.
    ///
    /// # Errors
    /// [`Error::Refused`] if another run has taken the folder over; [`Error::Io`] if that cannot be told.
    fn check(&self) -> Result<()>;
}

impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(out)
    }
}

/// The files of a folder by their names: in a bucket with their sizes; on a disk, each is asked for its own only when
/// that is wanted, which takes its time where the disk is far away.
pub type Sizes = BTreeMap<String, Option<u64>>;

impl Place {
    /// A folder on a disk.
    pub fn on_disk(path: &Path) -> Self {
        Self { path: path.to_owned(), store: storage::local(), guard: None }
    }

    /// The folder of this path or address. Makes no request.
    ///
    /// # Errors
    /// Those of [`storage::of`]; [`Error::Refused`] for an address that can only be read.
    pub fn of(path: &Path, options: &StorageOptions) -> Result<Self> {
        let store = storage::of(path, options)?;
        if store.is_remote(path) && store.objects().is_none() {
            let reason = "a web server can only be read; write to s3://BUCKET/PREFIX, or to a folder";
            return Err(Error::Refused(format!("{}: {reason}", path.display())));
        }
        Ok(Self { path: path.to_owned(), store, guard: None })
    }

    /// The path, or the address.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy through which the folder is written to only as long as `guard` allows it.
    #[must_use]
    pub fn guarded_by(&self, guard: Arc<dyn Guard>) -> Self {
        Self { guard: Some(guard), ..self.clone() }
    }

    /// The store to which it belongs.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// A folder in this one.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        Self { path: self.path.join(name), ..self.clone() }
    }

    /// The way to write objects; `None` for a folder on a disk.
    pub fn objects(&self) -> Option<&dyn Objects> {
        self.store.objects()
    }

    /// The content of a file at a path below. On a disk, a link is not followed.
    ///
    /// # Errors
    /// The reason of the operating system or of the storage.
    pub fn read(&self, below: &Path) -> io::Result<Vec<u8>> {
        match self.objects() {
            None => beneath::read(&self.path, below),
            Some(_) => self.store.read(&self.path.join(below)),
        }
    }

    /// Reads a file at a path below; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`], in which `doing` says what was tried.
    pub fn read_if_there(&self, below: &Path, doing: &'static str) -> Result<Option<Vec<u8>>> {
        match self.read(below) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&self.path.join(below), doing, error)),
        }
    }

    /// The files of the folder, without those of folders in it on a bucket.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be listed.
    pub fn sizes(&self) -> Result<Sizes> {
        if self.objects().is_none() {
            return Ok(files::list(&self.path)?.iter().map(|path| (files::file_name(path), None)).collect());
        }
        let listed = self.store.list(&self.path).map_err(|error| Error::io(&self.path, "list the folder", error))?;
        Ok(listed.into_iter().map(|listed| (listed.name, listed.size.ok())).collect())
    }

    /// The size of a file of [`Self::sizes`]; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`] if the file system cannot tell.
    pub fn size(&self, sizes: &Sizes, name: &str) -> Result<Option<u64>> {
        match sizes.get(name) {
            None => Ok(None),
            Some(None) => files::size(&self.path.join(name)),
            Some(size) => Ok(*size),
        }
    }

    /// Writes a whole small file, atomically and durably; `name` is as for [`durable::publish`].
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written; [`Error::Refused`] as [`durable::publish`] and [`Guard::check`].
    pub fn publish(&self, name: &str, content: &[u8]) -> Result<()> {
        match self.objects() {
            None => durable::publish(&self.path, name, content),
            Some(objects) => self.put(objects, &self.path.join(name), content),
        }
    }

    /// Writes a small object over what was there when this run was known to have the folder: one that another run has
    /// written since then stays.
    fn put(&self, objects: &dyn Objects, path: &Path, content: &[u8]) -> Result<()> {
        let failed = |error| Error::io(path, "write the object", error);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let found = match objects.read_tagged(path) {
                Ok(found) if found.content == content => return Ok(()),
                Ok(found) => Some(found.tag),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(error)),
            };
            self.check()?;
            let over = found.as_deref().map_or(Over::Nothing, Over::Only);
            match objects.put(path, content.to_vec(), over) {
                // Another run's, or this one's, of which the answer was lost.
                Err(error) if is_other(&error) && attempt < ATTEMPTS => {}
                Err(error) => return Err(failed(error)),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Looks whether this run may still write.
    fn check(&self) -> Result<()> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.check())
    }

    /// Removes a file at a path below, if it is there. `doing` says in the error what was tried.
    ///
    /// # Errors
    /// [`Error::Io`] if the file is there and cannot be removed; [`Error::Refused`] as [`Guard::check`].
    pub fn remove(&self, below: &Path, doing: &'static str) -> Result<()> {
        let path = self.path.join(below);
        match self.objects() {
            None => files::remove(&path, doing),
            Some(objects) => {
                self.check()?;
                objects.remove(&path).map_err(|error| Error::io(&path, doing, error))
            }
        }
    }

    /// Whether the file at a path below is a symbolic link.
    pub fn is_link(&self, below: &Path) -> bool {
        self.objects().is_none() && beneath::is_link(&self.path.join(below))
    }

    /// Makes the names in the folder, or in one below it, durable; those in a bucket always are.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be synchronised.
    pub fn sync(&self, below: &Path) -> Result<()> {
        if self.objects().is_some() { Ok(()) } else { durable::sync_folder(&self.path.join(below)) }
    }

    /// The SHA-256 of a file of so many bytes, in hexadecimal. Once `stop` is set, only of the beginning of the file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn sha256(&self, name: &str, len: u64, stop: &AtomicBool) -> Result<String> {
        checksum::of_stored(&*self.store, &self.path.join(name), len, stop)
    }
}

/// Whether something else was there than a request wanted to write over.
fn is_other(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::StaleNetworkFileHandle)
}
