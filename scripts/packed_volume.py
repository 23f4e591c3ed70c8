"""Reads the volume's member of a compressed shard (`.bin.predict.zst`, `.volume.npy.predict.zst`) as plain bytes.

The member is in the zstd seekable format: frames, each with its checksum, and a table of their sizes at the end. The
content of a frame is shuffled: the lowest bytes of all its values, then the next higher ones. The name before `.zst` is
the filter. Of `predict…`, the values of a frame are what was left after each was predicted by its neighbours; the
length of a row is in the first frame. `predict` is float16; `predict1`, `predict2` and `predict4` are integers of so
many bytes. `shuffle` (2 bytes), `shuffle1`, `shuffle4` are values that were shuffled alone.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from compression import zstd  # Python 3.14
except ImportError:
    from backports import zstd

SUFFIX = ".predict.zst"
SEEKABLE_MAGIC = 0x8F92EAB1


def seek_table(member: bytes | bytearray | memoryview) -> NDArray[Any]:
    """Packed and plain size of every frame, one row each; raises ValueError if the member has no such table."""
    if len(member) < 17:
        raise ValueError("the member is cut off")
    count, descriptor, magic = struct.unpack("<IBI", member[-9:])
    width = 3 if descriptor & 0x80 else 2
    start = len(member) - 17 - count * width * 4
    if magic != SEEKABLE_MAGIC or start < 0:
        raise ValueError("the member does not end with a seek table: it is cut off, or compressed in another way")
    table = np.frombuffer(member, "<u4", count * width, start + 8).reshape(count, width)
    if int(table[:, 0].sum(dtype=np.int64)) != start:
        raise ValueError("the seek table does not fit the member")
    return table[:, :2].astype(np.int64)


def unpredict(values: NDArray[Any], row: int) -> None:
    """Turns what was left of predicted values into the values, in sums of their own width: value - the one before it -
    the one a row before it + the one before that was left, and folded to 2 * left, or -2 * left - 1 below 0."""
    sign = values & 1
    values >>= 1
    values ^= -sign
    np.cumsum(values, out=values, dtype=values.dtype)
    whole = len(values) // row * row
    rows, rest = values[:whole].reshape(-1, row), values[whole:]
    np.cumsum(rows, axis=0, out=rows, dtype=values.dtype)
    rest += values[whole - row :][: len(rest)] if whole else 0


def unpack(member: bytes | memoryview, filter_: str = "predict", out: NDArray[Any] | None = None) -> NDArray[Any]:
    """The plain member as `uint8`, in `out` if that is given: for `.bin`, `.view(volume_dtype).reshape(volume_shape)`
    are the voxels. `filter_` is what the member's name has before `.zst`, and the JSON as `volume_filter`. Raises
    ValueError or zstd.ZstdError if any frame is damaged."""
    member, table, row, packed_end = memoryview(member), seek_table(member), 0, 0
    width = int(filter_[-1]) if filter_[-1].isdigit() else 2
    if (table[:, 1] % width).any():
        raise ValueError("a frame holds a part of a value")
    if filter_.startswith("predict"):
        magic, size, row, crc = struct.unpack("<4I", bytes(member[:16]).ljust(16, b"\0"))
        if (magic, size, crc) != (0x184D2A50, 8, zlib.crc32(member[8:12])) or row == 0:
            raise ValueError("the first frame, which has the length of the rows, is damaged")
        table, packed_end = table[1:], 16
    plain_bytes = np.empty(int(table[:, 1].sum()), np.uint8) if out is None else out
    plain_end = 0
    for packed, plain in table:
        planes = np.frombuffer(zstd.decompress(member[packed_end : packed_end + packed]), np.uint8)
        if planes.size != plain:
            raise ValueError("a frame is not as long as the seek table says")
        values = plain_bytes[plain_end : plain_end + plain].view(f"<u{width}")
        if width == 2:  # five times as fast as byte by byte
            values[:] = planes[plain // 2 :]
            values <<= 8
            values |= planes[: plain // 2]
        else:
            values.view(np.uint8).reshape(-1, width)[:] = planes.reshape(width, -1).T
        if row:
            unpredict(values, row)
        if filter_ == "predict":  # the order of the numbers: negative ones have all bits inverted, others the sign
            values ^= ((values >> 15) - 1) | 0x8000
        packed_end, plain_end = packed_end + packed, plain_end + plain
    return plain_bytes
