//! Threads for what may wait for a disk, so that those which translate requests never do.

use crate::base::lock::lock;
use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// As many as reads that one dead server may hold up before others wait; a disk is busy with fewer.
const THREADS: usize = 16;

/// The threads end when it is dropped and its jobs are done.
pub(super) struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// # Errors
    /// The operating system refuses a thread.
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
            std::thread::Builder::new().name(format!("disk-{number}")).spawn(work)?;
        }
        Ok(Self { jobs })
    }

    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.jobs.send(Box::new(job)); // the threads live as long as this does
    }
}
