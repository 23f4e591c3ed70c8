"""The kinds of volume as the CT-CLIP loader makes them, with NumPy and PyTorch: what every voxel is compared with."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import payload, shards
from numpy.typing import NDArray

SHAPE = (480, 480, 240)
SPACING = (0.75, 0.75, 1.5)


@dataclass(frozen=True)
class Steps:
    """The options, by default those of the program."""

    shape: tuple[int, int, int] = SHAPE
    spacing: tuple[float, float, float] = SPACING
    hu_range: tuple[float, float] = (-1000.0, 1000.0)
    pad_value: float = -1.0

    def flags(self) -> list[str]:
        """As the program takes them."""
        options = {"shape": self.shape, "spacing": self.spacing, "hu-range": self.hu_range}
        flags = [f"--{name}={','.join(map(str, values))}" for name, values in options.items()]
        return [*flags, f"--pad-value={self.pad_value}"]


def resampled(volume: NDArray[Any], current: tuple[float, float, float], steps: Steps) -> NDArray[Any]:
    """Trilinear, with half-pixel centres, to `int(n * (current / target))` voxels."""
    sizes = [int(n * (now / target)) for n, now, target in zip(volume.shape, current, steps.spacing, strict=True)]
    tensor = torch.from_numpy(np.ascontiguousarray(volume))[None, None]
    return F.interpolate(tensor, size=sizes, mode="trilinear", align_corners=False)[0, 0].numpy()


def cropped_and_padded(volume: NDArray[Any], steps: Steps) -> tuple[NDArray[Any], NDArray[Any]]:
    """Around the middle; and which voxels are no padding."""
    result = np.full(steps.shape, steps.pad_value, np.float32)
    inside = np.zeros(steps.shape, bool)
    from_, to = [], []
    for n, t in zip(volume.shape, steps.shape, strict=True):
        start, before, count = max((n - t) // 2, 0), max((t - n) // 2, 0), min(n, t)
        from_.append(slice(start, start + count))
        to.append(slice(before, before + count))
    result[tuple(to)] = volume[tuple(from_)]
    inside[tuple(to)] = True
    return result, inside


def preprocessed(
    stored: NDArray[Any],
    slope: float,
    intercept: float,
    spacing: tuple[float, float, float] | None,
    steps: Steps | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """All steps, in f32 (before the cast to f16); and which voxels are no padding."""
    steps = steps or Steps()
    volume = stored.astype(np.float32) * slope + intercept
    volume = np.clip(volume, *steps.hu_range).astype(np.float32)
    if spacing is not None:
        volume = resampled(volume, spacing, steps)
    return cropped_and_padded(volume / np.float32(1000), steps)


def assert_close(found: NDArray[Any], expected: NDArray[Any], inside: NDArray[Any]) -> None:
    """Within a unit in f16's last place or 1e-6 everywhere, and exact in 99 % of what is no padding."""
    rounded = expected.astype(np.float16)
    unit = np.spacing(np.maximum(np.abs(rounded), np.abs(found))).astype(np.float64)
    error = np.abs(found.astype(np.float64) - rounded.astype(np.float64))
    assert (error <= np.maximum(unit, 1e-6)).all(), f"off by up to {error.max()}"
    assert (found[~inside] == rounded[~inside]).all(), "padding"
    if inside.any():
        exact = (found[inside] == rounded[inside]).mean()
        assert exact >= 0.99, f"{exact:.4f} of the voxels are exact"


def samples(folder: Path) -> dict[str, dict[str, Any]]:
    """The volume and the JSON of every sample, by study."""
    found = {}
    for shard in shards(folder):
        with tarfile.open(shard) as archive:
            members = {member.name: payload(archive, member) for member in archive}
        for name in members:
            if name.endswith(".json"):
                meta = json.loads(members[name])
                voxels = np.frombuffer(members[name.replace(".json", ".bin")], np.float16)
                found[meta["study_id"]] = {"volume": voxels.reshape(meta["volume_shape"]), "json": meta}
    return found


def head(air: float, corner: float, seed: int = 0) -> NDArray[Any]:
    """Tissue in the middle of air, with padded corners as some scanners write them."""
    volume = np.full((32, 32, 24), air, np.float32)
    volume[8:24, 8:24] = air + 1000
    volume += np.random.default_rng(seed).integers(-20, 20, volume.shape)
    volume[:4, :4] = volume[-4:, -4:] = corner
    return volume
