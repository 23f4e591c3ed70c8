"""The volume of one file, of any format that the program reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._native import VolumeFile
from .basics import AnyPath, dtype_name
from .errors import UsageError


def load(
    path: AnyPath, *, array: str | None = None, channel: str | int | None = None, dtype: Any = "float16"
) -> NDArray[Any]:
    """The volume of one file: NPZ, NPY or NIfTI, by the program's decoder, without a plan and without tables.

    Values are those of the file; of a NIfTI file those that its header's slope and intercept make, in float32. The
    checksum of the file, if it has one, is compared.

    Args:
        path: the file: `.npz`, `.npy`, `.nii` or `.nii.gz`.
        array: the name of the array in an NPZ file; by default `data`, `volume`, `arr_0`, or the only one of three
            axes.
        channel: which volume of an array of four axes, as the flag `--channel` has it.
        dtype: "float16" (or NumPy's or PyTorch's dtype of that name), or None for the dtype of the file, little-endian.

    Returns:
        An array of three axes in C order: (H, W, D) where the file's axes are height, width and depth, as those of a
        NIfTI file (i, j, k) count.

    Raises:
        DamagedError: the file is damaged or not supported, or a value does not fit float16.
        ReadError: the operating system does not let it be read.
        UsageError: an option is wrong.
    """
    if dtype_name(dtype) not in ("float16", None):
        raise UsageError(f"dtype is {dtype!r}; it must be 'float16', or None for the dtype of the file")
    file = VolumeFile.inspected(path, array, None if channel is None else str(channel))
    out = np.empty(tuple(file.shape), np.float16 if dtype is not None else np.dtype(file.descr))
    file.read_into(dtype is not None, out.reshape(-1).view(np.uint8))
    return out
