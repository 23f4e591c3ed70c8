//! The dialects of arrays: what their values stand for, where no user says it.

use serde::{Deserialize, Serialize};

use super::axes::Axes;
use crate::formats::npz::{Array, Element};

/// The unit, spacing and axes of the arrays of a data set; the axes are height, width, depth unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Stored values or HU at the scanner's spacing (`data`).
    Native,
    /// HU, resampled and cropped (`volume`, 16-bit integers).
    Hu,
    /// HU / 1000, resampled, axes depth, height, width (`arr_0`, floats).
    Normalized,
}

impl Dialect {
    /// The dialect that the array's name and element type stand for; `None` if they stand for none.
    pub fn of(array: &Array) -> Option<Self> {
        use Element::{F16, F32, F64, I16};
        match (array.member.name.as_str(), array.header.element) {
            ("data", _) => Some(Self::Native),
            ("volume", I16) => Some(Self::Hu),
            ("arr_0", F16 | F32 | F64) => Some(Self::Normalized),
            _ => None,
        }
    }

    /// The order of the axes of its arrays.
    pub fn axes(self) -> Axes {
        if self == Self::Normalized { Axes::Dhw } else { Axes::Hwd }
    }
}
