"""A file system whose files fail when a test says so: the "weather" of network storage, made at will.

It speaks the kernel's FUSE protocol directly (one flat folder, read-only), so that it needs nothing but root."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import force_unmount, mount_folder

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = (
    1,
    2,
    3,
    14,
    15,
    18,
    25,
    26,
    27,
    28,
    29,
    36,
    42,
)
UNANSWERED = (FORGET, INTERRUPT, BATCH_FORGET)
ROOT = 1
FLAGS = 1 | 2 | 4 | 8  # read-only, no set-uid, no devices, no execution
DIRECT_IO = 1  # nothing is cached, so that each read meets the fault of its moment
LARGEST_REQUEST = 1 << 17


class FaultyFolder:
    """The files of a folder, with the times `mtimes` and `ctimes`. `faults` maps (operation, name) to the errno that
    answers it from now on; operations are "lookup", "open", "read" and, for the folder as a whole (name ""), "list".
    `on_read` is called with the name before each read: whoever reads waits for it, which is how a test acts at an exact
    moment of another process."""

    def __init__(self, point: Path, files: dict[str, bytes]) -> None:
        self.point = point
        self.files = files
        self.names = sorted(files)
        self.faults: dict[tuple[str, str], int] = {}
        self.mtimes: dict[str, int] = {}
        self.ctimes: dict[str, int] = {}
        self.on_read: Callable[[str], object] = lambda name: None
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"faulty", os.fsencode(point), b"fuse", FLAGS, options.encode()):
            error = ctypes.get_errno()
            os.close(self.device)
            raise OSError(error, os.strerror(error), str(point))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        """Answer requests until the mount ends."""
        while True:
            try:
                request = os.read(self.device, LARGEST_REQUEST + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            if opcode in UNANSWERED:
                continue
            try:
                failed, body = 0, self.answer(opcode, node, request[40:])
            except BaseException as error:  # a test's `on_read` may fail: an unanswered request would hang everybody
                failed, body = -(getattr(error, "errno", None) or errno.EIO), b""
            try:
                os.write(self.device, struct.pack("<IiQ", 16 + len(body), failed, unique) + body)
            except OSError:
                continue  # whoever asked has been interrupted

    def answer(self, opcode: int, node: int, body: bytes) -> bytes:
        """The reply's payload; an OSError becomes the reply's error."""
        if opcode == INIT:
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, LARGEST_REQUEST, 0, 16, 12, 4096, 1, 0, 0, 0)
        if opcode == LOOKUP:
            name = os.fsdecode(body.rstrip(b"\0"))
            if name not in self.files:
                raise OSError(errno.ENOENT, name)
            self.fail_if_told("lookup", name)
            found = self.names.index(name) + 2
            return struct.pack("<QQQQII", found, 0, 0, 0, 0, 0) + self.attributes(found)
        if opcode == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self.attributes(node)
        if opcode in (OPEN, OPENDIR):
            self.fail_if_told("open", self.name(node))
            return struct.pack("<QII", node, DIRECT_IO if opcode == OPEN else 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            self.on_read(self.name(node))
            self.fail_if_told("read", self.name(node))
            return self.files[self.name(node)][offset : offset + size]
        if opcode == READDIR:
            self.fail_if_told("list", "")
            _, offset, size = struct.unpack_from("<QQI", body)
            return self.entries(offset, size)
        if opcode in (RELEASE, RELEASEDIR, FLUSH):
            return b""
        raise OSError(errno.ENOSYS, "not needed here")

    def fail_if_told(self, operation: str, name: str) -> None:
        """Raise the fault that is set."""
        if (operation, name) in self.faults:
            raise OSError(self.faults[operation, name], name)

    def name(self, node: int) -> str:
        """The file of an inode; the folder has no name."""
        return "" if node == ROOT else self.names[node - 2]

    def attributes(self, node: int) -> bytes:
        """`struct fuse_attr`."""
        name = self.name(node)
        size, mode = (0, 0o40555) if node == ROOT else (len(self.files[name]), 0o100444)
        times = 1, self.mtimes.get(name, 1), self.ctimes.get(name, 1)
        return struct.pack("<6Q10I", node, size, 0, *times, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def entries(self, offset: int, size: int) -> bytes:
        """Directory entries from number `offset` on, as many as fit."""
        listing = b""
        for number, name in list(enumerate(map(os.fsencode, self.names)))[offset:]:
            entry = struct.pack("<QQII", number + 2, number + 1, len(name), 0o100444 >> 12) + name
            entry += b"\0" * (-len(entry) % 8)
            if len(listing) + len(entry) > size:
                break
            listing += entry
        return listing


@contextmanager
def faulty_folder(files: dict[str, bytes]) -> Iterator[FaultyFolder]:
    """Such a folder, mounted until the block ends."""
    with mount_folder(0o755) as base:
        folder = FaultyFolder(base / "mount", files)
        try:
            yield folder
        finally:
            force_unmount(base / "mount")
            os.close(folder.device)
            folder.thread.join(10)


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of this size, mounted until the block ends."""
    with mount_folder() as base:
        options = ["-t", "tmpfs", "-o", f"size={size}"]
        subprocess.run(["mount", *options, "ctwds-test", base / "mount"], check=True, timeout=30)
        try:
            yield base / "mount"
        finally:
            force_unmount(base / "mount")
