"""What the values of shards are, as their manifest says it, or else as a look at some of them shows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from .basics import Pair, Rescale, spread
from .hounsfield import LOOK, LOOKS_IN_ALL, Unit, decide, look_at, table_pair
from .members import values_of
from .preprocess import Steps
from .samples import RawSample
from .shards import Shard, peek


def seen_units(shards: Sequence[Shard], steps: Steps, dialect: str | None) -> dict[Pair, Rescale]:
    """What makes HU of the values of shards whose manifest does not say it."""
    silent = [shard for shard in shards if shard.recorded is None]
    if steps.rescale != "auto" or steps.use_embedding or dialect not in (None, "native"):
        return {}
    shown: dict[Pair, list[tuple[str, str]]] = {}
    for shard in spread(silent, LOOKS_IN_ALL):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, StopIteration):  # reading it says why
            meta, values = peek(shard.path)
            if meta.get("volume_kind", "stored") == "stored" and "RescaleSlope" in meta:
                shown.setdefault(pair := table_pair(meta), []).append((meta["study_id"], look_at(values, pair)))
    return decide(shown)


class ShardUnits:
    """The unit of each sample: by its dialect, which is given or recorded, then its manifest, then what was seen."""

    def __init__(self, steps: Steps, dialect: str | None, seen: dict[Pair, Rescale]) -> None:
        self._steps, self._dialect, self._seen = steps, dialect, seen

    def of(self, raw: RawSample) -> Unit:
        """What the values of a sample are."""
        dialect, pair = raw.dialect(self._dialect, self._steps.shape), table_pair(raw.meta)
        if self._steps.rescale != "auto" or dialect != "native":
            return Unit(dialect, self._steps.rescale)
        if raw.recorded and pair in raw.recorded.rescale:
            return Unit(dialect, raw.recorded.rescale[pair])
        if pair not in self._seen and look_at(values_of(raw.voxels.reshape(-1)[: LOOK // 4], raw.meta), pair) == "hu":
            return Unit(dialect, "none")
        return Unit(dialect, self._seen.get(pair, "table"))
