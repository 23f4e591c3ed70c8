"""What each worker of a rank reads in an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .shards import Shard


@dataclass(frozen=True)
class Task:
    """What one worker reads in an epoch: its shards, how many samples (None: all there are), and how many batches
    (None: not known)."""

    shards: list[Shard]
    samples: int | None
    batches: int | None


def level(batches: Sequence[int], target: int) -> list[int]:
    """Change numbers so that their sum is the target, and they differ as little as may be."""
    result = list(batches)
    while sum(result) < target:
        result[result.index(min(result))] += 1
    while sum(result) > target:
        result[result.index(max(result))] -= 1
    return result
