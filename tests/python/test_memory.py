"""Memory beside the volumes: planes and their transposition count against `--cache-size`, or the mount is refused."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from harness import Program, daemon_of, digest, mount_folder, shards
from make_dataset import Dataset
from niftis import write_niftis, written
from small_datasets import write_dataset

MIB = 1 << 20
DECODER = 32 * MIB  # what a decoder may take whatever the limit is
PROGRAM = 64 * MIB  # code, tables and replies under way


def large_planes(folder: Path, order: Literal["C", "F"], shape: tuple[int, int, int]) -> Dataset:
    """Two volumes of zeros, which are few bytes on disk."""
    volume = {"data": np.zeros(shape, "i2", order=order)}
    return write_dataset(folder, {"a.npz": volume, "b.npz": volume}, writer="numpy", deflated=True)


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


@pytest.mark.parametrize(
    ("order", "shape", "flags"),
    [
        ("F", (8192, 4096, 2), ()),  # a plane is collected to be transposed
        # Of each plane, 8192 rows become 64.
        ("C", (2, 8192, 4096), ("--volume", "preprocessed", "--spacing", "0.75,96,1.5", "--shape", "1,64,4096")),
        ("F", (4096, 8192, 2), ("--volume", "preprocessed", "--spacing", "0.75,96,1.5", "--shape", "4096,64,2")),
    ],
)
def test_large_planes(
    program: Program, tmp_path: Path, order: Literal["C", "F"], shape: tuple[int, int, int], flags: tuple[str, ...]
) -> None:
    """With a limit that has no room for them the mount is refused, with the limit that has; with that, one volume is
    made at a time, and the process stays within limit, volume and 32 MiB a decoder."""
    dataset = large_planes(tmp_path / "data", order, shape)
    arguments = [*dataset.flags(), *flags, "--samples-per-shard", 1, "--threads", 2]
    with mount_folder() as base:
        point, log = base / "mount", ("--log-file", base / "log")
        said = program.refuses("mount", *arguments, "--cache-size", "64KiB", *log, point)
        assert "--cache-size" in said and "b.npz" in said, said
        limit = int(said.split("raise it to ")[1].split()[0])
        assert f"raise it to {limit} or more" in program.refuses(
            "mount", *arguments, "--cache-size", limit - 1, *log, point
        )
        program.run("mount", *arguments, "--cache-size", limit, *log, point)
        pid, volume = daemon_of(point), shards(point)[0].stat().st_size
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(digest, shards(point)))
        most = peak(pid)
        program.run("unmount", point)
    assert len(found) == 2 and most > limit, "the volumes were not made, or their planes are not what is large"
    assert most <= limit + volume + 2 * DECODER + PROGRAM, f"{most / MIB} MiB with a limit of {limit / MIB} MiB"


READERS = 8
SHAPE = (256, 256, 128)
VOLUME = 2 * 256 * 256 * 128  # bytes of it as float16


@pytest.mark.parametrize("source", ["npz C", "npz F", "nii", "nii.gz", "nii.gz scaled", "nii.gz turned"])
def test_eight_readers(program: Program, tmp_path: Path, source: str) -> None:
    """With room for four volumes, eight readers of eight keep the process within one bound, whatever the sources are:
    limit, and 32 MiB a decoder."""
    values = (np.arange(np.prod(SHAPE)) % 251).astype("i2").reshape(SHAPE)
    flags = ("--orientation", "SPL") if source.endswith("turned") else ()
    if source.startswith("npz"):
        order: Literal["C", "F"] = "F" if source.endswith("F") else "C"
        arrays = {"data": np.asarray(values, np.float32, order=order)}
        files = {f"v{at}.npz": arrays for at in range(READERS)}
        dataset = write_dataset(tmp_path / "data", files, writer="numpy", deflated=True)
    else:
        file = written(values, "i2")
        file = file.scaled(0.5, -3) if source.endswith("scaled") else file
        suffix = source.split()[0]
        content = gzip.compress(file.content, 1) if suffix == "nii.gz" else file.content
        dataset = write_niftis(tmp_path / "data", {f"v{at}.{suffix}": content for at in range(READERS)})
    limit, decoders = 4 * VOLUME, 2
    with program.mounted(
        dataset, "--samples-per-shard", 1, "--threads", decoders, "--cache-size", limit, *flags
    ) as point:
        pid = daemon_of(point)
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(digest, shards(point)))
        most = peak(pid)
    assert len(found) == READERS and most > VOLUME, "nothing was made"
    bound = limit + decoders * DECODER + PROGRAM
    assert most <= bound, f"{most / MIB:.0f} MiB, and the bound is {bound / MIB:.0f} MiB"
