//! Which open files the kernel reads without us.
//!
//! The kernel's rules, each found by trying. While a handle of an inode is read past the daemon, every other one must
//! be, else its open fails with EIO; all share one backing file. While a handle is cached, none can be read past the
//! daemon; handles past the page cache (`FOPEN_DIRECT_IO`) may be there before. `FOPEN_KEEP_CACHE` fails with it.

use crate::base::lock::lock;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};

/// The inodes of files and how their cached handles are read.
#[derive(Default)]
pub(super) struct Passthrough {
    /// Whether the kernel has it, and we may.
    pub(super) offered: AtomicBool,
    inodes: Mutex<HashMap<u64, Mode>>,
}

enum Mode {
    /// By the kernel, until the last of these handles is closed.
    Kernel(Arc<BackingId>, HashSet<u64>),
    /// By us: the kernel refused (no privilege, or a file system that lies on another one like ours).
    Daemon,
}

impl Passthrough {
    /// Answers the open of a file's inode; without the file, from the backing file that others still hold, or by us.
    pub(super) fn open(&self, inode: u64, handle: u64, file: Option<&File>, reply: ReplyOpen) {
        let mut inodes = self.lock();
        if file.is_none() && !matches!(inodes.get(&inode), Some(Mode::Kernel(..))) {
            drop(inodes);
            return reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
        }
        let mode = inodes.entry(inode).or_insert_with(|| self.choose(file, &reply));
        match mode {
            Mode::Kernel(backing, handles) => {
                handles.insert(handle);
                let backing = backing.clone();
                drop(inodes);
                reply.opened_passthrough(FileHandle(handle), FopenFlags::FOPEN_NOFLUSH, &backing);
            }
            Mode::Daemon => {
                drop(inodes);
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
            }
        }
    }

    fn choose(&self, file: Option<&File>, reply: &ReplyOpen) -> Mode {
        match file.filter(|_| self.offered.load(Ordering::Relaxed)).map(|file| reply.open_backing(file)) {
            Some(Ok(backing)) => Mode::Kernel(Arc::new(backing), HashSet::new()),
            Some(Err(error)) => {
                log::debug!("no passthrough: {error}");
                Mode::Daemon
            }
            None => Mode::Daemon,
        }
    }

    /// Notes that a handle is closed.
    pub(super) fn release(&self, inode: u64, handle: u64) {
        let mut inodes = self.lock();
        let Some(Mode::Kernel(_, handles)) = inodes.get_mut(&inode) else { return };
        let is_last = handles.remove(&handle) && handles.is_empty();
        let closed = is_last.then(|| inodes.remove(&inode));
        drop(inodes);
        drop(closed); // closes the backing file
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Mode>> {
        lock(&self.inodes)
    }
}
