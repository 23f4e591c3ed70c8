//! How long a reader that asks for nothing may keep a volume from others who wait for room.
//!
//! Where the kernel keeps what it was given, a reader that found the rest of its volume there asks for nothing more,
//! and cannot be told from one that pauses. The first such volume is given up soon; a reader that comes back for it was
//! not finished, and gets four times the patience from then on. So one that is slow in truth costs a few fills in all,
//! and one that is finished holds up nobody for long.

use std::collections::HashMap;
use std::time::Duration;

use super::resident::IDLE;
use super::{Key, ReaderId};

/// The first patience beside a kernel that keeps what it was given: requests of a reader that reads on come within a
/// few ms, and a fill takes about as long as this.
const BESIDE_KERNEL: Duration = Duration::from_millis(50);
/// The growth of the patience with a reader that came back for a volume.
const GROWTH: u32 = 4;

/// The patience with each reader.
pub(super) struct Patience {
    /// The patience with readers that lost no volume so far.
    usual: Duration,
    losers: HashMap<ReaderId, Loser>,
}

/// A reader that lost a volume which it was in the middle of.
struct Loser {
    /// The volume that the reader lost last, until it comes back for it.
    lost: Option<Key>,
    /// The patience with the reader from now on.
    patience: Duration,
}

impl Patience {
    /// The usual patience, [`IDLE`], with everybody.
    pub(super) fn new() -> Self {
        Self { usual: IDLE, losers: HashMap::new() }
    }

    /// Says that the kernel keeps what it was given.
    pub(super) fn kernel_keeps(&mut self) {
        self.usual = BESIDE_KERNEL;
    }

    /// The patience with a reader that asks for a volume.
    pub(super) fn with(&mut self, reader: ReaderId, key: Key) -> Duration {
        let Some(loser) = self.losers.get_mut(&reader) else { return self.usual };
        if loser.lost == Some(key) {
            loser.lost = None;
            loser.patience = IDLE.min(loser.patience * GROWTH);
        }
        loser.patience
    }

    /// Notes that a volume was given up which a reader was in the middle of, after this patience with it.
    pub(super) fn lost(&mut self, reader: ReaderId, key: Key, patience: Duration) {
        if patience < IDLE {
            self.losers.insert(reader, Loser { lost: Some(key), patience });
        }
    }

    /// Forgets a reader that has ended.
    pub(super) fn forget(&mut self, reader: ReaderId) {
        self.losers.remove(&reader);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use memmap2::MmapMut;

    use super::super::region::Size;
    use super::super::schedule::{Schedule, WorkerStep};
    use super::*;

    const LEN: usize = 16 * 4096;

    #[test]
    fn who_comes_back_for_a_volume_gets_more_patience() {
        let mut patience = Patience::new();
        assert_eq!(patience.with(1, 7), IDLE);
        patience.kernel_keeps();
        let mut last = patience.with(1, 7);
        assert!(last < IDLE);
        patience.lost(1, 7, last);
        assert_eq!(
            (patience.with(1, 8), patience.with(2, 7)),
            (last, last),
            "it asks for another volume; it is another"
        );
        for _ in 0..10 {
            let next = patience.with(1, 7);
            assert!(next > last || next == IDLE);
            assert_eq!(patience.with(1, 7), next, "it came back once");
            patience.lost(1, 7, next);
            last = next;
        }
        assert_eq!(last, IDLE);
        patience.forget(1);
        assert!(patience.with(1, 7) < IDLE);
    }

    /// A schedule with room for one volume, and its memory.
    struct OneVolume {
        schedule: Schedule<String>,
        memory: Option<MmapMut>,
        now: Instant,
    }

    impl OneVolume {
        fn new(beside_kernel: bool) -> Self {
            let mut schedule = Schedule::new(LEN, false);
            if beside_kernel {
                schedule.patience.kernel_keeps();
            }
            Self { schedule, memory: None, now: Instant::now() }
        }

        /// Fills a volume of which a reader asks for so many bytes, and says how long the reader waits for room.
        fn read(&mut self, key: Key, reader: u64, bytes: usize) -> Duration {
            let begin = self.now;
            self.schedule.want(key, Size { len: LEN, scratch: 0 }, Some(reader), bytes, self.now);
            loop {
                match self.schedule.next(self.now) {
                    WorkerStep::Wait(Some(until)) => self.now = until,
                    WorkerStep::Drop(_) => self.schedule.budget.put(self.memory.take().unwrap()),
                    WorkerStep::Fill(filled, entry, memory) => {
                        assert_eq!(filled, key);
                        self.memory = Some(memory.unwrap());
                        self.schedule.ended(key, &entry, true, self.now);
                        return self.now - begin;
                    }
                    _ => panic!("neither room nor a time to wait for"),
                }
            }
        }
    }

    #[test]
    fn a_volume_that_the_kernel_finished_holds_up_nobody_for_long() {
        for (beside_kernel, least, most) in [(false, 2000, 2000), (true, 20, 100)] {
            let mut cache = OneVolume::new(beside_kernel);
            cache.read(1, 1, LEN / 2); // and finds the rest elsewhere
            let wait = cache.read(2, 2, LEN);
            assert!((least..=most).contains(&wait.as_millis()), "{beside_kernel}: {wait:?}");
        }
    }

    #[test]
    fn a_reader_that_comes_back_is_waited_for() {
        let mut cache = OneVolume::new(true);
        let waits: Vec<Duration> = (0..6)
            .map(|_| {
                cache.read(1, 1, 1);
                cache.read(2, 2, LEN)
            })
            .collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]) && waits[5] == Duration::from_secs(2), "{waits:?}");
    }
}
