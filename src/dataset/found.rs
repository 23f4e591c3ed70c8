//! The volumes that were found below a data folder, on a disk or in a bucket, and the choice among the depths at which
//! they lie.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::files::{FileChoice, Source};
use super::listing::Listing;
use crate::base::file_id::FileId;
use crate::error::{Error, Result, shown};

/// The number of folder depths that data sets use: `*.npz`, `*/*.npz`, `*/*/*.npz`.
pub(super) const DEPTHS: usize = 3;
/// The number of folder depths that are looked at where these have no volume.
pub(super) const MORE_DEPTHS: usize = 8;
/// The number of folder depths in which a pattern is looked for: links that lead in circles end somewhere.
pub(super) const PATTERN_DEPTHS: usize = 32;

/// The volumes that were found in a data folder.
#[derive(Debug)]
pub(super) struct FoundVolumes {
    /// The paths of the files relative to the data folder, sorted by their bytes.
    pub files: Vec<PathBuf>,
    /// The number of volumes at the depths that were not chosen.
    pub elsewhere: usize,
    /// The folders that were listed, relative to the data folder, and their states before.
    pub folders: Vec<(PathBuf, FileId)>,
    /// Whether the folders' states show every change: not where a symbolic link leads elsewhere, or to nothing yet.
    pub certain: bool,
    /// What the list of a bucket says; `None` of a disk.
    pub objects: Option<FoundObjects>,
}

/// What the list of a bucket says of volumes.
#[derive(Debug)]
pub(super) struct FoundObjects {
    /// The list as a whole.
    pub listing: Listing,
    /// The identities of the volumes in it, by their paths relative to the data folder.
    pub states: HashMap<PathBuf, FileId>,
}

impl FoundVolumes {
    /// The volumes of a list of files; no folder is listed.
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let files = sorted(files.to_vec());
        Self { files, elsewhere: 0, folders: Vec::new(), certain: false, objects: None }
    }
}

fn sorted(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    files
}

/// A data folder, for the messages about what is in it.
pub(super) struct InFolder<'a> {
    /// The folder.
    pub root: &'a Path,
    /// The format of the files that are volumes.
    pub source: Source,
    /// One of the files that are half of a NIfTI volume, which is not read.
    pub half: Option<PathBuf>,
}

impl InFolder<'_> {
    /// Takes the volumes of the depth that has the most, the deepest of equals, in the data set's order.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no volume.
    pub(super) fn fullest(&self, by_depth: &mut [Vec<PathBuf>]) -> Result<Vec<PathBuf>> {
        let chosen = (0..by_depth.len()).max_by_key(|depth| by_depth[*depth].len()); // the last of equals
        let files = chosen.map(|depth| sorted(std::mem::take(&mut by_depth[depth]))).unwrap_or_default();
        if files.is_empty() {
            return Err(Error::Refused(format!(
                "--data-folder {}: no {} found; looked for *.npz, *.npy, *.nii and *.nii.gz in the folder and in those \
                 below it, down to {MORE_DEPTHS} levels (without names that begin with a dot). Is this the folder that holds the \
                 volumes?{}",
                self.root.display(),
                self.source.files(),
                self.about_pairs()
            )));
        }
        Ok(files)
    }

    /// Takes the volumes of all depths that match a pattern, in the data set's order.
    ///
    /// # Errors
    /// [`Error::Refused`] if nothing matches one of the patterns.
    pub(super) fn matching(&self, by_depth: &mut Vec<Vec<PathBuf>>, choice: &FileChoice) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = std::mem::take(by_depth).into_iter().flatten().collect();
        for pattern in &choice.patterns {
            if !files.iter().any(|file| pattern.matches(file)) {
                return Err(Error::Refused(format!(
                    "--pattern '{}': no {} below {} matches; a pattern is relative to that folder, * stays within a \
                     name, and ** stands for any folders{}",
                    shown(&pattern.to_string()),
                    self.source.files(),
                    self.root.display(),
                    self.about_pairs()
                )));
            }
        }
        files.retain(|file| choice.patterns.iter().any(|pattern| pattern.matches(file)));
        Ok(sorted(files))
    }

    /// What a message adds where there are files that are half of a NIfTI volume.
    fn about_pairs(&self) -> String {
        self.half.as_deref().map_or_else(String::new, |half| {
            format!(
                "\n{}: pairs of .hdr and .img files are not read; make one file of each pair: python3 -c \"import nibabel, \
                 sys; nibabel.save(nibabel.load(sys.argv[1]), sys.argv[2])\" a.img a.nii.gz",
                shown(&self.root.join(half))
            )
        })
    }
}

/// Whether a name is that of a file that is half of a NIfTI volume, whose header and voxels are apart.
pub(super) fn is_half(name: &OsStr) -> bool {
    [".hdr", ".img", ".hdr.gz", ".img.gz"].iter().any(|suffix| name.as_bytes().ends_with(suffix.as_bytes()))
}
