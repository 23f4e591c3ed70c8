"""Voxel members of compressed shards (the zstd seekable format), as plain bytes."""

from __future__ import annotations

import importlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray


def zstd_module() -> Any:
    """Whichever implementation of zstd is installed. ImportError, which no `on_error` passes over, if there is none."""
    for name in ("compression.zstd", "backports.zstd", "pyzstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError(
        "the shards are compressed, and Python has no zstd: `pip install backports.zstd`, or show them as plain ones "
        "with `ctwds-fs mount --shards FOLDER MOUNTPOINT`"
    )


def seek_table(member: memoryview) -> NDArray[Any]:
    """Packed size, plain size and checksum of every block of a compressed member (the zstd seekable format): a row
    each."""
    if len(member) < 17:
        raise ValueError("it is cut off")
    count, descriptor, magic = struct.unpack("<IBI", member[-9:])
    start = len(member) - 17 - count * 12
    if magic != 0x8F92EAB1 or start < 0 or member[start : start + 8] != struct.pack("<II", 0x184D2A5E, count * 12 + 9):
        raise ValueError("it does not end with a seek table")
    table = np.frombuffer(member, "<u4", count * 3, start + 8).reshape(count, 3).astype(np.int64)
    if descriptor != 0x80 or table[:, 0].sum() != start or (table[:, 0] < 9).any():
        raise ValueError("its seek table is not that of its blocks, or has no checksums")
    return table


def unpack(member: memoryview, table: NDArray[Any], width: int, out: memoryview) -> None:
    """Fill `out` with the plain member, whose values have `width` bytes: each block has first the lowest bytes of all
    its values, then the next higher ones."""
    zstd = zstd_module()
    if (table[:, 1] % width).any():
        raise ValueError("a block of it does not hold whole values")
    values = np.frombuffer(out, np.uint8).reshape(-1, width)
    at = done = 0
    for number, (packed, plain, checksum) in enumerate(table.tolist()):
        frame, block = member[at : at + packed], values[done : done + plain // width]
        if not frame[4] & 4 or int.from_bytes(frame[-4:], "little") != checksum:
            raise ValueError(f"block {number}: it has not the checksum that the seek table says")
        try:
            planes = np.frombuffer(zstd.decompress(frame), np.uint8)
        except zstd.ZstdError as error:
            raise ValueError(f"block {number}: {error}") from error
        if len(planes) != plain:
            raise ValueError(f"block {number}: it holds {len(planes)} bytes, the seek table says {plain}")
        if width == 2:  # five times as fast as byte by byte
            pairs = block.view("<u2")[:, 0]
            pairs[:] = planes[plain // 2 :]
            pairs <<= 8
            pairs |= planes[: plain // 2]
        else:
            block[:] = planes.reshape(width, -1).T
        at, done = at + packed, done + plain // width


# What a compressed voxel member's suffix ends with, and the bytes of a value of it.
PACKED = {".shuffle.zst": 2, ".shuffle1.zst": 1, ".shuffle4.zst": 4, ".shuffle8.zst": 8}


def plain_suffix(suffix: str) -> tuple[str, int | None]:
    """The suffix without what compression added, and the bytes of a value; none of a plain member."""
    for end, width in PACKED.items():
        if suffix.endswith(end):
            return suffix.removesuffix(end), width
    return suffix, None
