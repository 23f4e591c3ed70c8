//! The formats that others defined: reading NPZ and NIfTI files and their deflate streams, writing tar headers,
//! Python's JSON, compressed blocks, and digests. No module of this room knows samples or shards.
//!
//! One test module imports `crate::fuzzing`: the tests of [`inflate`] run the check of the fuzz target, so that unit
//! tests and fuzzer compare with zlib-ng by the same code.

pub mod codec;
pub mod gzip;
pub mod inflate;
pub mod nifti;
pub mod npz;
mod opened;
pub mod pyjson;
pub mod sha256;
pub mod tar;
pub mod volume_file;
