//! Volumes of compressed shards that Python has read, unpacked by the program's own decoder.

use ctwds_fs::formats::codec::{self, Decoder, Filter};
use numpy::{PyReadonlyArray1, PyReadwriteArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::exception;

/// Fills `out` with the plain bytes of a compressed member, whose values the filter of this name was applied to. Raises
/// ValueError if the member is damaged, without a file's name, which only the caller knows.
#[pyfunction]
pub(crate) fn unpack_member(
    py: Python<'_>,
    member: PyReadonlyArray1<'_, u8>,
    filter: &str,
    mut out: PyReadwriteArray1<'_, u8>,
) -> PyResult<()> {
    let filter = Filter::named(filter).ok_or_else(|| PyValueError::new_err(format!("there is no filter {filter}")))?;
    let mut decoder = Decoder::new().map_err(|error| exception(py, "ReadError", &format!("unpack: {error}")))?;
    let (member, out) = (member.as_slice()?, out.as_slice_mut()?);
    py.detach(|| codec::unpack(&mut decoder, member, filter, out)).map_err(PyValueError::new_err)
}
