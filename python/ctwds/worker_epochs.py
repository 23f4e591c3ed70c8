"""Which epoch the workers of a loader of shards read, and where in it they begin."""

from __future__ import annotations

import torch
from torch.utils.data import get_worker_info

from .batches import share
from .epochs import Clock
from .errors import LoaderError
from .resume import START_NUMBERS, Start


class WorkerEpochs:
    """The epoch of an iteration, in the training's process and in each worker, also in one that is there already."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Shared memory: the epoch that a loader of make_loader has begun, the one that set_epoch was called with last,
        # how often it was called, and where in its epoch the loader begins.
        self._told = share(torch.zeros(3 + START_NUMBERS, dtype=torch.int64))
        self.start: Start | None = None
        self._epoch: int | None = None  # of the iteration before, in a worker
        self._heard = 0

    def tell(self, begun: int | None = None, start: Start | None = None) -> None:
        """That `set_epoch` was called, or that a loader of make_loader begins an epoch, maybe in its middle."""
        if begun is None:
            self._told[1] = self._clock.asked
            self._told[2] = self._clock.calls
        else:
            self._told[0], self.start = begun, start
            self._told[3:] = torch.tensor(start.numbers() if start else [0] * START_NUMBERS)

    def begin(self) -> int:
        """The epoch of the iteration that begins now, in this process or worker."""
        if self._clock.held is None:
            self.start = None  # that was of an iteration of a loader of make_loader
        if get_worker_info() is None:
            return self._clock.begin()
        if self._epoch is None:  # the worker has just started: the clock is as it was when `iter` was called
            self._heard = self._clock.calls
            self._epoch = self._clock.begin()
        elif self._clock.held is not None:
            # Of this loader alone, and written before the worker was told to go on.
            epoch, _, _, *numbers = self._told.tolist()
            self._epoch, self.start = epoch, Start.of(numbers) if numbers[0] else None
        else:
            self._refuse_jump(self._epoch + 1)
            self._epoch += 1
        return self._epoch

    def _refuse_jump(self, epoch: int) -> None:
        """The workers that a plain DataLoader keeps each count by themselves, so that all are always of one mind: they
        cannot know whether `set_epoch` was called before the iteration began, or after that."""
        asked, calls = self._told[1:3].tolist()
        if calls != self._heard and asked not in (epoch, epoch + 1):
            raise LoaderError(
                f"set_epoch({asked}) cannot reach the persistent workers of a plain DataLoader, which are in epoch "
                f"{epoch}: take data.make_loader(...), or persistent_workers=False"
            )
        self._heard = calls

    def go_on(self, epoch: int) -> None:
        """An epoch was restored."""
        if get_worker_info() is None:
            self._clock.go_on(epoch)
        else:
            self._epoch = epoch
