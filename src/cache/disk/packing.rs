//! When volumes are packed: all, where the user wants it; else where they have no room as they are, and processors
//! idle.
//!
//! The thread that writes is one of those that want a processor. As long as it gets one whenever it wants one, packing
//! takes no time from readers. So it is measured while it packs: if it had to wait, the next volumes are kept as they
//! are, then it is tried again.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::formats::codec::Codec;

/// The volumes that are kept as they are after one that had to wait for a processor.
const PLAIN: u32 = 8;

/// When volumes are packed.
#[derive(Debug)]
pub(super) struct Packing {
    /// Whether the user wants all volumes to be packed.
    always: bool,
    /// Whether they have no room as they are.
    lacks_room: AtomicBool,
    /// The volumes that are kept as they are before one is packed again.
    plain: AtomicU32,
}

/// What the kernel counts of a thread, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    worked: u64,
    waited: u64,
}

impl Packing {
    /// All volumes are packed; or, as long as nothing else is known, none.
    pub(super) fn new(always: bool) -> Self {
        Self { always, lacks_room: AtomicBool::new(false), plain: AtomicU32::new(0) }
    }

    /// Says whether the volumes that readers may ask for have no room together as they are.
    pub(super) fn set_lacks_room(&self, lacks_room: bool) {
        self.lacks_room.store(lacks_room, Ordering::Relaxed);
    }

    /// Keeps the next volume by `keep`, which is given its codec, if it is to be packed. `is_behind` says that many
    /// volumes wait: then there is no time to pack one.
    pub(super) fn with_codec<T>(&self, is_behind: bool, keep: impl FnOnce(Option<Codec>) -> T) -> T {
        if self.always || is_behind || !self.lacks_room.load(Ordering::Relaxed) {
            return keep(self.always.then_some(Codec::NEW));
        }
        let plain = self.plain.load(Ordering::Relaxed);
        let before = Times::of_this_thread().filter(|_| plain == 0);
        self.plain.store(plain.saturating_sub(1), Ordering::Relaxed);
        let Some(before) = before else { return keep(None) };
        let kept = keep(Some(Codec::NEW));
        if Times::of_this_thread().is_none_or(|now| now.is_busy_since(before)) {
            self.plain.store(PLAIN, Ordering::Relaxed);
        }
        kept
    }
}

impl Times {
    /// The times so far; `None` where the kernel counts none.
    fn of_this_thread() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().map(|field| field.parse().ok());
        let (worked, waited) = (fields.next()??, fields.next()??);
        Some(Self { worked, waited })
    }

    /// Whether the thread had to wait for a processor, for a fifth of the time it wanted one or more. As some kernels
    /// do not count, it is also true where nothing is known.
    fn is_busy_since(self, before: Self) -> bool {
        4 * self.waited.saturating_sub(before.waited) >= self.worked.saturating_sub(before.worked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_that_have_room_are_not_packed_and_the_users_word_holds() {
        assert_eq!(Packing::new(false).with_codec(false, |codec| codec), None);
        let always = Packing::new(true);
        always.set_lacks_room(true);
        always.plain.store(3, Ordering::Relaxed);
        assert_eq!(always.with_codec(true, |codec| codec), Some(Codec::NEW));
        assert_eq!(always.plain.load(Ordering::Relaxed), 3, "nothing is measured");
    }

    #[test]
    fn after_a_wait_some_are_kept_as_they_are() {
        let packing = Packing::new(false);
        packing.set_lacks_room(true);
        packing.plain.store(2, Ordering::Relaxed);
        let mut is_packed = |is_behind| packing.with_codec(is_behind, |codec| codec.is_some());
        assert_eq!(
            [false, true, false].map(&mut is_packed),
            [false; 3],
            "the one beside much that waits does not count"
        );
        let counts = Times::of_this_thread().is_some();
        assert_eq!(is_packed(false), counts, "where the kernel says who waited");
    }

    #[test]
    fn the_kernels_numbers_say_who_waited() {
        let times = |worked, waited| Times { worked, waited };
        assert!(!times(200, 30).is_busy_since(times(100, 10)));
        assert!(times(200, 35).is_busy_since(times(100, 10)));
        assert!(times(0, 0).is_busy_since(times(0, 0)), "of a kernel that does not count");
        assert!(Times::parse("812 7 3\n").is_some_and(|found| (found.worked, found.waited) == (812, 7)));
        assert!(["", "812", "812 -", "x 7"].iter().all(|line| Times::parse(line).is_none()));
    }
}
