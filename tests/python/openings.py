"""Which files a program opens, as inotify tells; and files whose times have settled."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

IN_OPEN = 0x20
SETTLED = 2.1  # seconds after which the program trusts that a change shows in a file's times


def wait_until_settled() -> None:
    """From now on, every change of the files that were written before shows in their times. The ctime cannot be set, so
    that nothing but waiting helps."""
    time.sleep(SETTLED)


@contextmanager
def openings(paths: Iterable[Path]) -> Iterator[Callable[[], set[str]]]:
    """Calls of the function return the names of those files that were opened since the last call."""
    libc = ctypes.CDLL(None, use_errno=True)
    watcher = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert watcher >= 0, os.strerror(ctypes.get_errno())
    try:
        names = {}
        for path in paths:
            watch = libc.inotify_add_watch(watcher, os.fsencode(path), IN_OPEN)
            assert watch >= 0, os.strerror(ctypes.get_errno())
            names[watch] = path.name

        def opened() -> set[str]:
            found, events = set(), b""
            try:
                while part := os.read(watcher, 1 << 16):
                    events += part
            except BlockingIOError:
                pass
            while events:  # of files, not folders: without names
                watch, _, _, length = struct.unpack_from("iIII", events)
                found.add(names[watch])
                events = events[16 + length :]
            return found

        yield opened
    finally:
        os.close(watcher)
