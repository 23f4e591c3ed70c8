//! An entry of the list of left-out volumes.

use serde::{Deserialize, Serialize};

/// A volume that all tables know and that is left out of the data set; its slot stays empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftOut {
    /// The volume's position in the data set.
    pub slot: u32,
    /// The study id: the stem of the NPZ file's name.
    pub study_id: String,
    /// The NPZ file, relative to the data folder.
    pub path: String,
    /// The reason why the volume is left out.
    pub reason: String,
}
