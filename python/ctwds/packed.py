"""Voxel members of compressed shards (the zstd seekable format), as plain bytes."""

from __future__ import annotations

import importlib
import re
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import PackageMissing


def native_unpack() -> Any:
    """The program's own decoder, where the package ctwds is installed: faster than NumPy. None where it is not."""
    try:
        return getattr(importlib.import_module("ctwds._native"), "unpack_member", None)
    except ImportError:
        return None


def zstd_module() -> Any:
    """Whichever implementation of zstd is installed. PackageMissing, which no `on_error` passes over, if none is."""
    for name in ("compression.zstd", "backports.zstd", "pyzstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise PackageMissing(
        "the shards are compressed, and Python has no zstd: `pip install backports.zstd`, or show them as plain ones "
        "with `ctwds-fs mount --shards FOLDER MOUNTPOINT`"
    )


def seek_table(member: memoryview) -> NDArray[Any]:
    """Packed size, size of the content and its checksum of every frame of a compressed member (the zstd seekable
    format): a row each."""
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


class Filter(NamedTuple):
    """What was done to the values of a block before it was packed."""

    width: int
    """Bytes of a value."""
    predicts: str = ""
    """What is predicted by its neighbours: "halves" (float16), "integers" of the width, or nothing."""
    splits: bool = False
    """Whether lower bits stand apart from upper ones; the last byte of each frame's content says how it was made."""


GROUP = 32  # the values of a split block whose number of lower bits is one

INTEGERS = np.arange(1 << 16, dtype="<u2").view("<i2")
# The float16 of each of them: its magnitude; one with a minus, such as -0.0, has all bits of its magnitude inverted.
HALVES = (INTEGERS ^ (INTEGERS >> 15)).astype("<f2").view("<u2") | INTEGERS.view("<u2") & 0x8000

FILTERS = {
    "split": Filter(2, "halves", splits=True),
    "split2": Filter(2, "integers", splits=True),
    "predict": Filter(2, "halves"),
    "predict1": Filter(1, "integers"),
    "predict2": Filter(2, "integers"),
    "predict4": Filter(4, "integers"),
    "predict8": Filter(8, "integers"),
    "shuffle": Filter(2),
    "shuffle1": Filter(1),
    "shuffle4": Filter(4),
    "shuffle8": Filter(8),
}


def plain_suffix(suffix: str) -> tuple[str, str]:
    """A voxel member's suffix without what compression added, and the filter's name, which may be one of a later
    version; an empty name of a plain member."""
    found = re.fullmatch(r"(.+)\.([A-Za-z0-9]+)\.zst", suffix)
    return (found[1], found[2]) if found else (suffix, "")


def filter_of(name: str) -> Filter:
    """The filter of this name. PackageMissing, which no `on_error` passes over, if a later version has added it."""
    if name not in FILTERS:
        raise PackageMissing(
            f"the filter {name} is not known to this version of ctwds: a later version wrote the shard; install that "
            "version of ctwds, or show plain shards with that version of `ctwds-fs mount --shards FOLDER MOUNTPOINT`"
        )
    return FILTERS[name]


def plain_length(table: NDArray[Any], name: str) -> int:
    """How many bytes a member has when it is plain, by its seek table and the name of its filter."""
    contents = table[:, 1]
    return int(contents.sum() - (np.count_nonzero(contents) if filter_of(name).splits else 0))


def row_length(member: memoryview, table: NDArray[Any]) -> int:
    """How many values a row of a predicted member has: its first frame, which every zstd passes over, says so."""
    magic, size, row, crc = struct.unpack("<4I", bytes(member[:16]).ljust(16, b"\0"))
    if table[:1].tolist() != [[16, 0, 0x51D8E999]] or (magic, size) != (0x184D2A50, 8):
        raise ValueError("it does not begin with the frame that has the length of its rows")
    if crc != zlib.crc32(member[8:12]) or row == 0:
        raise ValueError("the frame that has the length of its rows is damaged")
    return int(row)


def unpredict(values: NDArray[Any], row: int, predicts: str) -> None:
    """Turn what was left of predicted values into the values: sums along the block, then along its columns."""
    sign = values & 1
    values >>= 1
    values ^= -sign
    np.cumsum(values, out=values, dtype=values.dtype)
    whole = len(values) // row * row
    rows, rest, step = values[:whole].reshape(-1, row), values[whole:], 1
    while step < len(rows):  # sums of 2, 4, 8, … rows: half the time of np.cumsum, which goes through each column
        rows[step:] += rows[:-step].copy()
        step *= 2
    rest += values[whole - row :][: len(rest)] if whole else 0
    if predicts == "halves":  # in the order of the numbers: negative ones have all bits inverted, others the sign
        sign = values >> 15
        sign -= 1
        sign |= 0x8000
        values ^= sign


def unpack(member: memoryview, table: NDArray[Any], name: str, out: memoryview) -> None:
    """Fill `out` with the plain member, which has this seek table and whose values the filter of this name was applied
    to. ValueError if it is damaged."""
    filter_ = filter_of(name)
    if native := native_unpack():
        native(np.frombuffer(member, np.uint8), name, np.frombuffer(out, np.uint8))
    else:
        unpack_by_numpy(member, table, filter_, out)


def unpack_by_numpy(member: memoryview, table: NDArray[Any], filter_: Filter, out: memoryview) -> None:
    """The same by NumPy, block by block."""
    zstd, width, row, added = zstd_module(), filter_.width, 0, int(filter_.splits)
    at = done = 0
    if filter_.predicts:
        row = row_length(member, table)
        at, table = int(table[0, 0]), table[1:]
    plain = table[:, 1] - added
    if (plain % width).any() or (plain < added).any():
        raise ValueError("a block of it does not hold whole values")
    all_values = np.frombuffer(out, f"<u{width}")
    for number, (packed, size, checksum) in enumerate(table.tolist()):
        frame, values = member[at : at + packed], all_values[done : done + size // width]
        if not frame[4] & 4 or int.from_bytes(frame[-4:], "little") != checksum:
            raise ValueError(f"block {number}: it has not the checksum that the seek table says")
        try:
            content = np.frombuffer(zstd.decompress(frame), np.uint8)
            if len(content) != size:
                raise ValueError(f"it holds {len(content)} bytes, the seek table says {size}")
            undo(content, filter_, row, values)
        except (zstd.ZstdError, ValueError) as error:
            raise ValueError(f"block {number}: {error}") from error
        at, done = at + packed, done + len(values)


def undo(content: NDArray[Any], filter_: Filter, row: int, values: NDArray[Any]) -> None:
    """Fill `values`, those of a block, by the content of its frame."""
    predicts = filter_.predicts
    if not filter_.splits:
        unshuffle(content, values)
        if predicts:
            unpredict(values, row, predicts)
        return
    content, way = content[:-1], int(content[-1])
    if way > (2 if predicts == "halves" else 1):
        raise ValueError(f"it was made in a way that this version does not know: {way}")
    if way == 0:  # a split would have taken more room
        unshuffle(content, values)
        return
    join(content, values)
    unpredict(values, row, "integers" if way == 2 else predicts)
    if way == 2:  # float16 that are whole numbers, which were predicted as such
        values[:] = HALVES.take(values)


def unshuffle(content: NDArray[Any], values: NDArray[Any]) -> None:
    """Fill `values` by the lowest bytes of all, then the next higher ones."""
    count, width = len(values), values.itemsize
    if width == 2:  # five times as fast as byte by byte
        values[:] = content[count:]
        values <<= 8
        values |= content[:count]
    else:
        values.view(np.uint8).reshape(-1, width)[:] = content.reshape(width, -1).T


def join(content: NDArray[Any], values: NDArray[Any]) -> None:
    """Fill `values` by the upper bits of all, the number of lower bits of each group, and these bits: of 4, those of
    the values 0 and 16, 1 and 17, … share a byte."""
    count, half = len(values), GROUP // 2
    groups = -(-count // GROUP)
    upper, numbers, lower = content[:count], content[count : count + groups], content[count + groups :]
    ends = (numbers >> 2).cumsum(dtype=np.intp)  # in pieces of 16 bytes
    pieces = int(ends[-1])
    if (numbers & 0xF3).any() or (numbers == 12).any() or pieces * half > len(lower):
        raise ValueError("its groups have other numbers of lower bits than there are")
    bytes_, is_four, is_eight = lower[: pieces * half].reshape(-1, half), numbers == 4, numbers == 8
    # All that half a group can have, in one table: bytes, the lower and the upper half of them, and zeros.
    table = np.concatenate([bytes_, bytes_ & 15, bytes_ >> 4, np.zeros((1, half), np.uint8)])
    none = 3 * pieces
    first = np.where(is_eight, ends - 2, np.where(is_four, pieces + ends - 1, none))
    second = np.where(is_eight, ends - 1, np.where(is_four, 2 * pieces + ends - 1, none))
    joined = np.zeros((groups, GROUP), "<u2")
    joined.reshape(-1)[:count] = upper
    joined *= np.left_shift(1, numbers, dtype="<u2")[:, None]  # in a sixth of the time of a shift
    joined |= table.take(np.stack([first, second], axis=1), axis=0).reshape(-1, GROUP)
    values[:] = joined.reshape(-1)[:count]
