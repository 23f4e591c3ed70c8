//! The one thread that speaks with object storage, and the tasks that it runs.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

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
}

/// The answer of a task, which is waited for by a thread that is not the network's. The task ends when this is dropped.
pub(super) struct Pending<T> {
    answer: Option<oneshot::Receiver<T>>,
    task: AbortHandle,
}

impl<T> Pending<T> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// That the task has ended without one: it panicked, or the network is closed.
    pub(super) fn wait(mut self) -> io::Result<T> {
        let answer = self.answer.take().and_then(|answer| answer.blocking_recv().ok());
        answer.ok_or_else(|| io::Error::other("the request was given up"))
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    /// Starts the thread. One is enough: it copies and decrypts 1 GB/s or more, and waits otherwise.
    ///
    /// # Errors
    /// [`crate::error::Error::System`] if the operating system gives no thread or no event queue.
    pub(super) fn start() -> Result<Self> {
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
        Ok(Self { handle, stop: Some(stop), thread: Some(thread), process: std::process::id() })
    }

    /// Whether this process has the thread.
    pub(super) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Runs a task, and returns at once.
    pub(super) fn ask<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Pending<T> {
        let (sender, receiver) = oneshot::channel();
        let task = self.handle.spawn(async move {
            let _ = sender.send(task.await); // nobody may want it any more
        });
        Pending { answer: Some(receiver), task: task.abort_handle() }
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
