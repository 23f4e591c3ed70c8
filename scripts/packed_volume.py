"""Reads the volume's member of a compressed shard (`.bin.split.zst`, `.volume.npy.split.zst`) as plain bytes.

The member is in the zstd seekable format: frames, each with its checksum, and a table of their sizes at the end. The
name before `.zst` is the filter. Of `split…` and `predict…`, the values of a frame are what was left after each was
predicted by its neighbours; the length of a row is in the first frame. `split` and `predict` are float16; `split2`,
`predict1`, `predict2` and `predict4` are integers of so many bytes. The content of a frame of `predict…` is shuffled:
the lowest bytes of all its values, then the next higher ones. Of `split…`, the lower bits, which are noise, stand apart
(`join`). `shuffle` (2 bytes), `shuffle1`, `shuffle4` are values that were shuffled alone.
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

SUFFIX = ".split.zst"
SEEKABLE_MAGIC = 0x8F92EAB1
FILTERS = {"split", "split2", "predict", "shuffle", "predict2"}
FILTERS |= {f"{how}{width}" for how in ("predict", "shuffle") for width in (1, 4, 8)}
INTEGERS = np.arange(1 << 16, dtype="<u2").view("<i2")
# The float16 of each of them: its magnitude; one with a minus, such as -0.0, has all bits of its magnitude inverted.
HALVES = (INTEGERS ^ (INTEGERS >> 15)).astype("<f2").view("<u2") | INTEGERS.view("<u2") & 0x8000


def seek_table(member: bytes | bytearray | memoryview) -> NDArray[Any]:
    """Packed and unpacked size of every frame, one row each; raises ValueError if the member has no such table."""
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


def join(content: NDArray[Any], values: NDArray[Any]) -> None:
    """Fills `values` by their upper bits (a byte each), the number of lower bits of each 32 values (a byte: 0, 4, 8),
    and 0, 16 or 32 bytes with these bits; of 4, the values 0 and 16, 1 and 17, ... of the 32 share a byte."""
    groups = -(-values.size // 32)
    upper, numbers, lower = np.split(content, [values.size, values.size + groups])
    ends = numbers.cumsum(dtype=np.int64) // 4  # in pieces of 16 bytes
    count = int(ends[-1])
    if (numbers & 0xF3).any() or (numbers == 12).any() or count * 16 > lower.size:
        raise ValueError("a frame has other numbers of lower bits than there are")
    pieces = lower[: count * 16].reshape(-1, 16)
    table = np.concatenate((pieces, pieces & 15, pieces >> 4, np.zeros((1, 16), np.uint8)))
    none, is_four, is_eight = 3 * count, numbers == 4, numbers == 8
    first = np.where(is_eight, ends - 2, np.where(is_four, count + ends - 1, none))
    second = np.where(is_eight, ends - 1, np.where(is_four, 2 * count + ends - 1, none))
    joined = np.zeros((groups, 32), "<u2")
    joined.reshape(-1)[: values.size] = upper
    joined *= np.left_shift(1, numbers, dtype="<u2")[:, None]
    joined |= table.take(np.stack((first, second), axis=1), axis=0).reshape(-1, 32)
    values[:] = joined.reshape(-1)[: values.size]


def undo(content: NDArray[Any], filter_: str, row: int, values: NDArray[Any]) -> None:
    """Fills `values`, those of a frame, by its content."""
    way = 1 if row else 0
    if filter_.startswith("split"):  # 0: the values shuffled; 1: what was left, split; 2: of whole numbers
        content, way = content[:-1], int(content[-1])
        if way > (2 if filter_ == "split" else 1):
            raise ValueError(f"a frame was made in a way that this version does not know: {way}")
    width = values.itemsize
    if way and filter_.startswith("split"):
        join(content, values)
    elif width == 2:  # five times as fast as byte by byte
        values[:] = content[values.size :]
        values <<= 8
        values |= content[: values.size]
    else:
        values.view(np.uint8).reshape(-1, width)[:] = content.reshape(width, -1).T
    if way:
        unpredict(values, row)
    if way == 2:
        values[:] = HALVES.take(values)
    elif way and filter_ in ("split", "predict"):  # in order: negative numbers have all bits inverted, others the sign
        values ^= ((values >> 15) - 1) | 0x8000


def unpack(member: bytes | memoryview, filter_: str = "split", out: NDArray[Any] | None = None) -> NDArray[Any]:
    """The plain member as `uint8`, in `out` if that is given: for `.bin`, `.view(volume_dtype).reshape(volume_shape)`
    are the voxels. `filter_` is what the member's name has before `.zst`, and the JSON as `volume_filter`. Raises
    ValueError or zstd.ZstdError if any frame is damaged."""
    if filter_ not in FILTERS:
        raise ValueError(f"the filter {filter_} is of a later version, or none")
    member, table, row, packed_end = memoryview(member), seek_table(member), 0, 0
    width, added = int(filter_[-1]) if filter_[-1].isdigit() else 2, int(filter_.startswith("split"))
    if not filter_.startswith("shuffle"):
        magic, size, row, crc = struct.unpack("<4I", bytes(member[:16]).ljust(16, b"\0"))
        if (magic, size, crc) != (0x184D2A50, 8, zlib.crc32(member[8:12])) or row == 0:
            raise ValueError("the first frame, which has the length of the rows, is damaged")
        table, packed_end = table[1:], 16
    plain_sizes = table[:, 1] - added  # a frame of `split...` has a byte behind those of its values
    if (plain_sizes % width).any() or (plain_sizes < added).any():
        raise ValueError("a frame holds a part of a value")
    plain_bytes = np.empty(int(plain_sizes.sum()), np.uint8) if out is None else out
    plain_end = 0
    for (packed, size), plain in zip(table, plain_sizes, strict=True):
        content = np.frombuffer(zstd.decompress(member[packed_end : packed_end + packed]), np.uint8)
        if content.size != size:
            raise ValueError("a frame is not as long as the seek table says")
        undo(content, filter_, row, plain_bytes[plain_end : plain_end + plain].view(f"<u{width}"))
        packed_end, plain_end = packed_end + packed, plain_end + plain
    return plain_bytes
