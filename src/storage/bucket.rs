//! A prefix in object storage as a store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::client::Client;
use super::object::Object;
use super::{Listed, ListedObject, StorageOptions, Store, Stored};
use crate::base::file_id::FileId;
use crate::base::lock::lock;
use crate::error::Result;

/// All objects whose addresses begin with that of one bucket, or of one folder of a web server.
#[derive(Debug)]
pub(super) struct Bucket {
    root: PathBuf,
    options: StorageOptions,
    client: Arc<Client>,
    /// What a process has that was forked: neither the thread nor open connections may be those of its parent. Never
    /// locked in the process that made this, so that a fork finds the lock free.
    forked: Mutex<Option<Arc<Client>>>,
}

impl Bucket {
    /// The store of an address. Makes no request.
    ///
    /// # Errors
    /// [`crate::error::Error::Refused`] if the address or the settings are none; [`crate::error::Error::System`] if
    /// the operating system gives no thread.
    pub(super) fn of(root: &Path, options: &StorageOptions) -> Result<Self> {
        let client = Arc::new(Client::new(root, options)?);
        Ok(Self { root: root.to_owned(), options: options.clone(), client, forked: Mutex::default() })
    }

    /// The client and the thread of this process.
    fn here(&self) -> io::Result<Arc<Client>> {
        if self.client.is_here() {
            return Ok(self.client.clone());
        }
        let mut forked = lock(&self.forked);
        if let Some(client) = forked.as_ref().filter(|client| client.is_here()) {
            return Ok(client.clone());
        }
        let client = Arc::new(Client::new(&self.root, &self.options).map_err(io::Error::other)?);
        std::mem::forget(forked.replace(client.clone())); // connections of another process, if there are any
        Ok(client)
    }
}

impl Store for Bucket {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Stored>> {
        let client = self.here()?;
        let key = client.key(path)?;
        Ok(Box::new(Object::new(client, key)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let client = self.here()?;
        let answer = client.get(client.key(path)?, None).wait()??;
        Ok(answer.pieces.concat())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let client = self.here()?;
        client.list(client.key(folder)?)
    }

    fn list_below(&self, folder: &Path) -> io::Result<Option<Vec<ListedObject>>> {
        let client = self.here()?;
        client.list_below(client.key(folder)?).map(Some)
    }

    fn identity_of(&self, path: &Path) -> io::Result<FileId> {
        let client = self.here()?;
        client.head(client.key(path)?).wait()?
    }

    fn is_remote(&self, _path: &Path) -> bool {
        true
    }
}
