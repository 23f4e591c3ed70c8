//! A prefix in object storage as a store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use object_store::path::Path as ObjectKey;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use sha2::{Digest, Sha256};

use super::network::{Network, Pending};
use super::object::Object;
use super::{Listed, StorageOptions, Store, Stored, reason, settings};
use crate::base::file_id::FileId;
use crate::base::lock::lock;
use crate::error::Result;

/// All objects whose addresses begin with that of one bucket, or of one folder of a web server.
#[derive(Debug)]
pub(super) struct Bucket {
    root: PathBuf,
    options: StorageOptions,
    shared: Arc<Shared>,
    /// What a process has that was forked: neither the thread nor open connections may be those of its parent. Never
    /// locked in the process that made this, so that a fork finds the lock free.
    forked: Mutex<Option<Arc<Shared>>>,
}

/// The client, and the thread on which it runs.
#[derive(Debug)]
pub(super) struct Shared {
    client: Arc<dyn ObjectStore>,
    /// The part of every address before the object's key.
    before_keys: String,
    network: Network,
}

/// The bytes of one answer, in the pieces in which they came, and which object they are of.
pub(super) struct Answer {
    /// The identity of the object.
    pub(super) identity: FileId,
    /// The bytes.
    pub(super) pieces: Vec<bytes::Bytes>,
}

impl Answer {
    /// The number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl Bucket {
    /// The store of an address. Makes no request.
    ///
    /// # Errors
    /// [`crate::error::Error::Refused`] if the address or the settings are none; [`crate::error::Error::System`] if
    /// the operating system gives no thread.
    pub(super) fn of(root: &Path, options: &StorageOptions) -> Result<Self> {
        let shared = Arc::new(Shared::new(root, options)?);
        Ok(Self { root: root.to_owned(), options: options.clone(), shared, forked: Mutex::default() })
    }

    /// The client and the thread of this process.
    fn here(&self) -> io::Result<Arc<Shared>> {
        if self.shared.network.is_here() {
            return Ok(self.shared.clone());
        }
        let mut forked = lock(&self.forked);
        if let Some(shared) = forked.as_ref().filter(|shared| shared.network.is_here()) {
            return Ok(shared.clone());
        }
        let shared = Arc::new(Shared::new(&self.root, &self.options).map_err(io::Error::other)?);
        std::mem::forget(forked.replace(shared.clone())); // connections of another process, if there are any
        Ok(shared)
    }
}

impl Store for Bucket {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Stored>> {
        let shared = self.here()?;
        let key = shared.key(path)?;
        Ok(Box::new(Object::new(shared, key)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let shared = self.here()?;
        let answer = shared.get(shared.key(path)?, None).wait()??;
        Ok(answer.pieces.concat())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let shared = self.here()?;
        let (key, client) = (shared.key(folder)?, shared.client.clone());
        let listed = shared.network.ask(async move { client.list_with_delimiter(Some(&key)).await }).wait()?;
        let objects = listed.map_err(|error| reason::of(&error))?.objects;
        let listed = |object: &ObjectMeta| {
            let name = object.location.filename()?.to_owned();
            Some(Listed { name, size: Ok(object.size) })
        };
        Ok(objects.iter().filter_map(listed).collect())
    }

    fn is_remote(&self) -> bool {
        true
    }
}

impl Shared {
    fn new(root: &Path, options: &StorageOptions) -> Result<Self> {
        let (client, before_keys) = settings::client(settings::text(root)?, options)?;
        Ok(Self { client, before_keys, network: Network::start()? })
    }

    /// The key of an address: its characters as they are, none of them encoded.
    fn key(&self, address: &Path) -> io::Result<ObjectKey> {
        let wrong = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
        let text = address.to_str().ok_or_else(|| wrong("an address is UTF-8"))?;
        let key = text.strip_prefix(&self.before_keys).ok_or_else(|| wrong("it lies in another bucket"))?;
        ObjectKey::parse(key.trim_matches('/')).map_err(|error| wrong(&error.to_string()))
    }

    /// Asks for the bytes of an object, or for those in a range of it.
    pub(super) fn get(&self, key: ObjectKey, range: Option<std::ops::Range<u64>>) -> Pending<io::Result<Answer>> {
        let client = self.client.clone();
        self.network.ask(async move {
            let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
            get(&*client, &key, options).await.map_err(|error| reason::of(&error))
        })
    }
}

/// One request. The client asks again for the rest of a body that breaks off, only of the same `ETag`.
async fn get(client: &dyn ObjectStore, key: &ObjectKey, options: GetOptions) -> object_store::Result<Answer> {
    use futures_util::TryStreamExt;
    let result = client.get_opts(key, options).await?;
    let identity = identity(&result.meta);
    let pieces = result.into_stream().try_collect().await?;
    Ok(Answer { identity, pieces })
}

/// The identity of an object: its size, and 64 bits that stand for its `ETag`, or for its time where it has none.
fn identity(meta: &ObjectMeta) -> FileId {
    let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.timestamp().to_string());
    let digest = Sha256::digest(tag.as_bytes());
    let inode = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    FileId { size: meta.size, inode, ..FileId::default() }
}
