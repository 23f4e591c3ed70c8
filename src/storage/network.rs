//! The one thread that speaks with object storage, and the tasks that it runs.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::base::limits::not_started;
use crate::base::parallel;
use crate::error::Result;

/// An asynchronous runtime on a thread of its own. It ends when this is dropped; requests in flight are given up.
#[derive(Debug)]
pub(super) struct Network {
    handle: Handle,
    /// Ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The process that has the thread: one that forked has none.
    process: u32,
    /// Set when nobody is to wait for an answer any more.
    when_to_stop: Option<Arc<AtomicBool>>,
}

/// The time between two looks whether a wait is to end.
const LOOK: Duration = Duration::from_millis(100);

/// The answer of a task, which is waited for by a thread that is not the network's. The task ends when this is dropped.
pub(super) struct Pending<T> {
    answer: mpsc::Receiver<T>,
    task: AbortHandle,
    stop: Option<Arc<AtomicBool>>,
}

impl<T> Pending<T> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// That the task has ended without one: it panicked, or the network is closed; that nobody is to wait any more.
    pub(super) fn wait(&self) -> io::Result<T> {
        loop {
            match self.wait_for(LOOK) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !self.is_stopped() => {}
                answer => return answer,
            }
        }
    }

    /// Waits for the answer so long, even if nobody is to wait any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if it has not come; that the task has ended without one.
    pub(super) fn wait_for(&self, time: Duration) -> io::Result<T> {
        self.answer.recv_timeout(time).map_err(|error| match error {
            RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
            RecvTimeoutError::Disconnected => io::Error::other("the request was given up"),
        })
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    /// Starts the thread. One is enough: it copies and decrypts 1 GB/s or more, and waits otherwise. Once
    /// `when_to_stop` is set, nobody waits for an answer.
    ///
    /// # Errors
    /// [`crate::error::Error::System`] if the operating system gives no thread or no event queue.
    pub(super) fn start(when_to_stop: Option<Arc<AtomicBool>>) -> Result<Self> {
        let doing = "start the thread that reads from object storage";
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime: Runtime = runtime.map_err(|error| not_started(doing, error))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = parallel::spawn("storage", move || {
            let _ = runtime.block_on(stopped); // the end of the sender is one too
            // A look-up of a name that hangs must not keep the program from ending.
            runtime.shutdown_background();
        });
        let thread = thread.map_err(|error| not_started(doing, error))?;
        let (stop, thread, process) = (Some(stop), Some(thread), std::process::id());
        Ok(Self { handle, stop, thread, process, when_to_stop })
    }

    /// Whether this process has the thread.
    pub(super) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Runs a task, and returns at once.
    pub(super) fn ask<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Pending<T> {
        let (sender, answer) = mpsc::sync_channel(1); // the task never waits for its reader
        let task = self.handle.spawn(async move {
            let _ = sender.send(task.await); // nobody may want it any more
        });
        Pending { answer, task: task.abort_handle(), stop: self.when_to_stop.clone() }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.is_here() {
            // To join the thread of another process would wait for ever.
            return std::mem::forget((self.stop.take(), self.thread.take()));
        }
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic was reported by the panic hook
        }
    }
}
