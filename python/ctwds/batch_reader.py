"""Threads that read the volumes of batches, a few batches ahead."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ._native import Decoders
from .errors import Error, ReadError
from .pool import Pool, Shape
from .volumes import Info, Volumes


@dataclass
class Pending:
    """A batch that is being read."""

    numbers: list[int]
    infos: list[Info]
    outs: list[NDArray[Any]]
    whole: NDArray[Any] | None
    left: int
    also: list[dict[str, NDArray[Any]]]
    errors: dict[int, BaseException] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Event = field(default_factory=threading.Event)

    def one_done(self, place: int, error: BaseException | None) -> None:
        """Note that a volume was read, or why not."""
        with self.lock:
            if error is not None:
                self.errors[place] = error
            self.left -= 1
            if self.left == 0:
                self.done.set()


class BatchReader(Iterator[Pending]):
    """The batches of one iteration, in their order, each when it was read: a context whose end is that of the threads.

    The threads wait and copy, so one more than there are decoders keeps all of these busy."""

    def __init__(
        self, data: Volumes, batches: Iterable[list[int]], *, threads: int, cache: int, ahead: int, dtype: str | None
    ) -> None:
        self._data, self._batches = data, iter(batches)
        self._sizes, self._ahead, self._dtype = (threads, cache), ahead, dtype
        self._pool = Pool(ahead + 2)
        self._pinned = torch.cuda.is_available()
        self._pending: deque[Pending] = deque()
        self._jobs: queue.SimpleQueue[tuple[Pending, int] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._process = os.getpid()

    def __enter__(self) -> BatchReader:
        decoders = self._data._shards.decoders(*self._sizes)
        for _ in range(self._sizes[0] + 1):
            given = (self._data, decoders, self._jobs, self._ended)
            thread = threading.Thread(target=_work, args=given, daemon=True, name="ctwds-reader")
            try:
                thread.start()
            except RuntimeError as error:
                self.__exit__()
                raise ReadError(
                    f"cannot start {self._sizes[0] + 1} threads that read ({error}): a limit of processes, threads or "
                    "memory is reached (ulimit -u, ulimit -v, pids.max); take fewer threads"
                ) from error
            self._threads.append(thread)
        return self

    def __exit__(self, *exception: object) -> None:
        if os.getpid() != self._process:
            return
        self._ended.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def __next__(self) -> Pending:
        if os.getpid() != self._process:  # which has none of the threads, and would wait for ever
            raise Error("this iteration is of the process that forked: begin one here, with iter(loader)")
        while len(self._pending) < self._ahead and (numbers := next(self._batches, None)) is not None:
            self._pending.append(self._begin(numbers))
        if not self._pending:
            raise StopIteration
        self._pending[0].done.wait()
        return self._pending.popleft()

    def _begin(self, numbers: list[int]) -> Pending:
        """Have the volumes of a batch read."""
        infos = [self._data._info(number) for number in numbers]
        shapes = {info.shape for info in infos}
        dtype = np.dtype(self._dtype or infos[0].dtype)
        whole = None
        if len(shapes) == 1:
            whole = self._memory((len(infos), *infos[0].shape), dtype)
            outs = list(whole)
        else:
            outs = [self._memory((1, *info.shape), dtype)[0] for info in infos]
        pending = Pending(numbers, infos, outs, whole, len(infos), [{} for _ in infos])
        for place in range(len(infos)):
            self._jobs.put((pending, place))
        return pending

    def _memory(self, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        if not self._pinned:
            return self._pool.array(shape, dtype)
        # Pinned memory is left to PyTorch's own allocator, which knows of copies to the GPU that are under way.
        kind = getattr(torch, dtype.name)
        return cast("NDArray[Any]", torch.empty(shape, dtype=kind, pin_memory=True).numpy())


def _work(
    data: Volumes,
    decoders: Decoders,
    jobs: queue.SimpleQueue[tuple[Pending, int] | None],
    ended: threading.Event,
) -> None:
    """Read volumes until there is no more to do."""
    while (job := jobs.get()) is not None:
        pending, place = job
        error: BaseException | None = None
        try:
            if ended.is_set():
                raise Error("the iteration was ended")
            number, info = pending.numbers[place], pending.infos[place]
            data._fill(number, info, pending.outs[place], decoders)
            for n, name in enumerate(data.also_names):
                pending.also[place][name] = data._extra(number, n, decoders)
        except BaseException as caught:
            error = caught.with_traceback(None)
        pending.one_done(place, error)
        del job, pending
