//! The manifest of a folder of shards, read.

use std::fs;
use std::io;
use std::path::Path;

use super::{Manifest, NAME, SCHEMA_VERSION};
use crate::error::{Error, Result};

/// The manifest in a folder of shards.
///
/// # Errors
/// [`Error::Refused`] if there is none, [`Error::Io`] if it cannot be read, [`Error::Malformed`] if it is no manifest of
/// this version.
pub fn read(folder: &Path) -> Result<Manifest> {
    let path = folder.join(NAME);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Refused(format!(
            "{}: no {NAME} here; it is written last, so the folder is another one, or not finished: run the same \
             materialize again to finish it",
            folder.display()
        )),
        _ => Error::io(&path, "read the manifest", error),
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| Error::malformed(&path, format!("not a manifest of ctwds-fs: {error}")))?;
    if manifest.schema_version != SCHEMA_VERSION {
        let reason = format!("a manifest of version {}; this program knows {SCHEMA_VERSION}", manifest.schema_version);
        return Err(Error::malformed(&path, reason));
    }
    Ok(manifest)
}
