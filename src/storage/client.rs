//! The client of one bucket or web server, the thread on which it runs, and its requests.

use std::io;
use std::ops::Range;
use std::path::Path;

use futures_util::TryStreamExt;
use object_store::path::Path as ObjectKey;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use sha2::{Digest, Sha256};

use super::address::S3;
use super::network::{Network, Pending};
use super::settings::{self, Service};
use super::{Listed, ListedObject, StorageOptions, reason};
use crate::base::file_id::FileId;
use crate::error::Result;

/// The client, and the thread on which it runs.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) service: Service,
    pub(super) network: Network,
}

/// The bytes of one answer, in the pieces in which they came, and which object they are of.
pub(super) struct Answer {
    /// The identity of the object.
    pub(super) identity: FileId,
    /// The `ETag`, if the storage sent one.
    pub(super) tag: Option<String>,
    /// The bytes.
    pub(super) pieces: Vec<bytes::Bytes>,
}

impl Answer {
    /// The number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl Client {
    /// The client of an address. Makes no request.
    ///
    /// # Errors
    /// Those of [`super::of`].
    pub(super) fn new(root: &Path, options: &StorageOptions) -> Result<Self> {
        let service = settings::service(settings::text(root)?, options)?;
        Ok(Self { service, network: Network::start(options.stop.clone())? })
    }

    /// The key of an address: its characters as they are, none of them encoded.
    pub(super) fn key(&self, address: &Path) -> io::Result<ObjectKey> {
        let wrong = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
        let text = address.to_str().ok_or_else(|| wrong("an address is UTF-8"))?;
        let key = text.strip_prefix(&self.service.before_keys).ok_or_else(|| wrong("it lies in another bucket"))?;
        ObjectKey::parse(key.trim_matches('/')).map_err(|error| wrong(&error.to_string()))
    }

    /// Whether this process has the thread.
    pub(super) fn is_here(&self) -> bool {
        self.network.is_here()
    }

    /// What is under a prefix, up to the next slash.
    ///
    /// # Errors
    /// The reason of the storage; [`io::ErrorKind::Unsupported`] for a web server, which has no list that clients know.
    pub(super) fn list(&self, prefix: ObjectKey) -> io::Result<Vec<Listed>> {
        self.check_lists()?;
        let service = self.service.objects.clone();
        let listed = self.network.ask(async move { service.list_with_delimiter(Some(&prefix)).await }).wait()?;
        let objects = listed.map_err(|error| reason::of(&error))?.objects;
        let named = |object: &ObjectMeta| {
            let name = object.location.filename()?.to_owned();
            Some(Listed { name, size: Ok(object.size) })
        };
        Ok(objects.iter().filter_map(named).collect())
    }

    /// All objects below a prefix.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub(super) fn list_below(&self, prefix: ObjectKey) -> io::Result<Vec<ListedObject>> {
        self.check_lists()?;
        let (service, before) = (self.service.objects.clone(), prefix.clone());
        let listing = async move { service.list(Some(&before)).try_collect::<Vec<_>>().await };
        let listed = self.network.ask(listing).wait()?.map_err(|error| reason::of(&error))?;
        let below = |object: ObjectMeta| {
            let path = object.location.as_ref().strip_prefix(prefix.as_ref())?.trim_start_matches('/').into();
            let time = object.last_modified.timestamp_nanos_opt().unwrap_or(0).into();
            let mtime_ns = if object.e_tag.is_some() { 0 } else { time };
            Some(ListedObject { path, identity: FileId { mtime_ns, ..identity(&object) } })
        };
        Ok(listed.into_iter().filter_map(below).collect())
    }

    fn check_lists(&self) -> io::Result<()> {
        if self.service.before_keys.starts_with(S3) {
            return Ok(());
        }
        let reason = "a web server does not list its files; mount them, and give the mountpoint";
        Err(io::Error::new(io::ErrorKind::Unsupported, reason))
    }

    /// Asks for the identity of an object, and for its `ETag`.
    pub(super) fn head(&self, key: ObjectKey) -> Pending<io::Result<(FileId, Option<String>)>> {
        let service = self.service.objects.clone();
        self.network.ask(async move {
            let options = GetOptions { head: true, ..GetOptions::default() };
            let answer = service.get_opts(&key, options).await.map_err(|error| reason::of(&error))?;
            Ok((identity(&answer.meta), answer.meta.e_tag.clone()))
        })
    }

    /// Asks for the bytes of an object, or for those in a range of it.
    pub(super) fn get(&self, key: ObjectKey, range: Option<Range<u64>>) -> Pending<io::Result<Answer>> {
        let service = self.service.objects.clone();
        self.network.ask(async move {
            let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
            get(&*service, &key, options).await.map_err(|error| reason::of(&error))
        })
    }
}

/// One request. The client asks again for the rest of a body that breaks off, only of the same `ETag`.
async fn get(service: &dyn ObjectStore, key: &ObjectKey, options: GetOptions) -> object_store::Result<Answer> {
    let result = service.get_opts(key, options).await?;
    let (identity, tag) = (identity(&result.meta), result.meta.e_tag.clone());
    let pieces = result.into_stream().try_collect().await?;
    Ok(Answer { identity, tag, pieces })
}

/// The identity of an object: its size, and 64 bits that stand for its `ETag`, or for its time where it has none.
fn identity(meta: &ObjectMeta) -> FileId {
    let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.timestamp().to_string());
    let digest = Sha256::digest(tag.as_bytes());
    let inode = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    FileId { size: meta.size, inode, ..FileId::default() }
}
