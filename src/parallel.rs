//! A scoped parallel map for work that waits on storage: more threads than cores are wanted.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Calls `work` for every item on up to `threads` threads; results come in the items' order.
/// After the first error no new item is begun, and that error is returned: the one of the earliest
/// item among those that ran, so that a message does not depend on scheduling more than it must.
pub fn try_map<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let run = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            match work(item) {
                Ok(result) => done.push((index, result)),
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    let mut slot = failed.lock().unwrap_or_else(|poison| poison.into_inner());
                    if slot.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                        *slot = Some((index, error));
                    }
                    break;
                }
            }
        }
        done
    };
    let mut all: Vec<(usize, R)> = thread::scope(|scope| {
        let count = threads.min(items.len()).max(1);
        let others: Vec<_> = (1..count).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        for other in others {
            match other.join() {
                Ok(part) => all.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    if let Some((_, error)) = failed.into_inner().unwrap_or_else(|poison| poison.into_inner()) {
        return Err(error);
    }
    all.sort_unstable_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

/// The processors that this process may use; 1 where that cannot be found out.
pub fn available_cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order() {
        let items: Vec<u32> = (0..1000).collect();
        let doubled = try_map(&items, 7, |n| Ok::<_, ()>(n * 2)).unwrap();
        assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn stops_at_an_error() {
        let items: Vec<u32> = (0..1000).collect();
        let ran = AtomicUsize::new(0);
        let result = try_map(&items, 2, |n| {
            ran.fetch_add(1, Ordering::Relaxed);
            if *n == 3 { Err(*n) } else { Ok(()) }
        });
        assert_eq!(result, Err(3));
        assert!(ran.load(Ordering::Relaxed) < 1000);
    }
}
