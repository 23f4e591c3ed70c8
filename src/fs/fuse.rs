//! FUSE requests as calls of [`Tree`], and errors as errno. Nothing but arguments and answers is translated here.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use super::names::DirEntry;
use super::passthrough::Passthrough;
use super::tree::{Attr, OpenFile, ReadMode, Tree};
use crate::base::num::to_usize;
use crate::error::Error;

/// How long the kernel keeps names and attributes: sizes never change, and changed names are announced to it.
const TTL: Duration = Duration::from_secs(3600);
/// The block size of files in bytes, by which Python sizes its read buffer. The largest request of the kernel is as
/// large, 1 MiB, and it was measured best.
pub(super) const BLOCK_SIZE: u32 = 1 << 20;

/// An event that ends a mount.
pub(super) enum Event {
    /// A signal of this number was received.
    Signal(i32),
    /// The kernel ended the session.
    Ended,
}

/// A tree as a file system of `fuser`.
pub(super) struct Adapter {
    /// The tree that is shown.
    pub(super) tree: Arc<Tree>,
    /// The handles that the kernel reads by itself.
    pub(super) passthrough: Arc<Passthrough>,
    /// The user and group id of all files.
    pub(super) owner: (u32, u32),
    /// Receives [`Event::Ended`] when the session ends.
    pub(super) events: Sender<Event>,
}

/// The errno of an error; a new variant does not compile until it has one.
fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::ReadOnly => Errno::EROFS,
        Error::Changed { .. } => Errno::ESTALE,
        Error::Io { .. }
        | Error::System { .. }
        | Error::Malformed { .. }
        | Error::Table { .. }
        | Error::Refused(_)
        | Error::Interrupted(_)
        | Error::Usage(_)
        | Error::Internal(_) => Errno::EIO,
    }
}

impl Adapter {
    fn attr(&self, attr: Attr) -> FileAttr {
        let time = self.tree.mounted;
        FileAttr {
            ino: INodeNo(attr.inode),
            size: attr.size,
            blocks: attr.size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if attr.is_dir { FileType::Directory } else { FileType::RegularFile },
            perm: if attr.is_dir { 0o555 } else { 0o444 },
            nlink: if attr.is_dir { 2 } else { 1 },
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA;
        // A capability that an older kernel lacks costs speed, nothing else.
        let _ = config.add_capabilities(wanted & config.capabilities());
        let passthrough = config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH)
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        self.passthrough.offered.store(passthrough, Ordering::Relaxed);
        let _ = config.set_max_write(BLOCK_SIZE);
        let _ = config.set_max_readahead(BLOCK_SIZE);
        // A reader's read-ahead that waits for a decoder counts against this; beyond it the kernel holds back even
        // the reads that could be answered. With 64, eighty readers made each other decode again.
        let _ = config.set_max_background(4096);
        let _ = config.set_congestion_threshold(4096);
        Ok(())
    }

    fn destroy(&mut self) {
        let _ = self.events.send(Event::Ended); // nobody listens once the process is about to exit
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.look_up(parent.0, name) {
            Ok(attr) => reply.entry(&TTL, &self.attr(attr), Generation(0)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn getattr(&self, _req: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.attr(inode.0) {
            Ok(attr) => reply.attr(&TTL, &self.attr(attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn open(&self, _req: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(errno(&Error::ReadOnly));
        }
        let passthrough = self.passthrough.clone();
        self.tree.open(inode.0, move |result| match result {
            Ok(OpenFile { handle, mode }) => {
                let cache = match mode {
                    ReadMode::File(file) => return passthrough.open(inode.0, handle, file.as_deref(), reply),
                    ReadMode::Cached => FopenFlags::FOPEN_KEEP_CACHE,
                    ReadMode::Uncached => FopenFlags::FOPEN_DIRECT_IO,
                };
                reply.opened(FileHandle(handle), cache | FopenFlags::FOPEN_NOFLUSH);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn read(
        &self,
        _req: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        log::trace!("read handle {handle}, {size} bytes at {offset}");
        self.tree.read(handle.0, offset, size as usize, move |result| match result {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn release(
        &self,
        _req: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.passthrough.release(inode.0, handle.0);
        self.tree.release(handle.0);
        reply.ok();
    }

    fn readdir(&self, _req: &Request, inode: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.tree.entries(inode.0, to_usize(offset)) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(&error)),
        };
        for (next, DirEntry { inode, is_dir, name }) in (offset + 1..).zip(entries) {
            let kind = if is_dir { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(inode), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let (bytes, files) = self.tree.totals();
        reply.statfs(bytes.div_ceil(4096), 0, 0, files, 0, 4096, 255, 4096);
    }

    // The requests below do not exist here. ENOSYS is no failure: it makes the kernel not ask again.

    fn getxattr(&self, _req: &Request, _inode: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _req: &Request, _inode: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(
        &self,
        _req: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _req: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn one_errno_for_each_error() {
        let path = Path::new("v.npz");
        let table = [
            (Error::NotFound, Errno::ENOENT),
            (Error::ReadOnly, Errno::EROFS),
            (Error::Changed { path: path.into(), detail: "it is gone".into() }, Errno::ESTALE),
            // EIO also where the storage had another reason: to a reader, "permission denied" would be about the mount.
            (Error::io(path, "read the volume", io::ErrorKind::PermissionDenied.into()), Errno::EIO),
            (Error::io(path, "read the volume", io::Error::from_raw_os_error(libc::ETIMEDOUT)), Errno::EIO),
            (Error::malformed(path, "damaged"), Errno::EIO),
            (Error::table(path, "ragged"), Errno::EIO),
            (Error::system("get memory for a volume", io::ErrorKind::OutOfMemory), Errno::EIO),
            (Error::Refused("no memory".into()), Errno::EIO),
            (Error::Internal("a bug".into()), Errno::EIO),
        ];
        for (error, wanted) in table {
            assert_eq!(errno(&error).code(), wanted.code(), "{error}");
        }
    }
}
