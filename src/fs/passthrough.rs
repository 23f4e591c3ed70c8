//! The open files that the kernel reads by itself, past the daemon (FUSE passthrough).
//!
//! The kernel's rules were each found by trying. While a handle of an inode is read past the daemon, every other handle
//! of it must be, else its open fails with EIO; all share one backing file. While a handle is cached, or one past the
//! page cache (`FOPEN_DIRECT_IO`) is mapped, no handle can be read past the daemon: its open fails with EIO, and nobody
//! tells the daemon. `FOPEN_KEEP_CACHE` fails with passthrough. So an inode has one reader for all of its handles: once
//! the daemon had to read one, it reads all that follow.

use crate::base::lock::lock;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};

/// How the handles of each open inode are read.
#[derive(Default)]
pub(super) struct Passthrough {
    /// Whether the kernel knows passthrough and allows it.
    pub(super) offered: AtomicBool,
    inodes: Mutex<HashMap<u64, Reader>>,
}

/// The reader of the handles of an inode.
enum Reader {
    /// The kernel, until the last of these handles is closed.
    Kernel(Arc<BackingId>, HashSet<u64>),
    /// The daemon, for good: the kernel refused (no privilege, or the file system is itself stacked on another one), or
    /// the file was gone when the inode was opened, and a handle of that time may be mapped for ever.
    Daemon,
}

impl Passthrough {
    /// Answers the open of an inode of a file. If the `file` is gone, the handle reads the backing file of other open
    /// handles, or else through the daemon.
    pub(super) fn open(&self, inode: u64, handle: u64, file: Option<&File>, reply: ReplyOpen) {
        let mut inodes = self.lock();
        if file.is_none() && !matches!(inodes.get(&inode), Some(Reader::Kernel(..))) {
            inodes.insert(inode, Reader::Daemon);
            drop(inodes);
            return reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
        }
        let reader = inodes.entry(inode).or_insert_with(|| self.choose(file, &reply));
        match reader {
            Reader::Kernel(backing, handles) => {
                handles.insert(handle);
                let backing = backing.clone();
                drop(inodes);
                reply.opened_passthrough(FileHandle(handle), FopenFlags::FOPEN_NOFLUSH, &backing);
            }
            Reader::Daemon => {
                drop(inodes);
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
            }
        }
    }

    fn choose(&self, file: Option<&File>, reply: &ReplyOpen) -> Reader {
        match file.filter(|_| self.offered.load(Ordering::Relaxed)).map(|file| reply.open_backing(file)) {
            Some(Ok(backing)) => Reader::Kernel(Arc::new(backing), HashSet::new()),
            Some(Err(error)) => {
                log::debug!("no passthrough: {error}");
                Reader::Daemon
            }
            None => Reader::Daemon,
        }
    }

    /// Notes that a handle is closed; the backing file is closed with the last one.
    pub(super) fn release(&self, inode: u64, handle: u64) {
        let mut inodes = self.lock();
        let Some(Reader::Kernel(_, handles)) = inodes.get_mut(&inode) else { return };
        let is_last = handles.remove(&handle) && handles.is_empty();
        let closed = is_last.then(|| inodes.remove(&inode));
        drop(inodes);
        drop(closed); // closes the backing file
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Reader>> {
        lock(&self.inodes)
    }
}
