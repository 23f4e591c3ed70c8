//! The requests that write objects.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as ObjectKey;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};

use super::client::Client;
use super::network::Pending;
use super::{Over, reason};

impl Client {
    /// Writes an object whole, and answers with its `ETag`.
    pub(super) fn put(&self, key: ObjectKey, content: Vec<u8>, over: Over<'_>) -> Pending<io::Result<Option<String>>> {
        let mode = match over {
            Over::Nothing => PutMode::Create,
            Over::Only(tag) => PutMode::Update(UpdateVersion { e_tag: Some(tag.to_owned()), version: None }),
        };
        let service = self.service.objects.clone();
        self.network.ask(async move {
            let put = service.put_opts(&key, content.into(), mode.into()).await;
            put.map(|put| put.e_tag).map_err(|error| reason::of_writing(&error))
        })
    }

    /// Removes an object, if it is there.
    pub(super) fn remove(&self, key: ObjectKey) -> Pending<io::Result<()>> {
        let service = self.service.objects.clone();
        self.network.ask(async move {
            match service.delete(&key).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                ended => ended.map_err(|error| reason::of_writing(&error)),
            }
        })
    }

    /// Begins an upload in parts, and answers with its id.
    pub(super) fn begin_upload(&self, key: ObjectKey) -> io::Result<Pending<io::Result<String>>> {
        let service = self.uploads()?;
        Ok(self
            .network
            .ask(async move { service.create_multipart(&key).await.map_err(|error| reason::of_writing(&error)) }))
    }

    /// Sends a part of an upload, the number of which counts from 0 on.
    pub(super) fn send_part(
        &self,
        key: ObjectKey,
        id: String,
        number: usize,
        pieces: Vec<Bytes>,
    ) -> io::Result<Pending<io::Result<PartId>>> {
        let (service, payload) = (self.uploads()?, PutPayload::from_iter(pieces));
        Ok(self.network.ask(async move {
            service.put_part(&key, &id, number, payload).await.map_err(|error| reason::of_writing(&error))
        }))
    }

    /// Makes the object of all parts appear.
    pub(super) fn end_upload(
        &self,
        key: ObjectKey,
        id: String,
        parts: Vec<PartId>,
    ) -> io::Result<Pending<io::Result<()>>> {
        let service = self.uploads()?;
        Ok(self.network.ask(async move {
            service.complete_multipart(&key, &id, parts).await.map(drop).map_err(|error| reason::of_writing(&error))
        }))
    }

    /// Gives an upload up.
    pub(super) fn abort_upload(&self, key: ObjectKey, id: String) -> io::Result<Pending<io::Result<()>>> {
        let service = self.uploads()?;
        Ok(self
            .network
            .ask(async move { service.abort_multipart(&key, &id).await.map_err(|error| reason::of_writing(&error)) }))
    }

    fn uploads(&self) -> io::Result<Arc<dyn MultipartStore>> {
        let only_read = || io::Error::new(io::ErrorKind::Unsupported, "it can only be read");
        self.service.uploads.clone().ok_or_else(only_read)
    }
}
