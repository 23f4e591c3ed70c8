#!/usr/bin/env python3
"""A naive converter from NPZ volumes and three tables to WebDataset shards, independent of the Rust program.

It is written with what everybody trusts (`numpy.load`, `astype(float16)`, `json.dumps`, `csv`, `tarfile`), holds whole
volumes in memory and knows no trick: the tests compare the program's bytes with its bytes. As a script it converts a
data set with several processes, which is also how the conversion was done before, so it serves as the baseline of
benchmarks:

    reference.py --data-folder F --reports-file R --meta-file M --labels-file L --output-dir OUT --num-workers 2
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What pandas reads as a missing value by default.
MISSING = set(
    "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
META_FIELDS = ("RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing")
DTYPES = ("f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "b1")
SUFFIXES = {
    "ctclip": ("bin", "json", "txt", "labels"),
    "npy": ("volume.npy", "meta.json", "report.txt", "labels.npy"),
}


class Unusable(Exception):
    """The volume holds no array that can be converted; its slot stays empty."""


@dataclass(frozen=True)
class Options:
    """The options that change bytes, with the program's names and defaults."""

    samples_per_shard: int = 100
    limit: int | None = None
    array: str | None = None
    format: str = "ctclip"
    overflow: str = "error"
    missing_text: str = ""
    missing_meta: str = "exclude"

    def flags(self) -> list[str]:
        """The same options on the program's command line; defaults are left out."""
        return [
            f"--{name.replace('_', '-')}={value}"
            for name, value in vars(self).items()
            if value != getattr(Options, name)
        ]


@dataclass(frozen=True)
class Sample:
    """A volume that all three tables know, with its rows."""

    path: Path
    study_id: str
    report: dict[str, str]
    meta: dict[str, str]
    labels: list[float]


def find_volumes(folder: Path) -> list[Path]:
    """The NPZ files of the folder depth that has the most (the deepest of equals), by the bytes of their paths."""
    candidates = [list(folder.glob(pattern)) for pattern in ("*/*/*.npz", "*/*.npz", "*.npz")]
    most = max(candidates, key=len)  # the first, so the deepest, of equals
    return sorted(most, key=lambda path: os.fsencode(path.relative_to(folder)))


def read_table(path: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The columns of a CSV file and its rows by study id."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = {row["VolumeName"].removesuffix(".nii.gz"): row for row in reader}
        return list(reader.fieldnames or ()), rows


def plan(folder: Path, reports: Path, meta: Path, labels: Path, options: Options) -> list[Sample | None]:
    """The slots of the data set in order; None is a slot that stays empty."""
    _, report_rows = read_table(reports)
    _, meta_rows = read_table(meta)
    columns, label_rows = read_table(labels)
    classes = [column for column in columns if column != "VolumeName"]
    slots: list[Sample | None] = []
    for path in find_volumes(folder):
        study_id = path.name.removesuffix(".npz")
        if study_id not in report_rows or study_id not in meta_rows or study_id not in label_rows:
            continue
        row = meta_rows[study_id]
        excluded = options.missing_meta == "exclude" and any(row[field] in MISSING for field in META_FIELDS)
        values = [float(label_rows[study_id][name]) for name in classes]
        slots.append(None if excluded else Sample(path, study_id, report_rows[study_id], row, values))
    return slots[: options.limit]


def load_array(path: Path, name: str | None) -> NDArray[Any]:
    """The array that holds the voxels."""
    try:
        with np.load(path, allow_pickle=False) as npz:
            if name is None:
                name = next((known for known in ("data", "volume", "arr_0") if known in npz.files), None)
            if name is None:
                large = [other for other in npz.files if npz[other].ndim >= 3]
                name = large[0] if len(large) == 1 else None
            if name not in npz.files:
                raise Unusable(f"{path}: which of {npz.files}?")
            array = npz[name]
    except (ValueError, zipfile.BadZipFile) as error:  # ValueError: a pickle, which is not run
        raise Unusable(f"{path}: {error}") from error
    if array.dtype.str[1:] not in DTYPES:
        raise Unusable(f"{path}: dtype {array.dtype}")
    while array.ndim > 3 and 1 in array.shape:
        array = np.squeeze(array, axis=array.shape.index(1))
    if array.ndim != 3:
        raise Unusable(f"{path}: shape {array.shape}")
    return array


def to_half(array: NDArray[Any], overflow: str) -> NDArray[Any]:
    """The array as little-endian float16 in C order. Infinities of the source are values, not overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        half = np.ascontiguousarray(array.astype("<f2"))
    lost = np.isinf(half) & np.isfinite(array)
    if lost.any():
        if overflow == "error":
            raise OverflowError(f"{int(lost.sum())} values do not fit float16")
        if overflow == "saturate":
            half[lost] = np.where(array[lost] > 0, 65504, -65504)
    return half


def number(text: str) -> float:
    """A number of the metadata; missing is NaN, as pandas has it."""
    return float("nan") if text in MISSING else float(text)


def meta_json(sample: Sample, shape: tuple[int, ...]) -> bytes:
    """The sample's JSON member."""
    spacing = sample.meta["XYSpacing"]
    return json.dumps(
        {
            "study_id": sample.study_id,
            "RescaleSlope": number(sample.meta["RescaleSlope"]),
            "RescaleIntercept": number(sample.meta["RescaleIntercept"]),
            "XYSpacing": "nan" if spacing in MISSING else spacing,  # str() of pandas' NaN
            "ZSpacing": number(sample.meta["ZSpacing"]),
            "original_shape": list(shape),
            "volume_shape": list(shape),
            "volume_dtype": "float16",
        }
    ).encode()


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The array as `numpy.save` writes it."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def members(sample: Sample, options: Options) -> Iterator[tuple[str, bytes]]:
    """The suffixes and payloads of a sample, in the order of the tar."""
    half = to_half(load_array(sample.path, options.array), options.overflow)
    labels = np.array(sample.labels, "<f4")
    fields = [sample.report["Findings_EN"], sample.report["Impressions_EN"]]
    text = "\n".join(options.missing_text if field in MISSING else field for field in fields)
    raw = options.format == "ctclip"
    payloads = (
        half.tobytes() if raw else npy_bytes(half),
        meta_json(sample, half.shape),
        text.encode(),
        labels.tobytes() if raw else npy_bytes(labels),
    )
    yield from zip(SUFFIXES[options.format], payloads, strict=True)


def write_shard(out: Path, shard: int, slots: list[Sample | None], options: Options) -> tuple[int, int]:
    """Write one tar; return how many samples and payload bytes it holds."""
    count = size = 0
    with tarfile.open(out / f"shard-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, sample in enumerate(slots):
            if sample is None:
                continue
            try:
                payloads = list(members(sample, options))
            except Unusable:
                continue
            count += 1
            for suffix, payload in payloads:
                info = tarfile.TarInfo(f"{shard:06d}_{index:06d}.{suffix}")
                info.size = len(payload)
                tar.addfile(info, io.BytesIO(payload))
                size += len(payload)
    return count, size


def convert(slots: list[Sample | None], out: Path, options: Options, workers: int = 1) -> dict[str, float]:
    """Write all shards and the manifest; return the manifest."""
    out.mkdir(parents=True, exist_ok=True)
    step = options.samples_per_shard
    starts = range(0, len(slots), step)
    jobs = [(out, shard, slots[start : start + step], options) for shard, start in enumerate(starts)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            written = list(pool.map(write_shard, *zip(*jobs, strict=True)))
    else:
        written = [write_shard(*job) for job in jobs]
    samples = sum(count for count, _ in written)
    mebibytes = sum(size for _, size in written) / 2**20
    manifest = {
        "num_shards": len(written),
        "samples_per_shard": step,
        "total_samples": samples,
        "total_size_mb": mebibytes,
        "total_size_gb": mebibytes / 1024,
        "average_sample_size_mb": mebibytes / samples if samples else 0,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return manifest


def main() -> None:
    """Convert a data set as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data-folder", "reports-file", "meta-file", "labels-file", "output-dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--samples-per-shard", type=int, default=100)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--array")
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="ctclip")
    parser.add_argument("--overflow", choices=("error", "saturate", "inf"), default="error")
    parser.add_argument("--missing-text", default="")
    parser.add_argument("--missing-meta", choices=("exclude", "nan"), default="exclude")
    parser.add_argument("--num-workers", type=int, default=1)
    given = parser.parse_args()
    options = Options(**{name: getattr(given, name) for name in vars(Options())})
    slots = plan(given.data_folder, given.reports_file, given.meta_file, given.labels_file, options)
    print(json.dumps(convert(slots, given.output_dir, options, given.num_workers)))


if __name__ == "__main__":
    main()
