"""Samples of a data set or of a folder of shards, made in this process: without a mount and without files."""

from __future__ import annotations

import json
import math
import operator
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from ._native import Decoders, Shards, available_cores
from .dictionaries import Dictionaries
from .errors import ChangedError, Error, UnknownStudyError, UsageError, whole_number
from .members import npy_voxels


class _Start:
    """Decoders are made one at a time."""

    lock = threading.Lock()

    @classmethod
    def forget(cls) -> None:
        """In a process that was forked while another thread held it, nobody would ever give it back."""
        cls.lock = threading.Lock()


os.register_at_fork(after_in_child=_Start.forget)


class Sample(NamedTuple):
    """One study.

    Attributes:
        id: the study id.
        volume: the voxels, C order, of the shape and dtype that `meta` names as `volume_shape` and `volume_dtype`:
            (H, W, D), float16 unless the data set was opened with another `output_dtype`. Scanner values, HU, or
            HU / 1000, as the kind of the data set has it.
        text: the report: findings, a newline, impressions.
        labels: one float32 for each class of `label_names`; empty without labels.
        meta: the sample's JSON.
        also: the arrays beside the volume, by name, of their own dtype and the volume's shape.
    """

    id: str
    volume: NDArray[Any]
    text: str
    labels: NDArray[np.float32]
    meta: dict[str, Any]
    also: dict[str, NDArray[Any]]


class Info(NamedTuple):
    """What is known of a sample without its voxels."""

    id: str
    text: str
    labels: NDArray[np.float32]
    meta: dict[str, Any]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]


class Volumes(Sequence[Sample]):
    """The samples of a data set, in its order: what `open` returns. A map-style data set for PyTorch.

    `data[17]` and `data["train_1_a_1"]` are samples, `len(data)` their number, `data.keys()` their ids. It can be
    pickled, forked and spawned: decoders start in each process when it first reads."""

    def __init__(
        self,
        flags: Sequence[str],
        *,
        threads: int | None = None,
        cache: int | None = None,
        _shards: Shards | None = None,
        _chosen: NDArray[np.uint32] | None = None,
        _digest: str | None = None,
    ) -> None:
        self._flags = list(flags)
        self._threads = None if threads is None else whole_number("threads", threads, 1)
        self._cache = None if cache is None else whole_number("cache", cache, 1)
        if _shards is None:
            _shards, said = Shards.planned(self._flags)
            for warning in said if _digest is None else ():
                warnings.warn(warning, stacklevel=3)
        if _digest not in (None, _shards.digest):
            raise ChangedError(
                f"{self._source}: files or tables have changed since the data set was opened (its digest was "
                f"{_digest}, and is {_shards.digest}); open it again in all processes"
            )
        self._shards = _shards
        self._all_ids = _shards.ids()
        self._chosen = np.arange(len(self._all_ids), dtype=np.uint32) if _chosen is None else _chosen
        self._places: dict[str, int] | None = None
        self._decoders: tuple[int, Decoders] | None = None
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self._flags, self._threads, self._cache, self._chosen, self.digest)
        return (_opened_again, state)

    @property
    def digest(self) -> str:
        """SHA-256 of all that determines the samples' bytes, in hexadecimal: the same on every machine."""
        return self._shards.digest

    @property
    def kind(self) -> str:
        """The kind of the volumes: "stored", "rescaled" or "preprocessed"."""
        return self._shards.kind

    @property
    def label_names(self) -> list[str]:
        """The names of the classes, in the order of `labels`."""
        return self._shards.label_names()

    @property
    def also_names(self) -> list[str]:
        """The names of the arrays beside each volume."""
        return self._shards.extra_names()

    @property
    def left_out(self) -> dict[str, str]:
        """The studies that have no sample, each with the reason."""
        return dict(self._shards.left_out())

    def __len__(self) -> int:
        return len(self._chosen)

    def keys(self) -> list[str]:
        """The study ids, in order."""
        return [self._all_ids[number] for number in self._chosen]

    def __contains__(self, key: object) -> bool:
        """Whether there is a sample of this study id."""
        return isinstance(key, str) and key in self._known()

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._of(self._chosen[key])
        return self._sample(self._number(key))

    def info(self, key: SupportsIndex | str) -> Info:
        """A sample without its voxels; reads no file of volumes."""
        return self._info(self._number(key))

    def dictionaries(self) -> Dictionaries:
        """The same samples as dictionaries, as MONAI's transforms take them."""
        return Dictionaries(self)

    def read_into(self, key: SupportsIndex | str, out: Any) -> None:
        """Read the voxels of a sample into an array or a tensor, without Python's lock.

        Args:
            key: an index or a study id.
            out: a NumPy array or a tensor on the CPU, contiguous, of the sample's shape; of the dtype of its voxels,
                or float32 for voxels of float16, whose values are then widened.

        Raises:
            UsageError: `out` has another shape or dtype, is not contiguous, or another thread reads into it.
            DamagedError, ChangedError, ReadError: the volume cannot be read.
        """
        number = self._number(key)
        self._fill(number, self._info(number), _array(out))

    def region(self, key: SupportsIndex | str, slices: Sequence[slice]) -> NDArray[Any]:
        """A box of a volume, without the rest: of compressed shards only the blocks are unpacked that hold it, of plain
        ones only its bytes are read. Other volumes that must be made from their beginning on are made whole.

        Args:
            key: an index or a study id.
            slices: three slices with steps of 1, as of NumPy.

        Returns:
            The voxels of the box, of the dtype of the volume, in C order.

        Raises:
            UsageError: these are not three slices with steps of 1.
            DamagedError, ChangedError, ReadError: the volume cannot be read.
        """
        number = self._number(key)
        info = self._info(number)
        try:
            parts = [part for part in slices if isinstance(part, slice)]
            pairs = [part.indices(length) for part, length in zip(parts, info.shape, strict=True)]
            if len(parts) != len(slices) or any(step != 1 for _, _, step in pairs):
                raise ValueError
        except (TypeError, ValueError) as error:
            raise UsageError(f"a region is three slices of whole numbers with steps of 1, not {slices!r}") from error
        start, stop = (cast("tuple[int, int, int]", tuple(pair[side] for pair in pairs)) for side in (0, 1))
        out = np.empty([max(0, b - a) for a, b in zip(start, stop, strict=True)], info.dtype)
        if out.size:
            of = (info.shape, info.dtype.itemsize)
            self._reader().read_box(number, of, (start, stop), out.reshape(-1).view(np.uint8))
        return out

    def subset(self, *, where: str | None = None, ids: Iterable[str] | None = None) -> Volumes:
        """The samples that fulfil a condition on labels, or those of a list; both if both are given.

        Args:
            where: a condition as `--where` has it: `"Lung nodule == 1 and not Emphysema == 1"`.
            ids: study ids; the order stays that of the data set.

        Raises:
            UsageError: the condition is wrong, or there is no such study.
        """
        chosen = self._chosen
        if where is not None:
            chosen = chosen[np.isin(chosen, np.asarray(self._shards.chosen(where), np.uint32))]
        if ids is not None:
            known = self._known()
            wanted = [ids] if isinstance(ids, str) else list(ids)
            if missing := [name for name in wanted if name not in known]:
                raise UsageError(f"there is no study {missing[0]!r} ({len(missing)} of the {len(wanted)} ids)")
            chosen = chosen[np.isin(chosen, np.asarray([known[name] for name in wanted], np.uint32))]
        return self._of(chosen)

    def close(self) -> None:
        """End the decoders and free their memory; reading after it is an error."""
        self._closed = True
        self._decoders = None

    def __enter__(self) -> Volumes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ctwds.Volumes: {len(self)} samples, {self.kind}, {self._shards.dtype}, {self._source}>"

    def _of(self, chosen: NDArray[np.uint32]) -> Volumes:
        self._refuse_closed()
        return Volumes(self._flags, threads=self._threads, cache=self._cache, _shards=self._shards, _chosen=chosen)

    def _known(self) -> dict[str, int]:
        if self._places is None:
            self._places = {self._all_ids[number]: int(number) for number in self._chosen}
        return self._places

    def _number(self, key: Any) -> int:
        """The number of a sample in the whole data set."""
        if isinstance(key, str):
            if (number := self._known().get(key)) is None:
                reason = self.left_out.get(key)
                raise UnknownStudyError(f"{key}: left out: {reason}" if reason else f"there is no study {key!r}")
            return number
        try:
            return int(self._chosen[operator.index(key)])
        except TypeError as error:
            raise UsageError(f"a sample is named by an index or a study id, not by {key!r}") from error
        except IndexError:  # which ends loops
            raise IndexError(f"there is no sample {key}: the data set has {len(self)}") from None

    def _info(self, number: int) -> Info:
        meta, text, labels = self._shards.small(number)
        count = len(self.label_names)
        parsed = json.loads(meta)
        values = np.frombuffer(labels, "<f4", count, len(labels) - 4 * count).copy() if count else np.empty(0, "<f4")
        shape, dtype = tuple(parsed["volume_shape"]), np.dtype(parsed["volume_dtype"]).newbyteorder("<")
        return Info(self._all_ids[number], text.decode(), values, parsed, cast("Any", shape), dtype)

    def _sample(self, number: int) -> Sample:
        info = self._info(number)
        volume: NDArray[Any] = np.empty(info.shape, info.dtype)
        self._fill(number, info, volume)
        also = {name: self._extra(number, place) for place, name in enumerate(self.also_names)}
        return Sample(info.id, volume, info.text, info.labels, info.meta, also)

    def _extra(self, number: int, place: int, reader: Decoders | None = None) -> NDArray[Any]:
        member = np.empty(self._shards.member_size(number, place), np.uint8)
        (reader or self._reader()).read_into(number, len(member), member, place)
        return npy_voxels(member.data, {})

    def _fill(self, number: int, info: Info, out: NDArray[Any], reader: Decoders | None = None) -> None:
        size = math.prod(info.shape) * info.dtype.itemsize
        fits = out.dtype == info.dtype or (out.dtype == np.float32 and info.dtype == np.float16)
        if out.shape != info.shape or not fits:
            raise UsageError(
                f"{info.id}: its volume has the shape {info.shape} and the dtype {info.dtype}, and `out` has "
                f"{out.shape} and {out.dtype}"
            )
        if not out.flags.carray:
            raise UsageError(
                f"{info.id}: `out` must be contiguous, aligned and writable; copy from a new array instead"
            )
        reader = reader or self._reader()
        try:
            if out.dtype == info.dtype:
                reader.read_into(number, size, out.reshape(-1).view(np.uint8))
            else:
                reader.read_wide(number, size, out.reshape(-1))
        except TypeError as error:
            raise UsageError(f"{info.id}: another thread reads into `out`, or into a part of it ({error})") from error

    @property
    def _source(self) -> str:
        """What was opened, for messages; without flags that is the file in the current folder."""
        return " ".join(self._flags) or "ctwds.toml"

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Error(f"{self._source}: the data set was closed: open it again")

    def _reader(self) -> Decoders:
        """The decoders of this process."""
        held, process = self._decoders, os.getpid()
        if held is not None and held[0] == process:
            return held[1]
        with _Start.lock:
            self._refuse_closed()
            if self._decoders is None or self._decoders[0] != process:
                threads = self._threads or available_cores()
                cache = self._cache or (threads + 1) * max(1, self._shards.largest())
                self._decoders = (process, self._shards.decoders(threads, cache))
            return self._decoders[1]


def _opened_again(
    flags: list[str], threads: int | None, cache: int | None, chosen: NDArray[np.uint32], digest: str
) -> Volumes:
    """What a data set is in another process."""
    return Volumes(flags, threads=threads, cache=cache, _chosen=chosen, _digest=digest)


def _array(out: Any) -> NDArray[Any]:
    """An array or tensor of the caller as an array of the same memory."""
    if isinstance(out, np.ndarray):
        return np.asarray(out)  # a subclass has views of its own kind
    try:
        return cast("NDArray[Any]", out.numpy())
    except (AttributeError, TypeError, RuntimeError) as error:
        raise UsageError(f"`out` is no array, and no tensor that NumPy can write to: {error}") from error
