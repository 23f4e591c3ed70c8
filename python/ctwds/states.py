"""States of loaders of shards: whether there are any, what they say, and who may go on from them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import LoaderError
from .resume import Start, in_turn, rest, task_of
from .tasks import Dealing, Task

if TYPE_CHECKING:
    from .shard_dataset import CTReportWebDataset

STATE_VERSION = 1
NAMED = {
    "version": "version of this package",
    "digest": "data set (files, tables or options)",
    "seed": "seed of the views",
    "shards": "choice or order of shards (pattern, samples a shard, views, or seed)",
}


def unknown_order(data: CTReportWebDataset) -> str | None:
    """Why a place in an epoch of these shards cannot be named, and what helps; None if it can."""
    view = "mount with --shuffle-seed S, and read its views: the pattern names all shards beside epochs/000000/"
    silent = [shard.path for shard in data.shards if shard.samples is None or shard.identity.digest is None]
    if data.resampled or data.epoch_length is not None:
        why, remedy = "with resampled or epoch_length an epoch is not each sample once", "leave them away"
    elif data.shuffle and not data.views:
        why, remedy = "the order out of a shuffle buffer is known to its worker alone", f"{view}; or shuffle=False"
    elif data.buffer_size > 1:
        why, remedy = "the order out of a shuffle buffer is known to its worker alone", "views need no buffer_size"
    elif data.on_error == "skip":
        why = "on_error='skip' moves all samples behind one that is left out"
        remedy = (
            "on_error='raise', and leave out what is damaged with `mount --exclude` or `materialize --on-error skip`"
        )
    elif silent:
        why = f"no manifest.json beside {silent[0]} says how many samples it has, and of which plan"
        remedy = "ctwds-fs writes that file, in a mount and with materialize"
    else:
        return None
    return f"{data.shards[0].path}: the place in an epoch cannot be saved, as {why}: {remedy}"


def rest_of_rank(data: CTReportWebDataset, dealing: Dealing, epoch: int, start: Start) -> list[Task]:
    """What the workers of this rank read of an epoch behind a start."""
    shards = data._order(epoch)
    lists, _ = rest(data._counts(shards), start, dealing)
    return [task_of(numbers, shards, dealing) for numbers in lists[data.rank]]


def state_of(data: CTReportWebDataset, mine: Dealing, epoch: int, start: Start | None, given: int) -> dict[str, Any]:
    """The state of a loader that has given so many batches of an epoch behind a start; empty behind its last, as
    whoever goes on there begins the next epoch."""
    counts = data._counts(data._order(epoch))
    begun = start or Start(0, 0, mine)
    lists, ends = rest(counts, begun, mine)
    now = Start(ends[min(given, len(ends) - 1)], begun.batches + given, begun.dealing)
    most = max(len(in_turn(each, mine)) for each in lists)  # with uneven="keep" other ranks may have more
    if given and (given >= most or now.consumed >= sum(counts)):
        return {}
    return _identity(data, epoch) | {
        "epoch": epoch,
        "consumed": now.consumed,
        "batches": now.batches,
        "dealt": dataclasses.asdict(now.dealing),
    }


def start_of(data: CTReportWebDataset, state: Mapping[str, Any]) -> tuple[int, Start | None]:
    """The epoch of a state, and where in it."""
    path = data.shards[0].path
    try:
        start = Start(state["consumed"], state["batches"], Dealing(**state["dealt"]))
    except (KeyError, TypeError):
        start = None
    if state.get("version") != STATE_VERSION or not isinstance(state.get("epoch"), int) or start is None:
        raise LoaderError(
            f"{path}: not a state of this loader (version {STATE_VERSION}), but {dict(state)!r}: begin anew"
        )
    mine = _identity(data, state["epoch"])
    for key, what in NAMED.items():
        if state.get(key) != mine[key]:
            raise LoaderError(
                f"{path}: the state is of another {what}: {key} was {state.get(key)!r}, and is "
                f"{mine[key]!r}; begin anew, or read what was read then"
            )
    return state["epoch"], start if start.consumed else None


def _identity(data: CTReportWebDataset, epoch: int) -> dict[str, Any]:
    """What must be the same where a state is loaded."""
    shards = data._order(epoch)
    lines = [  # each with what it is of: views of one plan, and shards of several folders, have the same names
        f"{shard.identity.digest}/{shard.identity.seed}/{shard.identity.epoch}/{os.path.basename(shard.path)}: "
        f"{shard.samples}\n"
        for shard in shards
    ]
    return {
        "version": STATE_VERSION,
        "digest": "+".join(sorted({str(shard.identity.digest) for shard in shards})),
        "seed": shards[0].identity.seed,
        "shards": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }
