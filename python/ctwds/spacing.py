"""Numbers in tables and headers: decimals, slope and intercept, and the size of a voxel."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from .basics import Rescale
from .errors import LoaderError

CLOSED_BY = {"[": "]", "(": ")", "'": "'", '"': '"'}


# Around a number may be white space as Unicode has it; not the separators of ASCII, which Python's `\s` has too.
NUMBER = re.compile(r"[^\S\x1c-\x1f]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[^\S\x1c-\x1f]*")


def decimal(text: str) -> float | None:
    """A finite decimal number, or none: `inf`, `nan`, `1_0` are none, as for ctwds-fs."""
    found = NUMBER.fullmatch(text)
    value = float(found[1]) if found else math.nan
    return value if math.isfinite(value) else None


def in_float32(value: float) -> float:
    """The value as float32 rounds it; infinite beyond its range."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def number(meta: Mapping[str, Any], field: str) -> float:
    """A number of the metadata."""
    value = decimal(str(meta.get(field)))
    if value is None:
        raise LoaderError(
            f"{field} is {meta.get(field)!r}, not a number; mount without --missing-meta, or correct the table"
        )
    return value


def linear(slope: float, intercept: float, whose: str) -> tuple[float, float]:
    """Slope and intercept, if they keep voxels apart."""
    if in_float32(slope) == 0:
        raise LoaderError(
            f"{whose}: slope {slope} makes every voxel the intercept (NIfTI's 0 means: not scaled); say "
            "rescale='none', or a slope and an intercept"
        )
    if not math.isfinite(in_float32(slope)) or not math.isfinite(in_float32(intercept)):
        raise LoaderError(f"{whose}: slope {slope} and intercept {intercept} are beyond float32")
    return slope, intercept


def slope_and_intercept(meta: Mapping[str, Any], rescale: Rescale) -> tuple[float, float]:
    """What makes HU of the values of a sample; of those that are HU by their kind, nothing but their own 1 and 0."""
    if rescale in ("auto", "table") or meta.get("volume_kind") == "rescaled":
        return linear(number(meta, "RescaleSlope"), number(meta, "RescaleIntercept"), "RescaleSlope of the metadata")
    return (1.0, 0.0) if rescale == "none" else (float(rescale[0]), float(rescale[1]))


def numbers(text: str) -> list[float] | None:
    """The numbers of a list in any of Python's spellings: 0.7, [0.7, 0.7], ['0.7', '0.7'], [np.float64(0.7), ...];
    none if anything else stands there, or a bracket or a quote is not closed."""
    open_, found = [""], []
    for word in re.findall(r"[\[\]()'\"]|(?:[^,\\\s\[\]()'\"]|[\x1c-\x1f])+\(?", text):
        if word == open_[-1]:
            open_.pop()
        elif word in CLOSED_BY:
            open_.append(CLOSED_BY[word])
        elif word[-1] == "(" and re.match("[A-Za-z]", word):  # the name of a type
            open_.append(")")
        elif (value := decimal(word)) is not None:
            found.append(value)
        else:
            return None
    return found if open_ == [""] else None


class Spacings:
    """The spacings of NIfTI headers and of the metadata table, compared. As src/dataset/header_values.rs does."""

    DIFFERENT = 0.01  # what is no rounding, relative to the larger one
    NAMED = 3  # studies of those that differ

    def __init__(self) -> None:
        self.compared = 0
        self.different: list[str] = []

    def compare(self, meta: Mapping[str, Any], header: Sequence[float]) -> None:
        """Compare those of a study along height, width and depth, where there are two."""
        try:
            table = voxel_spacing(meta)
        except LoaderError:
            return
        if all(math.isfinite(size) for size in header):
            self.compared += 1
            differ = (
                abs(one - other) > self.DIFFERENT * max(one, other) for one, other in zip(header, table, strict=True)
            )
            if any(differ):
                self.different.append(str(meta["study_id"]))

    def warning(self) -> str:
        """What the user should know; empty if none differ."""
        if not self.different:
            return ""
        more = ", …" if len(self.different) > self.NAMED else ""
        return (
            f"{len(self.different)} of {self.compared} volumes ({', '.join(self.different[: self.NAMED])}{more}) have "
            "another spacing in the NIfTI header than in the metadata table, by more than 1 %; the table's is taken, "
            "and spacing_from='header' takes the other"
        )


def voxel_spacing(meta: Mapping[str, Any]) -> tuple[float, float, float]:
    """Height, width and depth of a voxel in mm: the first two numbers of `XYSpacing` (one holds for both, and so does
    the first of two that differ by rounding only), and `ZSpacing`."""
    plane, depth = numbers(str(meta.get("XYSpacing"))) or [], decimal(str(meta.get("ZSpacing"))) or 0.0
    if not 1 <= len(plane) <= 3 or min(*plane, depth) <= 0:
        raise LoaderError(
            f"XYSpacing {meta.get('XYSpacing')!r} and ZSpacing {meta.get('ZSpacing')!r} of the metadata are no spacing "
            "to resample from; correct the table"
        )
    height, width = plane[0], plane[min(1, len(plane) - 1)]
    return height, height if abs(height - width) <= 1e-6 * height else width, depth
