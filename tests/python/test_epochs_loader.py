"""The loader over the epochs of a mount: `set_epoch` moves to the next view, in its order, without a buffer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctreport_webdataset import CTReportWebDataset, create_loader_from_config
from harness import READER_OPTIONS, Program, shards
from loading import DEADLINE, SMALL, Samples, assert_same, collected, from_shards, ids, unbatched
from make_dataset import Dataset
from test_loader_training import run_two
from torch.utils.data import get_worker_info

EPOCHS = 3
SAMPLES = 13


@pytest.fixture(scope="module")
def point(program: Program, dataset: Dataset) -> Iterator[Path]:
    """A mount with three epochs of four shards."""
    with program.mounted(dataset, *READER_OPTIONS.flags(), "--shuffle-seed", 11, "--epochs", EPOCHS) as point:
        yield point


@pytest.fixture(scope="module")
def plain(files: Path) -> Samples:
    """The samples from the files."""
    return collected(from_shards(files))


def listed(point: Path, epoch: int) -> list[list[str]]:
    """The studies of a view by shard, as its manifest lists them."""
    manifest = json.loads((point / "epochs" / f"{epoch:06d}" / "manifest.json").read_text())
    return [[sample["study_id"] for sample in shard["samples"]] for shard in manifest["shards"]]


class Noting(CTReportWebDataset):
    """Says in each sample's text which worker process made it, and how many samples that process has made by then."""

    made = 0

    def __iter__(self) -> Iterator[Any]:
        for volume, _, labels, study, embedding in super().__iter__():
            self.made += 1
            info = get_worker_info()
            yield volume, f"{info.id if info else 0} {self.made}", labels, study, embedding


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_set_epoch_under_persistent_workers(point: Path, start: str) -> None:
    """Each epoch is its view, shards dealt to workers, each shard in its order; by the same two processes all along."""
    data = Noting(point, **SMALL)
    assert data.buffer_size == 1
    loader = data.make_loader(1, 2, multiprocessing_context=start, timeout=DEADLINE)
    last = [0, 0]
    for epoch in (0, 1, 2, 1):
        loader.set_epoch(epoch)
        seen: list[list[str]] = [[], []]
        for _, (text,), _, (study,), _ in loader:
            worker, made = map(int, text.split())
            assert made > last[worker], "another process"
            last[worker] = made
            seen[worker].append(study)
        dealt = listed(point, epoch)
        assert seen == [[study for shard in dealt[worker::2] for study in shard] for worker in range(2)]
    assert sum(last) == 4 * SAMPLES
    del loader  # ends the workers, which would keep the mount busy


def test_epochs_go_on_by_themselves(point: Path, plain: Samples) -> None:
    """One view after the other, without a decode too many; beyond the last the first again, its shards in another
    order."""
    loader = from_shards(point / "shard-{000000..000003}.tar", shuffle=True).make_loader(2, 0)
    orders = [[study for shard in listed(point, epoch) for study in shard] for epoch in range(EPOCHS)]
    assert len({tuple(order) for order in orders}) == EPOCHS
    for epoch in range(EPOCHS):
        batches = list(loader)
        assert ids(batches) == orders[epoch] and len(batches) == len(loader) == 7
        assert_same(collected(unbatched(batches)), plain)
    again = ids(loader)
    assert sorted(again) == sorted(orders[0]) and again != orders[0]
    loader.set_epoch(2)
    assert ids(loader) == orders[2]


def test_each_epoch_reads_each_volume_once(program: Program, dataset: Dataset, plain: Samples) -> None:
    """Where the cache keeps no volume for the next epoch, as with 47,000 of them. Neither the views' lengths nor the
    loader's look at them cost a decode."""
    flags = ("--shuffle-seed", 4, "--page-cache", "off", "--cache-size", "1", "--read-ahead", 0)
    with program.mounted(dataset, *READER_OPTIONS.flags(), *flags) as point:
        loader = from_shards(point, shuffle=True).make_loader(1, 2, timeout=DEADLINE)
        for number in range(1, 4):
            assert_same(collected(unbatched(loader)), plain)
            decoded = json.loads((point / ".ctwds" / "stats.json").read_text())["volumes_decoded"]
            assert decoded == number * SAMPLES
        del loader


@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks(point: Path, plain: Samples, workers: int) -> None:
    """They see every sample of an epoch exactly once, and the next epoch deals them anew."""
    firsts = []
    ranks = [from_shards(point, shuffle=True, rank=rank, world_size=2, uneven="keep") for rank in range(2)]
    loaders = [data.make_loader(1, workers) for data in ranks]
    for epoch in range(EPOCHS):
        for loader in loaders:
            loader.set_epoch(epoch)
        seen = [ids(loader) for loader in loaders]
        assert sorted(seen[0] + seen[1]) == sorted(plain)
        firsts.append(frozenset(seen[0]))
    assert len(set(firsts)) == EPOCHS
    del loaders


def test_two_processes(program: Program, dataset: Dataset, plain: Samples) -> None:
    """Of gloo, over the views of a mount of seven shards: every sample once, in each epoch in the view's order; or
    padded, as many batches for both."""
    with program.mounted(dataset, "--samples-per-shard", 2, "--shuffle-seed", 11, "--epochs", 2) as point:
        common = {"batch": 1, "shuffle": True}
        keep = common | {"workers": 0, "uneven": "keep", "collective": False}
        once, padded = run_two(str(point), [keep, common | {"workers": 2, "uneven": "pad"}])
        for epoch in range(2):
            for rank in range(2):
                dealt = listed(point, epoch)[rank::2]
                assert once[rank][epoch] == [[study] for shard in dealt for study in shard]
            assert sorted(study for rank in once for (study,) in rank[epoch]) == sorted(plain)
            assert {study for rank in padded for (study,) in rank[epoch]} == set(plain)
            assert len(padded[0][epoch]) == len(padded[1][epoch])


def test_from_the_configuration(point: Path) -> None:
    """The configuration names the mount; its shuffled training takes the views."""
    config = {"data": {"webdataset_shards_train": f"{point}/shard-{{000000..000003}}.tar", "num_workers": 0, **SMALL}}
    loader = create_loader_from_config(config, "train")
    loader.set_epoch(1)
    assert ids(loader) == [study for shard in listed(point, 1) for study in shard]


def test_views_of_smaller_shards(program: Program, dataset: Dataset, plain: Samples, files: Path) -> None:
    """A remount with smaller shards, which converts nothing, serves more workers; its views have fewer gaps than the
    plain shards: one of those lacks a sample that was left out."""
    assert len(shards(files)) == 4
    with program.mounted(dataset, "--samples-per-shard", 2, "--shuffle-seed", 11, "--epochs", 1) as point:
        loader = from_shards(point, shuffle=True).make_loader(1, 4, timeout=DEADLINE)
        assert [len(shard) for shard in listed(point, 0)] == [2] * 6 + [1]
        assert_same(collected(unbatched(loader)), plain)
        del loader
