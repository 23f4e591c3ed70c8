"""The shards of each epoch: those of the data set, or of the views beside them."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Sequence

import numpy as np

from .shards import Shard, shard_paths, with_manifests


def views_beside(shards: Sequence[Shard]) -> list[str]:
    """The folders of the epoch views, if the shards are all those of a folder that has such."""
    folder = os.path.dirname(shards[0].path)
    views = list(
        itertools.takewhile(os.path.isdir, (os.path.join(folder, "epochs", f"{n:06d}") for n in itertools.count()))
    )
    if views and {shard.path for shard in shards} != set(shard_paths(folder)):
        warnings.warn(f"{folder}/epochs is not used: the pattern names only some of the shards", stacklevel=3)
        return []
    return views


class Orders:
    """The shards of each epoch in its order, from the views as far as there are such; shuffled by the seed, unless it
    is None.

    What was read last is kept: the manifest of a large data set takes a tenth of a second, and is wanted by the loader,
    its states, and each worker that is started."""

    def __init__(self, shards: list[Shard], views: list[str], seed: int | None) -> None:
        self._shards, self._views, self._seed = shards, views, seed
        self._kept: tuple[str, list[Shard]] | None = None

    def shards(self, epoch: int) -> list[Shard]:
        """Those of an epoch."""
        shards = self._of_view(epoch) if self._views else self._shards
        if self._seed is not None and epoch >= len(self._views):
            shards = [shards[at] for at in np.random.default_rng([self._seed, epoch]).permutation(len(shards))]
        return shards

    def count(self, epoch: int) -> int:
        """How many there are in an epoch; reads no manifest."""
        return len(shard_paths(self._view(epoch)) if self._views else self._shards)

    def _view(self, epoch: int) -> str:
        return self._views[epoch % len(self._views)]

    def _of_view(self, epoch: int) -> list[Shard]:
        view = self._view(epoch)
        if self._kept is None or self._kept[0] != view:
            self._kept = view, with_manifests(shard_paths(view))
        return self._kept[1]
