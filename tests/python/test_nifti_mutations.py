"""NIfTI files damaged at random in header, extensions, gzip stream and trailer: what comes of each is what nibabel
reads of it, an error, or a sample that is left out with its reason; never other voxels."""

from __future__ import annotations

import csv
import gzip
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctreport_webdataset import ArrayChoice, LoaderError, read_volume
from harness import Program
from kinds import samples
from make_dataset import Dataset
from niftis import Nifti, bare, gzip_member, load, write_niftis, written
from test_mutations import check

COUNT = 640
FLAGS = ("--overflow", "inf", "--on-error", "skip", "--samples-per-shard", 50)
WAYS = ("flip", "byte", "zero", "cut", "truncate", "double", "swap")


def sound(number: int, rng: np.random.Generator) -> tuple[str, bytes]:
    """A file of one of several sorts, as its suffix says."""
    values = rng.integers(-500, 500, (9, 10, 12))  # more than nibabel tells formats by
    sort = number % 8
    dtype = ("i2", "f4", "i2", "f8", "i2", "u1", "i4", "i8")[sort]
    file = written(values, dtype, "<>"[sort == 2], 2 if sort in (3, 6) else 1, b"comment" * 3 if sort % 2 else None)
    if sort in (0, 5):
        file = file.scaled(0.5, -3)
    if sort in (1, 3):
        return ".nii", file.content
    if sort == 4:
        half = len(file.content) // 2
        parts = file.content[:half], file.content[half:]
        return ".nii.gz", b"".join(gzip_member(part, b"v.nii", b"about it") for part in parts) + bytes(20)
    return ".nii.gz", gzip_member(file.content, b"v.nii" if sort == 6 else b"")


def damage(content: bytes, rng: random.Random, ways: tuple[str, ...] = WAYS) -> tuple[bytes, str]:
    """Change a region of a file in one of several ways; and what was done, for the message."""
    changed, end = bytearray(content), len(content)
    regions = {"begin": (0, 24), "header": (0, min(end, 380)), "rest": (24, end), "trailer": (end - 12, end)}
    region = rng.choice(sorted(regions))
    start = rng.randrange(*regions[region])
    stop = min(start + rng.choice([1, 2, 4, 8, 60]), end)
    way = rng.choice(ways)
    if way == "flip":
        changed[start] ^= 1 << rng.randrange(8)
    elif way == "byte":
        changed[start] = rng.choice([0, 1, 2, 3, 4, 127, 128, 255])
    elif way == "zero":
        changed[start:stop] = bytes(stop - start)
    elif way == "cut":
        del changed[start:stop]
    elif way == "truncate":
        del changed[start:]
    elif way == "double":
        changed[stop:stop] = changed[start:stop]
    else:
        changed[start:stop] = changed[start:stop][::-1]
    return bytes(changed), f"{way} in {region}, {start} to {stop}"


def damaged(number: int, content: bytes, suffix: str, rng: random.Random) -> tuple[bytes, str]:
    """A damaged file; of packed ones every other is damaged before it is packed, so that all sums are right."""
    if suffix == ".nii.gz" and number % 16 < 8:
        inner, what = damage(gzip.decompress(content), rng)
        return gzip.compress(inner, 1), f"inside: {what}"
    return damage(content, rng)


def judged(path: Path) -> Any:
    """What nibabel reads; if it fails, what it reads of the file without extensions; else none."""
    try:
        return load(path)
    except Exception:  # of many kinds
        pass
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
        size = 540 if content[344:348] not in (b"n+1\0", b"ni1\0") else 348
        other = path.parent.parent / "judged.nii"
        other.write_bytes(content[:size] + bytes(4) + content[size + 4 :])
        return load(other)
    except Exception:
        return None


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, dict[str, str]]:
    """Damaged files; and what was done to each study."""
    rng, random_, files, done = np.random.default_rng(3), random.Random(9), {}, {}
    for number in range(COUNT):
        suffix, content = sound(number, rng)
        files[f"v{number:03d}{suffix}"], done[f"v{number:03d}"] = damaged(number, content, suffix, random_)
    return write_niftis(tmp_path_factory.mktemp("mutated") / "data", files), done


def same_bits(one: Any, other: Any) -> bool:
    """The same float16, where every NaN is the same."""
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)


def test_damaged_before_planning(
    program: Program, via: str, mutated: tuple[Dataset, dict[str, str]], tmp_path: Path
) -> None:
    """The voxels are nibabel's, or the study is in the list of those that cannot be made; `verify` finds no fault."""
    dataset, done = mutated
    listed = tmp_path / "list.csv"
    program.run("verify", "--sources", *dataset.flags(), "--overflow", "inf", "--quarantine", listed, check=False)
    with listed.open(newline="") as file:
        reasons = {row["study_id"]: row["reason"] for row in csv.DictReader(file)}
    flags = FLAGS if via == "materialize" else ("--overflow", "inf", "--exclude", listed)
    with program.produced(via, dataset, tmp_path / "made", *flags) as made:
        found = samples(made)
    counts: Counter[str] = Counter()
    for path in sorted(dataset.folder.iterdir()):
        study, right = bare(path), judged(path)
        what = f"{path.name}: {done[study]}"
        if study in found:
            assert right is not None, f"nibabel cannot read it: {what}"
            with np.errstate(over="ignore"):
                half = right.astype(np.float16)
            volume = found[study]["volume"]
            assert same_bits(volume, half.reshape(volume.shape)) and half.squeeze().shape == volume.squeeze().shape, (
                what
            )
            counts["read"] += 1
        else:
            assert reasons.get(study), f"left out without a reason: {what}"
            counts["refused by both" if right is None else "refused"] += 1
    assert counts["read"] > COUNT / 6 and counts["refused by both"] > COUNT / 6, counts
    assert counts["refused"] < COUNT / 3, counts


def test_the_loader_reads_what_the_shards_hold(
    program: Program, mutated: tuple[Dataset, dict[str, str]], tmp_path: Path
) -> None:
    """Or refuses it as the program does; but for what Python's `gzip` passes over: flags that nobody defined, and what
    stands behind the last member."""
    dataset, done = mutated
    found = samples(program.materialize(dataset, tmp_path / "made", *FLAGS))
    for path in sorted(dataset.folder.iterdir()):
        study = bare(path)
        try:
            with np.errstate(over="ignore"):
                volume = read_volume(str(path), ArrayChoice(), None)[1].astype(np.float16)
        except LoaderError:
            assert study not in found, f"{path.name}: {done[study]}"
            continue
        right = found[study]["volume"] if study in found else volume
        is_known = study in found or same_bits(judged(path).astype(np.float16).reshape(volume.shape), volume)
        assert is_known and same_bits(right, volume), f"{path.name}: {done[study]}"


def test_damaged_after_planning(program: Program, tmp_path: Path) -> None:
    """Bits that rot, or files that are exchanged, while the mount is there and no size or modification time tells it:
    the planned bytes, or an error."""
    rng, random_ = np.random.default_rng(5), random.Random(6)
    files: dict[str, Nifti | bytes] = {}
    for number in range(96):
        suffix, content = sound(number, rng)
        files[f"v{number:03d}{suffix}"] = content
    dataset = write_niftis(tmp_path / "data", files)
    flags = ("--samples-per-shard", 1)
    right = program.materialize(dataset, tmp_path / "right", *flags)
    with program.mounted(dataset, *flags) as point:
        done = []
        for path in sorted(dataset.folder.iterdir()):
            before = path.stat()
            content, what = damage(path.read_bytes(), random_, ("flip", "byte", "zero", "swap"))
            path.write_bytes(content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            done.append(f"{path.name}: {what}")
        counts = check(point, right, done)
        assert sum(counts.values()) == len(files) and counts["error"] >= 40 and counts["empty"] == 0, counts
        assert check(point, right, done) == counts
