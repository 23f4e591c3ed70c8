"""A mount beside `materialize`: what is finished comes from the file, and nobody who reads notices more than the
speed."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Program, digest, needs_root, shards, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset

FLAGS = ["--samples-per-shard", "2"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six volumes of 1.5 MiB in three shards."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 6, (64, 96, 128), deflated=True)


@pytest.fixture(scope="module")
def right(program: Program, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards, finished."""
    return program.materialize(dataset, tmp_path_factory.mktemp("right"), *FLAGS)


def status(point: Path) -> dict[str, int]:
    """The mount's counters."""
    return json.loads((point / ".ctwds" / "stats.json").read_text())


def switched(point: Path) -> bool:
    """Whether every shard's name leads to its file, also for the kernel."""
    return all(shard.stat().st_ino >= 1 << 33 for shard in shards(point))


def same(point: Path, right: Path) -> bool:
    """Whether the mount shows the right bytes under the right names."""
    names = [shard.name for shard in shards(right)]
    return [shard.name for shard in shards(point)] == names and all(
        digest(point / name) == digest(right / name) for name in names
    )


def test_finished_shards_are_not_decoded(program: Program, dataset: Dataset, right: Path) -> None:
    """From the start on; as root the kernel reads them itself."""
    with program.mounted(dataset, *FLAGS, "--materialized", right) as point:
        assert switched(point) and same(point, right)
        found = status(point)
        assert found["volumes_decoded"] == 0 and found["bytes_served"] == 0
        assert found["materialized_shards"] == 3 and found["materialized_opens"] >= 3
        with (point / "shard-000001.tar").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            assert view[:] == (right / "shard-000001.tar").read_bytes()


def test_a_shard_is_used_as_soon_as_it_is_finished(
    program: Program, dataset: Dataset, right: Path, tmp_path: Path
) -> None:
    """Open files go on with what they have; the next open takes the file."""
    out = tmp_path / "out"
    with program.mounted(dataset, *FLAGS, "--materialized", out) as point:
        before = (point / "shard-000000.tar").stat()
        with (point / "shard-000000.tar").open("rb") as early:
            head = early.read(2048)
            view = mmap.mmap(early.fileno(), 0, prot=mmap.PROT_READ)
            program.materialize(dataset, out, *FLAGS)
            decoded = status(point)["volumes_decoded"]
            assert same(point, right)
            assert status(point)["volumes_decoded"] == decoded, "made again, although the files are there"
            wait_until(lambda: switched(point), "the kernel knows the files")
            assert same(point, right)
            rest = early.read()
            assert head + rest == view[:] == (right / "shard-000000.tar").read_bytes()
            view.close()
        after = (point / "shard-000000.tar").stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert after.st_ino != before.st_ino


def test_no_open_fails_while_names_switch(program: Program, dataset: Dataset, right: Path, tmp_path: Path) -> None:
    """Readers that open, read and close all the time, in every way, across the whole run."""
    out, stop, wrong = tmp_path / "out", threading.Event(), []
    wanted = {shard.name: shard.read_bytes() for shard in shards(right)}

    def read(point: Path, mapped: bool) -> None:
        while not stop.is_set():
            for name, content in wanted.items():
                try:
                    with (point / name).open("rb") as file:
                        found = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:] if mapped else file.read()
                    if found != content:
                        wrong.append(f"{name}: wrong bytes")
                except OSError as error:
                    wrong.append(f"{name}: {error}")

    with program.mounted(dataset, *FLAGS, "--materialized", out, "--page-cache", "on") as point:
        readers = [threading.Thread(target=read, args=(point, n % 2 == 0)) for n in range(6)]
        for reader in readers:
            reader.start()
        try:
            program.materialize(dataset, out, *FLAGS)
            wait_until(lambda: switched(point), "the kernel knows the files")
            time.sleep(0.3)
        finally:
            stop.set()
            for reader in readers:
                reader.join(60)
        assert wrong == [] and not any(reader.is_alive() for reader in readers)


def test_a_file_that_goes_away_is_made_on_demand_again(
    program: Program, dataset: Dataset, right: Path, tmp_path: Path
) -> None:
    """Also beside a handle that the kernel reads; one that was cut is not used."""
    out = tmp_path / "out"
    shutil.copytree(right, out)
    with program.mounted(dataset, *FLAGS, "--materialized", out) as point:
        with (point / "shard-000000.tar").open("rb") as file:
            (out / "shard-000000.tar").unlink()
            os.truncate(out / "shard-000001.tar", 10_240)
            assert same(point, right)
            assert file.read() == (right / "shard-000000.tar").read_bytes()
        assert status(point)["volumes_decoded"] > 0


def test_another_plan_is_refused(program: Program, dataset: Dataset, right: Path, tmp_path: Path) -> None:
    """Its bytes would be others."""
    point = tmp_path / "mount"
    point.mkdir()
    message = program.refuses("mount", *dataset.flags(), "--materialized", right, point)
    assert str(right) in message and "another plan" in message


def test_a_cut_record_is_no_harm(program: Program, dataset: Dataset, right: Path, tmp_path: Path) -> None:
    """Whatever of it is whole counts."""
    out = tmp_path / "out"
    shutil.copytree(right, out)
    journal = out / ".ctwds" / "journal.jsonl"
    content = journal.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        journal.write_bytes(content[:length])
        with program.mounted(dataset, *FLAGS, "--materialized", out) as point:
            assert same(point, right)


@pytest.fixture
def layered(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that lies on another one: the kernel has no passthrough for it."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    merged = tmp_path / "merged"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True, timeout=30)
    try:
        yield merged
    finally:
        subprocess.run(["umount", "--lazy", merged], check=True, timeout=30)


@needs_root
def test_without_passthrough_we_read_the_file(program: Program, dataset: Dataset, right: Path, layered: Path) -> None:
    """As it is without root."""
    out = layered / "out"
    shutil.copytree(right, out)
    for page_cache in ("on", "off"):
        with program.mounted(dataset, *FLAGS, "--materialized", out, "--page-cache", page_cache) as point:
            assert switched(point) and same(point, right) and same(point, right)
            found = status(point)
            assert found["volumes_decoded"] == 0 and found["materialized_shards"] == 3
            (out / "shard-000000.tar").unlink()
            assert same(point, right)
            assert status(point)["volumes_decoded"] > 0
            shutil.copy(right / "shard-000000.tar", out)
