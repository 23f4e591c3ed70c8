"""Which axes of an array are the volume, and in what order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .errors import choice

AXES = ("HWD", "HDW", "WHD", "WDH", "DHW", "DWH")  # height, width, depth


def axes_option(axes: str | None) -> str | None:
    """The order of axes, in capitals."""
    return axes if axes is None else str(choice("axes", axes.upper(), AXES))


@dataclass(frozen=True)
class ArrayChoice:
    """What is taken of a file: the array of a name, and a channel of it. `any_shape` takes arrays as they are."""

    name: str | None = None
    channel: str | None = None
    any_shape: bool = False

    def part(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[bool, int] | None]:
        """The three axes of the volume in an array of this shape; and if it is one channel, whether the channels are
        along the last axis, and its number. As src/formats/npz/part.rs does."""
        axes = list(shape)
        if self.any_shape:
            return tuple(axes), None
        while len(axes) > 3 and 1 in axes:
            axes.remove(1)
        found = re.fullmatch("(?:(first|last):)?([0-9]+)", self.channel or "0")
        if not found:
            raise ValueError(f"channel is {self.channel!r}; it must be N, first:N or last:N with N from 0 on")
        named, number = found[1], int(found[2])
        if len(axes) == 3 and number > 0:
            raise ValueError(f"its shape is {tuple(shape)}: it has one channel, not number {number}; they count from 0")
        if len(axes) == 4 and self.channel is not None:
            if not named and axes[3] < axes[0]:
                raise ValueError(
                    f"its shape is {tuple(shape)}: the channels may be along its last axis; channel last:{number} or "
                    f"first:{number} says where they are"
                )
            count = axes.pop(-1 if named == "last" else 0)
            if number >= count or count > 1024:
                raise ValueError(f"its shape is {tuple(shape)}: no channel {number} (at most 1024 are read) of {count}")
            return tuple(axes), (named == "last", number)
        if len(axes) != 3:
            hint = "; channel N takes one of the first axis, last:N of the last" if len(axes) == 4 else ""
            raise ValueError(f"its shape is {tuple(shape)}: a volume has three dimensions{hint}")
        return tuple(axes), None

    def volume(self, array: NDArray[Any]) -> NDArray[Any]:
        """The volume in an array."""
        axes, channel = self.part(array.shape)
        if channel is None:
            return array.reshape(axes, order="A")
        is_last, number = channel
        return array.squeeze()[..., number] if is_last else array.squeeze()[number]


def oriented(array: NDArray[Any], axes: str | None, dialect: str) -> NDArray[Any]:
    """An array with the axes of its dialect: height, width, depth; of normalized ones depth, height, width."""
    if axes is None or array.ndim != 3:
        return array
    return array.transpose([axes.index(axis) for axis in ("DHW" if dialect == "normalized" else "HWD")])
