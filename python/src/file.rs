//! The volume of one file: of any format that the program reads.

use std::path::PathBuf;

use ctwds_fs::formats::npz::{Array, ArrayChoice, Channel};
use ctwds_fs::formats::volume_file;
use ctwds_fs::storage::Files;
use ctwds_fs::volume::{ArrayFormat, Filled, NpzVolume, Overflow, Recipe, Sink, VoxelFormat};
use numpy::PyReadwriteArray1;
use pyo3::prelude::*;

use crate::errors::{exception, raised};

/// A file whose header was read.
#[pyclass(frozen, module = "ctwds._native")]
pub(crate) struct VolumeFile {
    path: PathBuf,
    array: Array,
}

#[pymethods]
impl VolumeFile {
    /// Reads the header of a file. Of an NPZ file `array` names the array, of four axes `channel` one of its volumes.
    #[staticmethod]
    #[pyo3(signature = (path, array=None, channel=None))]
    fn inspected(py: Python<'_>, path: PathBuf, array: Option<String>, channel: Option<String>) -> PyResult<Self> {
        let channel: Option<Channel> = channel
            .map(|channel| channel.parse())
            .transpose()
            .map_err(|reason| exception(py, "UsageError", &format!("channel: {reason}")))?;
        let choice = ArrayChoice { name: array, channel, ..ArrayChoice::default() };
        let array = py.detach(|| volume_file::inspect(&path, &choice)).map_err(|error| raised(py, &error))?;
        Ok(Self { path, array })
    }

    /// The lengths of the three axes.
    #[getter]
    fn shape(&self) -> [u64; 3] {
        self.array.shape()
    }

    /// The dtype of the file's values, as NumPy spells it: little-endian.
    #[getter]
    fn descr(&self) -> String {
        ArrayFormat::Own(self.array.header.element).descr()
    }

    /// Fills `out` with all voxels in C order, of the file's dtype or as float16.
    fn read_into(&self, py: Python<'_>, as_float16: bool, mut out: PyReadwriteArray1<'_, u8>) -> PyResult<()> {
        let format = match as_float16 {
            true => ArrayFormat::Voxels(VoxelFormat::Float16),
            false => ArrayFormat::Own(self.array.header.element),
        };
        let (path, array, recipe) = (self.path.clone(), &self.array, &Recipe::Stored);
        let volume = NpzVolume { store: &Files, path, array, recipe, format, overflow: Overflow::default() };
        let out = out.as_slice_mut()?;
        if out.len() as u64 != volume.byte_len() {
            return Err(exception(py, "UsageError", "the array has another size than the volume"));
        }
        let filled = py.detach(|| volume.fill(&mut Memory { out, done: 0 }, true));
        match filled {
            Ok(Filled::Complete) => Ok(()),
            Ok(Filled::Cancelled) => Err(exception(py, "Error", "the read was stopped")),
            Err(error) => Err(raised(py, &error)),
        }
    }
}

/// The memory of a NumPy array as a volume's sink.
struct Memory<'a> {
    out: &'a mut [u8],
    done: usize,
}

impl Sink for Memory<'_> {
    fn spare(&mut self) -> &mut [u8] {
        &mut self.out[self.done..]
    }

    fn publish(&mut self, len: usize) {
        self.done += len;
    }

    fn cancelled(&mut self) -> bool {
        false
    }
}
