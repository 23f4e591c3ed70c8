//! Ids of volumes as tables and files spell them.

use std::ffi::OsStr;
use std::path::Path;

use crate::formats::volume_file;

/// What tables and files write behind an id.
const SUFFIXES: [&str; 5] = [".nii.gz", ".nii", ".npz", ".npy", ".dcm"];

/// An id without the folders before it and the suffix behind it.
pub(super) fn bare(id: &str) -> &str {
    let name = id.rsplit(['/', '\\']).next().unwrap_or(id);
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// The name of a volume's file without its suffix.
pub(super) fn stem(path: &Path) -> Option<&OsStr> {
    let name = path.file_name()?;
    volume_file::split(name).map_or_else(|| path.file_stem(), |(stem, _)| Some(stem))
}

/// The study id in a volume's path: the stem of its file name. `None` if that is not UTF-8, which no table can name.
pub(super) fn study_id(path: &Path) -> Option<&str> {
    stem(path)?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_suffix_and_all_folders_are_taken_off() {
        for id in ["v_1", "v_1.nii.gz", "v_1.nii", "v_1.npz", "v_1.npy", "v_1.dcm", "a/b/v_1.nii", "C:\\b\\v_1.dcm"] {
            assert_eq!(bare(id), "v_1");
        }
        assert_eq!(["v.1", "v.nii.npz", "v.gz", ""].map(bare), ["v.1", "v.nii", "v.gz", ""]);
    }

    #[test]
    fn files_have_their_ids_in_front_of_the_suffix() {
        let files = ["a/v_1.npz", "v_1.npy", "v_1.nii", "b/v_1.nii.gz"];
        assert!(files.iter().all(|file| study_id(Path::new(file)) == Some("v_1")));
        assert_eq!(study_id(Path::new("v.nii.npz")), Some("v.nii"));
    }
}
