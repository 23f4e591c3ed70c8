"""CT volumes and reports for PyTorch: from shards (mounted by ctwds-fs, or files) or from NPZ, with the same output.

This file is all there is to copy into a project that does not install the package ctwds, of whose modules it is made by
scripts/standalone.py: change those. It needs Python 3.10, NumPy and PyTorch, and PyYAML where a configuration is given
as a path. Compressed shards (`*.zst`) need Python 3.14, or one of the packages backports.zstd and pyzstd; where the
package ctwds is installed, its decoder reads them, which is faster.

    from ctreport_webdataset import CTReportWebDataset
    loader = CTReportWebDataset("/data/shards/shard-{000000..000471}.tar").make_loader(batch_size=2, num_workers=4)
    for epoch in range(10):
        for volumes, texts, labels, study_ids, embeddings in loader: ...

A sample is (volume (1, D, H, W), text, labels, study id, embedding), a batch (volumes (B, 1, D, H, W), list of texts,
labels (B, classes), list of ids, embeddings); labels are float32 NumPy arrays. Volumes are float32 in [-1, 1], by
default 240 x 480 x 480 voxels of 1.5 x 0.75 x 0.75 mm. Embeddings are empty; with `use_embedding` they are what the
shards or NPZ files hold instead of volumes, as float32, and the volumes are empty.

With `with_meta=True` a sample has a sixth element, and a batch a list of such: what the JSON of its shard holds, or of
NPZ the fields of the metadata table, and in both the columns of `--extra-columns`. `also` adds the last element.

Kinds. A sample's JSON tells (`volume_kind`) what its volume is. `stored` and `rescaled` ones go through the remaining
steps here: slope and intercept, clip, resample, / 1000, crop, pad. `preprocessed` ones went through them in the mount.
The JSON tells the dtype as well (`volume_dtype`), and of `uint8` the values that 0 and 255 stand for (`volume_window`).

HU. Some data sets hold HU already, which slope and intercept of their table would shift. By default (`rescale="auto"`)
the verdict of `manifest.json` decides, which ctwds-fs finds by looking at some volumes; where there is none, and for
NPZ, the same look is taken here. Volumes of one slope and intercept that hold both are an error. `manifest.json` also
tells which arrays were resampled before (`volume`, `arr_0`). Shards of version 0.1 or of the original converter do not:
say it with `dialect`, or they are resampled again (what can be seen to be such is refused).

Memory. Each worker holds `buffer_size` volumes as its shard has them (float16: 110 MB each if preprocessed, 137 MB if
stored with 512 x 512 x 261 voxels), and `prefetch_factor` batches and one more in /dev/shm: 221 MB a volume as float32,
half of it with `dtype=torch.float16` (then `.float()` on the GPU). A buffer of 1000 would be 110 GB a worker. The
default is 4, as the order of the shards is shuffled as well, and as a mount shuffles better: `mount --shuffle-seed S`
shows `epochs/000000/`, `epochs/000001/`, … beside the shards, each a permutation of the whole data set. Where they
are, a shuffled training reads epoch n from view n and needs no buffer. After the last view it begins again with the
first, with the shards in another order.

Order. It depends on the seed, the epoch and the numbers of ranks and workers alone. A loader of `make_loader` goes on
to the next epoch by itself and counts for itself; `iter(loader)` fixes the epoch for all workers, persistent ones as
well. `loader.set_epoch(n)` decides which epoch the loader gives next, `data.set_epoch(n)` which one all loaders of the
data set do. With PyTorch's DataLoader or torchdata's StatefulDataLoader, whose workers are told nothing when an
iteration begins, call `data.set_epoch(n)` before each `iter(loader)`, and read NPZ with `sampler=EpochSampler(data)`.

Several processes (DDP). Rank and world size are the arguments, else torch.distributed's, else RANK and WORLD_SIZE.
Shards are dealt to ranks, then to workers; too few of them are an error. Every rank gives the same number of batches,
as otherwise all-reduce would hang: `uneven="pad"` repeats samples where a rank has fewer (as DistributedSampler does),
"drop" ends all with the shortest, and "keep" leaves the numbers uneven, each sample exactly once (for metrics).
`epoch_length` (samples a rank, rounded up to whole batches) sets the length instead. `resampled` draws shards with
replacement. All of this is exact for `make_loader`, which knows the batch size; elsewhere a batch is taken to be one
sample.

Lightning and Accelerate. They take loaders of `make_loader` as they are: those that `train_dataloader()` makes together
with the data set, and those that `accelerator.prepare()` is given, which does not move their batches to the GPU. What
they would split over the ranks once more is refused.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import dataclasses
import difflib
import errno
import glob
import gzip
import hashlib
import importlib
import io
import itertools
import json
import math
import mmap
import operator
import os
import re
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, SupportsIndex, TypeVar, cast

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info
from torch.utils.data.distributed import DistributedSampler

# --------------------------------------------------------------------------------------------------------------- errors


class Error(Exception):
    """What the package raises. The message names the file, the reason and the remedy."""


class UsageError(Error, ValueError):
    """An argument is wrong. The message names it, and what is possible."""


class RefusedError(Error):
    """The data cannot be used with these options. The message names the option that helps."""


class DamagedError(Error):
    """A file or a table is damaged, or holds what is not supported. The message names the file and the fault."""


class ChangedError(Error):
    """A file is no longer the one that was planned. The message names the file and what differs."""


class UnknownStudyError(Error, KeyError):
    """There is no such study. The message names it, and says why if it was left out."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # a KeyError would quote it


class ReadError(Error, OSError):
    """The operating system refused to read a file, or to give memory or threads. The message has its reason."""


class LoaderError(Error, RuntimeError):
    """Something cannot be loaded. The message names it, the reason and the remedy."""


class PackageMissing(Error, ImportError):
    """A package that is not installed is needed for this. The message says how to install it."""


class LengthUnknown(LoaderError, TypeError):
    """There is no manifest. `list(loader)`, which asks for the length as a hint, goes on at a TypeError."""


def choice(name: str, value: object, allowed: Sequence[object]) -> Any:
    """The value of an option, if it is one of those there are."""
    if value not in allowed:
        raise LoaderError(f"{name} is {value!r}; it must be one of: {', '.join(map(repr, allowed))}")
    return value


def whole_number(name: str, value: object, least: int, most: int = 2**64 - 1) -> int:
    """The value of an option that is a whole number, of Python, NumPy, or a tensor."""
    try:
        number = int(operator.index(cast("SupportsIndex", value)))
    except TypeError as error:
        raise UsageError(f"{name} is {value!r}; it must be a whole number") from error
    if not least <= number <= most:
        bound = f"at least {least}" if number < least else f"at most {most}"
        raise UsageError(f"{name} is {number}; it must be {bound}")
    return number


@contextlib.contextmanager
def npy_errors() -> Iterator[None]:
    """What NumPy raises of the header of an array, as ValueError: of a damaged one it lets errors of Python's parser
    through."""
    try:
        yield
    except (SyntaxError, TypeError, RecursionError, tokenize.TokenError) as error:
        raise ValueError(f"the array's header cannot be read ({error})") from error


# ----------------------------------------------------------------------------------------------------------------- axes

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


# --------------------------------------------------------------------------------------------------------------- basics

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


# ------------------------------------------------------------------------------------------------------------- csv_text

CONVERT = "python3 -c \"import pandas; pandas.read_{}('FILE').to_csv('FILE.csv', index=False)\""
NOT_CSV = (
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it (unzstd)"),
    (b"\xfd7zXZ", "an xz file; unpack it (unxz)"),
    (b"BZh91AY&SY", "a bzip2 file; unpack it (bunzip2)"),
    (b"PK\x03\x04", f"a zip archive or an Excel workbook; unpack it, or: {CONVERT.format('excel')}"),
    (b"\xd0\xcf\x11\xe0", f"an Excel workbook; {CONVERT.format('excel')} makes a table of it"),
    (b"PAR1", f"a Parquet file; {CONVERT.format('parquet')} makes a table of it"),
    (b"ARROW1", f"an Arrow file; {CONVERT.format('feather')} makes a table of it"),
    (b"\xff\xfe\0\0", "text in UTF-32; save it as UTF-8"),
    (b"\0\0\xfe\xff", "text in UTF-32; save it as UTF-8"),
)
DELIMITERS = ",;\t|"


def table_text(path: AnyPath) -> str:
    """The text of a table, in UTF-8 or UTF-16, packed with gzip or not; its line ends as they are."""
    content = Path(path).read_bytes()
    try:
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error) as error:
        raise LoaderError(f"{os.fspath(path)}: a damaged gzip file ({error}); fetch or write it again") from error
    if what := next((what for first, what in NOT_CSV if content.startswith(first)), None):
        raise LoaderError(f"{os.fspath(path)}: not a CSV file but {what.replace('FILE', os.fspath(path))}")
    encoding = "utf-8"
    if content.startswith((b"\xfe\xff", b"\xff\xfe")):
        encoding = "utf-16-be" if content[0] == 0xFE else "utf-16-le"
    elif len(content) > 1 and (content[0] == 0) != (content[1] == 0):  # a Latin letter without a byte-order mark
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise LoaderError(f"{os.fspath(path)}: damaged text in UTF-16; save it as UTF-8") from error
        line = 1 + len(re.findall(rb"\r\n|\r|\n", content[: error.start]))
        raise LoaderError(
            f"{os.fspath(path)}: line {line}: not UTF-8 (byte {content[error.start]:#04x}); save the table as UTF-8"
        ) from error


def delimiter_of(text: str, ids: Sequence[str]) -> str:
    """The one of which the first record has a column with ids; else a comma."""
    first = text.lstrip("\r\n")
    for delimiter in DELIMITERS:
        header = next(csv.reader(io.StringIO(first, newline=""), delimiter=delimiter), [])
        if any(name in header for name in ids):
            return delimiter
    return ","


def table_rows(path: AnyPath, ids: Sequence[str]) -> tuple[str, list[tuple[int, list[str]]]]:
    """The delimiter of a table and its rows, each with the line on which it begins; blank lines are none."""
    text = table_text(path)
    lines = list(io.StringIO(text, newline=""))
    delimiter = delimiter_of(text, ids)
    reader = csv.reader([*lines, ""], delimiter=delimiter)  # the last one is in no row, unless a quoted field is open
    rows, begin, limit = [], 1, csv.field_size_limit(len(text) + 1)
    try:
        for row in reader:
            if begin <= len(lines) < reader.line_num:
                record = "".join(lines[begin - 1 :])
                field = r'(?:"(?:[^"]|"")*"(?!")[^,\r\n]*|[^",\r\n][^,\r\n]*|[,\r\n])*'
                quote = re.match(field.replace(",", re.escape(delimiter)), record)
                line = begin + len(re.findall(r"\r\n|\r|\n", record[: quote.end() if quote else 0]))
                raise LoaderError(
                    f"{os.fspath(path)}: line {line}: the file ends inside the quoted field that begins here: it was "
                    "cut off, or a closing quote is missing; write the file again"
                )
            if begin <= len(lines) and "".join(lines[begin - 1 : reader.line_num]).strip(" \t\r\n\f"):
                rows.append((begin, row))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise LoaderError(f"{os.fspath(path)}: line {begin}: {error}") from error
    finally:
        csv.field_size_limit(limit)
    return delimiter, rows


def decimal_comma(field: str) -> str:
    """The end of a message about a number whose comma may be a decimal one."""
    is_decimal = re.fullmatch("[+-]?[0-9]+,[0-9]+", field.strip())
    return "; if its comma is a decimal one, write the table with points: ctwds-fs plan says how" if is_decimal else ""


# ------------------------------------------------------------------------------------------------------------ selection

STUDY_COLUMNS = ("study_id", "VolumeName")  # of lists of studies


@dataclass
class Selection:
    """The studies to take: those of a list, the first ones, without some."""

    listed: set[str] | None
    excluded: set[str]
    limit: int | None
    count: int = 0

    def words(self) -> str:
        """What is beside being in all tables, for a message."""
        return " and selected" if self.listed is not None or self.limit is not None or self.excluded else ""

    def has(self, study: str) -> bool:
        """Whether the next study in all tables is taken."""
        if (self.listed is not None and study not in self.listed) or self.count == self.limit:
            return False
        self.count += 1  # those that are left out have their slots
        return study not in self.excluded


def studies_in(path: AnyPath) -> set[str]:
    """The studies of a list: one a line, or a column of a table. Lines that begin with # are comments."""
    text = table_text(path)
    lines = [line for line in io.StringIO(text, newline=None) if not line.startswith("#")]
    rows = list(csv.reader(lines, delimiter=delimiter_of("".join(lines), STUDY_COLUMNS)))
    rows = [[field.strip() for field in row] for row in rows if any(field.strip() for field in row)]
    column = next((rows[0].index(name) for name in STUDY_COLUMNS if rows and name in rows[0]), None)
    if column is None and any(len(row) > 1 for row in rows):
        raise LoaderError(f"{os.fspath(path)}: more than a study id in a line, and no column study_id or VolumeName")
    fields = [row[column or 0] for row in rows[column is not None :] if len(row) > (column or 0)]
    found = {re.sub(r"\.nii\.gz$|\.nii$|\.npz$", "", field) for field in fields if not field.startswith("#")} - {""}
    if not found:
        raise LoaderError(f"{os.fspath(path)}: there is no study in it; write one study id a line")
    return found


def excluded_in(path: AnyPath) -> set[str]:
    """The studies of a `quarantine.csv`, where an apostrophe stands before what would be a formula."""
    _, found = table_rows(path, STUDY_COLUMNS[:1])
    (_, header), *rows = found or [(1, [""])]
    if "study_id" not in header:
        raise LoaderError(f"{os.fspath(path)}: the list needs the column study_id")
    at = header.index("study_id")
    return {re.sub(r"^'(?='*[=+\-@\t\r])", "", row[at]) for _, row in rows}


# -------------------------------------------------------------------------------------------------------------- spacing

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


# --------------------------------------------------------------------------------------------------------------- tables

MISSING = set(
    "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
META_COLUMNS = ("RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing")
REPORT_COLUMNS = ("Findings_EN", "Impressions_EN")
OWN_FIELDS = frozenset(
    (
        *("study_id", *META_COLUMNS, "original_shape", "volume_shape", "volume_dtype", "volume_window", "volume_kind"),
        *("volume_codec", "volume_filter", "affine"),
    )
)  # of the JSON of a sample
NAMELESS = re.compile(r"$|Unnamed:\s*[0-9]")  # pandas writes row numbers so
SUFFIXES = (".nii.gz", ".nii", ".npz", ".npy", ".dcm")  # of ids in tables
SWITCHES = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


@dataclass(frozen=True)
class Columns:
    """The columns that are read of the tables: those of CT-RATE, or those that `ctwds.toml` names. `classes` and
    `extra` are names, ranges (FIRST..LAST) and patterns (Nodule*); without `classes`, all columns but the ids are such.
    """

    ids: Sequence[str] = ("VolumeName",)
    texts: Sequence[str] = REPORT_COLUMNS
    classes: Sequence[str] = ()
    meta: Sequence[str] = META_COLUMNS
    extra: Sequence[str] = ()


def places_of(name: str, header: Sequence[str]) -> list[int]:
    """The places of the columns that a name, a range or a pattern means; none raises LookupError with the reason."""
    first, dots, last = name.partition("..")

    def place(one: str) -> int:
        if one in header:
            return header.index(one)
        meant = difflib.get_close_matches(one, header, n=1, cutoff=0)
        raise LookupError(f"column '{one}' is missing" + "".join(f"; is '{near}' meant?" for near in meant))

    if dots and first and last:
        found = list(range(place(first.strip()), place(last.strip()) + 1))
    elif "*" in name or "?" in name:
        pattern = re.escape(name).replace(r"\*", ".*").replace(r"\?", ".")
        found = [at for at, column in enumerate(header) if re.fullmatch(pattern, column, re.DOTALL)]
    else:
        found = [place(name)]
    if not found:
        raise LookupError(f"no column is '{name}'")
    return found


@dataclass(frozen=True)
class Row:
    """A row of a table: its file, its line in it, the fields of the table's columns, those of further ones, and what
    stands between them."""

    path: AnyPath
    line: int
    fields: list[str]
    extra: list[str]
    delimiter: str


@dataclass(frozen=True)
class Table:
    """Columns of one CSV file or several; the rows by the ids of volumes."""

    columns: list[str]
    rows: dict[str, Row]
    bare: dict[str, list[Row]]  # by ids without folders and suffixes
    header: list[str]  # of the first file
    extra: list[int]  # places of further columns in it
    keys: list[str]  # the column with the ids of each file

    def find(self, study: str) -> Row | None:
        """The row of a study: of its name with .nii.gz, else of its name, else of the same but for folders and
        suffix."""
        if row := self.rows.get(f"{study}.nii.gz") or self.rows.get(study):
            return row
        if not self.bare:
            for name, row in self.rows.items():
                self.bare.setdefault(bare_id(name), []).append(row)
        rows = self.bare.get(bare_id(study), [])
        if len(rows) > 1:
            first = rows[0].path
            lines = " and ".join(
                str(row.line) + ("" if row.path == first else f" of {os.fspath(row.path)}") for row in rows
            )
            raise LoaderError(
                f"{os.fspath(first)}: lines {lines}: {self.keys[0]} is '{bare_id(study)}' on each, but for folder and "
                "suffix; remove one"
            )
        return rows[0] if rows else None


def bare_id(name: str) -> str:
    """An id without the folders before it and the suffix behind it."""
    name = re.split(r"[/\\]", name)[-1]
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


Tables = AnyPath | Sequence[AnyPath] | None


def read_table(paths: Sequence[AnyPath], columns: Columns, wanted: Sequence[str], are_classes: bool) -> Table:
    """Some columns of a table, which are classes or have these names. The rows of several files are appended; the
    columns are those of the first one."""
    table = Table([], {}, {}, [], [], [])
    for path in paths:
        append_file(table, path, columns, wanted, are_classes)
    return table


def append_file(table: Table, path: AnyPath, columns: Columns, wanted: Sequence[str], are_classes: bool) -> None:
    """Read a file of a table, and add its rows."""
    delimiter, rows = table_rows(path, columns.ids)
    (_, header), *rows = rows or [(1, [""])]
    key_name = next((name for name in columns.ids if name in header), columns.ids[0])
    if key_name not in header:
        raise LoaderError(f"{os.fspath(path)}: {absent(key_name, header)}")
    key = header.index(key_name)
    if table.columns:
        names = [*table.columns, *(table.header[at] for at in table.extra)]
        kept = [column_of(path, header, name) for name in names]
    else:
        kept = classes_in(path, header, key, wanted) if are_classes else [column_of(path, header, n) for n in wanted]
        if not kept:
            raise LoaderError(f"{os.fspath(path)}: there is no column with a name besides {key_name}")
        table.columns.extend(header[at] for at in kept)
        table.header.extend(header)
        for name in columns.extra:
            with contextlib.suppress(LookupError):
                places = places_of(name, header)
                is_one = len(places) == 1 and header[places[0]] == name
                table.extra.extend(at for at in places if at not in table.extra and (at != key or is_one))
        kept += table.extra
    table.keys.append(key_name)
    before, count = set(table.rows), len(table.columns)
    for line, row in rows:
        if len(row) != len(header):
            raise LoaderError(
                f"{os.fspath(path)}: line {line}: {len(row)} fields, the header has {len(header)}; is a quote missing?"
            )
        fields = [row[at] for at in kept]
        found = Row(path, line, fields[:count], fields[count:], delimiter)
        first = table.rows.setdefault(row[key], found)
        if row[key] in before:
            raise LoaderError(
                f"{os.fspath(path)}: line {line}: {key_name} '{row[key]}' stands on line {first.line} of "
                f"{os.fspath(first.path)} already; remove one of the two"
            )
        if (first.fields, first.extra) != (found.fields, found.extra):
            raise LoaderError(
                f"{os.fspath(path)}: line {line}: {key_name} '{row[key]}' stands on line {first.line} with other "
                "values; remove one"
            )


def column_of(path: AnyPath, header: Sequence[str], name: str) -> int:
    """The place of a column."""
    if name not in header:
        raise LoaderError(f"{os.fspath(path)}: {absent(name, header)}")
    return header.index(name)


def classes_in(path: AnyPath, header: Sequence[str], key: int, wanted: Sequence[str]) -> list[int]:
    """The places of the classes; if none is named, of all columns that have a name but the ids."""
    found: list[int] = []
    for name in wanted:
        try:
            found += [at for at in places_of(name, header) if at != key and at not in found]
        except LookupError as error:
            raise LoaderError(f"{os.fspath(path)}: label_columns: {error.args[0]}") from error
    if wanted:
        return found
    for at, name in enumerate(header):
        if at != key and NAMELESS.match(name.strip()):
            warnings.warn(
                f"{os.fspath(path)}: column {at + 1} has no name ({name!r}), as the row numbers that pandas "
                "writes: it is left out, and is no class",
                stacklevel=4,
            )
    return [at for at, name in enumerate(header) if at != key and not NAMELESS.match(name.strip())]


def absent(name: str, header: Sequence[str]) -> str:
    """What is wrong with a header that lacks a column."""
    blanks = next((f"; {found!r} has blanks around it: remove them" for found in header if found.strip() == name), "")
    return f"column '{name}' is missing; the columns are: {', '.join(header)}{blanks}"


def files_of(table: Tables) -> list[AnyPath]:
    """The files of a table: one, several, or none."""
    if table is None:
        return []
    return [table] if isinstance(table, (str, os.PathLike)) else list(table)


def read_tables(
    reports: Tables, meta: Tables, labels: Tables, columns: Columns, has_spacing: bool
) -> tuple[Table | None, Table | None, Table | None]:
    """The tables that there are; if one does not fit, the message says which of the files does. The spacing is read of
    the table if it `has_spacing`."""
    of_meta = columns.meta if has_spacing else columns.meta[:2]
    given = {
        "reports_file": (files_of(reports), columns.texts),
        "meta_file": (files_of(meta), of_meta),
        "labels": (files_of(labels), ()),
    }

    def fits(role: str, path: AnyPath) -> bool:
        header = next(iter(table_rows(path, columns.ids)[1]), (1, []))[1]
        others = any(set(names) <= set(header) for _, names in given.values() if names) and not columns.classes
        has_ids = any(name in header for name in columns.ids)
        return has_ids and (set(given[role][1]) <= set(header) if given[role][1] else not others)

    def read(role: str) -> Table | None:
        paths, names = given[role]
        if not paths:
            return None
        # Of one table for several roles, further columns are those of the first.
        is_first = next(other for other, (files, _) in given.items() if files == paths) == role
        own = columns if is_first else replace(columns, extra=())
        try:
            table = read_table(paths, own, names or columns.classes, role == "labels")
            if role == "labels" and not fits(role, paths[0]):
                raise LoaderError(f"{os.fspath(paths[0])}: it has the columns of another table, which are no classes")
            return table
        except LoaderError as error:
            for other, (files, _) in given.items():
                for file in files:
                    if other != role and not all(fits(role, path) for path in paths) and fits(role, file):
                        raise LoaderError(
                            f"{error}; the file was given as {role}: {os.fspath(file)}, given as {other}, fits; "
                            "are they swapped?"
                        ) from error
            raise

    return read("reports_file"), read("meta_file"), read("labels")


Place = tuple[str, int, int]  # of a further column: its name, its table, and its place among the further columns there


def further_columns(columns: Columns, tables: Sequence[Table | None]) -> list[Place]:
    """The columns whose values become fields of the metadata; one with ids is taken of the first table that has it."""
    chosen: dict[str, tuple[int, int]] = {}
    for name in columns.extra:
        errors, before = [], len(chosen)
        for at, table in enumerate(tables):
            try:
                found = places_of(name, table.header) if table else []
            except LookupError as error:
                errors.append(error)
                continue
            for place in found:
                if not table or place not in table.extra:
                    continue
                column = table.header[place]
                if chosen.setdefault(column, (at, place)) != (at, place) and column not in columns.ids:
                    raise LoaderError(f"extra_columns: two columns are called '{column}'; rename one")
        if len(errors) == sum(table is not None for table in tables):
            raise LoaderError(f"extra_columns: of all tables, {errors[0].args[0] if errors else 'none is given'}")
        for column in list(chosen)[before:]:
            if column in OWN_FIELDS or column.startswith("also_"):
                raise LoaderError(f"extra_columns: the metadata has a field '{column}' of its own; rename the column")
    return [(name, at, table.extra.index(place)) for name, (at, place) in chosen.items() if (table := tables[at])]


def extra_value(field: str) -> int | float | str | None:
    """The value of a further column, as ctwds-fs puts it into the JSON of a sample."""
    bare = field.strip()
    if bare in MISSING:
        return None
    if re.fullmatch("[+-]?(0|[1-9][0-9]*)", bare):
        return int(bare) if -(2**63) <= int(bare) < 2**63 else field
    value = None if re.match("[+-]?0[0-9]", bare) else decimal(bare)
    return field if value is None else value


def label_row(table: Table, row: Row, missing: str = "error") -> NDArray[Any] | None:
    """The labels of a row; None if one is missing and such samples are left out."""
    values: list[float] = []
    instead = {"0": 0.0, "nan": math.nan, "exclude": math.inf}.get(missing)
    for column, field in zip(table.columns, row.fields, strict=True):
        if instead is not None and field.strip() in MISSING:
            values.append(instead)
            continue
        value = SWITCHES.get(field.strip().lower(), decimal(field))
        if value is None or not math.isfinite(in_float32(value)):
            what = "beyond float32, as which labels are stored"
            what = "not a number" + decimal_comma(field) if value is None else what
            raise LoaderError(
                f"{os.fspath(row.path)}: line {row.line}, column '{column}': the label {field!r} is {what}"
            )
        values.append(value)
    return None if math.inf in values else np.array(values, np.float32)


# --------------------------------------------------------------------------------------------------------- dataset_file

META_ROLES = ("slope", "intercept", "xy", "z")


class DatasetFile:
    """What a `ctwds.toml` says of a data set, for NPZ files; nothing if there is none. Keys of the commands alone, such
    as `mountpoint`, are passed over; what makes other samples, and the loader does not do, is refused."""

    # Keys, with the values that change nothing.
    REFUSED: Mapping[str, tuple[Any, ...]] = {
        **dict.fromkeys(("where", "config", "split", "window", "also"), ()),
        "orientation": ("keep",),
        "output_dtype": ("float16", "float32", "int16"),
    }
    # Those of preprocessed volumes, which the loader makes in one way.
    OF_PREPROCESSED: Mapping[str, tuple[Any, ...]] = {
        "hu_range": ([-1000, 1000], "-1000,1000"),
        "pad_value": (-1,),
        "resample": ("auto",),
    }
    TAKEN = (
        *("data_folder", "reports_file", "meta_file", "labels_file", "id_column", "text_columns", "label_columns"),
        *("meta_columns", "extra_columns", "missing_label", "missing_text", "missing_meta", "array", "channel"),
        *("source", "pattern", "axes", "spacing_array", "spacing_from", "dialect", "rescale", "volume"),
        *("spacing", "shape", "also_pad", "studies", "exclude", "limit", "test_mode"),
    )

    def __init__(self, path: AnyPath | None) -> None:
        self.path = path
        self.keys: dict[str, Any] = {}
        if path is None:
            return
        try:
            tomllib = importlib.import_module("tomllib")
        except ImportError as error:
            raise LoaderError(
                f"{os.fspath(path)}: only Python 3.11 and later read TOML: give folder and tables as arguments"
            ) from error
        try:
            read = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise LoaderError(f"{os.fspath(path)}: not TOML ({error})") from error
        for name, value in read.items():
            key = name.replace("-", "_")
            if key in self.keys:
                raise LoaderError(f"{os.fspath(path)}: '{key}' is there twice")
            self.keys[key] = value
        self._check()

    def _check(self) -> None:
        """Refuse what would be other samples than the shards have."""
        known = (*self.TAKEN, *self.REFUSED, *self.OF_PREPROCESSED)
        refused = {**self.REFUSED, **(self.OF_PREPROCESSED if self.keys.get("volume") == "preprocessed" else {})}
        for key, value in self.keys.items():
            if key in refused and value not in refused[key]:
                raise LoaderError(
                    f"{os.fspath(self.path or '')}: the loader does not do '{key}' on files of volumes: read the "
                    "shards of a mount (ctwds-fs mount), or leave the key out"
                )
            meant = difflib.get_close_matches(key, known, n=1, cutoff=0.88)
            if meant and key not in known:
                raise LoaderError(f"{os.fspath(self.path or '')}: there is no key '{key}'; is '{meant[0]}' meant?")

    def _in_folder(self, path: Any) -> AnyPath:
        return os.path.join(os.path.dirname(self.path or ""), str(path))

    def texts(self, key: str) -> list[str]:
        """The values of a key: one, several or none."""
        value = self.keys.get(key, [])
        return [str(one) for one in value] if isinstance(value, list) else [str(value)]

    def names(self, key: str) -> list[str]:
        """The names of columns of a key, with commas between them."""
        rows = [next(csv.reader([text]), []) for text in self.texts(key)]
        return [name.strip() for row in rows for name in row]

    def texts_or(self, **given: str | None) -> list[str | None]:
        """The values of some keys, where the arguments give none."""
        return [str(self.keys[key]) if value is None and key in self.keys else value for key, value in given.items()]

    def paths(self, folder: AnyPath | None, *tables: Tables) -> tuple[AnyPath, Tables, Tables, Tables]:
        """The data folder and the tables, where the arguments give none."""
        if folder is None and "data_folder" in self.keys:
            folder = self._in_folder(self.keys["data_folder"])
        if folder is None:
            raise LoaderError(f"{os.fspath(self.path or 'CTReportDataset')}: data_folder is missing")
        keys = ("reports_file", "meta_file", "labels_file")
        reports, meta, labels = (
            table if table is not None else [self._in_folder(path) for path in self.texts(key)]
            for key, table in zip(keys, tables, strict=True)
        )
        return folder, reports, meta, labels

    def columns(self) -> Columns:
        """The columns of the tables."""
        meta = list(META_COLUMNS)
        for name in self.names("meta_columns"):
            role, equals, column = name.partition("=")
            if not equals or role.strip() not in META_ROLES:
                raise LoaderError(
                    f"{os.fspath(self.path or '')}: meta_columns: {name!r} is not slope=COLUMN or the like"
                )
            meta[META_ROLES.index(role.strip())] = column.strip()
        texts = [name.split("=", 1)[-1].strip() for name in self.names("text_columns")]
        return Columns(
            self.texts("id_column") or Columns.ids,
            texts or REPORT_COLUMNS,
            self.names("label_columns"),
            meta,
            self.names("extra_columns"),
        )

    def selection(self) -> Selection:
        """Which of the studies in all tables are taken."""
        limit = 100 if self.keys.get("test_mode") is True else self.keys.get("limit")
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise LoaderError(f"{os.fspath(self.path or '')}: limit is {limit!r}; it must be a number of studies")
        listed = studies_in(self._in_folder(self.keys["studies"])) if "studies" in self.keys else None
        excluded = excluded_in(self._in_folder(self.keys["exclude"])) if "exclude" in self.keys else set()
        return Selection(listed, excluded, limit)

    def missing_label(self) -> str:
        """What becomes of a label that is missing."""
        value = str(self.keys.get("missing_label", "error"))
        return str(choice("missing_label", value, ("error", "0", "nan", "exclude")))

    def missing_text(self) -> str:
        """What stands for a text that is missing."""
        return str(self.keys.get("missing_text", ""))

    def leaves_out(self, needs_meta: Callable[[str], bool], path: str) -> bool:
        """Whether a volume is left out whose metadata is incomplete."""
        if self.keys.get("missing_meta", "exclude") == "nan":
            return False
        is_of_stored = self.path is not None and self.keys.get("volume", "stored") != "preprocessed"
        return is_of_stored or needs_meta(path)

    def rescale(self) -> Rescale:
        """What makes HU of the values."""
        value = self.keys.get("rescale", "auto")
        if value in ("auto", "table", "none"):
            return str(value)
        return self._floats("rescale", value, 2)

    def spacing(self, given: Sequence[float], shape: Sequence[int]) -> Sequence[float]:
        """The spacing of preprocessed volumes, which must have the shape that the loader gives."""
        if self.keys.get("volume") != "preprocessed":
            return given
        if tuple(made := self._floats("shape", self.keys.get("shape", list(SHAPE)), 3)) != tuple(shape):
            raise LoaderError(f"{os.fspath(self.path or '')}: shape is {made}, and that of the loader {tuple(shape)}")
        own = self._floats("spacing", self.keys.get("spacing", list(SPACING)), 3)
        return own if given is SPACING else given

    def _floats(self, key: str, value: Any, count: int) -> list[float]:
        texts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        found = [number for text in texts if (number := decimal(str(text))) is not None]
        if len(found) != count or len(found) != len(texts):
            raise LoaderError(f"{os.fspath(self.path or '')}: {key} is {value!r}; it must be {count} numbers")
        return found


# --------------------------------------------------------------------------------------------------------------- epochs


class Clock:
    """Counts epochs in the training's own process: of one loader, or of a data set that is read without one.

    `set_epoch` of a data set reaches the clocks of its loaders when these begin; until then each counts for itself."""

    def __init__(self, above: Clock | None = None) -> None:
        self.above = above
        self.asked, self.calls = 0, 0  # by set_epoch
        self.next = above.asked if above else 0
        self.begun: int | None = None  # none where set_epoch was called after the last beginning
        self.held: int | None = None  # while `iter` of a CTReportLoader begins this epoch
        self.managed = False  # by a CTReportLoader
        self.late: int | None = None  # what a sampler's set_epoch has chosen since the last beginning
        self._heard = above.calls if above else 0

    def set(self, epoch: int) -> None:
        """Decide the next epoch."""
        self.asked = self.next = max(0, epoch)
        self.calls += 1
        self.begun = self.late = None
        self._heard = self.above.calls if self.above else 0

    def set_late(self, epoch: int) -> None:
        """Decide the next epoch; of a loader of make_loader also the one that has begun, if nothing was read of it.

        Lightning tells the epoch to a loader's sampler: after a resume when it has called `iter` already."""
        self.set(epoch)
        self.late = self.asked

    def of_loader(self) -> Clock:
        """The clock of a loader of this data set, or of a loader that takes the place of this one."""
        self.listen()
        clock = Clock(self.above or self)
        clock.next = self.next if self.above else clock.next
        return clock

    def listen(self) -> None:
        """Take over what the data set's `set_epoch` has asked for."""
        if self.above and self._heard != self.above.calls:
            self.set(self.above.asked)

    def begin(self) -> int:
        """The epoch of an iteration that begins now."""
        if self.held is not None:
            return self.held
        self.listen()
        self.go_on(self.next)
        return self.next - 1

    @contextlib.contextmanager
    def hold(self) -> Iterator[int]:
        """Begin an epoch: it is that of all that begins in the meantime, and of workers that start, as they copy it."""
        self.held, self.managed = self.begin(), True
        try:
            yield self.held
        finally:
            self.held = None

    def go_on(self, epoch: int) -> None:
        """Make an epoch the one that has begun."""
        self.begun, self.next, self.late = epoch, epoch + 1, None


class Iteration(Iterator[T]):
    """What is read in one epoch. StatefulDataLoader of torchdata saves its state, and goes on from there."""

    def __init__(
        self, read: Callable[[int], Iterator[T]], begin: Callable[[], int], go_on: Callable[[int], None]
    ) -> None:
        self._read, self._begin, self._go_on = read, begin, go_on
        self._rest: Iterator[T] | None = None
        self._epoch = self._done = 0

    def start(self, epoch: int, done: int = 0) -> Iteration[T]:
        """Begin now, and not with the first `next`; after what was done."""
        self._epoch, self._done = epoch, done
        self._rest = itertools.islice(self._read(epoch), done, None)
        return self

    def __next__(self) -> T:
        if self._rest is None:
            self.start(self._begin())
        found = next(self._rest or iter(()))
        self._done += 1
        return found

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how much of it was read."""
        if self._rest is None:
            self.start(self._begin())
        return {"epoch": self._epoch, "done": self._done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Read on where the state was saved; what comes before is read once more."""
        self.start(state["epoch"], state["done"])
        self._go_on(self._epoch)


def caller_of(depth: int) -> str:
    """The package that called the function which calls this; with depth 2, the package that called its caller."""
    return str(sys._getframe(depth + 1).f_globals.get("__name__", "")).split(".")[0]


def refuse_second_split(world_size: int) -> None:
    """Called by each `set_epoch`, which Accelerate calls before it deals samples or batches to the ranks: of what is a
    rank's share already, that would be a share of the share, without a word."""
    if world_size > 1 and caller_of(2) == "accelerate":
        raise LoaderError(
            "Accelerate would deal to the ranks once more what this data set deals to them: take a loader of "
            "data.make_loader(...), which accelerator.prepare() leaves as it is, in place of a DataLoader"
        )


# -------------------------------------------------------------------------------------------------------- epoch_sampler


class EpochSampler(DistributedSampler[int]):
    """The indices that a rank reads in an epoch, for a DataLoader: `DataLoader(data, sampler=EpochSampler(data))`. Each
    iteration is of the next epoch, or of the one that `set_epoch` has chosen, here or in the data set. As it is a
    DistributedSampler, Lightning does not split it once more."""

    def __init__(self, data: CTReportDataset) -> None:
        super().__init__(data, data.world_size, data.rank, data.shuffle, data.seed, data.uneven == "drop")
        self.data = data
        self.clock = data._clock.of_loader()

    def __len__(self) -> int:
        """How many."""
        world = self.data.world_size
        if self.data.uneven == "keep":
            return len(range(self.data.rank, len(self.data), world))
        return len(self.data) // world if self.data.uneven == "drop" else math.ceil(len(self.data) / world)

    def set_epoch(self, epoch: int) -> None:
        """Decide the epoch of the next iteration over this sampler."""
        refuse_second_split(self.data.world_size)
        clock = self.clock
        if (
            caller_of(1).endswith("lightning")
            and not (clock.calls or clock.managed)
            and clock.begun not in (None, epoch)
        ):
            raise LoaderError(
                f"Lightning goes on with epoch {epoch}, and has let a DataLoader with workers begin epoch "
                f"{clock.begun} already: take a loader of data.make_loader(...) in place of the DataLoader"
            )
        clock.set_late(epoch)

    def __iter__(self) -> Iterator[int]:
        self.data._check_world()
        return Iteration(self._read, self.clock.begin, self.clock.go_on)  # DataLoader asks twice, and reads the second

    def _read(self, epoch: int) -> Iterator[int]:
        data = self.data
        order = list(range(len(data)))
        if data.shuffle:
            order = np.random.default_rng([data.seed, epoch]).permutation(len(data)).tolist()
        extra = -len(order) % data.world_size
        if data.uneven == "pad":
            order += list(itertools.islice(itertools.cycle(order), extra))
        elif data.uneven == "drop":
            order = order[: len(order) // data.world_size * data.world_size]
        return iter(order[data.rank :: data.world_size])


# ---------------------------------------------------------------------------------------------------------------- files

NIFTI = (".nii.gz", ".nii")
FORMAT_NAMES = {".npz": "NPZ", ".npy": "NPY", ".nii.gz": "NIfTI", ".nii": "NIfTI"}
SOURCES = {"auto": (".npz", ".npy", *NIFTI), "npz": (".npz",), "npy": (".npy",), "nifti": NIFTI}
DEPTHS = ("*/*/*", "*/*", "*")  # of equals the deepest
DEEPER = tuple("/".join("*" * depth) for depth in range(8, 3, -1))  # where those have no volume


def find_volumes(folder: AnyPath, source: str, patterns: Sequence[str]) -> list[str]:
    """The volumes of the folder depth that has the most, or those that match a pattern, by the bytes of their relative
    paths."""

    def found(pattern: str) -> list[str]:
        paths = glob.glob(pattern, root_dir=folder, recursive=True)
        return [
            path
            for path in (os.path.normpath(path) for path in paths)
            if path.endswith(SOURCES[source]) and not any(part.startswith(".") for part in path.split("/"))
        ]

    for pattern in patterns:
        if not found(pattern):
            raise LoaderError(f"{os.fspath(folder)}: no volume matches pattern {pattern!r} (relative to that folder)")
    if patterns:
        most = sorted({path for pattern in patterns for path in found(pattern)}, key=os.fsencode)
    else:
        most = max((found(depth) for depth in DEPTHS), key=len) or max((found(depth) for depth in DEEPER), key=len)
    if not most:
        formats = " or ".join(dict.fromkeys(FORMAT_NAMES[suffix] for suffix in SOURCES[source]))
        raise LoaderError(
            f"{os.fspath(folder)}: no {formats} file in it, nor down to {len(DEPTHS + DEEPER)} "
            "levels below: is it the folder that holds the volumes?"
        )
    studies: dict[str, str] = {}
    for path in most:
        if (earlier := studies.setdefault(study_of(path), path)) != path:
            raise LoaderError(
                f"{os.fspath(folder)}: two volumes have the study id {study_of(path)!r}: {earlier} and {path}; remove "
                "or rename one, or leave one out by source or pattern"
            )
    return sorted(most, key=os.fsencode)


def study_of(path: str) -> str:
    """The study id of a volume's file: its name without the suffix."""
    name = os.path.basename(path)
    return name.removesuffix(next((suffix for suffix in FORMAT_NAMES if name.endswith(suffix)), ""))


# ----------------------------------------------------------------------------------------------------------- hounsfield

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


# ---------------------------------------------------------------------------------------------------------------- nifti


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI file says of its voxels, as nibabel takes it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int  # of the first voxel
    scale: tuple[float, float] | None  # slope and intercept, where they change anything
    zooms: tuple[float, ...]  # size of a voxel along the first three axes, in mm


NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
# Of NIfTI-1 and NIfTI-2: bytes of the header, and where it has which numbers.
NIFTI_FIELDS: tuple[tuple[int, dict[str, tuple[int, str]]], ...] = (
    (348, {"dim": (40, "8h"), "type": (70, "h"), "pixdim": (76, "8f"), "offset": (108, "f"), "scale": (112, "2f")}),
    (540, {"dim": (16, "8q"), "type": (12, "h"), "pixdim": (104, "8d"), "offset": (168, "q"), "scale": (176, "2d")}),
)


def open_nifti(path: str) -> Any:
    """The bytes of a NIfTI file, unpacked."""
    return (gzip.open if path.endswith(".gz") else open)(path, "rb")


def nifti_header(file: IO[bytes]) -> NiftiHeader:
    """The header at the beginning of a file."""
    head = file.read(540)
    sizes = struct.unpack("<i", head[:4].ljust(4, b"\0"))[0], struct.unpack(">i", head[:4].ljust(4, b"\0"))[0]
    second = head[344:348] not in (b"n+1\0", b"ni1\0")
    size, fields = NIFTI_FIELDS[second]
    is_known = size in sizes and head[4:8] in (b"n+2\0", b"ni2\0") and head[8:12] in (b"\r\n\x1a\n", bytes(4))
    if len(head) < size or (second and not is_known):
        raise ValueError("its header is none of NIfTI")

    def get(name: str, order: str) -> tuple[Any, ...]:
        at, kind = fields[name]
        return struct.unpack_from(order + kind, head, at)

    count = get("dim", "<")[0]
    order = "<" if 1 <= count <= 7 or (count == 0 and sizes[0] == size) else ">"
    count, *lengths = get("dim", order)
    (code,), (offset,), (slope, inter) = get("type", order), get("offset", order), get("scale", order)
    if code not in NIFTI_TYPES:
        raise ValueError(f"its datatype {code} is not supported: integers and floats of up to 8 bytes are")
    if not 1 <= count <= 7 or min(lengths[:count]) < 0:
        raise ValueError(f"its dimensions are {count}: {lengths}")
    if head[344:348] == b"ni1\0" and not second and offset == 0:
        offset = size + 4
    if not math.isfinite(offset) or offset < size + 4:
        raise ValueError(f"its voxels begin at byte {offset} (vox_offset), inside the header")
    scale = None
    if slope != 0 and math.isfinite(slope):
        if not math.isfinite(inter):
            raise ValueError(f"its scl_slope is {slope} and its scl_inter {inter}")
        scale = (slope, inter) if (slope, inter) != (1, 0) else None
    dtype, zooms = np.dtype(order + NIFTI_TYPES[code]), tuple(abs(zoom) or 1.0 for zoom in get("pixdim", order)[1:4])
    return NiftiHeader(tuple(lengths[:count]), dtype, int(offset), scale, zooms)


def nifti_values(stored: NDArray[Any], header: NiftiHeader) -> NDArray[Any]:
    """What the header's slope and intercept make of stored numbers, as `get_fdata().astype(float32)` of nibabel."""
    slope, inter = header.scale or (1, 0)
    found = np.empty(stored.size, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, stored.size, CHUNK):
            values = stored[at : at + CHUNK].astype(np.float64)
            # A step that changes nothing is left out, as -0.0 + 0.0 would change the sign.
            if slope != 1:
                values *= slope
            if inter != 0:
                values += inter
            found[at : at + CHUNK] = values
    return found


def read_nifti(path: str, choice: ArrayChoice, look: int | None) -> NDArray[Any]:
    """The volume of a NIfTI file; with `look` the values in its first bytes. The checksum of a packed one is compared
    at its end."""
    with open_nifti(path) as file:
        header = nifti_header(file)
        file.seek(header.offset)
        width, count = header.dtype.itemsize, math.prod(header.shape)
        if not count:
            raise ValueError(f"its shape is {header.shape}: there is no voxel")
        # As the program looks at them: small integers as they are, all else as float32.
        seen = width if header.scale is None and header.dtype.kind in "iu" and width < 8 else 4
        if look is not None and choice.part(header.shape)[1] is None:
            return nifti_values(np.frombuffer(file.read(min(look // seen, count) * width), header.dtype), header)
        content = bytearray()  # grows as it is read: what a header claims need not be there
        while piece := file.read(min(CHUNK, count * width - len(content))):
            content += piece
        if len(content) < count * width:
            raise ValueError(f"it ends before its {count} voxels do")
        try:
            while path.endswith(".gz") and file.read(CHUNK):
                pass
        except gzip.BadGzipFile as error:
            if "Not a gzipped file" not in str(error):  # what else stands behind the last member is none of it
                raise
    values = nifti_values(np.frombuffer(content, header.dtype), header)
    volume = choice.volume(values.reshape(header.shape, order="F"))
    return volume if look is None else volume.ravel("F")[: look // seen]


# ------------------------------------------------------------------------------------------------------------------ npz

KNOWN_ARRAYS = ("data", "volume", "arr_0")
ZIP_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 20: "zstd", 93: "zstd", 95: "xz"}


class NpyFile:
    """An NPY file, in place of an NPZ file with one array that has no name."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.info = zipfile.ZipInfo(".npy")
        self.info.file_size = os.stat(path).st_size

    def infolist(self) -> list[zipfile.ZipInfo]:
        """The one array."""
        return [self.info]

    def open(self, _: zipfile.ZipInfo) -> IO[bytes]:
        """The file."""
        return open(self.path, "rb")


Archive = zipfile.ZipFile | NpyFile


def open_archive(path: str) -> contextlib.AbstractContextManager[Archive]:
    """The arrays of an NPZ file, or the one of an NPY file."""
    return contextlib.nullcontext(NpyFile(path)) if path.endswith(".npy") else zipfile.ZipFile(path)


def read_spacing(path: str, name: str) -> tuple[float, ...]:
    """The three numbers of an array of an NPZ file that gives the spacing, in their order."""
    try:
        if path.endswith(".npy"):
            raise ValueError(f"there is no array {name!r} beside the volume")
        with np.load(path, allow_pickle=False) as arrays:
            if name not in arrays.files:
                raise ValueError(f"there is no array {name!r}, but {', '.join(arrays.files)}")
            with npy_errors():
                array = arrays[name]
        numbers = tuple(float(number) for number in array.reshape(-1)) if array.dtype.kind in "biuf" else ()
        if len(numbers) != 3 or not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError(f"array {name!r} is {array.tolist()!r}, and a spacing has three numbers above 0")
        return numbers
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LoaderError(f"{path}: no spacing in it ({error}): spacing_array names its array") from error


class Unreadable(ValueError):
    """An array that is refused as ctwds-fs refuses it."""


def unreadable(info: zipfile.ZipInfo, name: str) -> str:
    """Why a member of a zip file is not read; empty if it is."""
    if info.flag_bits & 1:
        return f"array '{name}' is encrypted; write the file again without a password"
    if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return ""
    method = ZIP_METHODS.get(info.compress_type, "an unknown method")
    return (
        f"array '{name}' is packed with {method} (zip compression method {info.compress_type}); stored and deflated "
        "arrays are read: write the file again with np.savez or np.savez_compressed"
    )


def open_array(archive: Archive, info: zipfile.ZipInfo, name: str) -> IO[bytes]:
    """The bytes of an array's member."""
    if reason := unreadable(info, name):
        raise Unreadable(reason)
    return archive.open(info)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that begins here."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"NPY format version {version[0]}.{version[1]} is not supported (1.0, 2.0 and 3.0 are)")
    with npy_errors():
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)  # version 3 is alike, but for names' encoding
    return shape, dtype


def fits(shape: Sequence[int], dtype: np.dtype[Any], choice: ArrayChoice) -> bool:
    """Whether it is an array of numbers that has three dimensions."""
    try:
        return dtype.kind in "biufc" and bool(choice.part(shape))
    except ValueError:
        return False


def only_volume(archive: Archive, listed: Mapping[str, list[zipfile.ZipInfo]], choice: ArrayChoice) -> str:
    """The name of the only array of numbers of three dimensions; where there is none, of the only larger one."""
    found: list[tuple[str, tuple[int, ...], bool]] = []
    for name, info in ((name, info) for name, infos in listed.items() for info in infos):
        is_npy = info.filename.endswith(".npy")
        try:
            if is_npy or not unreadable(info, name):
                with open_array(archive, info, name) as file:
                    shape, dtype = npy_header(file)
                    found += [(name, shape, fits(shape, dtype, choice))] if len(shape) >= 3 else []
        except Unreadable:
            raise
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            continue  # a note, say
    if not found:
        raise ValueError(f"none of its arrays ({', '.join(listed)}) is data, volume, arr_0 or of three dimensions")
    found = [one for one in found if one[2]] or found
    if len({name for name, *_ in found}) > 1:
        shown = ", ".join(f"{name} {shape}" for name, shape, _ in found)
        raise ValueError(f"several arrays could be the volume ({shown}); choose one with array")
    return found[0][0]


def read_array(
    archive: Archive, info: zipfile.ZipInfo, name: str, choice: ArrayChoice, look: int | None
) -> NDArray[Any]:
    """The volume in an array of booleans, integers or floats of up to 8 bytes, whose checksum is right; with `look` the
    values in its first bytes, in a row and in the file's order."""
    with open_array(archive, info, name) as file:
        shape, dtype = npy_header(file)
        if dtype.hasobject:
            raise ValueError(
                f"array '{name}' is an object array (pickled data, never executed here); save it as float32"
            )
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            what = f"'{dtype}' (longdouble)" if dtype.kind == "f" else f"'{dtype}'"
            raise ValueError(
                f"array '{name}': dtype {what} is not supported: booleans, integers and floats of up to 8 bytes are; "
                "save it as one"
            )
        if info.file_size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"array '{name}' of shape {shape} and dtype {dtype} does not fit its {info.file_size} bytes"
            )
        if look is not None and choice.part(shape)[1] is None:
            return np.frombuffer(file.read(look // dtype.itemsize * dtype.itemsize), dtype)
    with open_array(archive, info, name) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    volume = choice.volume(array)
    if look is not None:
        return volume.ravel("C" if array.flags.c_contiguous else "F")[: look // dtype.itemsize]
    return volume


def read_volume(path: str, choice: ArrayChoice, look: int | None) -> tuple[str, NDArray[Any]]:
    """The volume that ctwds-fs takes of an NPZ, NPY or NIfTI file (with `any_shape` the first array, if none has a
    known name), and its array's name; with `look` only the values in its first bytes."""
    if path.endswith(NIFTI):
        try:
            return "data", read_nifti(path, choice, look)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise LoaderError(f"{path}: it cannot be read ({error}): remove it or its row in a table") from error
    wanted = None if path.endswith(".npy") else choice.name
    try:
        with open_archive(path) as archive:
            # By the names of the arrays; NumPy reads those without .npy as well.
            listed: dict[str, list[zipfile.ZipInfo]] = {}
            for info in archive.infolist():
                listed.setdefault(info.filename.removesuffix(".npy"), []).append(info)
            if wanted is not None and wanted not in listed:
                raise ValueError(f"there is no array '{wanted}', but {', '.join(listed)}")
            names = (wanted,) if wanted is not None else KNOWN_ARRAYS
            name = next((name for name in names if name in listed), None)
            if name is None and (choice.any_shape or path.endswith(".npy")):
                name = next(iter(listed), None)
            if name is None:
                name = only_volume(archive, listed, choice)
            if len(listed[name]) > 1:
                raise ValueError(f"the file has array '{name}' more than once; write it again with one of them")
            return name, read_array(archive, listed[name][0], name, choice, look)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LoaderError(f"{path}: it cannot be read ({error}): remove it or its row in a table") from error


# -------------------------------------------------------------------------------------------------------------- batches

SHARED = "/dev/shm"
ROOM_REMEDY = (
    "make it larger (docker run --shm-size=16g), take fewer num_workers, a smaller prefetch_factor or num_workers=0; "
    "ctwds.Loader needs none of it"
)


def allocate(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor; that of a worker lies in shared memory, where PyTorch would have to copy it otherwise."""
    if get_worker_info() is None:
        return torch.empty(*shape, dtype=dtype)
    size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    with contextlib.suppress(OSError):  # a system without it
        state = os.statvfs(SHARED)
        free = state.f_bavail * state.f_frsize  # what is written there all the same ends the process
        if state.f_blocks and size > free:  # a tmpfs without a limit says 0 of 0
            raise LoaderError(
                f"{SHARED}: a batch of {shown_bytes(size)} does not fit into the {shown_bytes(free)} that are free: "
                f"{ROOM_REMEDY}"
            )
    try:
        storage = torch.UntypedStorage._new_shared(size)
    except RuntimeError as error:
        raise LoaderError(f"{SHARED}: no room for a batch of {shown_bytes(size)} ({error}): {ROOM_REMEDY}") from error
    return torch.empty(0, dtype=dtype).set_(storage, 0, tuple(shape))


def share(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in memory that workers see as well."""
    try:
        return tensor.share_memory_()
    except RuntimeError as error:
        raise LoaderError(
            f"{SHARED}: this process cannot make a file there ({error}): let it be a tmpfs that every user may write "
            f"(mode 1777), or take ctwds.Loader, which needs none of it"
        ) from error


def stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors as a batch, without a copy where they were made in one; an empty tensor of empty ones."""
    first = tensors[0]
    if first.numel() == 0:
        return torch.empty(0)
    slab, size = first._base, first.numel()
    if (
        slab is not None
        and len(tensors) <= len(slab)
        and all(each._base is slab and each.storage_offset() == at * size for at, each in enumerate(tensors))
    ):
        return slab[: len(tensors)]
    if len(tensors) == 1:
        return first[None]
    return torch.stack(list(tensors), out=allocate((len(tensors), *first.shape), first.dtype))


def collate(samples: Sequence[Any]) -> Any:
    """Samples as a batch: volumes (B, 1, D, H, W), list of texts, labels (B, classes), list of study ids, embeddings;
    with a list of the metadata and the arrays (B, 1, D, H, W) beside the volumes by name, if samples have them. Volumes
    of other shapes than the first raise RuntimeError."""
    volumes, texts, labels, ids, embeddings, *more = zip(*samples, strict=True)
    batch = stack(volumes), list(texts), np.stack(labels), list(ids), stack(embeddings)
    return (*batch, *(beside(each) for each in more)) if more else batch


def beside(each: Sequence[Any]) -> Any:
    """Of each sample the metadata, or the arrays by their names, as a batch."""
    if not all(isinstance(array, torch.Tensor) for array in each[0].values()):
        return list(each)
    return {name: torch.stack([arrays[name] for arrays in each]) for name in each[0]}


# -------------------------------------------------------------------------------------------------------------- members

HUGE_PAGE = 2 << 20


class Buffer:
    """Page-aligned memory that is used again for every volume: the first touch of memory costs more than the read."""

    def __init__(self) -> None:
        self._memory = memoryview(b"")

    def view(self, size: int) -> memoryview:
        """The first bytes; what they held before is lost."""
        if size > len(self._memory):
            length = -(-size // HUGE_PAGE) * HUGE_PAGE
            memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if length > HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # a kernel without huge pages
                    memory.madvise(mmap.MADV_HUGEPAGE)
            self._memory = memoryview(memory)
        return self._memory[:size]


def values_of(voxels: NDArray[Any], meta: Mapping[str, Any]) -> NDArray[Any]:
    """The values that voxels stand for: those of `uint8` are places in a window, which the JSON names."""
    if (window := meta.get("volume_window")) is None:
        return voxels
    low, high = (float(bound) for bound in window)
    return (low + np.arange(256) * ((high - low) / 255)).astype(np.float32)[voxels]


def raw_voxels(payload: memoryview, meta: Mapping[str, Any]) -> NDArray[Any]:
    """`.bin`: little-endian, C order, shape and type in the JSON."""
    return np.frombuffer(payload, np.dtype(meta["volume_dtype"]).newbyteorder("<")).reshape(meta["volume_shape"])


def npy_voxels(payload: memoryview, meta: Mapping[str, Any]) -> NDArray[Any]:
    """`.volume.npy`, as `--format npy` writes it."""
    file = io.BytesIO(payload[:4096])
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("the npy header has another version than 1.0")
    with npy_errors():
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    return np.frombuffer(payload, dtype, math.prod(shape), file.tell()).reshape(shape, order="F" if fortran else "C")


# What makes an array of a voxel member, by its suffix: the one place for new encodings.
VOXELS: dict[str, Callable[[memoryview, Mapping[str, Any]], NDArray[Any]]] = {
    "bin": raw_voxels,
    "volume.npy": npy_voxels,
}
OTHERS: dict[str, tuple[str, Callable[[memoryview], Any]]] = {
    "json": ("meta", lambda payload: json.loads(bytes(payload))),
    "txt": ("text", lambda payload: str(payload, "utf-8")),
    "labels": ("labels", lambda payload: np.frombuffer(payload, "<f4").copy()),
    "labels.npy": ("labels", lambda payload: npy_voxels(payload, {}).copy()),
}
OTHERS |= {"meta.json": OTHERS["json"], "report.txt": OTHERS["txt"]}
REMEDIES = {
    errno.EIO: "the volume is damaged or its disk fails; `ctwds-fs status MOUNTPOINT` names the study and the reason, "
    "on_error='skip' goes on without it, and a mount with --exclude leaves it out",
    errno.ESTALE: "a source file changed under the mount; unmount, and mount again",
    errno.ENOTCONN: "the mount's process has ended; mount again",
    errno.ECONNABORTED: "the mount's process has ended while it was asked; mount again",
    errno.ENOENT: "is it mounted?",
    errno.EACCES: "only the user who mounted may read, unless --allow-other is given",
}


def parse_header(block: bytes) -> tuple[str, int] | None:
    """Name and size of a tar member, or None at the end of the archive.

    Raises ValueError for what is no header of a plain file."""
    if not any(block):
        return None
    if int(block[148:156].strip(b" \0") or b"0", 8) != sum(block[:148]) + sum(block[156:]) + 8 * 32:
        raise ValueError("the header's checksum is wrong")
    if block[156:157] not in (b"0", b"\0"):
        raise ValueError(f"a member of type {block[156:157]!r}, not a plain file")
    name, prefix = (block[begin:end].split(b"\0")[0].decode() for begin, end in ((0, 100), (345, 500)))
    return f"{prefix}/{name}" if prefix else name, int(block[124:136].strip(b" \0"), 8)


def complain(error: LoaderError, on_error: str, more: str = "") -> None:
    """Raise it, or warn that something is left out."""
    if on_error == "raise":
        raise error
    warnings.warn(f"left out: {error}{more}", stacklevel=2)


@dataclass
class Member:
    """A member of a sample, or why it could not be read; voxels lie in the buffer."""

    suffix: str
    payload: memoryview | LoaderError
    buffer: Buffer | None


# ----------------------------------------------------------------------------------------------------------- preprocess

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


# -------------------------------------------------------------------------------------------------------------- studies

Rows = tuple[Row | None, Row | None, Row | None]  # of reports, metadata and labels; none of a table that is not given


@dataclass(frozen=True)
class Study:
    """A volume that all tables know."""

    path: str
    meta: dict[str, Any]
    text: str
    labels: NDArray[Any]


class StudyTables:
    """Reports, metadata and labels, by studies. The spacing is read of the metadata if the table `has_spacing`."""

    def __init__(self, file: DatasetFile, reports: Tables, meta: Tables, labels: Tables, has_spacing: bool) -> None:
        self._file = file
        self.named = file.columns()
        self.columns = META_COLUMNS if has_spacing else META_COLUMNS[:2]
        self.reports, self.metas, self.labels = read_tables(reports, meta, labels, self.named, has_spacing)
        self._further = further_columns(self.named, (self.reports, self.metas, self.labels))
        self._of_row: dict[tuple[AnyPath, int], str] = {}  # of the first table

    def rows_of(self, study: str, name: str) -> Rows | None:
        """The rows of a study, whose volume is the file `name`; None if one of the tables has none."""
        tables = (self.labels, self.metas, self.reports)
        rows = [table.find(study) if table else None for table in tables]
        if any(table and row is None for table, row in zip(tables, rows, strict=True)):
            return None
        first = next((row for row in rows if row), None)
        if first and (earlier := self._of_row.setdefault((first.path, first.line), name)) != name:
            raise LoaderError(
                f"{os.fspath(first.path)}: line {first.line} is the row of two volumes, {earlier} and "
                f"{name}; remove or rename one"
            )
        return rows[2], rows[1], rows[0]

    def meta_of(self, study: str, rows: Rows) -> dict[str, Any]:
        """The metadata of a study: its id, the fields of the table, and the further columns."""
        meta = {"study_id": study} | self._fields(self.columns, rows[1], self.named.meta)
        for column, at, place in self._further:
            row = rows[at]
            meta[column] = extra_value(row.extra[place]) if row else None
        return meta

    def is_incomplete(self, meta: dict[str, Any]) -> bool:
        """Whether a field of the table is missing."""
        return self.metas is not None and any(meta[column] in MISSING for column in self.columns)

    def labels_of(self, rows: Rows) -> NDArray[Any] | None:
        """The labels (classes,) as float32; None if one is missing and such samples are left out."""
        if self.labels is None or rows[2] is None:
            return np.zeros(0, np.float32)
        return label_row(self.labels, rows[2], self._file.missing_label())

    def text_of(self, rows: Rows) -> str:
        """The report: the text columns, a line each."""
        fields = rows[0].fields if rows[0] else []
        return "\n".join(self._file.missing_text() if field in MISSING else field for field in fields)

    @staticmethod
    def _fields(columns: Sequence[str], row: Row | None, names: Sequence[str]) -> dict[str, Any]:
        """The fields of a row of the metadata table; all are missing without one."""
        fields = row.fields if row else ["nan"] * len(columns)
        for column, name, field in zip(columns, names, fields, strict=False):  # no names of a spacing in the files
            if row is None or field in MISSING:
                continue
            what = ""
            if column != "XYSpacing" and decimal(field) is None:
                what = "is not a number"
            elif column == "XYSpacing" and row.delimiter != "," and decimal_comma(field):
                what = "may be one number or two"
            if what:
                raise LoaderError(
                    f"{os.fspath(row.path)}: line {row.line}, column '{name}': {field!r} {what}{decimal_comma(field)}"
                )
        return dict(zip(columns, fields, strict=True))


# --------------------------------------------------------------------------------------------------------- torch_loader

LIGHTNING = ("lightning", "pytorch_lightning")


class Epochs(Dataset[Sample]):
    """What both data sets have: the epoch, the rank, and the loader."""

    def __init__(
        self, shuffle: bool, mode: str, seed: int, rank: int | None, world_size: int | None, uneven: str
    ) -> None:
        self.mode = choice("mode", mode, ("train", "val"))
        self.shuffle, self.seed = shuffle and mode == "train", seed
        self.uneven = choice("uneven", uneven, ("pad", "drop", "keep"))
        if (rank is None) != (world_size is None):
            raise LoaderError("rank and world_size are given together, or neither")
        self._given = None if rank is None or world_size is None else (rank, world_size)
        self.rank, self.world_size = self._find_world()
        self._clock = Clock()

    def _find_world(self) -> tuple[int, int]:
        if self._given:
            world = self._given
        elif is_distributed():
            world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if not 0 <= world[0] < world[1]:
            raise LoaderError(f"rank {world[0]} of {world[1]} processes: check RANK and WORLD_SIZE, or the arguments")
        return world

    def _check_world(self) -> None:
        """Refuse a rank that was found before there were ranks. A spawned worker cannot know them."""
        if get_worker_info() is not None and not is_distributed():
            return
        if (self.rank, self.world_size) != self._find_world():
            raise LoaderError(
                "torch.distributed was initialised after the data set was made: make it after that (with Lightning in "
                "train_dataloader(), with Accelerate after Accelerator())"
            )

    @property
    def epoch(self) -> int:
        """The epoch that began last, or the one that `set_epoch` has chosen since; at first 0."""
        self._clock.listen()
        return self._clock.next if self._clock.begun is None else self._clock.begun

    def set_epoch(self, epoch: int) -> None:
        """Decide the epoch of the next iteration, of every loader; called on every rank, before `iter(loader)`."""
        refuse_second_split(self.world_size)
        self._clock.set(epoch)
        self._tell()

    def make_loader(
        self, batch_size: int | None, num_workers: int = 4, prefetch_factor: int = 2, **options: Any
    ) -> CTReportLoader:
        """A DataLoader of batches (volumes (B, 1, D, H, W), list of texts, labels (B, classes), list of study ids,
        embeddings); of samples, if `batch_size` is None. `options` are DataLoader's; by default workers are persistent,
        and memory is pinned where there is a GPU. LoaderError if there are fewer shards than workers of all ranks."""
        together = one_sample if batch_size is None else collate
        options = {
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": together,
            "sampler": self._sampler(),
        } | options
        if num_workers > 0:
            options = {"persistent_workers": True, "prefetch_factor": prefetch_factor} | options
        else:
            options.pop("persistent_workers", None)
        loader = CTReportLoader(self, batch_size, num_workers=num_workers, **options)
        loader.dataset._check(num_workers, prefetch_factor)
        return loader

    create_pytorch_dataloader = make_loader

    def _of_loader(self, batch_size: int | None, drop_last: bool) -> Epochs:
        """The data set as one loader reads it."""
        return self

    def _tell(self, begun: int | None = None, start: Start | None = None) -> None:
        """To workers that are there already: `set_epoch` was called, or a loader of make_loader begins an epoch, maybe
        in its middle."""

    def _unsaved(self) -> str | None:
        """Why a loader has no state that another one could go on from, and what has; None if it has one."""
        return (
            "the state of a loader of files cannot be saved: take ctwds.Loader, or shards: the views of a mount with "
            "--shuffle-seed, or unshuffled ones with a manifest"
        )

    def _state(self, epoch: int, start: Start | None, given: int, workers: int) -> dict[str, Any]:
        """The state of a loader that has given so many batches of an epoch behind a start; empty behind its last."""
        raise LoaderError(str(self._unsaved()))

    def _start_of(self, state: Mapping[str, Any]) -> tuple[int, Start | None]:
        """The epoch of a state, and where in it."""
        raise LoaderError(str(self._unsaved()))

    def _sampler(self) -> Sampler[int] | None:
        return None

    def _check(self, workers: int, prefetch: int) -> None:
        """Refuse what could not work."""

    def _batches(self, workers: int) -> int | None:
        """How many batches a loader gives, if its sampler does not tell."""
        return None

    def _batches_behind(self, epoch: int, start: Start, workers: int) -> int:
        """How many batches a loader gives behind a start."""
        raise LoaderError(str(self._unsaved()))


def is_distributed() -> bool:
    """Whether this process knows its rank of torch.distributed."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def one_sample(sample: Sample) -> Sample:
    """A sample as it is, where PyTorch's own function would make tensors of the labels."""
    return sample


class _AtOnce:
    """The indices of all batches, drawn when an iteration begins. PyTorch's BatchSampler draws the first ones when the
    first batch is wanted, of whatever epoch it is then."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._sampler))


class _Batches(Iterator[Any]):
    """What a CTReportLoader gives in one iteration."""

    def __init__(self, loader: CTReportLoader) -> None:
        self._loader = loader
        self._batches: Any = loader._start()
        self._epoch, self._untouched, self._place = loader._clock.begun, True, loader._place
        self._failed = False

    def __next__(self) -> Any:
        if self._untouched:
            self._untouched = False
            clock = self._loader._clock
            if clock.late is not None and clock.late != self._epoch:
                self._batches = None  # ends its workers, if they are not kept
                self._batches = self._loader._start()
                self._place = self._loader._place
            elif clock.late is not None:
                clock.go_on(clock.late)
        try:
            found = next(self._batches)
        except StopIteration:
            self._place.ended = not self._failed
            raise
        except BaseException as error:
            self._failed = True
            if "killed by signal: Bus error" not in f"{error} {error.__cause__}":
                raise
            raise LoaderError(f"{SHARED} is full, a worker could not write its batch: {ROOM_REMEDY}") from error
        if not self._failed:  # else the place stays before the error: what was there and behind it comes once more
            clock = self._loader._clock
            clock.listen()
            self._place.given, self._place.calls = self._place.given + 1, clock.calls
            self._loader._place = self._place
        return found

    def __len__(self) -> int:
        return len(self._loader)


@dataclass
class _Place:
    """How far an iteration is: so many batches behind a start in its epoch."""

    epoch: int
    start: Start | None
    given: int = 0
    ended: bool = False  # also where other ranks have more batches
    calls: int = -1  # of set_epoch, before its last batch was given


class CTReportLoader(DataLoader[Any]):
    """A DataLoader whose epochs go on by themselves, and that knows how many batches it gives: what `make_loader` of a
    data set returns. `len(loader)` is the number of batches of this rank in an epoch (where one goes on that
    was begun on other ranks, the larger of that and what it has in all); it raises LengthUnknown where no manifest says
    it. An error in a worker is raised by the iteration, as LoaderError."""

    dataset: Epochs
    # For Accelerate's prepare(): leave this loader as it is, in which every rank reads its own share.
    _is_accelerate_prepared = True

    def __init__(self, dataset: Epochs, batch_size: int | None = 1, **options: Any) -> None:
        data = dataset._of_loader(batch_size, bool(options.get("drop_last", False)))
        super().__init__(data, batch_size, **options)
        self._loaded: tuple[int, Start | None] | None = None
        self._place = _Place(-1, None)
        if isinstance(data, IterableDataset):
            vars(self.sampler)["set_epoch"] = data._clock.set_late  # PyTorch's own sampler has no such function

    @property
    def _clock(self) -> Clock:
        return self.sampler.clock if isinstance(self.sampler, EpochSampler) else self.dataset._clock

    def set_epoch(self, epoch: int) -> None:
        """Decide the epoch of the next iteration of this loader. Where it is the epoch of a state that was loaded, the
        iteration still begins in its middle."""
        refuse_second_split(self.dataset.world_size)
        self._clock.set(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is, to go on behind the last batch that it has given: the digest of the data set, the
        seed, the epoch, how many samples all ranks have consumed of it, and how they were dealt. The same for all ranks
        that have taken as many batches. A batch counts as consumed when it was handed out.

        LoaderError where the order is not known: other loaders than those of views of `mount --shuffle-seed` and of
        unshuffled shards with a manifest. Lightning, which saves the state of every loader, gets one there
        that warns when it is loaded, or an empty one between two epochs."""
        data, clock = self.dataset, self._clock
        if reason := self._unsaved():
            if caller_of(1) in LIGHTNING:
                return self._only_warns(reason)
            raise LoaderError(reason)
        clock.listen()
        place = self._place
        is_in_it = place.calls == clock.calls or (clock.late if clock.begun is None else clock.begun) == place.epoch
        if is_in_it and not place.ended:
            state = data._state(place.epoch, place.start, place.given, self.num_workers)
            if state:
                return state
        start = self._loaded[1] if self._loaded and self._loaded[0] == clock.next else None
        return data._state(clock.next, start, 0, self.num_workers)

    def _only_warns(self, reason: str) -> dict[str, Any]:
        """A state for Lightning, which does not warn of loaders that have some, and counts the epoch's batches on."""
        given = 0 if self._place.ended else self._place.given
        with contextlib.suppress(LengthUnknown):
            given = 0 if given == len(self) else given
        return {"unsaved": reason} if given else {}

    def _unsaved(self) -> str | None:
        if getattr(self, "in_order", True):
            return self.dataset._unsaved()
        return "with in_order=False nobody knows which batches were given: leave it away to save the loader's state"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where a state was taken: with any number of ranks, workers and samples a batch,
        the rest of its epoch has each remaining sample once, in the same order over all ranks.

        LoaderError where the state is of other data, shards, seed or views; the message names what differs."""
        if not state:
            return  # what Lightning has of a loader without an order between two epochs: it tells the epoch
        if unsaved := state.get("unsaved"):
            warnings.warn(
                "the checkpoint was taken in the middle of an epoch. Lightning counts on from there, but the loader "
                "begins the epoch anew: some samples come twice, and others not at all. Take checkpoints at the end of "
                f"an epoch. {unsaved}",
                stacklevel=2,
            )
            return
        if reason := self._unsaved():
            raise LoaderError(reason)
        self._loaded = self.dataset._start_of(state)
        self._clock.set(self._loaded[0])

    @property
    def _index_sampler(self) -> Any:
        """DataLoader's, for its iterators."""
        sampler = super()._index_sampler
        return sampler if isinstance(self.dataset, IterableDataset) else _AtOnce(sampler)

    def __iter__(self) -> Any:
        self.dataset._check_world()
        return _Batches(self)

    def _start(self) -> Any:
        """Begin an epoch."""
        with self._clock.hold() as epoch:
            start = self._loaded[1] if self._loaded and self._loaded[0] == epoch else None
            self._loaded, self._place = None, _Place(epoch, start)
            self.dataset._tell(begun=epoch, start=start)
            return super().__iter__()

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        batches = self.dataset._batches(self.num_workers)
        if batches is None:
            return super().__len__()
        epoch, start = self._loaded or (self._place.epoch, self._place.start)
        # Lightning counts from the batches on that were taken before a stop, maybe on fewer ranks, and ends by this.
        return (
            max(batches, start.batches + self.dataset._batches_behind(epoch, start, self.num_workers))
            if start
            else batches
        )


# ---------------------------------------------------------------------------------------------------------- npz_dataset


def spacing_option(text: str | None) -> tuple[str | None, str | None]:
    """The name of the array with the spacing, and the order of its axes if it is given: "spacing:WHD"."""
    name, _, order = (text or "").rpartition(":")
    return (name, order.upper()) if order.upper() in AXES else (text, None)


class CTReportDataset(Epochs):
    """The samples of NPZ, NPY or NIfTI files and of tables of reports, metadata and labels, in the order of the files'
    paths. A table is a file, a list of files whose rows are appended, or None: texts are empty without reports, labels
    have no class without theirs, and without metadata arrays must hold HU at their spacing already.
    A volume is the array `array`, or by default `data`, `volume`, `arr_0`, or the only one of three dimensions; axes of
    length 1 are taken away down to three, and of one axis more `channel` takes number N: "N", "first:N" or "last:N".
    `source` ("npz", "npy", "nifti") and `pattern` (one or several, relative to the folder) choose the files. `axes` is
    the order of the arrays' axes ("DHW"), and `spacing_array` the array of each NPZ file with the spacing of these axes
    in mm, or of others ("spacing:WHD"), in place of the table's columns.
    NIfTI files (`.nii`, `.nii.gz`) hold what nibabel's `get_fdata` gives, as float32: where their header scales, slope
    and intercept of the table count as applied. `spacing_from` says whose spacing is taken: the "table"'s (the default
    if there is one) or the "header"'s.
    `dialect` says what the arrays hold, if their names do not: "native" (stored values or HU at the scanner's spacing:
    `data`), "hu" (HU, resampled: `volume`), "normalized" (HU / 1000, resampled, axes D, H, W: `arr_0`).
    `dataset` is a `ctwds.toml`, as ctwds-fs reads it: folder, tables, their columns and all of the above. Arguments win
    over it. Needs Python 3.11.

    `data[n]` is the tuple (volume, text, labels, study id, embedding): a tensor (1, D, H, W) of `dtype` in [-1, 1],
    with the `shape` (height, width, depth) and the `spacing` (mm, in the same order); a string; a float32 array
    (classes,); a string; an empty tensor. LoaderError names a file or a table that cannot be used, the reason and the
    remedy, when the data set is made or when the sample is read."""

    def __init__(
        self,
        data_folder: AnyPath | None = None,
        reports_file: Tables = None,
        meta_file: Tables = None,
        labels: Tables = None,
        mode: str = "train",
        use_embedding: bool = False,
        *,
        shuffle: bool = True,
        dtype: torch.dtype = torch.float32,
        shape: Sequence[int] = SHAPE,
        spacing: Sequence[float] = SPACING,
        rescale: Rescale = "auto",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "pad",
        dialect: str | None = None,
        array: str | None = None,
        channel: int | str | None = None,
        source: str = "auto",
        pattern: str | Sequence[str] = (),
        axes: str | None = None,
        spacing_array: str | None = None,
        spacing_from: str | None = None,
        dataset: AnyPath | None = None,
        with_meta: bool = False,
    ) -> None:
        super().__init__(shuffle, mode, seed, rank, world_size, uneven)
        file = DatasetFile(dataset)
        data_folder, reports_file, meta_file, labels = file.paths(data_folder, reports_file, meta_file, labels)
        array, dialect, axes, spacing_array, spacing_from = file.texts_or(
            array=array, dialect=dialect, axes=axes, spacing_array=spacing_array, spacing_from=spacing_from
        )
        channel = file.keys.get("channel") if channel is None else channel
        source = str(file.keys.get("source", source)) if source == "auto" else source
        patterns = [pattern] if isinstance(pattern, str) and pattern else pattern or file.texts("pattern")
        rescale = file.rescale() if rescale == "auto" else rescale
        self.steps = Steps(shape, file.spacing(spacing, shape), dtype, rescale, use_embedding, with_meta)
        self.dialect = choice("dialect", dialect, (None, *DIALECTS))
        self.choice = ArrayChoice(array, None if channel is None else str(channel), use_embedding)
        self.axes = axes_option(axes)
        self._spacing = spacing_option(spacing_array)
        self.spacing_from = choice("spacing_from", spacing_from, (None, "table", "header"))
        in_table = spacing_array is None and self.spacing_from != "header"  # the spacing
        tables = StudyTables(file, reports_file, meta_file, labels, in_table)
        selection = file.selection()
        self.studies: list[Study] = []
        self._spacings = Spacings()
        unusable: list[str] = []
        for name in find_volumes(data_folder, choice("source", source, tuple(SOURCES)), patterns):
            study, path = study_of(name), os.path.join(data_folder, name)
            rows = tables.rows_of(study, name)
            if rows is None or not selection.has(study):
                continue
            found = self._study(study, path, file, tables, rows)
            if isinstance(found, LoaderError):
                unusable.append(f"{study}: {found}")
            elif found:
                self.studies.append(found)
        if different := self._spacings.warning():
            warnings.warn(different, stacklevel=2)
        if unusable:
            files = ", ".join(os.fspath(path) for path in files_of(meta_file)) or os.fspath(data_folder)
            warnings.warn(f"{files}: {len(unusable)} volumes are left out (for example {unusable[0]})", stacklevel=2)
        if not self.studies:
            what = f"no volume is in all tables{selection.words()}; compare their {' or '.join(tables.named.ids)}"
            raise LoaderError(f"{os.fspath(data_folder)}: {what} with the files")
        self._decided = self._look_at_volumes()

    def _study(
        self, study: str, path: str, file: DatasetFile, tables: StudyTables, rows: Rows
    ) -> Study | LoaderError | None:
        """A study with its metadata, text and labels; None where ctwds-fs leaves it out, or why it is unusable."""
        meta = tables.meta_of(study, rows)
        is_incomplete = tables.is_incomplete(meta)
        try:
            if self._spacing[0] is not None:
                meta |= self._spacing_of(path)
            meta |= self._of_header(path, meta, tables.metas is not None)
        except LoaderError as error:
            return error
        values = tables.labels_of(rows)
        if values is None or (is_incomplete and file.leaves_out(self._needs_meta, path)):
            return None
        try:
            slope_and_intercept(meta, self.steps.rescale), voxel_spacing(meta)
        except LoaderError as error:
            if self._needs_meta(path):
                if tables.metas is None:
                    raise LoaderError(f"{path}: its array is to be resampled, and there is no meta_file") from error
                return error
        return Study(path, meta, tables.text_of(rows), values)

    def _look_at_volumes(self) -> dict[Pair, Rescale]:
        """What makes HU of the values, by a look at the volumes that ctwds-fs looks at."""
        if self.steps.rescale != "auto" or self.steps.use_embedding or self.dialect not in (None, "native"):
            return {}
        groups: dict[Pair, list[Study]] = {}
        for study in self.studies:
            groups.setdefault(table_pair(study.meta), []).append(study)
        chosen = [(pair, study) for pair, studies in groups.items() for study in spread(studies, LOOKS_OF_EACH)]
        shown: dict[Pair, list[tuple[str, str]]] = {}
        for pair, study in chosen[:LOOKS_IN_ALL]:
            with contextlib.suppress(LoaderError):  # loading it says why
                values, dialect = self._load(study.path, LOOK)
                what = look_at(values, pair) if dialect == "native" else ""
                shown.setdefault(pair, []).append((study.meta["study_id"], what))
        return decide(shown)

    def _spacing_of(self, path: str) -> dict[str, Any]:
        """The spacing that an array of the file gives, as the table spells it."""
        name, order = self._spacing
        numbers = read_spacing(path, name or "")
        if order is None:
            order = self.axes or ("DHW" if self._load(path, 8)[1] == "normalized" else "HWD")
        height, width, depth = (numbers[order.index(axis)] for axis in "HWD")
        return {"XYSpacing": str([height, width]), "ZSpacing": depth}

    def _of_header(self, path: str, meta: Mapping[str, Any], has_table: bool) -> dict[str, Any]:
        """What the header of a NIfTI file says in place of the table: a slope and an intercept that were applied are 1
        and 0; and the spacing, if there is no table or `spacing_from` asks for it."""
        if not path.endswith(NIFTI):
            if self.spacing_from == "header":
                raise LoaderError(
                    f"{path}: it has no NIfTI header with a spacing; spacing_from 'table' takes the table's"
                )
            return {}
        try:
            with open_nifti(path) as file:
                header = nifti_header(file)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise LoaderError(f"{path}: it cannot be read ({error}): remove it or its row in a table") from error
        found: dict[str, Any] = {}
        if not has_table or (header.scale and self.steps.rescale != "table"):
            found = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}
        height, width, depth = (header.zooms[(self.axes or "HWD").index(axis)] for axis in "HWD")
        if not has_table or self.spacing_from == "header":
            found |= {"XYSpacing": str([height, width]), "ZSpacing": depth}
        elif self._spacing[0] is None:
            self._spacings.compare(meta, (height, width, depth))
        return found

    def _needs_meta(self, path: str) -> bool:
        return not self.steps.use_embedding and self._load(path)[1] == "native"

    def _load(self, path: str, look: int | None = None) -> tuple[NDArray[Any], str]:
        """The array of voxels, or its first values in a row if `look` says how many bytes of it to read, and its
        dialect."""
        name, array = read_volume(path, self.choice, look)
        kind, size = array.dtype.kind, array.dtype.itemsize
        known = {"data": "native"}
        if (kind, size) == ("i", 2):
            known["volume"] = "hu"
        if kind == "f":
            known["arr_0"] = "normalized"
        dialect = self.dialect or known.get(name)
        if dialect is None and not self.steps.use_embedding:
            raise LoaderError(
                f"{path}: what does the array '{name}' of {array.dtype} hold? Give dialect ({', '.join(DIALECTS)})"
            )
        return array, dialect or ""

    def __len__(self) -> int:
        """Samples of the whole data set, of all ranks."""
        return len(self.studies)

    def __getitem__(self, index: int) -> Sample:
        study = self.studies[index]
        array, dialect = self._load(study.path)
        try:
            rescale = self._decided.get(table_pair(study.meta), self.steps.rescale)
            unit, array = Unit(dialect, rescale), oriented(np.asarray(array, np.float32), self.axes, dialect)
            return self.steps.sample(array, study.meta, unit, study.text, study.labels)
        except (LoaderError, ValueError) as error:
            raise LoaderError(f"{study.path}: {error}") from error

    def _sampler(self) -> Sampler[int]:
        return EpochSampler(self)


# --------------------------------------------------------------------------------------------------------------- packed


def native_unpack() -> Any:
    """The program's own decoder, where the package ctwds is installed: faster than NumPy. None where it is not."""
    try:
        return getattr(importlib.import_module("ctwds._native"), "unpack_member", None)
    except ImportError:
        return None


def zstd_module() -> Any:
    """Whichever implementation of zstd is installed. PackageMissing, which no `on_error` passes over, if none is."""
    for name in ("compression.zstd", "backports.zstd", "pyzstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise PackageMissing(
        "the shards are compressed, and Python has no zstd: `pip install backports.zstd`, or show them as plain ones "
        "with `ctwds-fs mount --shards FOLDER MOUNTPOINT`"
    )


def seek_table(member: memoryview) -> NDArray[Any]:
    """Packed size, size of the content and its checksum of every frame of a compressed member (the zstd seekable
    format): a row each."""
    if len(member) < 17:
        raise ValueError("it is cut off")
    count, descriptor, magic = struct.unpack("<IBI", member[-9:])
    start = len(member) - 17 - count * 12
    if magic != 0x8F92EAB1 or start < 0 or member[start : start + 8] != struct.pack("<II", 0x184D2A5E, count * 12 + 9):
        raise ValueError("it does not end with a seek table")
    table = np.frombuffer(member, "<u4", count * 3, start + 8).reshape(count, 3).astype(np.int64)
    if descriptor != 0x80 or table[:, 0].sum() != start or (table[:, 0] < 9).any():
        raise ValueError("its seek table is not that of its blocks, or has no checksums")
    return table


class Filter(NamedTuple):
    """What was done to the values of a block before it was packed."""

    width: int
    """Bytes of a value."""
    predicts: str = ""
    """What is predicted by its neighbours: "halves" (float16), "integers" of the width, or nothing."""
    splits: bool = False
    """Whether lower bits stand apart from upper ones; the last byte of each frame's content says how it was made."""


GROUP = 32  # the values of a split block whose number of lower bits is one

INTEGERS = np.arange(1 << 16, dtype="<u2").view("<i2")
# The float16 of each of them: its magnitude; one with a minus, such as -0.0, has all bits of its magnitude inverted.
HALVES = (INTEGERS ^ (INTEGERS >> 15)).astype("<f2").view("<u2") | INTEGERS.view("<u2") & 0x8000

FILTERS = {
    "split": Filter(2, "halves", splits=True),
    "split2": Filter(2, "integers", splits=True),
    "predict": Filter(2, "halves"),
    "predict1": Filter(1, "integers"),
    "predict2": Filter(2, "integers"),
    "predict4": Filter(4, "integers"),
    "predict8": Filter(8, "integers"),
    "shuffle": Filter(2),
    "shuffle1": Filter(1),
    "shuffle4": Filter(4),
    "shuffle8": Filter(8),
}


def plain_suffix(suffix: str) -> tuple[str, str]:
    """A voxel member's suffix without what compression added, and the filter's name, which may be one of a later
    version; an empty name of a plain member."""
    found = re.fullmatch(r"(.+)\.([A-Za-z0-9]+)\.zst", suffix)
    return (found[1], found[2]) if found else (suffix, "")


def filter_of(name: str) -> Filter:
    """The filter of this name. PackageMissing, which no `on_error` passes over, if a later version has added it."""
    if name not in FILTERS:
        raise PackageMissing(
            f"the filter {name} is not known to this version of ctwds: a later version wrote the shard; install that "
            "version of ctwds, or show plain shards with that version of `ctwds-fs mount --shards FOLDER MOUNTPOINT`"
        )
    return FILTERS[name]


def plain_length(table: NDArray[Any], name: str) -> int:
    """How many bytes a member has when it is plain, by its seek table and the name of its filter."""
    contents = table[:, 1]
    return int(contents.sum() - (np.count_nonzero(contents) if filter_of(name).splits else 0))


def row_length(member: memoryview, table: NDArray[Any]) -> int:
    """How many values a row of a predicted member has: its first frame, which every zstd passes over, says so."""
    magic, size, row, crc = struct.unpack("<4I", bytes(member[:16]).ljust(16, b"\0"))
    if table[:1].tolist() != [[16, 0, 0x51D8E999]] or (magic, size) != (0x184D2A50, 8):
        raise ValueError("it does not begin with the frame that has the length of its rows")
    if crc != zlib.crc32(member[8:12]) or row == 0:
        raise ValueError("the frame that has the length of its rows is damaged")
    return int(row)


def unpredict(values: NDArray[Any], row: int, predicts: str) -> None:
    """Turn what was left of predicted values into the values: sums along the block, then along its columns."""
    sign = values & 1
    values >>= 1
    values ^= -sign
    np.cumsum(values, out=values, dtype=values.dtype)
    whole = len(values) // row * row
    rows, rest, step = values[:whole].reshape(-1, row), values[whole:], 1
    while step < len(rows):  # sums of 2, 4, 8, … rows: half the time of np.cumsum, which goes through each column
        rows[step:] += rows[:-step].copy()
        step *= 2
    rest += values[whole - row :][: len(rest)] if whole else 0
    if predicts == "halves":  # in the order of the numbers: negative ones have all bits inverted, others the sign
        sign = values >> 15
        sign -= 1
        sign |= 0x8000
        values ^= sign


def unpack(member: memoryview, table: NDArray[Any], name: str, out: memoryview) -> None:
    """Fill `out` with the plain member, which has this seek table and whose values the filter of this name was applied
    to. ValueError if it is damaged."""
    filter_ = filter_of(name)
    if native := native_unpack():
        native(np.frombuffer(member, np.uint8), name, np.frombuffer(out, np.uint8))
    else:
        unpack_by_numpy(member, table, filter_, out)


def unpack_by_numpy(member: memoryview, table: NDArray[Any], filter_: Filter, out: memoryview) -> None:
    """The same by NumPy, block by block."""
    zstd, width, row, added = zstd_module(), filter_.width, 0, int(filter_.splits)
    at = done = 0
    if filter_.predicts:
        row = row_length(member, table)
        at, table = int(table[0, 0]), table[1:]
    plain = table[:, 1] - added
    if (plain % width).any() or (plain < added).any():
        raise ValueError("a block of it does not hold whole values")
    all_values = np.frombuffer(out, f"<u{width}")
    for number, (packed, size, checksum) in enumerate(table.tolist()):
        frame, values = member[at : at + packed], all_values[done : done + size // width]
        if not frame[4] & 4 or int.from_bytes(frame[-4:], "little") != checksum:
            raise ValueError(f"block {number}: it has not the checksum that the seek table says")
        try:
            content = np.frombuffer(zstd.decompress(frame), np.uint8)
            if len(content) != size:
                raise ValueError(f"it holds {len(content)} bytes, the seek table says {size}")
            undo(content, filter_, row, values)
        except (zstd.ZstdError, ValueError) as error:
            raise ValueError(f"block {number}: {error}") from error
        at, done = at + packed, done + len(values)


def undo(content: NDArray[Any], filter_: Filter, row: int, values: NDArray[Any]) -> None:
    """Fill `values`, those of a block, by the content of its frame."""
    predicts = filter_.predicts
    if not filter_.splits:
        unshuffle(content, values)
        if predicts:
            unpredict(values, row, predicts)
        return
    content, way = content[:-1], int(content[-1])
    if way > (2 if predicts == "halves" else 1):
        raise ValueError(f"it was made in a way that this version does not know: {way}")
    if way == 0:  # a split would have taken more room
        unshuffle(content, values)
        return
    join(content, values)
    unpredict(values, row, "integers" if way == 2 else predicts)
    if way == 2:  # float16 that are whole numbers, which were predicted as such
        values[:] = HALVES.take(values)


def unshuffle(content: NDArray[Any], values: NDArray[Any]) -> None:
    """Fill `values` by the lowest bytes of all, then the next higher ones."""
    count, width = len(values), values.itemsize
    if width == 2:  # five times as fast as byte by byte
        values[:] = content[count:]
        values <<= 8
        values |= content[:count]
    else:
        values.view(np.uint8).reshape(-1, width)[:] = content.reshape(width, -1).T


def join(content: NDArray[Any], values: NDArray[Any]) -> None:
    """Fill `values` by the upper bits of all, the number of lower bits of each group, and these bits: of 4, those of
    the values 0 and 16, 1 and 17, … share a byte."""
    count, half = len(values), GROUP // 2
    groups = -(-count // GROUP)
    upper, numbers, lower = content[:count], content[count : count + groups], content[count + groups :]
    ends = (numbers >> 2).cumsum(dtype=np.intp)  # in pieces of 16 bytes
    pieces = int(ends[-1])
    if (numbers & 0xF3).any() or (numbers == 12).any() or pieces * half > len(lower):
        raise ValueError("its groups have other numbers of lower bits than there are")
    bytes_, is_four, is_eight = lower[: pieces * half].reshape(-1, half), numbers == 4, numbers == 8
    # All that half a group can have, in one table: bytes, the lower and the upper half of them, and zeros.
    table = np.concatenate([bytes_, bytes_ & 15, bytes_ >> 4, np.zeros((1, half), np.uint8)])
    none = 3 * pieces
    first = np.where(is_eight, ends - 2, np.where(is_four, pieces + ends - 1, none))
    second = np.where(is_eight, ends - 1, np.where(is_four, 2 * pieces + ends - 1, none))
    joined = np.zeros((groups, GROUP), "<u2")
    joined.reshape(-1)[:count] = upper
    joined *= np.left_shift(1, numbers, dtype="<u2")[:, None]  # in a sixth of the time of a shift
    joined |= table.take(np.stack([first, second], axis=1), axis=0).reshape(-1, GROUP)
    values[:] = joined.reshape(-1)[:count]


# -------------------------------------------------------------------------------------------------------------- samples


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


# --------------------------------------------------------------------------------------------------------------- reader

END = 22 * BLOCK  # bytes of zeros that a tar has at most: two blocks, and what makes its length one of 20 blocks


def read_fully(file: int, view: memoryview, offset: int) -> None:
    """Fill `view` with a file's bytes from `offset` on."""
    while view:
        count = os.preadv(file, [view[:CHUNK]], offset)
        if count == 0:
            raise EOFError("the shard ends here, it was not written to its end")
        view, offset = view[count:], offset + count


class ShardReader:
    """Reads a shard from front to back, each byte once, voxels straight into a buffer of the pool.

    With a member the header behind it is read, never more: that would be a piece of the next volume, which a mount
    would have to decode first. Where a header cannot be read, it goes on at the next sample that the index beside the
    shard knows."""

    def __init__(
        self,
        path: str,
        pool: list[Buffer],
        on_error: str = "raise",
        has_labels: bool | None = None,
        also: Sequence[str] = (),
        places: Sequence[int] | None = None,
    ) -> None:
        self.path, self._pool, self._on_error, self._has_labels = path, pool, on_error, has_labels
        self._also, self._places = also, places

    def __iter__(self) -> Iterator[RawSample]:
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._failure("the shard", error) from error
        try:
            for key, members in self._groups() if self._places is None else self._chosen(self._places):
                try:
                    sample = self._sample(key, members)
                except LoaderError as error:
                    complain(error, self._on_error)
                    continue
                yield sample
        finally:
            os.close(self._file)

    def _failure(self, name: str, error: Exception) -> LoaderError:
        code, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (0, str(error))
        remedy = REMEDIES.get(code or 0, "compare the shard with its digest in manifest.json, and write it again")
        return LoaderError(f"{self.path}: {name}: {reason}: {remedy}")

    def _read(self, view: memoryview, offset: int, name: str) -> None:
        try:
            try:
                read_fully(self._file, view, offset)
            except OSError as error:
                if error.errno != errno.EIO or not self._read_directly(view, offset):
                    raise
        except (OSError, EOFError) as error:
            raise self._failure(name, error) from error

    def _read_directly(self, view: memoryview, offset: int) -> bool:
        """Read past the page cache, if that goes. Through it, a mount can only refuse whole pages: also the headers and
        texts that share one with a damaged volume. A disk refuses such a read, which is not aligned to its blocks."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            try:
                read_fully(file, view, offset)
            finally:
                os.close(file)
        except (OSError, EOFError):
            return False
        return True

    def _groups(self) -> Iterator[tuple[str, list[Member]]]:
        """The members of each sample, as soon as the header behind them says that they are all."""
        start: int | None = 0
        while start is not None:
            start = yield from self._groups_from(start)

    def _chosen(self, places: Sequence[int]) -> Iterator[tuple[str, list[Member]]]:
        """Those of the samples at some places, which ascend; the volumes of the others are not read."""
        starts = self._starts()
        at = 0
        while at < len(places):
            first, begin = places[at], at
            while at < len(places) and places[at] - first == at - begin:
                at += 1
            if places[at - 1] >= len(starts):
                reason = f"sample {places[at - 1]} is not there, it has {len(starts)}"
                raise self._failure("its index", ValueError(reason))
            yield from itertools.islice(self._groups_from(starts[first]), at - begin)

    def _starts(self) -> list[int]:
        """Where each sample begins: as the index beside the shard says, else by the headers of all members."""
        with contextlib.suppress(OSError):
            found: list[int] = np.fromfile(self.path + ".idx", "<u8").tolist()
            if found:
                return found[:-1]  # the last one is where the last sample ends
        starts, key, offset = list[int](), None, 0
        header = bytearray(BLOCK)
        while True:
            self._read(memoryview(header), offset, f"the header at byte {offset}")
            try:
                member = parse_header(bytes(header))
            except ValueError as error:
                raise self._failure(f"the header at byte {offset}", error) from error
            if member is None:
                self._check_end(offset)
                return starts
            if member[0].partition(".")[0] != key:
                key = member[0].partition(".")[0]
                starts.append(offset)
            offset += BLOCK - (-member[1] // BLOCK) * BLOCK

    def _groups_from(self, offset: int) -> Generator[tuple[str, list[Member]], None, int | None]:
        """Those from the header at `offset` on. The result is where to go on after a header that cannot be read."""
        key, members, header = "", list[Member](), bytearray()
        place = f"the header at byte {offset}" if offset else "its first header"
        while True:
            try:
                if not header:
                    header = bytearray(BLOCK)
                    self._read(memoryview(header), offset, place)
                found = parse_header(bytes(header))
                if found is None:
                    self._check_end(offset)
            except (LoaderError, ValueError) as error:
                failure = error if isinstance(error, LoaderError) else self._failure(place, error)
                return (yield from self._after(failure, offset, key, members))
            if members and (found is None or found[0].partition(".")[0] != key):
                yield key, members
                members = []
            if found is None:
                return None
            name, size = found
            key, _, suffix = name.partition(".")
            room = -(-size // BLOCK) * BLOCK + BLOCK
            buffer = (self._pool.pop() if self._pool else Buffer()) if plain_suffix(suffix)[0] in VOXELS else None
            view = buffer.view(room) if buffer else memoryview(bytearray(room))
            try:
                self._read(view, offset + BLOCK, name)
                members.append(Member(suffix, view[:size], buffer))
                header = bytearray(view[-BLOCK:])
            except LoaderError as error:
                members.append(Member(suffix, error, buffer))
                header = bytearray()
            offset, place = offset + room, f"the header behind {name}"

    def _check_end(self, offset: int) -> None:
        """Zeros in the place of a header end an archive, and are what a disk may return for a block that it lost."""
        rest = os.fstat(self._file).st_size - offset
        behind = bytearray(max(0, min(rest, END)))
        self._read(memoryview(behind), offset, "its end")
        if rest > END or any(behind):
            raise self._failure(f"the header at byte {offset}", ValueError("zeros, and the shard goes on behind them"))

    def _after(
        self, failure: LoaderError, offset: int, key: str, members: list[Member]
    ) -> Generator[tuple[str, list[Member]], None, int | None]:
        """Where the next sample begins, behind a header at `offset` that cannot be read: as the index says, which
        Megatron-Energon reads too. The members before it are a sample if a sample begins with it."""
        starts: list[int] = []
        with contextlib.suppress(OSError):
            starts = np.fromfile(self.path + ".idx", "<u8").tolist()
        if members and offset in starts:
            yield key, members
        else:
            self._pool.extend(member.buffer for member in members if member.buffer)
        end = os.fstat(self._file).st_size
        start = min((start for start in starts if offset < start < end and start % BLOCK == 0), default=None)
        rest = "the rest of the shard is left out as well" if start is None else f"it goes on at byte {start}"
        complain(failure, self._on_error, f"; {rest}")
        return start

    def _extra(self, name: str, members: list[Member]) -> NDArray[Any]:
        """The array beside the volume of this name."""
        for member in members:
            plain, filter_ = plain_suffix(member.suffix)
            if plain == f"{name}.npy" and not isinstance(member.payload, LoaderError):
                payload = member.payload
                if filter_:
                    table = seek_table(payload)
                    payload = memoryview(bytearray(plain_length(table, filter_)))
                    unpack(member.payload, table, filter_, payload)
                return npy_voxels(payload, {})
        raise ValueError(f"no {name}.npy among its members {[m.suffix for m in members]}; also names those that it has")

    def _unpack(self, packed: memoryview, filter_: str) -> tuple[memoryview, Buffer]:
        """The plain voxels, and the buffer of the pool that they are in."""
        table = seek_table(packed)
        length = plain_length(table, filter_)
        buffer = self._pool.pop() if self._pool else Buffer()
        view = buffer.view(length)
        try:
            unpack(packed, table, filter_, view)
        except ValueError:
            self._pool.append(buffer)
            raise
        return view, buffer

    def _sample(self, key: str, members: list[Member]) -> RawSample:
        parts: dict[str, Any] = {}
        try:
            for member in members:
                if isinstance(member.payload, LoaderError):
                    raise member.payload
                plain, filter_ = plain_suffix(member.suffix)
                if plain in VOXELS:
                    if filter_:
                        before = member.buffer
                        member.payload, member.buffer = self._unpack(member.payload, filter_)
                        self._pool.extend([before] if before else [])
                    parts |= {"voxels": (VOXELS[plain], member.payload), "buffer": member.buffer}
                elif member.suffix in OTHERS:
                    field, decode = OTHERS[member.suffix]
                    parts[field] = decode(member.payload)
            missing = [part for part in ("voxels", "meta", "text") if part not in parts]
            if "labels" not in parts and self._has_labels:
                missing += ["labels"]
            if missing:
                raise ValueError(f"no {' and no '.join(missing)} among its members {[m.suffix for m in members]}")
            parts.setdefault("labels", np.zeros(0, np.float32))
            decode_voxels, payload = parts.pop("voxels")
            parts["extras"] = {name: self._extra(name, members) for name in self._also}
            return RawSample(key, parts["meta"]["study_id"], voxels=decode_voxels(payload, parts["meta"]), **parts)
        except PackageMissing as error:
            raise PackageMissing(f"{self.path}: {key}: {error}") from error
        except (LoaderError, ValueError, KeyError, TypeError) as error:
            self._pool.extend(member.buffer for member in members if member.buffer)
            raise error if isinstance(error, LoaderError) else self._failure(key, error) from error


# --------------------------------------------------------------------------------------------------------------- shards


@dataclass(frozen=True)
class Identity:
    """Of which data set the shards of a manifest are, by which seed they are shuffled, and of which epoch's view they
    are; None where it does not say."""

    digest: str | None = None
    seed: int | None = None
    epoch: int | None = None


@dataclass(frozen=True)
class Shard:
    """A shard, how many samples it has, what their values are, whether they have labels, and of which data set they
    are, if a manifest says so."""

    path: str
    samples: int | None
    recorded: Recorded | None = None
    has_labels: bool | None = None  # None: no manifest says it
    identity: Identity = Identity()


def expand_braces(pattern: str) -> list[str]:
    """`shard-{000000..000471}.tar` and `{train,val}/x` as the shell expands them; numbers as wide as written."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if numbers:
        width = len(numbers[1]) if numbers[1].startswith("0") or len(numbers[1]) == len(numbers[2]) else 1
        values = [f"{value:0{width}d}" for value in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        values = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [path for value in values for path in expand_braces(before + value + after)]


def shard_paths(pattern: AnyPath | Iterable[AnyPath]) -> list[str]:
    """The shards that a folder, a file, a glob, a brace pattern, or a list of those name."""
    if not isinstance(pattern, (str, os.PathLike)):
        return [path for each in pattern for path in shard_paths(each)]
    paths: list[str] = []
    for name in expand_braces(os.fspath(pattern)):
        if os.path.isdir(name):
            paths += sorted(glob.glob(os.path.join(glob.escape(name), "*.tar")))
        elif glob.has_magic(name):
            paths += sorted(glob.glob(name))
        else:
            paths.append(name)
    absent = [path for path in paths if not os.path.exists(path)]
    if absent:
        raise LoaderError(
            f"{absent[0]} is not there ({len(absent)} of {len(paths)} shards are missing): is it mounted?"
        )
    if not paths:
        raise LoaderError(f"{os.fspath(pattern)}: no shard (*.tar) is there: is it mounted?")
    return paths


def read_manifest(folder: str) -> tuple[dict[str, int], Recorded | None, bool | None, Identity]:
    """How many samples the shards of a folder have, by name, what their values are, whether they have labels, and of
    which data set they are, as `manifest.json` says; nothing where there is no such file."""
    path = os.path.join(folder, "manifest.json")
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        if "shards" in manifest:
            has_labels = any(member.startswith("labels") for member in manifest.get("members") or ["labels"])
            counts_of = {shard["name"]: shard["sample_count"] for shard in manifest["shards"]}
            shuffle = manifest.get("shuffle") or {}
            identity = Identity(manifest.get("plan_digest"), shuffle.get("seed"), shuffle.get("epoch"))
            return counts_of, Recorded.of(manifest), has_labels, identity
        number_of, each = manifest["num_shards"], manifest["samples_per_shard"]  # the original converter's: no gaps
        counts = [each] * (number_of - 1) + [manifest["total_samples"] - each * (number_of - 1)]
        return {f"shard-{at:06d}.tar": count for at, count in enumerate(counts)}, None, True, Identity()
    except FileNotFoundError:
        return {}, None, None, Identity()
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "the loader must be able to read it")
        raise LoaderError(f"{path}: {error.strerror}: {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoaderError(f"{path}: not a manifest of shards ({error!r}): write it again") from error


def with_manifests(paths: Iterable[str]) -> list[Shard]:
    """The shards of some paths."""
    parts = [os.path.split(path) for path in paths]
    manifests = {folder: read_manifest(folder) for folder in {folder for folder, _ in parts}}
    shards = []
    for folder, name in parts:
        counts, *known = manifests[folder]
        shards.append(Shard(os.path.join(folder, name), counts.get(name), *(known if name in counts else ())))
    return shards


def peek(path: str) -> tuple[dict[str, Any], NDArray[Any]]:
    """JSON and first values of the first sample of a shard; no values where they cannot be seen without reading more
    of them."""
    found: dict[str, bytes] = {}
    key, offset = None, 0
    with open(path, "rb", buffering=0) as file:
        while (header := parse_header(file.read(BLOCK))) is not None:
            name, size = header
            if key not in (None, name.partition(".")[0]):
                break
            key, _, suffix = name.partition(".")
            if suffix in VOXELS or suffix in OTHERS:
                found[suffix] = file.read(min(size, LOOK + BLOCK))
            offset += BLOCK + -(-size // BLOCK) * BLOCK
            file.seek(offset)
    meta = json.loads(next(found[suffix] for suffix in ("json", "meta.json") if suffix in found))
    begin = io.BytesIO(found.get("bin") or found.get("volume.npy") or b"")
    if "volume.npy" in found:
        np.lib.format.read_magic(begin)
        with npy_errors():
            np.lib.format.read_array_header_1_0(begin)
    dtype = np.dtype(meta["volume_dtype"]).newbyteorder("<")
    return meta, values_of(np.frombuffer(begin.read(LOOK // 4 * dtype.itemsize), dtype), meta)


# ---------------------------------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Task:
    """What one worker reads in an epoch: its shards, how many samples (None: all there are), how many batches (None:
    not known), and of each shard the places of the samples (None: all of them)."""

    shards: list[Shard]
    samples: int | None
    batches: int | None
    places: list[list[int]] | None = None


@dataclass(frozen=True)
class Dealing:
    """How an epoch is dealt: shards to ranks, those of a rank to its workers, and their samples to batches."""

    ranks: int
    workers: int
    batch: int
    drop_last: bool
    uneven: str

    @property
    def is_natural(self) -> bool:
        """Whether each worker reads what it was dealt, no more and no less."""
        return self.ranks == 1 or self.uneven == "keep"

    def shares(self, shards: Sequence[Shard], rank: int) -> list[list[Shard]]:
        """The shards of each worker of a rank."""
        return [list(shards[rank :: self.ranks][worker :: self.workers]) for worker in range(self.workers)]

    def batches(self, samples: int) -> int:
        """The batches that a worker makes of samples."""
        return samples // self.batch if self.drop_last else math.ceil(samples / self.batch)

    def lengths(self, natural: Sequence[Sequence[int]], length: int | None = None) -> list[list[tuple[int, int]]]:
        """Samples and batches of each worker of each rank, from the samples of its shards; `length` sets the samples of
        a rank."""
        batches = [[self.batches(count) for count in counts] for counts in natural]
        if length is None and self.is_natural:
            return [list(zip(*both, strict=True)) for both in zip(natural, batches, strict=True)]
        if length is None:
            target = (max if self.uneven == "pad" else min)(map(sum, batches))
        else:
            target = math.ceil(length / self.batch)
        found = []
        for counts, before in zip(natural, batches, strict=True):
            after = level(before, target)
            changed = zip(counts, before, after, strict=True)
            samples = [count if now == was else now * self.batch for count, was, now in changed]
            found.append(list(zip(samples, after, strict=True)))
        return found


def level(batches: Sequence[int], target: int) -> list[int]:
    """Change numbers so that their sum is the target, and they differ as little as may be."""
    result = list(batches)
    while sum(result) < target:
        result[result.index(min(result))] += 1
    while sum(result) > target:
        result[result.index(max(result))] -= 1
    return result


# --------------------------------------------------------------------------------------------------------------- resume

Numbers = NDArray[np.int64]
Lists = list[list[Numbers]]  # what each worker of each rank reads
UNEVEN = ("pad", "drop", "keep")


@dataclass(frozen=True)
class Start:
    """Where in an epoch a loader begins: behind so many samples of all ranks, in the order of a dealing; and how many
    batches each rank had taken."""

    consumed: int
    batches: int
    dealing: Dealing

    def numbers(self) -> list[int]:
        """The same in numbers, for shared memory."""
        dealing = self.dealing
        dealt = [dealing.ranks, dealing.workers, dealing.batch, int(dealing.drop_last), UNEVEN.index(dealing.uneven)]
        return [self.consumed, self.batches, *dealt]

    @staticmethod
    def of(numbers: Sequence[int]) -> Start:
        """The opposite of `numbers`."""
        consumed, batches, ranks, workers, batch, drop_last, uneven = numbers
        return Start(consumed, batches, Dealing(ranks, workers, batch, bool(drop_last), UNEVEN[uneven]))


START_NUMBERS = 7


def whole(counts: Sequence[int], dealing: Dealing) -> Lists:
    """What the workers read in an epoch of shards with so many samples; samples that pad are there again."""
    starts = np.cumsum([0, *counts])
    found: Lists = []
    for rank in range(dealing.ranks):
        dealt = [
            range(len(counts))[rank :: dealing.ranks][worker :: dealing.workers] for worker in range(dealing.workers)
        ]
        parts = [[np.arange(starts[n], starts[n + 1], dtype=np.int64) for n in shards] for shards in dealt]
        found.append([np.concatenate([np.empty(0, np.int64), *arrays]) for arrays in parts])
    lengths = dealing.lengths([[len(numbers) for numbers in rank] for rank in found])
    return [
        [np.resize(numbers, samples) for numbers, (samples, _) in zip(*both, strict=True)]
        for both in zip(found, lengths, strict=True)
    ]


def in_turn(lists: Sequence[Numbers], dealing: Dealing) -> list[tuple[int, Numbers]]:
    """The batches of a rank in the order in which DataLoader gives them, each with its worker."""
    size = dealing.batch
    batches = [
        [numbers[at : at + size] for at in range(0, dealing.batches(len(numbers)) * size, size)] for numbers in lists
    ]
    rounds = itertools.zip_longest(*batches)
    return [(worker, batch) for each in rounds for worker, batch in enumerate(each) if batch is not None]


def order_of(lists: Lists, total: int, dealing: Dealing) -> tuple[Numbers, list[int]]:
    """All samples in the order in which the ranks give them, those last that none gives; and how many of them were
    given behind each step, from 0 on."""
    ranks = [[batch for _, batch in in_turn(each, dealing)] for each in lists]
    steps = [[batch for batch in step if batch is not None] for step in itertools.zip_longest(*ranks)]
    given = np.concatenate([np.empty(0, np.int64), *itertools.chain(*steps)])
    is_first = np.zeros(len(given), bool)
    is_first[np.unique(given, return_index=True)[1]] = True
    ends = np.cumsum([0, *is_first])[np.cumsum([0, *(sum(map(len, step)) for step in steps)])]
    never = np.setdiff1d(np.arange(total), given)
    return np.concatenate([given[is_first], never]), ends.tolist()


def rest(counts: Sequence[int], start: Start, mine: Dealing) -> tuple[Lists, list[int]]:
    """What is left behind a start for ranks and workers of `mine`; and how many samples are consumed behind each of
    their steps, from 0 on."""
    lists = whole(counts, start.dealing)
    order, ends = order_of(lists, sum(counts), start.dealing)
    if mine == start.dealing and start.consumed in ends:
        step = ends.index(start.consumed)
        return [_behind(each, step, mine) for each in lists], ends[step:]
    left = order[start.consumed :]
    together = mine.batch * mine.ranks
    ends = [start.consumed + min(at, len(left)) for at in range(0, len(left) + together, together)]
    return _dealt_anew(left, mine), ends


def _behind(lists: list[Numbers], step: int, dealing: Dealing) -> list[Numbers]:
    """What is left for the workers of a rank, that one first whose batch is the next."""
    turns = [worker for worker, _ in in_turn(lists, dealing)]
    left = [numbers[turns[:step].count(worker) * dealing.batch :] for worker, numbers in enumerate(lists)]
    first = turns[step] if step < len(turns) else 0
    return left[first:] + left[:first]


def _dealt_anew(left: Numbers, mine: Dealing) -> Lists:
    """Of each `batch * ranks` consecutive samples rank r gets the r-th part, and its workers take turns. What does not
    fill a batch of each rank is spread over them."""
    together = mine.batch * mine.ranks
    full = left[: len(left) // together * together].reshape(-1, mine.ranks, mine.batch)
    part = left[full.size :]
    is_dropped = len(part) == 0 or mine.drop_last or (len(part) < mine.ranks and mine.uneven == "drop")
    found: Lists = []
    for rank in range(mine.ranks):
        last = np.array_split(part, mine.ranks)[rank]
        if len(last) == 0 and mine.uneven == "pad":
            last = part[:1]
        lists = [full[worker :: mine.workers, rank].reshape(-1) for worker in range(mine.workers)]
        if not is_dropped:
            lists[len(full) % mine.workers] = np.concatenate([lists[len(full) % mine.workers], last])
        found.append(lists)
    return found


def task_of(numbers: Numbers, shards: Sequence[Shard], dealing: Dealing) -> Task:
    """What a worker reads, in the terms of shards and the places of samples in them."""
    starts = np.cumsum([0, *(shard.samples or 0 for shard in shards)])
    at = np.searchsorted(starts, numbers, "right") - 1
    inside = numbers - starts[at]
    is_new = np.ones(len(numbers), bool)
    is_new[1:] = (np.diff(at) != 0) | (np.diff(inside) <= 0)  # the places in a shard ascend
    begins = np.flatnonzero(is_new)
    places = [run.tolist() for run in np.split(inside, begins[1:])] if len(numbers) else []
    return Task([shards[n] for n in at[begins]], len(numbers), dealing.batches(len(numbers)), places)


# ---------------------------------------------------------------------------------------------------------- shard_units


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


# --------------------------------------------------------------------------------------------------------------- states

STATE_VERSION = 1
NAMED = {
    "version": "version of this package",
    "digest": "data set (files, tables or options)",
    "seed": "seed of the views",
    "shards": "choice or order of shards (pattern, samples a shard, views, or seed)",
}


def unknown_order(data: CTReportWebDataset) -> str | None:
    """Why a place in an epoch of these shards cannot be named, and what helps; None if it can."""
    view = "mount with --shuffle-seed S, and read its views: the pattern names all shards beside epochs/000000/"
    silent = [shard.path for shard in data.shards if shard.samples is None or shard.identity.digest is None]
    if data.resampled or data.epoch_length is not None:
        why, remedy = "with resampled or epoch_length an epoch is not each sample once", "leave them away"
    elif data.shuffle and not data.views:
        why, remedy = "the order out of a shuffle buffer is known to its worker alone", f"{view}; or shuffle=False"
    elif data.buffer_size > 1:
        why, remedy = "the order out of a shuffle buffer is known to its worker alone", "views need no buffer_size"
    elif data.on_error == "skip":
        why = "on_error='skip' moves all samples behind one that is left out"
        remedy = (
            "on_error='raise', and leave out what is damaged with `mount --exclude` or `materialize --on-error skip`"
        )
    elif silent:
        why = f"no manifest.json beside {silent[0]} says how many samples it has, and of which plan"
        remedy = "ctwds-fs writes that file, in a mount and with materialize"
    else:
        return None
    return f"{data.shards[0].path}: the place in an epoch cannot be saved, as {why}: {remedy}"


def rest_of_rank(data: CTReportWebDataset, dealing: Dealing, epoch: int, start: Start) -> list[Task]:
    """What the workers of this rank read of an epoch behind a start."""
    shards = data._order(epoch)
    lists, _ = rest(data._counts(shards), start, dealing)
    return [task_of(numbers, shards, dealing) for numbers in lists[data.rank]]


def state_of(data: CTReportWebDataset, mine: Dealing, epoch: int, start: Start | None, given: int) -> dict[str, Any]:
    """The state of a loader that has given so many batches of an epoch behind a start; empty behind its last, as
    whoever goes on there begins the next epoch."""
    counts = data._counts(data._order(epoch))
    begun = start or Start(0, 0, mine)
    lists, ends = rest(counts, begun, mine)
    now = Start(ends[min(given, len(ends) - 1)], begun.batches + given, begun.dealing)
    most = max(len(in_turn(each, mine)) for each in lists)  # with uneven="keep" other ranks may have more
    if given and (given >= most or now.consumed >= sum(counts)):
        return {}
    return _identity(data, epoch) | {
        "epoch": epoch,
        "consumed": now.consumed,
        "batches": now.batches,
        "dealt": dataclasses.asdict(now.dealing),
    }


def start_of(data: CTReportWebDataset, state: Mapping[str, Any]) -> tuple[int, Start | None]:
    """The epoch of a state, and where in it."""
    path = data.shards[0].path
    try:
        start = Start(state["consumed"], state["batches"], Dealing(**state["dealt"]))
    except (KeyError, TypeError):
        start = None
    if state.get("version") != STATE_VERSION or not isinstance(state.get("epoch"), int) or start is None:
        raise LoaderError(
            f"{path}: not a state of this loader (version {STATE_VERSION}), but {dict(state)!r}: begin anew"
        )
    mine = _identity(data, state["epoch"])
    for key, what in NAMED.items():
        if state.get(key) != mine[key]:
            raise LoaderError(
                f"{path}: the state is of another {what}: {key} was {state.get(key)!r}, and is "
                f"{mine[key]!r}; begin anew, or read what was read then"
            )
    return state["epoch"], start if start.consumed else None


def _identity(data: CTReportWebDataset, epoch: int) -> dict[str, Any]:
    """What must be the same where a state is loaded."""
    shards = data._order(epoch)
    lines = [  # each with what it is of: views of one plan, and shards of several folders, have the same names
        f"{shard.identity.digest}/{shard.identity.seed}/{shard.identity.epoch}/{os.path.basename(shard.path)}: "
        f"{shard.samples}\n"
        for shard in shards
    ]
    return {
        "version": STATE_VERSION,
        "digest": "+".join(sorted({str(shard.identity.digest) for shard in shards})),
        "seed": shards[0].identity.seed,
        "shards": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }


# ---------------------------------------------------------------------------------------------------------------- views


def views_beside(shards: Sequence[Shard]) -> list[str]:
    """The folders of the epoch views, if the shards are all those of a folder that has such."""
    folder = os.path.dirname(shards[0].path)
    views = list(
        itertools.takewhile(os.path.isdir, (os.path.join(folder, "epochs", f"{n:06d}") for n in itertools.count()))
    )
    if views and {shard.path for shard in shards} != set(shard_paths(folder)):
        warnings.warn(f"{folder}/epochs is not used: the pattern names only some of the shards", stacklevel=3)
        return []
    return views


class Orders:
    """The shards of each epoch in its order, from the views as far as there are such; shuffled by the seed, unless it
    is None.

    What was read last is kept: the manifest of a large data set takes a tenth of a second, and is wanted by the loader,
    its states, and each worker that is started."""

    def __init__(self, shards: list[Shard], views: list[str], seed: int | None) -> None:
        self._shards, self._views, self._seed = shards, views, seed
        self._kept: tuple[str, list[Shard]] | None = None

    def shards(self, epoch: int) -> list[Shard]:
        """Those of an epoch."""
        shards = self._of_view(epoch) if self._views else self._shards
        if self._seed is not None and epoch >= len(self._views):
            shards = [shards[at] for at in np.random.default_rng([self._seed, epoch]).permutation(len(shards))]
        return shards

    def count(self, epoch: int) -> int:
        """How many there are in an epoch; reads no manifest."""
        return len(shard_paths(self._view(epoch)) if self._views else self._shards)

    def _view(self, epoch: int) -> str:
        return self._views[epoch % len(self._views)]

    def _of_view(self, epoch: int) -> list[Shard]:
        view = self._view(epoch)
        if self._kept is None or self._kept[0] != view:
            self._kept = view, with_manifests(shard_paths(view))
        return self._kept[1]


# -------------------------------------------------------------------------------------------------------- worker_epochs


class WorkerEpochs:
    """The epoch of an iteration, in the training's process and in each worker, also in one that is there already."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Shared memory: the epoch that a loader of make_loader has begun, the one that set_epoch was called with last,
        # how often it was called, and where in its epoch the loader begins.
        self._told = share(torch.zeros(3 + START_NUMBERS, dtype=torch.int64))
        self.start: Start | None = None
        self._epoch: int | None = None  # of the iteration before, in a worker
        self._heard = 0

    def tell(self, begun: int | None = None, start: Start | None = None) -> None:
        """That `set_epoch` was called, or that a loader of make_loader begins an epoch, maybe in its middle."""
        if begun is None:
            self._told[1] = self._clock.asked
            self._told[2] = self._clock.calls
        else:
            self._told[0], self.start = begun, start
            self._told[3:] = torch.tensor(start.numbers() if start else [0] * START_NUMBERS)

    def begin(self) -> int:
        """The epoch of the iteration that begins now, in this process or worker."""
        if self._clock.held is None:
            self.start = None  # that was of an iteration of a loader of make_loader
        if get_worker_info() is None:
            return self._clock.begin()
        if self._epoch is None:  # the worker has just started: the clock is as it was when `iter` was called
            self._heard = self._clock.calls
            self._epoch = self._clock.begin()
        elif self._clock.held is not None:
            # Of this loader alone, and written before the worker was told to go on.
            epoch, _, _, *numbers = self._told.tolist()
            self._epoch, self.start = epoch, Start.of(numbers) if numbers[0] else None
        else:
            self._refuse_jump(self._epoch + 1)
            self._epoch += 1
        return self._epoch

    def _refuse_jump(self, epoch: int) -> None:
        """The workers that a plain DataLoader keeps each count by themselves, so that all are always of one mind: they
        cannot know whether `set_epoch` was called before the iteration began, or after that."""
        asked, calls = self._told[1:3].tolist()
        if calls != self._heard and asked not in (epoch, epoch + 1):
            raise LoaderError(
                f"set_epoch({asked}) cannot reach the persistent workers of a plain DataLoader, which are in epoch "
                f"{epoch}: take data.make_loader(...), or persistent_workers=False"
            )
        self._heard = calls

    def go_on(self, epoch: int) -> None:
        """An epoch was restored."""
        if get_worker_info() is None:
            self._clock.go_on(epoch)
        else:
            self._epoch = epoch


# -------------------------------------------------------------------------------------------------------- shard_dataset

BUFFER_SIZE = 4


class CTReportWebDataset(Epochs, IterableDataset[Sample]):
    """The samples of shards, named by a folder, a glob, a brace pattern, or a list of those. See CTReportDataset for
    the dialects of the arrays that the shards were made of, and for the axes of stored ones. `also` names the arrays
    beside the volumes (`--also` of ctwds-fs) that each sample has as a sixth part, by name: on the voxels of the
    volume, (1, D, H, W), in batches (B, 1, D, H, W).

    Each sample is the tuple (volume, text, labels, study id, embedding): a tensor (1, D, H, W) of `dtype` in [-1, 1],
    with the `shape` (height, width, depth) and the `spacing` (mm, in the same order); a string; a float32 array
    (classes,); a string; an empty tensor. LoaderError names the shard, the reason and the remedy; with
    `on_error="skip"` what is damaged is left out, with a warning. `len(data)` needs a manifest, else it raises
    LengthUnknown."""

    def __init__(
        self,
        shard_pattern: Any,
        shuffle: bool = True,
        buffer_size: int | None = None,
        use_embedding: bool = False,
        mode: str = "train",
        *,
        dtype: torch.dtype = torch.float32,
        shape: Sequence[int] = SHAPE,
        spacing: Sequence[float] = SPACING,
        rescale: Rescale = "auto",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "pad",
        resampled: bool = False,
        epoch_length: int | None = None,
        on_error: str = "raise",
        dialect: str | None = None,
        axes: str | None = None,
        with_meta: bool = False,
        also: Sequence[str] = (),
    ) -> None:
        super().__init__(shuffle, mode, seed, rank, world_size, uneven)
        self.steps = Steps(shape, spacing, dtype, rescale, use_embedding, with_meta)
        self.axes = axes_option(axes)
        self.also = [also] if isinstance(also, str) else list(also)
        self.resampled, self.epoch_length = resampled, epoch_length
        if epoch_length is not None and epoch_length < 1:
            raise LoaderError(
                f"epoch_length is {epoch_length}; it is the samples of a rank in an epoch, 1 or more, or None"
            )
        self.on_error = choice("on_error", on_error, ("raise", "skip"))
        self.shards = with_manifests(shard_paths(shard_pattern))
        self.dialect = choice("dialect", dialect, (None, *DIALECTS))
        self._units = ShardUnits(self.steps, self.dialect, seen_units(self.shards, self.steps, self.dialect))
        self.views = views_beside(self.shards) if self.shuffle and not resampled else []
        if buffer_size is None:
            buffer_size = 1 if self.views else BUFFER_SIZE
        self.buffer_size = max(1, buffer_size) if self.shuffle else 1
        self._batch_size, self._drop_last = 1, False
        self._orders = Orders(self.shards, self.views, self.seed if self.shuffle else None)
        self._workers = WorkerEpochs(self._clock)

    def _tell(self, begun: int | None = None, start: Start | None = None) -> None:
        self._workers.tell(begun, start)

    def _of_loader(self, batch_size: int | None, drop_last: bool) -> CTReportWebDataset:
        """The data set with a clock and shared memory of its own."""
        data = copy.copy(self)
        data._batch_size, data._drop_last = batch_size or 1, drop_last
        data._clock = self._clock.of_loader()
        data._workers = WorkerEpochs(data._clock)
        return data

    def _epoch_here(self) -> int:
        """The epoch of the iteration that begins now, in this process or worker."""
        self._check_world()
        return self._workers.begin()

    def __len__(self) -> int:
        """Samples of the whole data set, of all ranks."""
        return sum(self._counts(self.shards))

    def _counts(self, shards: Sequence[Shard]) -> list[int]:
        unknown = [shard.path for shard in shards if shard.samples is None]
        if unknown:
            raise LengthUnknown(
                f"{unknown[0]}: its number of samples is not known, as no manifest.json beside it names it; ctwds-fs "
                "writes that file, in a mount and with materialize"
            )
        return [shard.samples or 0 for shard in shards]

    def _order(self, epoch: int) -> list[Shard]:
        return self._orders.shards(epoch)

    def _dealing(self, workers: int) -> Dealing:
        return Dealing(self.world_size, max(1, workers), self._batch_size, self._drop_last, self.uneven)

    def _tasks(self, epoch: int, workers: int) -> list[Task]:
        """What the workers of this rank read. Every rank computes those of all, and so the same number of batches."""
        shards, dealing = self._order(epoch), self._dealing(workers)
        self._refuse_too_few(len(shards), workers)
        parts = dealing.shares(shards, self.rank)
        length = self.epoch_length
        if length is None and not self.resampled and dealing.is_natural:
            known = all(shard.samples is not None for shard in shards)
            counts = [sum(self._counts(part)) if known else None for part in parts]
            return [Task(part, None, n and dealing.batches(n)) for part, n in zip(parts, counts, strict=True)]
        if self.resampled:
            natural, parts = [[0] * workers] * self.world_size, [shards] * workers
            length = length or math.ceil(sum(self._counts(shards)) / self.world_size)
        else:
            every = [dealing.shares(shards, rank) for rank in range(self.world_size)]
            natural = [[sum(self._counts(part)) for part in parts] for parts in every]
        lengths = dealing.lengths(natural, length)[self.rank]
        return [Task(part, *numbers) for part, numbers in zip(parts, lengths, strict=True)]

    def _unsaved(self) -> str | None:
        return unknown_order(self)

    def _state(self, epoch: int, start: Start | None, given: int, workers: int) -> dict[str, Any]:
        return state_of(self, self._dealing(workers), epoch, start, given)

    def _start_of(self, state: Mapping[str, Any]) -> tuple[int, Start | None]:
        return start_of(self, state)

    def _refuse_too_few(self, shards: int, workers: int) -> None:
        if shards >= self.world_size * workers or self.resampled:
            return
        wanted = self.world_size * workers
        total = sum(shard.samples or 0 for shard in self.shards)
        size = f" (here at most {max(1, total // wanted)})" if total else ""
        raise LoaderError(
            f"{shards} shards are fewer than {self.world_size} ranks x {workers} workers, so some would read nothing: "
            f"mount again with a smaller --samples-per-shard{size}, which converts nothing; or take fewer workers "
            f"(num_workers), or resampled=True"
        )

    def _batches(self, workers: int) -> int:
        batches = [task.batches for task in self._tasks(self.epoch, max(1, workers))]
        if None in batches:
            self._counts(self.shards)  # says what is missing
        return sum(count or 0 for count in batches)

    def _batches_behind(self, epoch: int, start: Start, workers: int) -> int:
        return sum(task.batches or 0 for task in rest_of_rank(self, self._dealing(workers), epoch, start))

    def _check(self, workers: int, prefetch: int) -> None:
        self._refuse_too_few(self._orders.count(self.epoch), max(1, workers))
        held, samples = 0.0, sum(shard.samples or 0 for shard in self.shards)
        with contextlib.suppress(OSError, ZeroDivisionError):  # reading says what is wrong
            held = self.buffer_size * sum(os.stat(shard.path).st_size for shard in self.shards) / samples
        volume = math.prod(self.steps.shape) * torch.empty(0, dtype=self.steps.dtype).element_size()
        if self.steps.use_embedding:
            volume = 0
        need = max(1, workers) * (held + (prefetch + 1) * self._batch_size * volume)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if need > memory / 2:
            warnings.warn(
                f"{workers} workers x ({self.buffer_size} volumes of the shuffle buffer + {prefetch + 1} batches of "
                f"{self._batch_size}) take up to {shown_bytes(need)}; this machine has {shown_bytes(memory)}. Take a "
                "smaller buffer_size (mount --shuffle-seed needs none), prefetch_factor or num_workers, or "
                "dtype=torch.float16",
                stacklevel=3,
            )

    def __iter__(self) -> Iterator[Sample]:
        iteration = Iteration(self._read, self._epoch_here, self._workers.go_on)
        try:
            return iteration.start(self._epoch_here())  # now, not when the first sample is asked for
        except LoaderError:
            if get_worker_info() is None:
                raise
            return iteration  # PyTorch hands on the error of a worker that is asked for a sample, and of no other

    def _read(self, epoch: int) -> Iterator[Sample]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        start = self._workers.start
        tasks = rest_of_rank(self, self._dealing(workers), epoch, start) if start else None
        task = (tasks or self._tasks(epoch, workers))[worker]
        return self._samples(task, np.random.default_rng([self.seed, epoch, self.rank, worker]))

    def _samples(self, task: Task, rng: np.random.Generator) -> Iterator[Sample]:
        """The samples; their volumes are written into the batches that they will be collated to."""
        pool = [Buffer() for _ in range(self.buffer_size)]
        height, width, depth = self.steps.shape
        batch, place = torch.empty(0), 0
        for raw in self._shuffled(task, rng, pool):
            if place % self._batch_size == 0 and not self.steps.use_embedding:
                batch, place = allocate((self._batch_size, 1, depth, height, width), self.steps.dtype), 0
            out = None if self.steps.use_embedding else batch[place]
            unit = Unit() if self.steps.use_embedding else self._units.of(raw)
            try:
                axes = self.axes if raw.kind == "stored" else None
                voxels = oriented(raw.voxels, axes, unit.dialect)
                sample: Any = self.steps.sample(voxels, raw.meta, unit, raw.text, raw.labels, out)
                if self.also:
                    sample = (*sample, self._extras(raw, axes, unit))
            except LoaderError as error:
                complain(LoaderError(f"{raw.key} ({raw.study_id}): {error}"), self.on_error)
                continue
            finally:
                pool.append(raw.buffer)
            place += 1
            yield sample

    def _extras(self, raw: RawSample, axes: str | None, unit: Unit) -> Extras:
        """The arrays beside the volume of a sample."""
        for name, array in raw.extras.items():
            if array.shape != raw.voxels.shape:
                raise LoaderError(f"'{name}' has the shape {array.shape}, and its volume {raw.voxels.shape}")
        oriented_ = {name: oriented(array, axes, unit.dialect) for name, array in raw.extras.items()}
        return {name: self.steps.extra(array, raw.meta, unit) for name, array in oriented_.items()}

    def _shuffled(self, task: Task, rng: np.random.Generator, pool: list[Buffer]) -> Iterator[RawSample]:
        """Samples out of a buffer at random; each is done with when the next one is asked for."""
        held: list[RawSample] = []
        for raw in itertools.islice(self._raw(task, rng, pool), task.samples):
            held.append(raw)
            if len(held) == self.buffer_size:
                yield held.pop(int(rng.integers(len(held))))
        while held:
            yield held.pop(int(rng.integers(len(held))))

    def _raw(self, task: Task, rng: np.random.Generator, pool: list[Buffer]) -> Iterator[RawSample]:
        """The samples of the worker's shards: once, or as often as it takes."""
        while True:
            found = False
            for at in range(len(task.shards)):
                shard = task.shards[int(rng.integers(len(task.shards))) if self.resampled else at]
                places = task.places[at] if task.places else None
                for raw in ShardReader(shard.path, pool, self.on_error, shard.has_labels, self.also, places):
                    found, raw.recorded = True, shard.recorded
                    yield raw
            if task.samples is None:
                return
            if not found:
                raise LoaderError(
                    f"{task.shards[0].path} and {len(task.shards) - 1} more shards have no sample to read"
                )


# --------------------------------------------------------------------------------------------------------------- config

NPZ_KEYS = {
    "train": ("train_dir", "reports_train", "train_meta", "labels_train"),
    "val": ("valid_dir", "reports_valid", "valid_meta", "labels_valid"),
}
LOADER_KEYS = {"batch_size": 1, "num_workers": 4, "prefetch_factor": 2, "persistent_workers": True}
COMMON_KEYS = (
    "use_embedding",
    "with_meta",
    "dtype",
    "shape",
    "spacing",
    "rescale",
    "dialect",
    "axes",
    "seed",
    "uneven",
)  # as the arguments
SHARD_KEYS = ("resampled", "epoch_length", "on_error")
ARRAY_KEYS = ("array", "channel", "source", "pattern", "spacing_array", "spacing_from")  # of NPZ, NPY and NIfTI files
KNOWN_KEYS = (
    "dataset_format",
    "webdataset_shards_train",
    "webdataset_shards_val",
    "shuffle_buffer_size",
    *NPZ_KEYS["train"],
    *NPZ_KEYS["val"],
    *LOADER_KEYS,
    *COMMON_KEYS,
    *SHARD_KEYS,
    *ARRAY_KEYS,
)
FORMATS = ("webdataset", "npz", "mixed")  # mixed: trains from shards, validates from NPZ
Config = str | os.PathLike[str] | Mapping[str, Any]


def data_section(cfg: Config) -> Mapping[str, Any]:
    """The section `data` of a configuration, given as a mapping or as the path of a YAML file."""
    if isinstance(cfg, (str, os.PathLike)):
        import yaml

        cfg = yaml.safe_load(Path(cfg).read_text(encoding="utf-8"))
    if not isinstance(cfg, Mapping) or not isinstance(cfg.get("data"), Mapping):
        raise LoaderError("the configuration has no section 'data'")
    return check_keys(cfg["data"])


def check_keys(data_cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse a misspelt key, which would be a default that nobody chose. Other keys are the training's own."""
    for key in data_cfg:
        meant = difflib.get_close_matches(str(key), KNOWN_KEYS, n=1, cutoff=0.88)  # `num_workers_val` is its own: 0.85
        if meant and key not in KNOWN_KEYS:
            raise LoaderError(f"data.{key} is not known: is {meant[0]} meant? All keys: {', '.join(KNOWN_KEYS)}")
    return data_cfg


def required(data_cfg: Mapping[str, Any], key: str) -> Any:
    """The value of a key that must be there."""
    if data_cfg.get(key) is None:
        raise LoaderError(
            f"data.{key} is missing; dataset_format: {data_cfg.get('dataset_format', 'webdataset')} needs it"
        )
    return data_cfg[key]


def configured_table(data_cfg: Mapping[str, Any], key: str) -> Tables:
    """The files of a table: a path, a list of paths, or none."""
    value = data_cfg.get(key)
    files = [value] if isinstance(value, (str, os.PathLike)) else value
    if value is None or (isinstance(files, list) and all(isinstance(p, (str, os.PathLike)) and p != "" for p in files)):
        return value
    raise LoaderError(f"data.{key} is {value!r}; it must be a path, or a list of paths")


def arguments(data_cfg: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Keyword arguments from the keys that are there."""
    found = {key: data_cfg[key] for key in keys if data_cfg.get(key) is not None}
    if "dtype" in found:
        found["dtype"] = getattr(torch, choice("data.dtype", found["dtype"], ("float32", "float16")))
    return found


def create_webdataset_from_config(data_cfg: Mapping[str, Any], mode: str = "train") -> CTReportWebDataset:
    """The shards that `webdataset_shards_train` or `webdataset_shards_val` names; from the section `data` itself.
    LoaderError names a key that is missing or not known."""
    shards = required(check_keys(data_cfg), f"webdataset_shards_{choice('mode', mode, ('train', 'val'))}")
    more = arguments(data_cfg, (*COMMON_KEYS, *SHARD_KEYS))
    if mode == "val":
        more = {key: value for key, value in more.items() if key not in ("resampled", "epoch_length")}  # of training
    return CTReportWebDataset(shards, mode == "train", data_cfg.get("shuffle_buffer_size"), mode=mode, **more)


def create_dataset_from_config(cfg: Config, mode: str = "train") -> CTReportWebDataset | CTReportDataset:
    """The data set of `data.dataset_format`: webdataset (the default), npz, or mixed (trains from shards, validates
    from NPZ). `cfg` is a mapping or the path of a YAML file, with a section `data`; `mode` is "train" or "val".
    LoaderError names a key that is missing or not known."""
    data_cfg = data_section(cfg)
    kind = choice("data.dataset_format", data_cfg.get("dataset_format", "webdataset"), FORMATS)
    if kind == "webdataset" or (kind == "mixed" and mode == "train"):
        return create_webdataset_from_config(data_cfg, mode)
    folder, *tables = NPZ_KEYS[choice("mode", mode, ("train", "val"))]
    reports, meta, labels = (configured_table(data_cfg, key) for key in tables)
    more = arguments(data_cfg, (*COMMON_KEYS, *ARRAY_KEYS))
    return CTReportDataset(required(data_cfg, folder), reports, meta, labels, mode, **more)


def create_loader_from_config(cfg: Config, mode: str = "train") -> CTReportLoader:
    """The loader of the data set that `create_dataset_from_config` makes, with `batch_size`, `num_workers`,
    `prefetch_factor` and `persistent_workers` of the section `data`. LoaderError as there."""
    data_cfg = data_section(cfg)
    values = LOADER_KEYS | {key: data_cfg[key] for key in LOADER_KEYS if data_cfg.get(key) is not None}
    return create_dataset_from_config(cfg, mode).make_loader(**values)
