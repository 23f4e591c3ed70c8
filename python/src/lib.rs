//! The extension module `ctwds._native`: plans, and the decoders behind them, for the Python package. It calls the
//! waist and the decoders of `ctwds_fs`, and makes no byte by itself.

mod errors;
mod file;
mod packed;
mod shards;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use super::*;

    #[pymodule_export]
    use super::file::VolumeFile;
    #[pymodule_export]
    use super::packed::unpack_member;
    #[pymodule_export]
    use super::shards::{Decoders, Shards};

    /// The number of processors that this process may use.
    #[pyfunction]
    fn available_cores() -> usize {
        ctwds_fs::base::parallel::available_cores()
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
