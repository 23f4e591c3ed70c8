"""Shuffled views beside materialised shards: their volumes come from these files, and nobody who reads can tell."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import faulty_folder
from harness import Program, digest, needs_root, shards, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset

SAMPLES = 7
FLAGS = ("--samples-per-shard", 3)
EPOCHS = ("--shuffle-seed", 9, "--epochs", 2, "--page-cache", "off", "--threads", 2)


@pytest.fixture(scope="module", params=["ctclip", "npy"])
def profile(request: pytest.FixtureRequest) -> tuple[object, ...]:
    """In the profile `npy`, a header stands before the voxels in their member."""
    return (*FLAGS, "--format", request.param)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven volumes of 9 MiB as float16, which is enough to look at headers without the voxels; only a whole fill can
    tell where a voxel of these NPZs is."""
    return noise_dataset(tmp_path_factory.mktemp("data"), SAMPLES, (96, 128, 384), dtype="i2", order="F")


@pytest.fixture(scope="module")
def right(
    program: Program, dataset: Dataset, profile: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The plain shards, finished."""
    return program.materialize(dataset, tmp_path_factory.mktemp("right"), *profile)


@pytest.fixture(scope="module")
def wanted(program: Program, dataset: Dataset, profile: tuple[object, ...], right: Path) -> dict[str, str]:
    """The digests of the views' shards where all volumes come from the NPZs."""
    with program.mounted(dataset, *profile, *EPOCHS) as point:
        found = digests(point)
        assert stats(point)["volumes_copied"] == 0 and stats(point)["volumes_decoded"] >= SAMPLES
    return found


@pytest.fixture
def gone(dataset: Dataset) -> Iterator[Callable[[], None]]:
    """A function that takes the NPZs away until the test ends."""
    away = dataset.folder.with_name("away")

    def take() -> None:
        for path in dataset.volumes():
            away.mkdir(exist_ok=True)
            path.rename(away / path.name)

    yield take
    for path in away.glob("*.npz"):
        path.rename(dataset.folder / path.name)


def stats(point: Path) -> dict[str, int]:
    """The mount's counters."""
    return json.loads((point / ".ctwds" / "stats.json").read_text())


def views(point: Path) -> list[Path]:
    """The shards of all views."""
    return sorted((point / "epochs").glob("*/*.tar"))


def digests(point: Path) -> dict[str, str]:
    """What they hold."""
    return {str(path.relative_to(point)): digest(path) for path in views(point)}


def test_nothing_is_decoded(
    program: Program,
    dataset: Dataset,
    profile: tuple[object, ...],
    right: Path,
    wanted: dict[str, str],
    gone: Callable[[], None],
) -> None:
    """Where all shards are files, no NPZ is opened any more; they may be gone. Headers are looked at there too."""
    with program.mounted(dataset, *profile, *EPOCHS, "--materialized", right) as point:
        gone()
        for path in views(point):
            with tarfile.open(path) as tar:
                assert len(tar.getnames()) % 4 == 0
        assert stats(point)["volumes_copied"] + stats(point)["volumes_decoded"] == 0 and stats(point)["peeks"] > 0
        assert digests(point) == wanted
        found = stats(point)
        assert found["volumes_decoded"] == 0 and SAMPLES <= found["volumes_copied"] <= 2 * SAMPLES
        assert json.loads((point / ".ctwds" / "errors.json").read_text()) == []
        text = program.run("status", point).stdout
        assert re.search(rf"Decoded      0 volumes by \d threads?, {found['volumes_copied']} copied from", text)


def test_files_that_come_and_go(
    program: Program, dataset: Dataset, profile: tuple[object, ...], right: Path, wanted: dict[str, str], tmp_path: Path
) -> None:
    """Finished while mounted: used. Gone, or cut: the volumes are made from the NPZs again. Never another byte."""
    out = tmp_path / "out"
    with program.mounted(dataset, *profile, *EPOCHS, "--materialized", out, "--cache-size", "20MiB") as point:
        first = views(point)[0]
        with first.open("rb") as file:
            head = file.read(1 << 20)
            program.materialize(dataset, out, *profile)
            wait_until(lambda: all(path.stat().st_ino >= 1 << 33 for path in shards(point)), "the files are known")
            before = stats(point)
            assert digests(point) == wanted
            after = stats(point)
            assert after["volumes_decoded"] == before["volumes_decoded"]
            assert after["volumes_copied"] - before["volumes_copied"] >= SAMPLES - 2
            (out / "shard-000000.tar").unlink()
            os.truncate(out / "shard-000001.tar", 10_240)
            assert digests(point) == wanted
            assert stats(point)["volumes_decoded"] >= before["volumes_decoded"] + 6
            rest = file.read()
        assert head + rest == first.read_bytes()


@needs_root
def test_a_disk_that_fails(
    program: Program, dataset: Dataset, profile: tuple[object, ...], right: Path, wanted: dict[str, str], tmp_path: Path
) -> None:
    """A file that cannot be read, or not to its end, costs time; its volumes are made from the NPZs, and not half."""
    out = tmp_path / "out"
    shutil.copytree(right, out)
    for path in shards(out):
        path.unlink()
    with faulty_folder({path.name: path.read_bytes() for path in shards(right)}) as folder:
        for path in shards(right):
            (out / path.name).symlink_to(folder.point / path.name)
        with program.mounted(dataset, *profile, *EPOCHS, "--materialized", out, "--cache-size", "20MiB") as point:
            assert digests(point) == wanted and stats(point)["volumes_decoded"] == 0
            reads = iter(range(1 << 30))

            def fail_midway(name: str) -> None:
                if name == "shard-000001.tar" and next(reads) == 30:
                    folder.faults["read", name] = errno.EIO

            folder.on_read = fail_midway
            folder.faults["read", "shard-000000.tar"] = errno.EIO
            assert digests(point) == wanted
            found = stats(point)
            assert found["volumes_decoded"] >= 6 and found["volumes_failed"] == 0
            for path in views(point):
                with tarfile.open(path) as tar:  # also where only headers are looked at
                    assert len(tar.getnames()) % 4 == 0
            folder.faults.clear()
            log = (point.parent / "log").read_text()
            assert log.count("the volume is made from its source instead") == 6  # once a volume
