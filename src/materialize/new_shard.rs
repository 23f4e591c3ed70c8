//! A shard that is being written: a file under a temporary name, or an upload.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use super::blocks::{AlignedBlock, BlockPool};
use crate::base::durable::PartialFile;
use crate::error::{Error, Result};
use crate::output::object_journal::ObjectJournal;
use crate::output::place::Place;
use crate::storage::Upload;

/// A shard that nobody sees before [`Self::publish`]. What was written of it is removed if it is dropped before.
pub(super) enum NewShard {
    /// On a disk.
    File(PartialFile),
    /// In a bucket.
    Object(NewObject),
}

/// An upload that goes on.
pub(super) struct NewObject {
    place: Place,
    name: String,
    upload: Box<dyn Upload>,
    len: u64,
}

/// A block that a request reads, and that goes back to its pool when the request has ended.
struct LentBlock {
    block: Option<AlignedBlock>,
    pool: Arc<BlockPool>,
}

impl AsRef<[u8]> for LentBlock {
    fn as_ref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], AlignedBlock::bytes)
    }
}

impl Drop for LentBlock {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.put(block);
        }
    }
}

impl NewShard {
    /// Begins an upload, and notes it in the journal before anything is sent.
    ///
    /// # Errors
    /// [`Error::Io`] if the storage refuses it; those of [`ObjectJournal::note_upload`].
    pub(super) fn upload(place: &Place, journal: &ObjectJournal, name: &str, len: u64) -> Result<Self> {
        let path = place.path().join(name);
        let failed = |error| Error::io(&path, "begin to upload the shard", error);
        let objects = place.objects().ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))?;
        let upload = objects.begin_upload(&path, len).map_err(failed)?;
        journal.note_upload(name, upload.id())?;
        Ok(Self::Object(NewObject { place: place.clone(), name: name.to_owned(), upload, len: 0 }))
    }

    /// Appends a block, which goes back to `pool` when it is written. Only the last one may be partly filled.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub(super) fn write(&mut self, mut block: AlignedBlock, pool: &Arc<BlockPool>) -> Result<()> {
        match self {
            Self::File(file) => {
                file.write(&mut block.memory, block.filled)?;
                pool.put(block);
                Ok(())
            }
            Self::Object(object) => {
                object.len += block.filled as u64;
                let bytes = Bytes::from_owner(LentBlock { block: Some(block), pool: pool.clone() });
                let written = object.upload.write(bytes);
                written.map_err(|error| failed(&object.place.path().join(&object.name), error))
            }
        }
    }

    /// Number of bytes written so far.
    pub(super) fn bytes_written(&self) -> u64 {
        match self {
            Self::File(file) => file.bytes_written(),
            Self::Object(object) => object.len,
        }
    }

    /// Makes the shard durable, and then appear under its name. `sha256` is what was written.
    ///
    /// # Errors
    /// Those of [`PartialFile::publish`]; [`Error::Io`] if the storage refuses it.
    pub(super) fn publish(self, sha256: &str, stop: &AtomicBool) -> Result<()> {
        let NewObject { place, name, upload, len } = match self {
            Self::File(file) => return file.publish(),
            Self::Object(object) => object,
        };
        let failed = |error| failed(&place.path().join(&name), error);
        match upload.finish() {
            Ok(()) => Ok(()),
            // The answer that it has ended may have been lost: then the object is there.
            Err(error) if may_be_given_up(&error) => match place.sha256(&name, len, stop) {
                Ok(found) if found == sha256 => Ok(()),
                _ => Err(failed(error)),
            },
            Err(error) => Err(failed(error)),
        }
    }
}

/// Whether a storage may say this of an upload that it does not know any more. Not all say that it is not there.
pub(super) fn may_be_given_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(path, "upload the shard (finished shards are kept: run the same command again)", error)
}
