//! Whether a storage has stopped to answer.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Sources in a row, at least, that did not come in time before no further one is asked for.
const LEAST: usize = 4;

/// Counts the sources in a row that did not come in time. Each of them was waited for as long as the user wanted; to
/// wait so long for all others of a data set, whose storage is gone, could take days.
#[derive(Debug)]
pub struct Silence {
    in_row: AtomicUsize,
    enough: usize,
}

impl Silence {
    /// Nothing so far, with so many threads: of one failure of the network, each of them sees one.
    pub fn new(threads: usize) -> Self {
        Self { in_row: AtomicUsize::new(0), enough: threads.max(LEAST) }
    }

    /// Whether so many sources did not come that no further one is worth the time.
    pub fn is_long(&self) -> bool {
        self.in_row.load(Ordering::Relaxed) >= self.enough
    }

    /// Counts a source; one that came, or was refused, ends the silence.
    pub fn count(&self, is_late: bool) {
        if !is_late {
            self.in_row.store(0, Ordering::Relaxed);
        } else if !self.is_long() {
            self.in_row.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_it() {
        let silence = Silence::new(1);
        for is_late in [true, true, true, false, true, true, true] {
            silence.count(is_late);
            assert!(!silence.is_long());
        }
        silence.count(true);
        assert!(silence.is_long());
    }
}
