"""Reads the volume's member of a compressed shard (`.bin.shuffle.zst`, `.volume.npy.shuffle.zst`) as plain bytes.

The member is in the zstd seekable format: frames, each with its checksum, and a table of their sizes at the end. The
content of a frame is shuffled: the low bytes of its 16-bit values, then the high ones.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from compression import zstd  # Python 3.14
except ImportError:
    from backports import zstd

SUFFIX = ".shuffle.zst"
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


def unpack(member: bytes | memoryview, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """The plain member as `uint8`, in `out` if that is given: for `.bin`, `.view("<f2").reshape(volume_shape)` are the
    voxels. Raises ValueError or zstd.ZstdError if any frame is damaged."""
    member, table = memoryview(member), seek_table(member)
    if (table[:, 1] % 2).any():
        raise ValueError("a frame holds half a value")
    values = np.empty(int(table[:, 1].sum()) // 2, "<u2") if out is None else out.view("<u2")
    packed_end = plain_end = 0
    for packed, plain in table:
        low_high = np.frombuffer(zstd.decompress(member[packed_end : packed_end + packed]), np.uint8)
        if low_high.size != plain:
            raise ValueError("a frame is not as long as the seek table says")
        block = values[plain_end : plain_end + plain // 2]
        block[:] = low_high[plain // 2 :]
        block <<= 8
        block |= low_high[: plain // 2]
        packed_end, plain_end = packed_end + packed, plain_end + plain // 2
    return values.view(np.uint8)
