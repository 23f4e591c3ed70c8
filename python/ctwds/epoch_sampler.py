"""The order of files in an epoch, for a DataLoader."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from .epochs import Iteration, caller_of, refuse_second_split
from .errors import LoaderError

if TYPE_CHECKING:
    from .npz_dataset import CTReportDataset


class EpochSampler(DistributedSampler[int]):
    """The indices that a rank reads in an epoch, for a DataLoader: `DataLoader(data, sampler=EpochSampler(data))`. Each
    iteration is of the next epoch, or of the one that `set_epoch` has chosen, here or in the data set. As it is a
    DistributedSampler, Lightning does not split it once more."""

    def __init__(self, data: CTReportDataset) -> None:
        super().__init__(data, data.world_size, data.rank, data.shuffle, data.seed, data.uneven == "drop")
        self.data = data
        self.clock = data._clock.of_loader()

    def __len__(self) -> int:
        """How many."""
        world = self.data.world_size
        if self.data.uneven == "keep":
            return len(range(self.data.rank, len(self.data), world))
        return len(self.data) // world if self.data.uneven == "drop" else math.ceil(len(self.data) / world)

    def set_epoch(self, epoch: int) -> None:
        """Decide the epoch of the next iteration over this sampler."""
        refuse_second_split(self.data.world_size)
        clock = self.clock
        if (
            caller_of(1).endswith("lightning")
            and not (clock.calls or clock.managed)
            and clock.begun not in (None, epoch)
        ):
            raise LoaderError(
                f"Lightning goes on with epoch {epoch}, and has let a DataLoader with workers begin epoch "
                f"{clock.begun} already: take a loader of data.make_loader(...) in place of the DataLoader"
            )
        clock.set_late(epoch)

    def __iter__(self) -> Iterator[int]:
        self.data._check_world()
        return Iteration(self._read, self.clock.begin, self.clock.go_on)  # DataLoader asks twice, and reads the second

    def _read(self, epoch: int) -> Iterator[int]:
        data = self.data
        order = list(range(len(data)))
        if data.shuffle:
            order = np.random.default_rng([data.seed, epoch]).permutation(len(data)).tolist()
        extra = -len(order) % data.world_size
        if data.uneven == "pad":
            order += list(itertools.islice(itertools.cycle(order), extra))
        elif data.uneven == "drop":
            order = order[: len(order) // data.world_size * data.world_size]
        return iter(order[data.rank :: data.world_size])
