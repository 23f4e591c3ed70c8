"""Volumes damaged at random, through a real mount and by `materialize`: the right bytes, an error, or left out; the
Rust test of the same name does it two thousand times without a mount."""

from __future__ import annotations

import errno
import os
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Program, digest, shards
from make_dataset import Dataset
from numpy.typing import NDArray
from small_datasets import write_dataset, write_plain_tables

VOLUMES = 64
FLAGS = ("--samples-per-shard", 1)


def damage(path: Path, rng: random.Random, in_place: bool) -> str:
    """Change a region of the file in one of several ways; what was done, for the message. `in_place` keeps size and
    time, as a failing disk does."""
    before, content = path.stat(), bytearray(path.read_bytes())
    end = len(content)
    regions = {"end": (end - 22, end), "directory": (end - 80, end - 22), "header": (0, 170), "data": (170, end // 2)}
    region = rng.choice([*sorted(regions), "data", "data"])  # the half that is planned to be read
    start = rng.randrange(*regions[region])
    stop = min(start + rng.choice([1, 4, 60]), regions[region][1])
    way = rng.choice(["flip", "zero"] if in_place else ["flip", "zero", "cut", "truncate", "double"])
    if way == "flip":
        content[start] ^= 1 << rng.randrange(8)
    elif way == "zero":
        content[start:stop] = bytes(stop - start)
    elif way == "cut":
        del content[start:stop]
    elif way == "truncate":
        del content[start:]
    else:
        content[stop:stop] = content[start:stop]
    path.write_bytes(content)
    if in_place:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"{path.name}: {way} in {region}, {start} to {stop}"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Volumes of every order and compression, of two arrays each, so that the wrong one could be taken."""
    rng = np.random.default_rng(1)

    def volume(number: int) -> dict[str, NDArray[Any]]:
        values = rng.integers(-1000, 1000, (9, 10, 11)).astype("i2" if number % 2 else "f4")
        return {"data": np.asfortranarray(values) if number % 3 == 0 else values, "arr_0": values + 1}

    sound = write_dataset(tmp_path, {f"v{n:02d}.npz": volume(n) for n in range(0, VOLUMES, 2)}, writer="numpy")
    packed = {f"v{n:02d}.npz": volume(n) for n in range(1, VOLUMES, 2)}
    for name, arrays in packed.items():
        np.savez_compressed(sound.folder / name, **arrays)
    write_plain_tables(sound, sorted(path.stem for path in sound.volumes()))
    return sound


def check(folder: Path, right: Path, done: list[str]) -> dict[str, int]:
    """Every shard of the folder has the right bytes, no sample, or cannot be read; how many there are of each."""
    counts = {"right": 0, "empty": 0, "error": 0}
    for path in shards(folder):
        try:
            content = path.read_bytes()
        except OSError as error:
            assert error.errno in (errno.EIO, errno.ESTALE), f"{done[int(path.stem[-6:])]}: {error}"
            counts["error"] += 1
            continue
        if content == (right / path.name).read_bytes():
            counts["right"] += 1
        else:
            with tarfile.open(path) as tar:
                assert tar.getnames() == [], f"wrong bytes: {done[int(path.stem[-6:])]}"
            counts["empty"] += 1
    return counts


def test_planned_before_the_damage(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """Bits that rot while the mount is there, which no time stamp tells."""
    right = program.materialize(dataset, tmp_path / "right", *FLAGS)
    rng = random.Random(2)
    with program.mounted(dataset, *FLAGS) as point:
        done = [damage(path, rng, in_place=True) for path in sorted(dataset.volumes())]
        counts = check(point, right, done)
        assert sum(counts.values()) == VOLUMES and counts["error"] >= 10 and counts["empty"] == 0, counts
        assert check(point, right, done) == counts, "the second look sees what the first one saw"


def test_planned_after_the_damage(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """By a mount and by `materialize`, which agree; and nothing panicked."""
    right = program.materialize(dataset, tmp_path / "right", *FLAGS)
    rng = random.Random(3)
    done = [damage(path, rng, in_place=False) for path in sorted(dataset.volumes())]
    with program.mounted(dataset, *FLAGS) as point:
        counts = check(point, right, done)
        readable = {path.name: digest(path) for path in shards(point) if can_be_read(path)}
        assert "panicked" not in (point.parent / "log").read_text()
    made = program.run("materialize", *dataset.flags(), *FLAGS, "--output-dir", tmp_path / "out", check=False)
    assert made.returncode == (1 if counts["error"] else 0) and "panicked" not in made.stderr, made.stderr
    assert {path.name: digest(path) for path in shards(tmp_path / "out")} == readable
    assert VOLUMES - sum(counts.values()) + counts["empty"] >= 10, f"none was left out: {counts}"


def can_be_read(path: Path) -> bool:
    """Whether it gives no error."""
    try:
        path.read_bytes()
    except OSError:
        return False
    return True
