"""The order of an epoch over all ranks, and what is left of it after a stop, for any ranks and workers.

Samples are numbered by their places in the epoch's shards, from 0 on. The ranks give the epoch's samples in an order
that depends on how shards are dealt: in the first step the first batch of rank 0, of rank 1, and so on. A state names
that dealing and how many samples of this order were consumed. Whoever goes on with the same dealing gets the batches
that would have come next; with another one the rest is dealt anew, batch by batch, in the same order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .shards import Shard
from .tasks import Dealing, Task

Numbers = NDArray[np.int64]
Lists = list[list[Numbers]]  # what each worker of each rank reads
UNEVEN = ("pad", "drop", "keep")


@dataclass(frozen=True)
class Start:
    """Where in an epoch a loader begins: behind so many samples of all ranks, in the order of a dealing; and how many
    batches each rank had taken."""

    consumed: int
    batches: int
    dealing: Dealing

    def numbers(self) -> list[int]:
        """The same in numbers, for shared memory."""
        dealing = self.dealing
        dealt = [dealing.ranks, dealing.workers, dealing.batch, int(dealing.drop_last), UNEVEN.index(dealing.uneven)]
        return [self.consumed, self.batches, *dealt]

    @staticmethod
    def of(numbers: Sequence[int]) -> Start:
        """The opposite of `numbers`."""
        consumed, batches, ranks, workers, batch, drop_last, uneven = numbers
        return Start(consumed, batches, Dealing(ranks, workers, batch, bool(drop_last), UNEVEN[uneven]))


START_NUMBERS = 7


def whole(counts: Sequence[int], dealing: Dealing) -> Lists:
    """What the workers read in an epoch of shards with so many samples; samples that pad are there again."""
    starts = np.cumsum([0, *counts])
    found: Lists = []
    for rank in range(dealing.ranks):
        dealt = [
            range(len(counts))[rank :: dealing.ranks][worker :: dealing.workers] for worker in range(dealing.workers)
        ]
        parts = [[np.arange(starts[n], starts[n + 1], dtype=np.int64) for n in shards] for shards in dealt]
        found.append([np.concatenate([np.empty(0, np.int64), *arrays]) for arrays in parts])
    lengths = dealing.lengths([[len(numbers) for numbers in rank] for rank in found])
    return [
        [np.resize(numbers, samples) for numbers, (samples, _) in zip(*both, strict=True)]
        for both in zip(found, lengths, strict=True)
    ]


def in_turn(lists: Sequence[Numbers], dealing: Dealing) -> list[tuple[int, Numbers]]:
    """The batches of a rank in the order in which DataLoader gives them, each with its worker."""
    size = dealing.batch
    batches = [
        [numbers[at : at + size] for at in range(0, dealing.batches(len(numbers)) * size, size)] for numbers in lists
    ]
    rounds = itertools.zip_longest(*batches)
    return [(worker, batch) for each in rounds for worker, batch in enumerate(each) if batch is not None]


def order_of(lists: Lists, total: int, dealing: Dealing) -> tuple[Numbers, list[int]]:
    """All samples in the order in which the ranks give them, those last that none gives; and how many of them were
    given behind each step, from 0 on."""
    ranks = [[batch for _, batch in in_turn(each, dealing)] for each in lists]
    steps = [[batch for batch in step if batch is not None] for step in itertools.zip_longest(*ranks)]
    given = np.concatenate([np.empty(0, np.int64), *itertools.chain(*steps)])
    is_first = np.zeros(len(given), bool)
    is_first[np.unique(given, return_index=True)[1]] = True
    ends = np.cumsum([0, *is_first])[np.cumsum([0, *(sum(map(len, step)) for step in steps)])]
    never = np.setdiff1d(np.arange(total), given)
    return np.concatenate([given[is_first], never]), ends.tolist()


def rest(counts: Sequence[int], start: Start, mine: Dealing) -> tuple[Lists, list[int]]:
    """What is left behind a start for ranks and workers of `mine`; and how many samples are consumed behind each of
    their steps, from 0 on."""
    lists = whole(counts, start.dealing)
    order, ends = order_of(lists, sum(counts), start.dealing)
    if mine == start.dealing and start.consumed in ends:
        step = ends.index(start.consumed)
        return [_behind(each, step, mine) for each in lists], ends[step:]
    left = order[start.consumed :]
    together = mine.batch * mine.ranks
    ends = [start.consumed + min(at, len(left)) for at in range(0, len(left) + together, together)]
    return _dealt_anew(left, mine), ends


def _behind(lists: list[Numbers], step: int, dealing: Dealing) -> list[Numbers]:
    """What is left for the workers of a rank, that one first whose batch is the next."""
    turns = [worker for worker, _ in in_turn(lists, dealing)]
    left = [numbers[turns[:step].count(worker) * dealing.batch :] for worker, numbers in enumerate(lists)]
    first = turns[step] if step < len(turns) else 0
    return left[first:] + left[:first]


def _dealt_anew(left: Numbers, mine: Dealing) -> Lists:
    """Of each `batch * ranks` consecutive samples rank r gets the r-th part, and its workers take turns. What does not
    fill a batch of each rank is spread over them."""
    together = mine.batch * mine.ranks
    full = left[: len(left) // together * together].reshape(-1, mine.ranks, mine.batch)
    part = left[full.size :]
    is_dropped = len(part) == 0 or mine.drop_last or (len(part) < mine.ranks and mine.uneven == "drop")
    found: Lists = []
    for rank in range(mine.ranks):
        last = np.array_split(part, mine.ranks)[rank]
        if len(last) == 0 and mine.uneven == "pad":
            last = part[:1]
        lists = [full[worker :: mine.workers, rank].reshape(-1) for worker in range(mine.workers)]
        if not is_dropped:
            lists[len(full) % mine.workers] = np.concatenate([lists[len(full) % mine.workers], last])
        found.append(lists)
    return found


def task_of(numbers: Numbers, shards: Sequence[Shard], dealing: Dealing) -> Task:
    """What a worker reads, in the terms of shards and the places of samples in them."""
    starts = np.cumsum([0, *(shard.samples or 0 for shard in shards)])
    at = np.searchsorted(starts, numbers, "right") - 1
    inside = numbers - starts[at]
    is_new = np.ones(len(numbers), bool)
    is_new[1:] = (np.diff(at) != 0) | (np.diff(inside) <= 0)  # the places in a shard ascend
    begins = np.flatnonzero(is_new)
    places = [run.tolist() for run in np.split(inside, begins[1:])] if len(numbers) else []
    return Task([shards[n] for n in at[begins]], len(numbers), dealing.batches(len(numbers)), places)
