"""Epochs of a data set as large as CT-RATE's training set: they are there at once, and take next to no memory."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import Program, daemon_of, shards
from make_dataset import Dataset, dataset_at
from npzfiles import write_npz
from small_datasets import write_plain_tables

pytestmark = pytest.mark.alone  # times and memory
SAMPLES = 47_149
SHARDS = 472
EPOCHS = 10


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Studies that are all one file: what is in it does not count here."""
    dataset = dataset_at(tmp_path_factory.mktemp("large"))
    names = [f"train_{n}_a_1" for n in range(SAMPLES)]
    first = dataset.folder / f"{names[0]}.npz"
    write_npz(first, {"data": np.zeros((2, 2, 2), np.float32)}, writer="numpy", deflated=False)
    for name in names[1:]:
        os.link(first, dataset.folder / f"{name}.npz")
    write_plain_tables(dataset, names)
    return dataset


@pytest.fixture(scope="module")
def point(program: Program, large: Dataset) -> Iterator[Path]:
    """A mount with ten epochs, started from a saved plan, so that its memory is that of the mount and not of the
    scan."""
    program.run("plan", *large.flags())
    with program.mounted(large, "--shuffle-seed", 1) as point:
        yield point


def memory(point: Path) -> int:
    """KiB of the mount's process."""
    status = Path(f"/proc/{daemon_of(point)}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])


def test_all_epochs_are_listed_and_laid_out(point: Path) -> None:
    """In 0.2 s and 6 MB. With 480 bytes a sample, as extents once took, ten epochs would have needed 225."""
    before, begun = memory(point), time.monotonic()
    folders = sorted((point / "epochs").iterdir())
    listings = [[path.name for path in shards(folder)] for folder in folders]
    listed = time.monotonic() - begun
    assert len(folders) == EPOCHS and all(len(names) == SHARDS for names in listings)
    assert listed < 1, f"listing took {listed:.2f} s"
    sizes = {sum(path.stat().st_size for path in shards(folder)) for folder in folders}
    laid_out = time.monotonic() - begun
    assert laid_out < 5, f"listing and stat of {EPOCHS * SHARDS} shards took {laid_out:.2f} s"
    assert len(sizes) == 1, "the same samples"
    grown = memory(point) - before
    assert grown < 16 << 10, f"{grown} KiB"


def test_every_epoch_is_a_permutation(point: Path) -> None:
    """Its manifest names each sample once, and no two have the same order."""
    orders = []
    for epoch in range(EPOCHS):
        manifest = json.loads((point / "epochs" / f"{epoch:06d}" / "manifest.json").read_text())
        keys = [sample["key"] for shard in manifest["shards"] for sample in shard["samples"]]
        assert len(keys) == len(set(keys)) == SAMPLES
        assert [shard["sample_count"] for shard in manifest["shards"]] == [100] * (SHARDS - 1) + [49]
        orders.append(keys)
    assert len(set(map(tuple, orders))) == EPOCHS and all(sorted(keys) == sorted(orders[0]) for keys in orders)


def test_other_readers_indexes(point: Path) -> None:
    """Of an epoch, all 945 are made in a second; and manifests and indexes of all epochs leave little behind."""
    folder = point / "epochs" / "000003"
    begun = time.monotonic()
    assert sum(len(path.read_bytes()) > 0 for path in folder.glob("*.idx")) == 2 * SHARDS
    assert (
        sum(shard["nsamples"] for shard in json.loads((folder / "shardindex.json").read_text())["shardlist"]) == SAMPLES
    )
    taken = time.monotonic() - begun
    assert taken < 5, f"{taken:.2f} s"
    for epoch in (point / "epochs").iterdir():
        assert (epoch / "manifest.json").stat().st_size > SAMPLES * 100
    assert memory(point) < 200 << 10
