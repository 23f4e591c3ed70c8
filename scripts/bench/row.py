"""A row of the table."""

from __future__ import annotations

from dataclasses import dataclass

SPEED, COST = "speed", "cost"  # more is better, less is better


@dataclass(frozen=True)
class Row:
    """A ratio of two variants of an experiment. A speed is their time over ours, a cost is ours over theirs."""

    name: str
    path: str
    against: str
    experiment: str
    ours: str
    theirs: str
    target: float | None = None
    kind: str = SPEED
    field: str = "wall"
    beside: bool = False  # printed beside a row, and not counted
