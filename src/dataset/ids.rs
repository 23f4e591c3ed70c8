//! Ids of volumes as tables and files spell them.

use std::path::Path;

/// What tables and files write behind an id.
const SUFFIXES: [&str; 5] = [".nii.gz", ".nii", ".npz", ".npy", ".dcm"];

/// An id without the folders before it and the suffix behind it.
pub(super) fn bare(id: &str) -> &str {
    let name = id.rsplit(['/', '\\']).next().unwrap_or(id);
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// The study id in a volume's path: the stem of its file name. `None` if that is not UTF-8, which no table can name.
pub(super) fn study_id(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn one_suffix_and_all_folders_are_taken_off() {
        for id in ["v_1", "v_1.nii.gz", "v_1.nii", "v_1.npz", "v_1.npy", "v_1.dcm", "a/b/v_1.nii", "C:\\b\\v_1.dcm"] {
            assert_eq!(bare(id), "v_1");
        }
        assert_eq!(["v.1", "v.nii.npz", "v.gz", ""].map(bare), ["v.1", "v.nii", "v.gz", ""]);
    }
}
