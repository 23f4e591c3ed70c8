//! Threads: every one of the program is started here, by calls that return an error where the system gives no thread. A
//! parallel map for work that waits on storage, for which more threads than cores are useful; and the number of cores.

use crate::base::lock::{self, lock};
use std::io;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread. [`super::limits::not_started`] makes a message of the error.
///
/// # Errors
/// The operating system's reason why it gives no thread.
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(work)
}

/// Starts a thread that ends before the scope does. [`super::limits::not_started`] makes a message of the error.
///
/// # Errors
/// The operating system's reason why it gives no thread.
pub fn spawn_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, work)
}

/// The results of two functions, which run at the same time, or one after the other where the system gives no thread.
pub fn both<A: Send, B>(first: impl Fn() -> A + Send + Sync, second: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| match spawn_in(scope, "both", &first) {
        Ok(thread) => {
            let second = second();
            (join(thread), second)
        }
        Err(_) => (first(), second()),
    })
}

/// Calls `work` for every item on up to `threads` threads, and returns the results in the items' order. Where the
/// system gives fewer threads, these do the work.
///
/// # Errors
/// The error of `work`. After the first one no further item is begun. Of several errors, that of the earliest item is
/// returned, so that a message depends on the threads' timing as little as possible.
pub fn try_map<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    // Each result goes to its place at once: to sort them afterwards would leave all threads but one idle.
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let places = Mutex::new(items.iter().zip(&mut results).enumerate());
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let has_failed = AtomicBool::new(false);
    let run = || {
        while !has_failed.load(Ordering::Relaxed) {
            let next = lock(&places).next();
            let Some((index, (item, place))) = next else { break };
            match work(item) {
                Ok(result) => *place = Some(result),
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    let mut slot = lock(&failed);
                    if slot.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                        *slot = Some((index, error));
                    }
                }
            }
        }
    };
    thread::scope(|scope| {
        let count = threads.min(items.len()).max(1);
        let others: Vec<_> = (1..count).map_while(|_| spawn_in(scope, "map", run).ok()).collect();
        run();
        for other in others {
            join(other);
        }
    });
    match lock::into_inner(failed) {
        Some((_, error)) => Err(error),
        None => Ok(results.into_iter().flatten().collect()),
    }
}

/// Waits for a scoped thread and returns its result; a panic of the thread goes on in the caller.
pub fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The number of processors that this process may use, by its affinity, its control groups' quotas, and Slurm, which
/// binds no process where its task plugins are off; 1 where that cannot be found out.
pub fn available_cores() -> usize {
    let bound = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores_of_task(bound, std::env::var("SLURM_CPUS_PER_TASK").ok().as_deref())
}

/// The processors of a task, which Slurm names in a variable where the user asked for a number.
fn cores_of_task(bound: usize, per_task: Option<&str>) -> usize {
    let asked = per_task.and_then(|cores| cores.trim().parse().ok()).filter(|cores| *cores > 0);
    asked.map_or(bound, |cores: usize| bound.min(cores))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn slurm_gives_no_more_than_there_is() {
        let cases = [(None, 4), (Some("1"), 1), (Some("3"), 3), (Some("64"), 4), (Some("0"), 4), (Some("x"), 4)];
        for (asked, cores) in cases {
            assert_eq!(cores_of_task(4, asked), cores, "{asked:?}");
        }
    }

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
