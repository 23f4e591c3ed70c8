"""Members of a tar archive, and the arrays that they hold."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import mmap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import LoaderError, npy_errors

HUGE_PAGE = 2 << 20


class Buffer:
    """Page-aligned memory that is used again for every volume: the first touch of memory costs more than the read."""

    def __init__(self) -> None:
        self._memory = memoryview(b"")

    def view(self, size: int) -> memoryview:
        """The first bytes; what they held before is lost."""
        if size > len(self._memory):
            length = -(-size // HUGE_PAGE) * HUGE_PAGE
            memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if length > HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # a kernel without huge pages
                    memory.madvise(mmap.MADV_HUGEPAGE)
            self._memory = memoryview(memory)
        return self._memory[:size]


def values_of(voxels: NDArray[Any], meta: Mapping[str, Any]) -> NDArray[Any]:
    """The values that voxels stand for: those of `uint8` are places in a window, which the JSON names."""
    if (window := meta.get("volume_window")) is None:
        return voxels
    low, high = (float(bound) for bound in window)
    return (low + np.arange(256) * ((high - low) / 255)).astype(np.float32)[voxels]


def raw_voxels(payload: memoryview, meta: Mapping[str, Any]) -> NDArray[Any]:
    """`.bin`: little-endian, C order, shape and type in the JSON."""
    return np.frombuffer(payload, np.dtype(meta["volume_dtype"]).newbyteorder("<")).reshape(meta["volume_shape"])


def npy_voxels(payload: memoryview, meta: Mapping[str, Any]) -> NDArray[Any]:
    """`.volume.npy`, as `--format npy` writes it."""
    file = io.BytesIO(payload[:4096])
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("the npy header has another version than 1.0")
    with npy_errors():
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    return np.frombuffer(payload, dtype, math.prod(shape), file.tell()).reshape(shape, order="F" if fortran else "C")


# What makes an array of a voxel member, by its suffix: the one place for new encodings.
VOXELS: dict[str, Callable[[memoryview, Mapping[str, Any]], NDArray[Any]]] = {
    "bin": raw_voxels,
    "volume.npy": npy_voxels,
}
OTHERS: dict[str, tuple[str, Callable[[memoryview], Any]]] = {
    "json": ("meta", lambda payload: json.loads(bytes(payload))),
    "txt": ("text", lambda payload: str(payload, "utf-8")),
    "labels": ("labels", lambda payload: np.frombuffer(payload, "<f4").copy()),
    "labels.npy": ("labels", lambda payload: npy_voxels(payload, {}).copy()),
}
OTHERS |= {"meta.json": OTHERS["json"], "report.txt": OTHERS["txt"]}
REMEDIES = {
    errno.EIO: "the volume is damaged or its disk fails; `ctwds-fs status MOUNTPOINT` names the study and the reason, "
    "on_error='skip' goes on without it, and a mount with --exclude leaves it out",
    errno.ESTALE: "a source file changed under the mount; unmount, and mount again",
    errno.ENOTCONN: "the mount's process has ended; mount again",
    errno.ECONNABORTED: "the mount's process has ended while it was asked; mount again",
    errno.ENOENT: "is it mounted?",
    errno.EACCES: "only the user who mounted may read, unless --allow-other is given",
}


def parse_header(block: bytes) -> tuple[str, int] | None:
    """Name and size of a tar member, or None at the end of the archive.

    Raises ValueError for what is no header of a plain file."""
    if not any(block):
        return None
    if int(block[148:156].strip(b" \0") or b"0", 8) != sum(block[:148]) + sum(block[156:]) + 8 * 32:
        raise ValueError("the header's checksum is wrong")
    if block[156:157] not in (b"0", b"\0"):
        raise ValueError(f"a member of type {block[156:157]!r}, not a plain file")
    name, prefix = (block[begin:end].split(b"\0")[0].decode() for begin, end in ((0, 100), (345, 500)))
    return f"{prefix}/{name}" if prefix else name, int(block[124:136].strip(b" \0"), 8)


def complain(error: LoaderError, on_error: str, more: str = "") -> None:
    """Raise it, or warn that something is left out."""
    if on_error == "raise":
        raise error
    warnings.warn(f"left out: {error}{more}", stacklevel=2)


@dataclass
class Member:
    """A member of a sample, or why it could not be read; voxels lie in the buffer."""

    suffix: str
    payload: memoryview | LoaderError
    buffer: Buffer | None
