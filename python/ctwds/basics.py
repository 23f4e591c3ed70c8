"""Sizes and names that all modules share."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

SHAPE = (480, 480, 240)  # height, width, depth
SPACING = (0.75, 0.75, 1.5)  # mm, in the same order
BLOCK = 512  # bytes, of a tar
CHUNK = 8 << 20  # bytes that one system call reads, so that Ctrl-C need not wait for a whole volume
DIALECTS = ("native", "hu", "normalized")  # of the arrays in NPZ files, see CTReportDataset
Rescale = str | Sequence[float]
Pair = tuple[float | None, float | None]  # slope and intercept of the table; none where missing
AnyPath = str | os.PathLike[str]
T = TypeVar("T")


def clean_text(text: str) -> str:
    """A report (findings, newline, impressions) as the text encoder gets it."""
    return "" if text == "Not given." else re.sub("[\"'()]", "", text)


def shown_bytes(count: float) -> str:
    """A number of bytes in words, in units of 1024 as the program has them: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, spread over them."""
    count = min(count, len(items))
    return [items[n * len(items) // count] for n in range(count)]


def dtype_name(dtype: object) -> object:
    """The name of a dtype of NumPy or PyTorch, such as "float16"; anything else as it is."""
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return np.dtype(dtype).name
    is_torchs = type(dtype).__module__ == "torch" and type(dtype).__name__ == "dtype"  # nothing is imported for it
    return str(dtype).removeprefix("torch.") if is_torchs else dtype
