"""Which epoch is read: counted for each loader, and set for all."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping

from .basics import T
from .errors import LoaderError


class Clock:
    """Counts epochs in the training's own process: of one loader, or of a data set that is read without one.

    `set_epoch` of a data set reaches the clocks of its loaders when these begin; until then each counts for itself."""

    def __init__(self, above: Clock | None = None) -> None:
        self.above = above
        self.asked, self.calls = 0, 0  # by set_epoch
        self.next = above.asked if above else 0
        self.begun: int | None = None  # none where set_epoch was called after the last beginning
        self.held: int | None = None  # while `iter` of a CTReportLoader begins this epoch
        self.managed = False  # by a CTReportLoader
        self.late: int | None = None  # what a sampler's set_epoch has chosen since the last beginning
        self._heard = above.calls if above else 0

    def set(self, epoch: int) -> None:
        """Decide the next epoch."""
        self.asked = self.next = max(0, epoch)
        self.calls += 1
        self.begun = self.late = None
        self._heard = self.above.calls if self.above else 0

    def set_late(self, epoch: int) -> None:
        """Decide the next epoch; of a loader of make_loader also the one that has begun, if nothing was read of it.

        Lightning tells the epoch to a loader's sampler: after a resume when it has called `iter` already."""
        self.set(epoch)
        self.late = self.asked

    def of_loader(self) -> Clock:
        """The clock of a loader of this data set, or of a loader that takes the place of this one."""
        self.listen()
        clock = Clock(self.above or self)
        clock.next = self.next if self.above else clock.next
        return clock

    def listen(self) -> None:
        """Take over what the data set's `set_epoch` has asked for."""
        if self.above and self._heard != self.above.calls:
            self.set(self.above.asked)

    def begin(self) -> int:
        """The epoch of an iteration that begins now."""
        if self.held is not None:
            return self.held
        self.listen()
        self.go_on(self.next)
        return self.next - 1

    @contextlib.contextmanager
    def hold(self) -> Iterator[int]:
        """Begin an epoch: it is that of all that begins in the meantime, and of workers that start, as they copy it."""
        self.held, self.managed = self.begin(), True
        try:
            yield self.held
        finally:
            self.held = None

    def go_on(self, epoch: int) -> None:
        """Make an epoch the one that has begun."""
        self.begun, self.next, self.late = epoch, epoch + 1, None


class Iteration(Iterator[T]):
    """What is read in one epoch. StatefulDataLoader of torchdata saves its state, and goes on from there."""

    def __init__(
        self, read: Callable[[int], Iterator[T]], begin: Callable[[], int], go_on: Callable[[int], None]
    ) -> None:
        self._read, self._begin, self._go_on = read, begin, go_on
        self._rest: Iterator[T] | None = None
        self._epoch = self._done = 0

    def start(self, epoch: int, done: int = 0) -> Iteration[T]:
        """Begin now, and not with the first `next`; after what was done."""
        self._epoch, self._done = epoch, done
        self._rest = itertools.islice(self._read(epoch), done, None)
        return self

    def __next__(self) -> T:
        if self._rest is None:
            self.start(self._begin())
        found = next(self._rest or iter(()))
        self._done += 1
        return found

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how much of it was read."""
        if self._rest is None:
            self.start(self._begin())
        return {"epoch": self._epoch, "done": self._done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Read on where the state was saved; what comes before is read once more."""
        self.start(state["epoch"], state["done"])
        self._go_on(self._epoch)


def caller_of(depth: int) -> str:
    """The package that called the function which calls this; with depth 2, the package that called its caller."""
    return str(sys._getframe(depth + 1).f_globals.get("__name__", "")).split(".")[0]


def refuse_second_split(world_size: int) -> None:
    """Called by each `set_epoch`, which Accelerate calls before it deals samples or batches to the ranks: of what is a
    rank's share already, that would be a share of the share, without a word."""
    if world_size > 1 and caller_of(2) == "accelerate":
        raise LoaderError(
            "Accelerate would deal to the ranks once more what this data set deals to them: take a loader of "
            "data.make_loader(...), which accelerator.prepare() leaves as it is, in place of a DataLoader"
        )
