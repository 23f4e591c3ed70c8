"""Samples as dictionaries, as MONAI's transforms take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .volumes import Sample, Volumes


class Dictionaries(Sequence[dict[str, Any]]):
    """The samples of a data set as dictionaries: what `Volumes.dictionaries` returns.

    Each has `image`, the volume as float32 with a channel in front, (1, H, W, D); `text`, `labels`, `id` and `meta` as
    a `Sample` has them; an entry (1, H, W, D) for each array beside the volume, by its name; and `affine`, a float64
    array (4, 4) from voxels to millimetres, where the sample's JSON has one (`orientation="keep"` or letters)."""

    def __init__(self, data: Volumes) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return Dictionaries(self.data[key])
        sample: Sample = self.data[key]
        found = {name: value[None] for name, value in sample.also.items()}
        if "affine" in sample.meta:
            found["affine"] = np.asarray(sample.meta["affine"], np.float64)
        image = sample.volume.astype(np.float32)[None]
        return found | {
            "image": image,
            "text": sample.text,
            "labels": sample.labels,
            "id": sample.id,
            "meta": sample.meta,
        }
