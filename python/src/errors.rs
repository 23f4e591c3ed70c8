//! Errors of the program as exceptions of the package.

use ctwds_fs::error::Error;
use pyo3::prelude::*;

/// The class of `ctwds.errors` for an error.
fn class(error: &Error) -> &'static str {
    match error {
        Error::Usage(_) => "UsageError",
        Error::Malformed { .. } | Error::Table { .. } => "DamagedError",
        Error::Changed { .. } => "ChangedError",
        Error::Io { .. } | Error::System { .. } => "ReadError",
        Error::Refused(_) => "RefusedError",
        Error::Internal(_) | Error::Interrupted(_) | Error::NotFound | Error::ReadOnly => "Error",
    }
}

/// The exception for an error, with the error's text: file, reason and remedy.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let text = match error {
        Error::Usage(reason) => reason.clone(),
        other => other.to_string(),
    };
    exception(py, class(error), &text)
}

/// An exception of a class of `ctwds.errors`.
pub(crate) fn exception(py: Python<'_>, class: &str, text: &str) -> PyErr {
    let made = py.import("ctwds.errors").and_then(|errors| errors.getattr(class)?.call1((text,)));
    made.map_or_else(|error| error, PyErr::from_value)
}
