//! Threads that may wait for a disk, so that the threads which translate requests never do.

use crate::base::lock::lock;
use crate::base::parallel;
use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// The number of threads: so many reads of a dead server may wait before others do; a disk is busy with fewer.
const THREADS: usize = 16;

/// Threads that run jobs in the order of their arrival. They end when the pool is dropped and all jobs are done.
pub(super) struct DiskPool {
    jobs: Sender<Job>,
}

impl DiskPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system's reason why it refuses a thread.
    pub(super) fn new() -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        for number in 0..THREADS {
            let inbox = inbox.clone();
            let work = move || {
                loop {
                    let next = lock(&inbox).recv();
                    let Ok(job) = next else { return };
                    job();
                }
            };
            parallel::spawn(&format!("disk-{number}"), work)?;
        }
        Ok(Self { jobs })
    }

    /// Hands a job to the next idle thread.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.jobs.send(Box::new(job)); // the threads live as long as this does
    }
}
