"""Reads a shard from front to back, each byte once."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .basics import BLOCK, CHUNK
from .errors import LoaderError, PackageMissing
from .members import OTHERS, REMEDIES, VOXELS, Buffer, Member, complain, npy_voxels, parse_header
from .packed import plain_length, plain_suffix, seek_table, unpack
from .samples import RawSample

END = 22 * BLOCK  # bytes of zeros that a tar has at most: two blocks, and what makes its length one of 20 blocks


def read_fully(file: int, view: memoryview, offset: int) -> None:
    """Fill `view` with a file's bytes from `offset` on."""
    while view:
        count = os.preadv(file, [view[:CHUNK]], offset)
        if count == 0:
            raise EOFError("the shard ends here, it was not written to its end")
        view, offset = view[count:], offset + count


class ShardReader:
    """Reads a shard from front to back, each byte once, voxels straight into a buffer of the pool.

    With a member the header behind it is read, never more: that would be a piece of the next volume, which a mount
    would have to decode first. Where a header cannot be read, it goes on at the next sample that the index beside the
    shard knows."""

    def __init__(
        self,
        path: str,
        pool: list[Buffer],
        on_error: str = "raise",
        has_labels: bool | None = None,
        also: Sequence[str] = (),
        places: Sequence[int] | None = None,
    ) -> None:
        self.path, self._pool, self._on_error, self._has_labels = path, pool, on_error, has_labels
        self._also, self._places = also, places

    def __iter__(self) -> Iterator[RawSample]:
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._failure("the shard", error) from error
        try:
            for key, members in self._groups() if self._places is None else self._chosen(self._places):
                try:
                    sample = self._sample(key, members)
                except LoaderError as error:
                    complain(error, self._on_error)
                    continue
                yield sample
        finally:
            os.close(self._file)

    def _failure(self, name: str, error: Exception) -> LoaderError:
        code, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (0, str(error))
        remedy = REMEDIES.get(code or 0, "compare the shard with its digest in manifest.json, and write it again")
        return LoaderError(f"{self.path}: {name}: {reason}: {remedy}")

    def _read(self, view: memoryview, offset: int, name: str) -> None:
        try:
            try:
                read_fully(self._file, view, offset)
            except OSError as error:
                if error.errno != errno.EIO or not self._read_directly(view, offset):
                    raise
        except (OSError, EOFError) as error:
            raise self._failure(name, error) from error

    def _read_directly(self, view: memoryview, offset: int) -> bool:
        """Read past the page cache, if that goes. Through it, a mount can only refuse whole pages: also the headers and
        texts that share one with a damaged volume. A disk refuses such a read, which is not aligned to its blocks."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            try:
                read_fully(file, view, offset)
            finally:
                os.close(file)
        except (OSError, EOFError):
            return False
        return True

    def _groups(self) -> Iterator[tuple[str, list[Member]]]:
        """The members of each sample, as soon as the header behind them says that they are all."""
        start: int | None = 0
        while start is not None:
            start = yield from self._groups_from(start)

    def _chosen(self, places: Sequence[int]) -> Iterator[tuple[str, list[Member]]]:
        """Those of the samples at some places, which ascend; the volumes of the others are not read."""
        starts = self._starts()
        at = 0
        while at < len(places):
            first, begin = places[at], at
            while at < len(places) and places[at] - first == at - begin:
                at += 1
            if places[at - 1] >= len(starts):
                reason = f"sample {places[at - 1]} is not there, it has {len(starts)}"
                raise self._failure("its index", ValueError(reason))
            yield from itertools.islice(self._groups_from(starts[first]), at - begin)

    def _starts(self) -> list[int]:
        """Where each sample begins: as the index beside the shard says, else by the headers of all members."""
        with contextlib.suppress(OSError):
            found: list[int] = np.fromfile(self.path + ".idx", "<u8").tolist()
            if found:
                return found[:-1]  # the last one is where the last sample ends
        starts, key, offset = list[int](), None, 0
        header = bytearray(BLOCK)
        while True:
            self._read(memoryview(header), offset, f"the header at byte {offset}")
            try:
                member = parse_header(bytes(header))
            except ValueError as error:
                raise self._failure(f"the header at byte {offset}", error) from error
            if member is None:
                self._check_end(offset)
                return starts
            if member[0].partition(".")[0] != key:
                key = member[0].partition(".")[0]
                starts.append(offset)
            offset += BLOCK - (-member[1] // BLOCK) * BLOCK

    def _groups_from(self, offset: int) -> Generator[tuple[str, list[Member]], None, int | None]:
        """Those from the header at `offset` on. The result is where to go on after a header that cannot be read."""
        key, members, header = "", list[Member](), bytearray()
        place = f"the header at byte {offset}" if offset else "its first header"
        while True:
            try:
                if not header:
                    header = bytearray(BLOCK)
                    self._read(memoryview(header), offset, place)
                found = parse_header(bytes(header))
                if found is None:
                    self._check_end(offset)
            except (LoaderError, ValueError) as error:
                failure = error if isinstance(error, LoaderError) else self._failure(place, error)
                return (yield from self._after(failure, offset, key, members))
            if members and (found is None or found[0].partition(".")[0] != key):
                yield key, members
                members = []
            if found is None:
                return None
            name, size = found
            key, _, suffix = name.partition(".")
            room = -(-size // BLOCK) * BLOCK + BLOCK
            buffer = (self._pool.pop() if self._pool else Buffer()) if plain_suffix(suffix)[0] in VOXELS else None
            view = buffer.view(room) if buffer else memoryview(bytearray(room))
            try:
                self._read(view, offset + BLOCK, name)
                members.append(Member(suffix, view[:size], buffer))
                header = bytearray(view[-BLOCK:])
            except LoaderError as error:
                members.append(Member(suffix, error, buffer))
                header = bytearray()
            offset, place = offset + room, f"the header behind {name}"

    def _check_end(self, offset: int) -> None:
        """Zeros in the place of a header end an archive, and are what a disk may return for a block that it lost."""
        rest = os.fstat(self._file).st_size - offset
        behind = bytearray(max(0, min(rest, END)))
        self._read(memoryview(behind), offset, "its end")
        if rest > END or any(behind):
            raise self._failure(f"the header at byte {offset}", ValueError("zeros, and the shard goes on behind them"))

    def _after(
        self, failure: LoaderError, offset: int, key: str, members: list[Member]
    ) -> Generator[tuple[str, list[Member]], None, int | None]:
        """Where the next sample begins, behind a header at `offset` that cannot be read: as the index says, which
        Megatron-Energon reads too. The members before it are a sample if a sample begins with it."""
        starts: list[int] = []
        with contextlib.suppress(OSError):
            starts = np.fromfile(self.path + ".idx", "<u8").tolist()
        if members and offset in starts:
            yield key, members
        else:
            self._pool.extend(member.buffer for member in members if member.buffer)
        end = os.fstat(self._file).st_size
        start = min((start for start in starts if offset < start < end and start % BLOCK == 0), default=None)
        rest = "the rest of the shard is left out as well" if start is None else f"it goes on at byte {start}"
        complain(failure, self._on_error, f"; {rest}")
        return start

    def _extra(self, name: str, members: list[Member]) -> NDArray[Any]:
        """The array beside the volume of this name."""
        for member in members:
            plain, filter_ = plain_suffix(member.suffix)
            if plain == f"{name}.npy" and not isinstance(member.payload, LoaderError):
                payload = member.payload
                if filter_:
                    table = seek_table(payload)
                    payload = memoryview(bytearray(plain_length(table, filter_)))
                    unpack(member.payload, table, filter_, payload)
                return npy_voxels(payload, {})
        raise ValueError(f"no {name}.npy among its members {[m.suffix for m in members]}; also names those that it has")

    def _unpack(self, packed: memoryview, filter_: str) -> tuple[memoryview, Buffer]:
        """The plain voxels, and the buffer of the pool that they are in."""
        table = seek_table(packed)
        length = plain_length(table, filter_)
        buffer = self._pool.pop() if self._pool else Buffer()
        view = buffer.view(length)
        try:
            unpack(packed, table, filter_, view)
        except ValueError:
            self._pool.append(buffer)
            raise
        return view, buffer

    def _sample(self, key: str, members: list[Member]) -> RawSample:
        parts: dict[str, Any] = {}
        try:
            for member in members:
                if isinstance(member.payload, LoaderError):
                    raise member.payload
                plain, filter_ = plain_suffix(member.suffix)
                if plain in VOXELS:
                    if filter_:
                        before = member.buffer
                        member.payload, member.buffer = self._unpack(member.payload, filter_)
                        self._pool.extend([before] if before else [])
                    parts |= {"voxels": (VOXELS[plain], member.payload), "buffer": member.buffer}
                elif member.suffix in OTHERS:
                    field, decode = OTHERS[member.suffix]
                    parts[field] = decode(member.payload)
            missing = [part for part in ("voxels", "meta", "text") if part not in parts]
            if "labels" not in parts and self._has_labels:
                missing += ["labels"]
            if missing:
                raise ValueError(f"no {' and no '.join(missing)} among its members {[m.suffix for m in members]}")
            parts.setdefault("labels", np.zeros(0, np.float32))
            decode_voxels, payload = parts.pop("voxels")
            parts["extras"] = {name: self._extra(name, members) for name in self._also}
            return RawSample(key, parts["meta"]["study_id"], voxels=decode_voxels(payload, parts["meta"]), **parts)
        except PackageMissing as error:
            raise PackageMissing(f"{self.path}: {key}: {error}") from error
        except (LoaderError, ValueError, KeyError, TypeError) as error:
            self._pool.extend(member.buffer for member in members if member.buffer)
            raise error if isinstance(error, LoaderError) else self._failure(key, error) from error
