"""Samples as their shard has them, and what its manifest says of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .basics import DIALECTS, SHAPE, Pair, Rescale
from .errors import LoaderError
from .members import Buffer, values_of


@dataclass(frozen=True)
class Recorded:
    """What a manifest says of the values of its shards: what makes HU of those of each slope and intercept, and the
    dialects of the arrays by the keys of the samples, unless they are native."""

    rescale: Mapping[Pair, Rescale]
    dialects: Mapping[str, str]

    @staticmethod
    def of(manifest: Mapping[str, Any]) -> Recorded | None:
        """None where the manifest is of version 0.1 or of the original converter. A value of another form raises
        KeyError, TypeError or ValueError."""
        if manifest.get("value_groups") is None:
            return None
        rescale: dict[Pair, Rescale] = {}
        for group in manifest["value_groups"]:
            text = str(group["rescale"])
            rescale[float(group["rescale_slope"]), float(group["rescale_intercept"])] = (
                text if text in ("table", "none") else [float(number) for number in text.split(",")]
            )
        samples = itertools.chain.from_iterable(shard["samples"] for shard in manifest["shards"])
        return Recorded(rescale, {sample["key"]: sample["dialect"] for sample in samples if "dialect" in sample})


@dataclass
class RawSample:
    """A sample as its shard has it. `voxels` are in `buffer`, which belongs to the sample until it is done with."""

    key: str
    study_id: str
    meta: dict[str, Any]
    voxels: NDArray[Any]
    text: str
    labels: NDArray[Any]
    buffer: Buffer
    extras: dict[str, NDArray[Any]]
    recorded: Recorded | None = None

    @property
    def kind(self) -> str:
        """The kind of its volume."""
        return str(self.meta.get("volume_kind", "stored" if "RescaleSlope" in self.meta else "preprocessed"))

    def dialect(self, source: str | None, shape: Sequence[int]) -> str:
        """What its array holds, as it comes from one of the dialect `source`; by default the recorded one. Shards of
        the original converter do not tell their kind: those of preprocessed volumes have no slope."""
        kind = self.kind
        if kind == "preprocessed":
            return "done"
        if source is None and self.recorded:
            source = self.recorded.dialects.get(self.key, "native")
            if source not in DIALECTS:
                raise LoaderError(
                    f"{self.key} ({self.study_id}): what does its array hold? Give dialect ({', '.join(DIALECTS)})"
                )
        if source is None:
            self._refuse_resampled(kind, shape)
        return "hu" if kind == "rescaled" and source == "normalized" else source or "native"

    def _refuse_resampled(self, kind: str, shape: Sequence[int]) -> None:
        """Ask, where a volume looks as if it had been resampled before: no scanner makes volumes of the very shape that
        they are cropped to, and none measures between -1 and 1 only. A look at every 16th voxel of each axis takes
        1 ms."""
        few = np.abs(values_of(self.voxels[::16, ::16, ::16], self.meta)) if self.voxels.ndim == 3 else np.zeros(1)
        if tuple(shape) == SHAPE == self.voxels.shape:
            looks, likely = f"have the shape {SHAPE}", "hu"
        elif kind == "stored" and 0 < few.max() <= 1:
            looks, likely = "lie in [-1, 1]", "normalized"
        else:
            return
        raise LoaderError(
            f"{self.key} ({self.study_id}): its {kind} voxels {looks}, as if they had been resampled before: say "
            f"dialect='{likely}' if so, else dialect='native'"
        )
