"""What makes HU of the values of a volume: said by the manifest or the table, or seen in the values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .basics import Pair, Rescale
from .errors import LoaderError
from .spacing import decimal

# What a look at the first values of a volume goes by: as src/volume/value_check.rs and src/plan/values.rs do.
LOOK = 4 << 20  # bytes
LOOKS_OF_EACH, LOOKS_IN_ALL = 8, 48  # volumes: of one slope and intercept, and of a data set
AIR, TISSUE, LOWEST = (-1100, -850), (-200, 300), -1500  # HU
SHARE = 0.02  # of the values that is no accident


@dataclass(frozen=True)
class Unit:
    """What the values of an array are: its dialect, and what makes HU of them."""

    dialect: str = ""
    rescale: Rescale = "table"


def table_pair(meta: Mapping[str, Any]) -> Pair:
    """Slope and intercept of a sample's metadata."""
    return decimal(str(meta.get("RescaleSlope"))), decimal(str(meta.get("RescaleIntercept")))


def look_at(values: NDArray[Any], pair: Pair) -> str:
    """What the first values of a volume show: "hu", "stored" (a slope and an intercept make HU of them), or ""."""
    if None in pair or values.size == 0:
        return ""
    x = values.astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        hu = x * np.float32(pair[0]) + np.float32(pair[1])

    def share(found: NDArray[Any]) -> float:
        return float(np.count_nonzero(found)) / x.size

    def within(array: NDArray[Any], bounds: tuple[int, int]) -> NDArray[Any]:
        return (bounds[0] <= array) & (array <= bounds[1])

    air = within(x, AIR)
    # Padding of -2000 is below everything once mapped, but it is no air before.
    if share(air) > SHARE and 2 * share(air & (hu < LOWEST)) > share(air):
        return "hu"
    below = share((x >= LOWEST) & (hu < LOWEST))
    return "stored" if share(within(hu, AIR)) > SHARE and share(within(hu, TISSUE)) > SHARE and below <= SHARE else ""


def decide(shown: Mapping[Pair, Sequence[tuple[str, str]]]) -> dict[Pair, Rescale]:
    """What makes HU of the values of each slope and intercept, where the volumes show it: of each the study, and what
    `look_at` says."""
    decided: dict[Pair, Rescale] = {}
    warned: list[str] = []
    for pair, looks in shown.items():
        hu, stored = ([study for study, what in looks if what == kind] for kind in ("hu", "stored"))
        if hu and stored:
            raise LoaderError(
                f"of {len(looks)} volumes looked at with slope {pair[0]} and intercept {pair[1]}, {len(hu)} hold HU "
                f"already ({', '.join(hu[:3])}) and {len(stored)} hold stored values ({', '.join(stored[:3])}), so "
                "that one table is wrong for some: correct the table, or leave out one sort; rescale='none' or 'table' "
                "takes all alike"
            )
        if hu or stored:
            decided[pair] = "none" if hu else "table"
        warned += hu
    if warned:
        warnings.warn(
            f"{len(warned)} of {sum(map(len, shown.values()))} volumes looked at ({', '.join(warned[:3])}) hold HU "
            "already, which slope and intercept of the metadata would shift: they are taken as they are; "
            "rescale='none' says so without this warning, rescale='table' that the table holds all the same",
            stacklevel=4,
        )
    return decided
