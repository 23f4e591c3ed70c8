//! The store in which a data set lies, by the paths that name it.

use std::path::PathBuf;
use std::sync::Arc;

use super::input_paths::InputPaths;
use crate::dataset::{ExtraChoice, ExtraPlace};
use crate::error::{Error, Result, shown};
use crate::storage::{self, StorageOptions, Store, is_address};

/// The end of a message about an address where a disk is wanted.
pub(super) const ON_A_DISK: &str = "it must be on a disk; of object storage, data sets are read by plan, mount, run, cat, \
    materialize, report, verify and bench, finished shards by --shards of plan, mount, run, cat, materialize, report and \
    verify, and shards are written by --output_dir of materialize";

/// The store in which a data set lies: a disk, or the buckets that its paths name, if `storage` says how these are
/// asked. Besides tables and folders there may be `lists` of studies.
///
/// # Errors
/// [`Error::Usage`] for an address where there is no `storage`; the errors of [`storage::of_all`].
pub(super) fn store(
    paths: &InputPaths,
    lists: [&Option<PathBuf>; 2],
    extras: &[ExtraChoice],
    storage: Option<&StorageOptions>,
) -> Result<Arc<dyn Store>> {
    let InputPaths { data_folder, reports_files, meta_files, labels_files } = paths;
    let tables = [reports_files, meta_files, labels_files].into_iter().flatten();
    let extras = extras.iter().filter_map(|extra| match &extra.place {
        ExtraPlace::Array(_) => None,
        ExtraPlace::Files { folder, .. } => Some(folder),
    });
    let all = tables.chain(lists.into_iter().flatten()).chain(extras).chain([data_folder]).map(PathBuf::as_path);
    match (storage, all.clone().find(|path| is_address(path))) {
        (Some(storage), _) => storage::of_all(all, storage),
        (None, None) => Ok(storage::local()),
        (None, Some(address)) => Err(Error::Usage(format!("{}: {}", shown(address), ON_A_DISK))),
    }
}
