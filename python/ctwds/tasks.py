"""What each worker of a rank reads in an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .shards import Shard


@dataclass(frozen=True)
class Task:
    """What one worker reads in an epoch: its shards, how many samples (None: all there are), how many batches (None:
    not known), and of each shard the places of the samples (None: all of them)."""

    shards: list[Shard]
    samples: int | None
    batches: int | None
    places: list[list[int]] | None = None


@dataclass(frozen=True)
class Dealing:
    """How an epoch is dealt: shards to ranks, those of a rank to its workers, and their samples to batches."""

    ranks: int
    workers: int
    batch: int
    drop_last: bool
    uneven: str

    @property
    def is_natural(self) -> bool:
        """Whether each worker reads what it was dealt, no more and no less."""
        return self.ranks == 1 or self.uneven == "keep"

    def shares(self, shards: Sequence[Shard], rank: int) -> list[list[Shard]]:
        """The shards of each worker of a rank."""
        return [list(shards[rank :: self.ranks][worker :: self.workers]) for worker in range(self.workers)]

    def batches(self, samples: int) -> int:
        """The batches that a worker makes of samples."""
        return samples // self.batch if self.drop_last else math.ceil(samples / self.batch)

    def lengths(self, natural: Sequence[Sequence[int]], length: int | None = None) -> list[list[tuple[int, int]]]:
        """Samples and batches of each worker of each rank, from the samples of its shards; `length` sets the samples of
        a rank."""
        batches = [[self.batches(count) for count in counts] for counts in natural]
        if length is None and self.is_natural:
            return [list(zip(*both, strict=True)) for both in zip(natural, batches, strict=True)]
        if length is None:
            target = (max if self.uneven == "pad" else min)(map(sum, batches))
        else:
            target = math.ceil(length / self.batch)
        found = []
        for counts, before in zip(natural, batches, strict=True):
            after = level(before, target)
            changed = zip(counts, before, after, strict=True)
            samples = [count if now == was else now * self.batch for count, was, now in changed]
            found.append(list(zip(samples, after, strict=True)))
        return found


def level(batches: Sequence[int], target: int) -> list[int]:
    """Change numbers so that their sum is the target, and they differ as little as may be."""
    result = list(batches)
    while sum(result) < target:
        result[result.index(min(result))] += 1
    while sum(result) > target:
        result[result.index(max(result))] -= 1
    return result
