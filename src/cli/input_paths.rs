//! The files and folders that name a data set, whoever names them: flags or the configuration of the training.

use std::path::PathBuf;

/// The files and folders of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputPaths {
    /// The folder of the volumes.
    pub data_folder: PathBuf,
    /// The files of the tables with the texts; the rows of several are appended, and there may be none.
    pub reports_files: Vec<PathBuf>,
    /// The files of the tables with rescaling and spacing.
    pub meta_files: Vec<PathBuf>,
    /// The files of the tables with a column for each class.
    pub labels_files: Vec<PathBuf>,
}

impl InputPaths {
    /// The data folder, and the files of reports, metadata and labels.
    pub fn new(data_folder: PathBuf, [reports_files, meta_files, labels_files]: [Vec<PathBuf>; 3]) -> Self {
        Self { data_folder, reports_files, meta_files, labels_files }
    }
}
