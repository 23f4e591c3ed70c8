//! What a scan reports while it goes on: with two milliseconds a file, 47,000 files take minutes.

use std::fmt;
use std::sync::Arc;

/// A display of the progress of a scan.
pub trait ScanObserver: Send + Sync {
    /// The scan begins to look at `count` files, or at as many as it finds; `what` names the work, such as "volumes
    /// looked into".
    fn begin(&self, what: &'static str, count: Option<usize>);
    /// The scan has looked at `count` more files.
    fn seen(&self, count: usize);
    /// The scan is over, and messages follow.
    fn end(&self);
}

/// The display that a scan reports to, if there is one.
#[derive(Clone, Default)]
pub struct ScanProgress(Option<Arc<dyn ScanObserver>>);

impl ScanProgress {
    /// Reports to a display.
    pub fn to(observer: Arc<dyn ScanObserver>) -> Self {
        Self(Some(observer))
    }

    /// Says that work begins: see [`ScanObserver::begin`].
    pub fn begin(&self, what: &'static str, count: Option<usize>) {
        if let Some(observer) = &self.0 {
            observer.begin(what, count);
        }
    }

    /// Says that `count` more files were looked at.
    pub fn seen(&self, count: usize) {
        if let Some(observer) = &self.0 {
            observer.seen(count);
        }
    }

    /// Says that the scan is over, before messages that a display must not be in the way of.
    pub fn end(&self) {
        if let Some(observer) = &self.0 {
            observer.end();
        }
    }
}

impl fmt::Debug for ScanProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ScanProgress(shown)" } else { "ScanProgress(silent)" })
    }
}
