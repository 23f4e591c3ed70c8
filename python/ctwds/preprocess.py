"""What is done to a volume before the training gets it: HU, clip, resample, crop, pad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .basics import SHAPE, SPACING, Rescale, clean_text
from .batches import allocate
from .errors import LoaderError, choice
from .hounsfield import Unit
from .members import values_of
from .spacing import linear, slope_and_intercept, voxel_spacing

# With `with_meta`, a sample and a batch have a sixth part, the metadata; with `also` a last one, the arrays beside the
# volumes by name.
Sample = tuple[torch.Tensor, str, NDArray[Any], str, torch.Tensor]
Batch = tuple[torch.Tensor, list[str], NDArray[Any], list[str], torch.Tensor]
Extras = dict[str, torch.Tensor]


def _refuse_other_than_normalized(array: NDArray[Any]) -> None:
    """Refuse values that only their array's name takes for HU / 1000: `np.savez(path, array)` names any `arr_0`.
    Clipped to [-1, 1] they would be no picture any more. Metal lies beyond 1.5 too; the mean of a volume does not. A
    look at every 16th voxel of each axis takes 1 ms."""
    if np.abs(array[::16, ::16, ::16].astype(np.float32)).mean() > 1.5:
        raise LoaderError(
            "the name of its array stands for HU / 1000, but its values lie far beyond [-1, 1]: say what they are by "
            "dialect='native' or 'hu' (of shards: make them, or mount, with --dialect native or hu)"
        )


@dataclass(frozen=True)
class Steps:
    """What is done to a volume. `shape` and `spacing` (mm) are of height, width, depth. `rescale` is what makes HU of
    stored values: "auto" (what `manifest.json` or a look at the values says), "table" (the sample's own slope and
    intercept), "none" (they are HU), or a slope and an intercept.
    `rescaled` and `preprocessed` volumes are HU already: nothing but the table's 1 and 0 is applied to them."""

    shape: Sequence[int] = SHAPE
    spacing: Sequence[float] = SPACING
    dtype: torch.dtype = torch.float32
    rescale: Rescale = "auto"
    use_embedding: bool = False
    with_meta: bool = False

    def __post_init__(self) -> None:
        choice("dtype", self.dtype, (torch.float32, torch.float16))
        if isinstance(self.rescale, str) or len(self.rescale) != 2:
            choice("rescale (or a slope and an intercept)", self.rescale, ("auto", "table", "none"))
        else:
            linear(float(self.rescale[0]), float(self.rescale[1]), "rescale")

    def apply(self, array: NDArray[Any], meta: Mapping[str, Any], unit: Unit, out: torch.Tensor) -> None:
        """Fill `out` (1, D, H, W) from an array of a dialect, or one (H, W, D) that only wants a crop ("done")."""
        if unit.dialect == "native":
            volume = self._normalized(array, meta, unit.rescale)
        elif unit.dialect == "done":
            volume = torch.from_numpy(array).permute(2, 0, 1)
            if meta.get("volume_dtype") in ("int16", "uint8"):  # HU, which floats hold divided
                volume = volume.float().div_(1000)
        elif unit.dialect == "normalized":
            _refuse_other_than_normalized(array)
            volume = torch.from_numpy(array.astype(np.float32)).clamp_(-1, 1)
        else:
            volume = torch.from_numpy(array.astype(np.float32)).clamp_(-1000, 1000).div_(1000).permute(2, 0, 1)
        source, target = crop_and_pad(volume.shape, out.shape[1:])
        if any(n < t for n, t in zip(volume.shape, out.shape[1:], strict=True)):
            out.fill_(-1)
        transpose(volume[source], out[0][target])

    def _normalized(self, array: NDArray[Any], meta: Mapping[str, Any], rescale: Rescale) -> torch.Tensor:
        """HU, clipped, resampled, / 1000: (D, H, W), in the loader's order of operations."""
        slope, intercept = slope_and_intercept(meta, rescale)
        volume = torch.empty(array.shape[2], *array.shape[:2])
        transpose(torch.from_numpy(array).permute(2, 0, 1), volume)
        volume.mul_(slope).add_(intercept).clamp_(-1000, 1000)
        size = self._resampled(volume.shape, meta)
        if size != list(volume.shape):  # else interpolation gives every voxel as it is
            volume = F.interpolate(volume[None, None], size=size, mode="trilinear", align_corners=False)[0, 0]
        return volume.div_(1000)

    def _resampled(self, shape: Sequence[int], meta: Mapping[str, Any]) -> list[int]:
        """The lengths of the axes depth, height, width after resampling."""
        height, width, depth = voxel_spacing(meta)
        target = (self.spacing[2], self.spacing[0], self.spacing[1])
        size = [int(n * (now / then)) for n, now, then in zip(shape, (depth, height, width), target, strict=True)]
        if min(size) < 1 or max(size) >= 1_000_000:  # as ctwds-fs has it
            raise LoaderError(
                f"{(*shape[1:], shape[0])} voxels of {height} x {width} x {depth} mm are {(*size[1:], size[0])} of "
                f"{self.spacing} mm, which is no volume; correct the spacing in the table"
            )
        return size

    def extra(self, array: NDArray[Any], meta: Mapping[str, Any], unit: Unit) -> torch.Tensor:
        """An array that lies on a volume's voxels, as (1, D, H, W) on those of the batch, with zeros around it: of
        integers and booleans the nearest elements, of floats interpolated ones. PyTorch has no unsigned integers of
        more than 8 bits: these are int32 or int64."""
        voxels = array if unit.dialect == "normalized" else array.transpose(2, 0, 1)
        shape = (self.shape[2], self.shape[0], self.shape[1])
        size = self._resampled(voxels.shape, meta) if unit.dialect == "native" else list(voxels.shape)
        if array.dtype.kind == "f" and size != list(voxels.shape):
            tensor = torch.from_numpy(np.ascontiguousarray(voxels, "f4"))[None, None]
            tensor = F.interpolate(tensor, size=size, mode="trilinear", align_corners=False)[0, 0]
            voxels = tensor.numpy().astype(array.dtype)
        source, target = crop_and_pad(size, shape)
        for axis, (cut, n, length) in enumerate(zip(source, size, voxels.shape, strict=True)):
            at = nearest(length, n) if n != length else np.arange(length)
            voxels = voxels.take(at[cut], axis)
        known = {"u2": "i4", "u4": "i8", "u8": "i8"}.get(voxels.dtype.str[1:], voxels.dtype.str[1:])
        if voxels.dtype.str[1:] == "u8" and voxels.size and int(voxels.max()) >= 1 << 63:
            raise LoaderError("an array beside the volume has integers that int64 cannot hold")
        result = np.zeros((1, *shape), known)
        result[0][target] = voxels
        return torch.from_numpy(result)

    def sample(
        self,
        array: NDArray[Any],
        meta: Mapping[str, Any],
        unit: Unit,
        text: str,
        labels: NDArray[Any],
        out: torch.Tensor | None = None,
    ) -> Sample:
        """The 5-tuple; its volume is put into `out`, if there is such. `with_meta`, the metadata is a sixth."""
        more: Any = (dict(meta),) if self.with_meta else ()
        if self.use_embedding:
            embedding = torch.from_numpy(array.astype(np.float32))
            return (torch.empty(0), clean_text(text), labels, meta["study_id"], embedding, *more)
        if array.ndim != 3:
            raise LoaderError(f"its volume has the shape {array.shape}; is it an embedding (use_embedding)?")
        volume = allocate((1, self.shape[2], self.shape[0], self.shape[1]), self.dtype) if out is None else out
        self.apply(values_of(array, meta), meta, unit, volume)
        return (volume, clean_text(text), labels, meta["study_id"], torch.empty(0), *more)


def crop_and_pad(shape: Sequence[int], wanted: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of an array that is taken, and its place in one of another shape: both around the middle."""
    source, target = [], []
    for n, t in zip(shape, wanted, strict=True):
        start, before, count = max((n - t) // 2, 0), max((t - n) // 2, 0), min(n, t)
        source.append(slice(start, start + count))
        target.append(slice(before, before + count))
    return tuple(source), tuple(target)


def nearest(length: int, resampled: int) -> NDArray[np.int64]:
    """The voxel that each voxel of a resampled axis is nearest to: as PyTorch has it, which interpolates no int16."""
    axis = torch.arange(length, dtype=torch.float32)[None, None, :, None, None]
    return F.interpolate(axis, (resampled, 1, 1), mode="nearest-exact").flatten().numpy().astype(np.int64)


def transpose(source: torch.Tensor, out: torch.Tensor) -> None:
    """Copy (D, H, W) to (D, H, W). A source whose depth lies closest in memory is copied row by row: PyTorch's own copy
    of all of it takes three times as long, as it walks through one of both with the largest stride."""
    if source.stride(0) != 1:
        out.copy_(source)
        return
    for row in range(source.shape[1]):
        out[:, row].copy_(source[:, row])
