"""Reads the volume's member of a compressed shard (`.bin.shuffle.zst`, `.volume.npy.shuffle.zst`) as plain bytes.

The member is in the zstd seekable format: frames, each with its checksum, and a table of their sizes at the end. The
content of a frame is shuffled: the lowest bytes of all its values, then the next higher ones. Values of 16 bits are
`shuffle`; those of 8 and 32 bits have names of their own (`.bin.shuffle1.zst`, `.bin.shuffle4.zst`).
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


def unpack(member: bytes | memoryview, out: NDArray[Any] | None = None, width: int = 2) -> NDArray[Any]:
    """The plain member as `uint8`, in `out` if that is given: for `.bin`, `.view(volume_dtype).reshape(volume_shape)`
    are the voxels, of `width` bytes. Raises ValueError or zstd.ZstdError if any frame is damaged."""
    member, table = memoryview(member), seek_table(member)
    if (table[:, 1] % width).any():
        raise ValueError("a frame holds a part of a value")
    plain_bytes = np.empty(int(table[:, 1].sum()), np.uint8) if out is None else out
    values = plain_bytes.reshape(-1, width)
    packed_end = plain_end = 0
    for packed, plain in table:
        planes = np.frombuffer(zstd.decompress(member[packed_end : packed_end + packed]), np.uint8)
        if planes.size != plain:
            raise ValueError("a frame is not as long as the seek table says")
        block = values[plain_end : plain_end + plain // width]
        if width == 2:  # five times as fast as byte by byte
            pairs = block.view("<u2")[:, 0]
            pairs[:] = planes[plain // 2 :]
            pairs <<= 8
            pairs |= planes[: plain // 2]
        else:
            block[:] = planes.reshape(width, -1).T
        packed_end, plain_end = packed_end + packed, plain_end + plain // width
    return plain_bytes
