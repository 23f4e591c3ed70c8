#!/usr/bin/env python3
"""Write a small CT-RATE-like data set: NPZ volumes of a thorax phantom and the three tables that describe them.

The volumes are of the dialect `data`: float32, (H, W, D), integer-valued raw stored values as a scanner writes them,
so that HU = RescaleSlope * value + RescaleIntercept. The tables (see dataset_tables.py) have the quoting, the gaps and
the strays of the real ones. The same options and seed give the same values; the files differ in their time stamps.

    make_dataset.py --out /tmp/ct --volumes 12 --size 128 128 64 --order mixed --compression mixed
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dataset_tables as tables
import numpy as np
from numpy.typing import NDArray

ORDERS = ("C", "F", "mixed")
COMPRESSIONS = ("stored", "deflated", "mixed")
STRAY_VOLUME = "train_1_z_1"  # sorts into the middle, so that a reader which does not close the gap is caught


@dataclass(frozen=True)
class Options:
    """What to write; the defaults make a data set that is read in well under a second."""

    out: Path
    volumes: int = 12
    size: tuple[int, int, int] = (96, 96, 48)
    fixed_size: bool = False
    order: str = "mixed"
    compression: str = "mixed"
    seed: int = 0
    depth: int = 3
    bom: bool = False
    missing_zspacing: int = 0
    strays: bool = True
    workers: int = 1


@dataclass(frozen=True)
class Dataset:
    """The paths of a data set."""

    folder: Path
    reports: Path
    meta: Path
    labels: Path

    def flags(self) -> list[str]:
        """The arguments that name this data set on the command line of `ctwds-fs`."""
        return [
            "--data-folder",
            str(self.folder),
            "--reports-file",
            str(self.reports),
            "--meta-file",
            str(self.meta),
            "--labels-file",
            str(self.labels),
        ]

    def volumes(self) -> list[Path]:
        """Every NPZ and NIfTI file below the folder."""
        return sorted(path for suffix in (".npz", ".nii", ".nii.gz") for path in self.folder.rglob(f"*{suffix}"))


def shown_bytes(count: float) -> str:
    """A number of bytes in words, in units of 1024 as the program has them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def dataset_at(out: Path) -> Dataset:
    """The data set that `make_dataset` writes into the folder `out`."""
    return Dataset(out / "volumes", out / "reports.csv", out / "metadata.csv", out / "labels.csv")


def study_ids(count: int) -> list[str]:
    """CT-RATE's names: patient, scan (a letter), reconstruction. Every third patient has two scans, every scan of an
    even patient two reconstructions."""
    ids: list[str] = []
    patient = 0
    while len(ids) < count:
        patient += 1
        for scan in "ab" if patient % 3 == 0 else "a":
            many = 2 if patient % 2 == 0 else 1
            ids += [f"train_{patient}_{scan}_{reconstruction}" for reconstruction in range(1, many + 1)]
    return ids[:count]


def relative_path(study_id: str, depth: int) -> Path:
    """Where a volume lies: `train_1/train_1_a/train_1_a_1.npz`, or with fewer folders."""
    parts = study_id.split("_")
    folders = ["_".join(parts[:2]), "_".join(parts[:3])][: depth - 1]
    return Path(*folders, study_id + ".npz")


def slice_grid(height: int, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coordinates of a slice, from -1 to 1 down and across."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    return y, x


def thorax_slice(y: NDArray[Any], x: NDArray[Any], z: float, nodules: NDArray[Any]) -> NDArray[Any]:
    """One axial slice in HU without noise: air, body, lungs, heart, spine and the nodules that z cuts."""
    hu = np.full((y.size, x.size), -1024, np.float32)

    def fill(cy: float, cx: float, ry: float, rx: float, value: float) -> None:
        hu[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = value

    taper = np.sqrt(max(0.05, 1 - 0.8 * z * z))  # the lungs close towards both ends of the scan
    fill(0, 0, 0.72, 0.92, -90)  # fat
    fill(0, 0, 0.66, 0.86, 45)  # muscle
    for side in (-1, 1):
        fill(-0.02, side * 0.42, 0.48 * taper, 0.31 * taper, -860)
    fill(-0.16, 0.1, 0.3 * taper, 0.25 * taper, 40)  # heart
    fill(0.45, 0, 0.13, 0.11, 450)  # vertebra
    fill(0.5, 0, 0.05, 0.05, 20)  # its canal
    for ny, nx, nz, radius, value in nodules:
        cut = radius * radius - (z - nz) ** 2
        if cut > 0:
            fill(ny, nx, float(np.sqrt(cut)), float(np.sqrt(cut)), value)
    return hu


def phantom(size: tuple[int, int, int], intercept: float, rng: np.random.Generator) -> NDArray[Any]:
    """A thorax with noise as raw stored values, float32 in Fortran order."""
    height, width, depth = size
    y, x = slice_grid(height, width)
    nodules = np.column_stack(
        [
            rng.uniform(-0.35, 0.3, 6),
            rng.choice([-1, 1], 6) * rng.uniform(0.3, 0.55, 6),
            rng.uniform(-0.8, 0.8, 6),
            rng.uniform(0.03, 0.12, 6),
            rng.uniform(-50, 120, 6),
        ]
    )
    # Drawing fresh noise for every voxel would take longer than the rest: slices take random stretches of one pool.
    area = height * width
    pool = np.rint(rng.standard_normal(area * 2 + 4096, dtype=np.float32) * 22)
    volume = np.empty(size, np.float32, order="F")
    for k in range(depth):
        z = 2 * (k + 0.5) / depth - 1
        start = int(rng.integers(0, pool.size - area))
        noise = pool[start : start + area].reshape(height, width)
        hu = np.rint(thorax_slice(y, x, z, nodules))
        np.add(hu, noise, out=hu, where=hu > -1000)  # the air around the patient is flat, as after reconstruction
        volume[:, :, k] = np.clip(hu, -1024, 3071) - intercept
    return volume


def is_fortran(order: str, index: int) -> bool:
    """Whether volume `index` is in Fortran order; mixed and the mixed compression have different periods."""
    return order == "F" or (order == "mixed" and index % 2 == 0)


def is_deflated(compression: str, index: int) -> bool:
    """Whether volume `index` is deflated."""
    return compression == "deflated" or (compression == "mixed" and (index // 2) % 2 == 0)


def write_volume(options: Options, index: int, study_id: str) -> int:
    """Write one NPZ; return its number of slices."""
    rng = np.random.default_rng([options.seed, index])
    height, width, depth = options.size
    if not options.fixed_size:
        depth = max(1, round(depth * rng.uniform(0.8, 1.2)))
    volume = phantom((height, width, depth), tables.intercept_of(index), rng)
    if not is_fortran(options.order, index):
        volume = np.ascontiguousarray(volume)
    path = dataset_at(options.out).folder / relative_path(study_id, options.depth)
    path.parent.mkdir(parents=True, exist_ok=True)
    save = np.savez_compressed if is_deflated(options.compression, index) else np.savez
    save(path, data=volume)
    return depth


def make_dataset(options: Options) -> Dataset:
    """Write the whole data set and return where it is."""
    paths = dataset_at(options.out)
    paths.folder.mkdir(parents=True, exist_ok=True)
    ids = study_ids(options.volumes)
    on_disk = ids + ([STRAY_VOLUME] if options.strays else [])
    jobs = [(options, index, study_id) for index, study_id in enumerate(on_disk)]
    if options.workers > 1:
        with ProcessPoolExecutor(options.workers) as pool:
            depths = list(pool.map(write_volume, *zip(*jobs, strict=True)))
    else:
        depths = [write_volume(*job) for job in jobs]
    rows = [
        tables.Study(i, s, (*options.size[:2], d)) for i, (s, d) in enumerate(zip(ids, depths[: len(ids)], strict=True))
    ]
    if options.strays:
        rows.append(tables.Study(len(rows), "train_9998_a_1", options.size))  # in every table, but no such file
    tables.write_tables(
        rows,
        paths.reports,
        paths.meta,
        paths.labels,
        seed=options.seed,
        bom=options.bom,
        missing_zspacing=options.missing_zspacing,
        real=len(ids),
    )
    return paths


def parse_arguments(arguments: list[str]) -> Options:
    """Read the command line."""
    default = Options(Path())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to write into: volumes/ and three CSV files")
    add("--volumes", type=int, default=default.volumes)
    add("--size", type=int, nargs=3, default=default.size, metavar=("H", "W", "D"))
    add("--fixed-size", action="store_true", help="exactly D slices each, not D ± 20 %%")
    add("--order", choices=ORDERS, default=default.order)
    add("--compression", choices=COMPRESSIONS, default=default.compression)
    add("--seed", type=int, default=default.seed)
    add("--depth", type=int, choices=(1, 2, 3), default=default.depth, help="folder levels, the file's included")
    add("--bom", action="store_true", help="begin the tables with a UTF-8 byte order mark")
    add("--missing-zspacing", type=int, default=0, metavar="K", help="leave ZSpacing empty for K volumes")
    add("--no-strays", dest="strays", action="store_false", help="every volume in every table, and nothing else")
    add("--workers", type=int, default=default.workers)
    values = vars(parser.parse_args(arguments))
    if values["volumes"] < 1 or min(values["size"]) < 1 or not 0 <= values["missing_zspacing"] <= values["volumes"]:
        parser.error("--volumes and --size must be positive, and --missing-zspacing at most --volumes")
    return Options(**{**values, "size": tuple(values["size"])})


def main() -> None:
    """Write a data set as told and say what was written."""
    options = parse_arguments(sys.argv[1:])
    paths = make_dataset(options)
    files = paths.volumes()
    size = sum(path.stat().st_size for path in files)
    print(f"{len(files)} volumes, {shown_bytes(size)} of NPZ: {' '.join(paths.flags())}")


if __name__ == "__main__":
    main()
