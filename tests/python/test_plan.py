"""The plan's digest: the same wherever and whenever it is made, another one for everything that changes a byte."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from harness import Program
from make_dataset import Dataset, dataset_at
from small_datasets import noise_dataset


def digest(program: Program, dataset: Dataset, *flags: object) -> str:
    """What `plan` prints."""
    return json.loads(program.run("plan", *dataset.flags(), "--json", *flags).stdout)["plan_digest"]


def copied(dataset: Dataset, out: Path) -> Dataset:
    """The same data set at another place, with other times and inodes."""
    shutil.copytree(dataset.folder.parent, out, copy_function=shutil.copyfile)
    for path in out.rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000))
    return dataset_at(out)


def test_place_time_and_threads_do_not_count(program: Program, tmp_path: Path) -> None:
    """Two machines with the same inputs have the same digest."""
    dataset = noise_dataset(tmp_path / "one", 3, (4, 5, 6))
    assert digest(program, copied(dataset, tmp_path / "two")) == digest(program, dataset)


@pytest.mark.parametrize(
    "flags", ["--samples-per-shard=2", "--limit=2", "--format=npy", "--overflow=inf"], ids=lambda flag: flag
)
def test_options_that_change_bytes_count(program: Program, tmp_path: Path, flags: str) -> None:
    """Each gives a plan of its own."""
    dataset = noise_dataset(tmp_path, 3, (4, 5, 6))
    assert digest(program, dataset, flags) != digest(program, dataset)


@pytest.mark.parametrize("table", ["reports", "meta", "labels"])
def test_table_values_count(program: Program, tmp_path: Path, table: str) -> None:
    """One changed value is another plan."""
    dataset = noise_dataset(tmp_path, 3, (4, 5, 6))
    before = digest(program, dataset)
    path: Path = getattr(dataset, table)
    old, new = {"reports": ("findings", "Findings"), "meta": ("-1024", "-8192"), "labels": (",0.1,", ",0.2,")}[table]
    head, body = path.read_text().split("\n", 1)
    assert old in body
    path.write_text(head + "\n" + body.replace(old, new, 1))
    assert digest(program, dataset) != before


def test_voxels_count(program: Program, tmp_path: Path) -> None:
    """Other voxels in a file of the same name and size are another plan."""
    one, two = (noise_dataset(tmp_path / name, 3, (4, 5, 6)) for name in ("one", "two"))
    assert digest(program, one) == digest(program, two)
    shutil.copyfile(two.folder / "v01.npz", two.folder / "v02.npz")
    assert digest(program, one) != digest(program, two)
