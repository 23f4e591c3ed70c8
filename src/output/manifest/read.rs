//! Reading the manifest of a folder of shards.

use std::io;
use std::path::Path;

use super::{CompressionEntry, FILE, Manifest, NAME, SCHEMA_VERSION};
use crate::error::{Error, Result, later_version, shown};
use crate::formats::codec::{CODEC, Filter};
use crate::output::partition::Part;
use crate::output::place::Place;
use crate::storage::{Files, Store};

/// Reads the manifest of a folder of shards.
///
/// # Errors
/// [`Error::Refused`] if the folder has no manifest, [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if
/// the file is no manifest of this version.
pub fn read(folder: &Path) -> Result<Manifest> {
    read_in(&Files, folder)
}

/// Reads the manifest of an output folder.
///
/// # Errors
/// Those of [`read`].
pub fn read_at(place: &Place) -> Result<Manifest> {
    read_in(place.store(), place.path())
}

/// Reads the manifest of a folder of shards in a store.
///
/// # Errors
/// Those of [`read`].
pub fn read_in(store: &dyn Store, folder: &Path) -> Result<Manifest> {
    let path = folder.join(NAME);
    let text = store.read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if has_parts(store, folder) => Error::Refused(format!(
            "{0}: no {NAME} here, only those of parts; when all parts are finished, ctwds-fs manifest merge {0} joins them",
            folder.display()
        )),
        io::ErrorKind::NotFound => Error::Refused(format!(
            "{}: no {NAME} here; it is written last, so the folder is another one, or not finished: run the same \
             materialize again to finish it",
            folder.display()
        )),
        _ => Error::io(&path, "read the manifest", error),
    })?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| {
        let remedy = "the same materialize, or ctwds-fs manifest rebuild, writes it again";
        Error::malformed(&path, format!("not a manifest of ctwds-fs, or a damaged one ({error}); {remedy}"))
    })?;
    let version = manifest.schema_version;
    if version > SCHEMA_VERSION {
        return Err(Error::malformed(&path, later_version(format_args!("version {version} of the manifest"))));
    }
    if version != SCHEMA_VERSION {
        let reason = format!("a manifest of version {version}; this program knows {SCHEMA_VERSION}");
        return Err(Error::malformed(&path, reason));
    }
    match &manifest.compression {
        Some(CompressionEntry { codec, filter, .. }) if codec != CODEC || Filter::named(filter).is_none() => {
            let (codec, filter) = (shown(codec), shown(filter));
            Err(Error::malformed(&path, later_version(format_args!("its codec {codec} with the filter {filter}"))))
        }
        _ => Ok(manifest),
    }
}

/// Whether the folder has manifests of parts.
fn has_parts(store: &dyn Store, folder: &Path) -> bool {
    let listed = store.list(folder).unwrap_or_default();
    listed.iter().filter_map(|listed| Part::of_file(&listed.name, FILE)).any(|part| part != Part::WHOLE)
}
