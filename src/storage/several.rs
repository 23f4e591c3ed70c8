//! Several stores as one: each path is that of the store whose addresses begin as it does, or on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Files, Listed, ListedObject, Store, Stored, is_address};
use crate::base::file_id::FileId;

/// Files on disk, and the stores of some addresses. Nothing is added while it is read from: a fork finds no lock.
#[derive(Debug, Default)]
pub(super) struct Several(Vec<(PathBuf, Arc<dyn Store>)>);

impl Several {
    /// Whether an address is that of a store that was added.
    pub(super) fn has(&self, address: &Path) -> bool {
        self.0.iter().any(|(root, _)| address.starts_with(root))
    }

    /// Adds the store of all addresses that begin with `root`.
    pub(super) fn add(&mut self, root: PathBuf, store: Arc<dyn Store>) {
        self.0.push((root, store));
    }

    /// Whether there is no address.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, path: &Path) -> io::Result<&dyn Store> {
        if !is_address(path) {
            return Ok(&Files);
        }
        let found = self.0.iter().find(|(root, _)| path.starts_with(root));
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "it lies in a bucket that no flag names");
        found.map(|(_, store)| &**store).ok_or_else(none)
    }
}

impl Store for Several {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Stored>> {
        self.of(path)?.open(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.of(path)?.read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        self.of(folder)?.list(folder)
    }

    fn list_below(&self, folder: &Path) -> io::Result<Option<Vec<ListedObject>>> {
        self.of(folder)?.list_below(folder)
    }

    fn identity_of(&self, path: &Path) -> io::Result<FileId> {
        self.of(path)?.identity_of(path)
    }

    fn is_remote(&self, path: &Path) -> bool {
        is_address(path)
    }
}
