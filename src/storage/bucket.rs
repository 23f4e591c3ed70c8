//! A prefix in object storage as a store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::client::Client;
use super::object::Object;
use super::upload::PartsUpload;
use super::{Listed, ListedObject, Objects, Over, StorageOptions, Store, Stored, Tagged, Upload};
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
        Ok(client.head(client.key(path)?).wait()??.0)
    }

    fn is_remote(&self, _path: &Path) -> bool {
        true
    }

    fn objects(&self) -> Option<&dyn Objects> {
        self.client.service.uploads.as_ref().map(|_| self as _)
    }
}

impl Objects for Bucket {
    fn timeout(&self) -> Duration {
        self.options.timeout
    }

    fn read_tagged(&self, path: &Path) -> io::Result<Tagged> {
        let client = self.here()?;
        let answer = client.get(client.key(path)?, None).wait()??;
        let tag = answer.tag.ok_or_else(|| io::Error::other("the storage gives it no ETag"))?;
        Ok(Tagged { content: answer.pieces.concat(), tag })
    }

    fn has_tag(&self, path: &Path, tag: &str) -> io::Result<bool> {
        let client = self.here()?;
        Ok(client.head(client.key(path)?).wait()??.1.as_deref() == Some(tag))
    }

    fn put(&self, path: &Path, content: Vec<u8>, over: Over<'_>) -> io::Result<Option<String>> {
        let client = self.here()?;
        client.put(client.key(path)?, content, over).wait()?
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let client = self.here()?;
        client.remove(client.key(path)?).wait()?
    }

    fn begin_upload(&self, path: &Path, len: u64) -> io::Result<Box<dyn Upload>> {
        let client = self.here()?;
        let key = client.key(path)?;
        Ok(Box::new(PartsUpload::begin(client, key, len)?))
    }

    fn abort_upload(&self, path: &Path, id: &str) -> io::Result<()> {
        let client = self.here()?;
        match client.abort_upload(client.key(path)?, id.to_owned())?.wait()? {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            ended => ended,
        }
    }
}
