"""The epoch of an iteration: fixed when it begins, the same for every worker, and counted by each loader for itself.

Also run with the PyTorch of .venv-frameworks, see test_loader_frameworks.py."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ctreport_webdataset import (
    CTReportDataset,
    CTReportLoader,
    CTReportWebDataset,
    EpochSampler,
    LoaderError,
    Sample,
    collate,
)
from harness import Program
from loading import DEADLINE, ids
from make_dataset import Dataset
from small_datasets import write_dataset
from torch.utils.data import DataLoader, get_worker_info

STUDIES = [f"v{n:02d}" for n in range(16)]
TINY: dict[str, Any] = {"shape": (4, 4, 4), "spacing": (0.75, 0.75, 1.5), "seed": 3}
DELAY = 0.1  # seconds after which a worker looks at the epoch

# Workers, how they are started, and whether they are kept.
WORKERS = [
    (0, "", False),
    *itertools.product((1, 2), ("fork",), (False, True)),
    (2, "spawn", False),
    (2, "spawn", True),
]


class LateShards(CTReportWebDataset):
    """Shards whose workers begin late."""

    def __iter__(self) -> Iterator[Sample]:
        if get_worker_info():
            time.sleep(DELAY)
        return super().__iter__()


Data = LateShards | CTReportDataset


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sixteen tiny volumes."""
    volumes = {f"{study}.npz": {"data": np.zeros((4, 4, 4), np.float32)} for study in STUDIES}
    return write_dataset(tmp_path_factory.mktemp("npz"), volumes)


@pytest.fixture(scope="module")
def folder(program: Program, npz: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards, of two samples each."""
    return program.materialize(npz, tmp_path_factory.mktemp("shards"), "--samples-per-shard", 2)


@pytest.fixture(params=["shards", "npz"])
def data(request: pytest.FixtureRequest, folder: Path, npz: Dataset) -> Data:
    """Shuffled."""
    if request.param == "shards":
        return LateShards(folder, buffer_size=1, **TINY)
    return CTReportDataset(npz.folder, npz.reports, npz.meta, npz.labels, **TINY)


def order(data: Data, epoch: int) -> list[str]:
    """The studies of an epoch in their order."""
    return order_of("npz" if isinstance(data, CTReportDataset) else "shards", epoch)


def order_of(kind: str, epoch: int) -> list[str]:
    """The studies of an epoch in their order, of one rank that reads batches of two."""
    rng = np.random.default_rng([TINY["seed"], epoch])
    if kind == "npz":
        return [STUDIES[at] for at in rng.permutation(16)]
    return [STUDIES[at] for shard in rng.permutation(8) for at in (2 * shard, 2 * shard + 1)]


def options(workers: int, start: str, kept: bool) -> dict[str, Any]:
    """Of a DataLoader."""
    more = {"multiprocessing_context": start, "persistent_workers": kept, "timeout": DEADLINE} if workers else {}
    return {"num_workers": workers, **more}


def plain(data: Data, workers: int, start: str, kept: bool) -> DataLoader[Any]:
    """PyTorch's loader, as one would write it."""
    sampler = EpochSampler(data) if isinstance(data, CTReportDataset) else None
    return DataLoader(data, 2, sampler=sampler, collate_fn=collate, **options(workers, start, kept))


def both(one: Iterator[Any], two: Iterator[Any]) -> list[list[str]]:
    """What two iterations give that are read in turn."""
    pairs = list(itertools.zip_longest(one, two))
    return [[study for pair in pairs if pair[at] for study in pair[at][3]] for at in range(2)]


@pytest.mark.parametrize(("workers", "start", "kept"), WORKERS)
def test_loaders_of_one_data_set(data: Data, workers: int, start: str, kept: bool) -> None:
    """Two are read at the same time, and `set_epoch` is called right after `iter`."""
    first, second = (data.make_loader(2, **options(workers, start, kept)) for _ in range(2))
    one = iter(first)
    first.set_epoch(5)
    two = iter(second)
    second.set_epoch(7)
    assert both(one, two) == [order(data, 0), order(data, 0)]
    if start == "spawn" and not kept:
        return  # every iteration imports PyTorch for seconds
    assert [ids(first), ids(first)] == [order(data, 5), order(data, 6)]
    assert ids(second) == order(data, 7)
    one = iter(first)
    data.set_epoch(2)
    two = iter(second)
    assert both(one, two) == [order(data, 7), order(data, 2)]
    assert ids(first) == order(data, 2), "the data set's, for every loader"
    assert [ids(first), ids(second)] == [order(data, 3), order(data, 3)]


@pytest.mark.parametrize(("workers", "start", "kept"), [each for each in WORKERS[:-2] if not each[2]])
def test_iterations_of_one_loader(data: Data, workers: int, start: str, kept: bool) -> None:
    """Two at the same time are two epochs."""
    loader = data.make_loader(2, **options(workers, start, kept))
    one, two = iter(loader), iter(loader)
    assert both(one, two) == [order(data, 0), order(data, 1)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_iteration_that_is_left(data: Data, workers: int) -> None:
    """Kept workers that have not even begun it go on to the next one, all of them."""
    loader = data.make_loader(2, **options(workers, "fork", True))
    for epoch in range(3):
        iter(loader)
        loader.set_epoch(epoch + 4)
        assert ids(loader) == order(data, epoch + 4)


@pytest.mark.parametrize(("workers", "start", "kept"), WORKERS[:-1])
def test_plain_dataloaders(data: Data, workers: int, start: str, kept: bool) -> None:
    """They begin the epoch that the data set says when `iter` is called, also where it says another one right after
    that."""
    first, second = (plain(data, workers, start, kept) for _ in range(2))
    data.set_epoch(4)
    one = iter(first)
    if workers:  # else the first sample begins the epoch of NPZ files
        data.set_epoch(5)
        two = iter(second)
        assert both(one, two) == [order(data, 4), order(data, 5)]
    else:
        assert ids(one) == order(data, 4)
        data.set_epoch(5)
        assert ids(second) == order(data, 5)
    if not kept and start != "spawn":
        data.set_epoch(9)
        assert ids(first) == order(data, 9)


@pytest.mark.parametrize(("workers", "start", "kept"), [each for each in WORKERS if each[2] or not each[0]])
def test_plain_dataloaders_go_on_by_themselves(data: Data, workers: int, start: str, kept: bool) -> None:
    """Without workers, or with kept ones; the others are told by `set_epoch`, see above."""
    loader = plain(data, workers, start, kept)
    for epoch in range(2):
        assert ids(loader) == order(data, epoch)
    for epoch in range(2, 4):
        data.set_epoch(epoch)
        assert ids(loader) == order(data, epoch)
    assert ids(loader) == order(data, 4)


def test_what_cannot_reach_kept_workers_is_refused(folder: Path) -> None:
    """Those of a plain DataLoader over shards, which count by themselves; make_loader has no such limit."""
    data = CTReportWebDataset(folder, buffer_size=1, **TINY)
    loader = plain(data, 2, "fork", True)  # type: ignore[arg-type] # not a late one
    assert len(ids(loader)) == 16
    data.set_epoch(7)
    with pytest.raises(
        LoaderError, match=r"set_epoch\(7\) cannot reach .*: take data.make_loader\(...\), or persistent"
    ):
        ids(loader)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_single_samples(data: Data, workers: int) -> None:
    """`batch_size=None`: samples as the data set gives them, as many as the loader says."""
    loader = data.make_loader(None, **options(workers, "fork", bool(workers)))
    for epoch in range(2):
        samples = list(loader)
        assert len(samples) == len(loader) == 16
        for volume, text, labels, _, _ in samples:
            assert volume.shape == (1, 4, 4, 4) and isinstance(text, str) and isinstance(labels, np.ndarray)
        studies = [sample[3] for sample in samples]
        assert sorted(studies) == STUDIES
        assert workers == 2 or studies == order(data, epoch)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_lightning_calls(data: Data, workers: int) -> None:
    """`set_epoch` of the sampler, before and after `iter`; and of a loader made once more from the first one's
    attributes."""
    loader = data.make_loader(2, **options(workers, "fork", bool(workers)))
    sampler: Any = loader.sampler
    sampler.set_epoch(2)
    first = iter(loader)
    sampler.set_epoch(2)
    assert ids(first) == order(data, 2)
    sampler.set_epoch(3)
    assert ids(loader) == order(data, 3)
    first = iter(loader)
    sampler.set_epoch(5)
    assert ids(first) == order(data, 5), "after a resume `iter` is called first"
    first = iter(loader)
    rest = next(first)[3]
    sampler.set_epoch(3)
    assert rest + ids(first) == order(data, 6), "too late for this one"
    made: dict[str, Any] = {"collate_fn": collate, "num_workers": workers}
    if isinstance(data, CTReportDataset):
        made["sampler"] = sampler
    again = CTReportLoader(loader.dataset, batch_size=2, **made)
    assert len(again) == 8 and ids(again) == order(data, 3)
    sampler = again.sampler
    sampler.set_epoch(6)
    assert ids(again) == order(data, 6)


@pytest.mark.parametrize("batches", [0, 3, 8])
def test_a_saved_iteration(data: Data, batches: int) -> None:
    """As StatefulDataLoader saves and restores it: the rest of the epoch, then the next one."""
    source: Any = EpochSampler(data) if isinstance(data, CTReportDataset) else data
    source.set_epoch(3)
    running: Any = iter(source)
    for _ in range(2 * batches):
        next(running)
    state = running.state_dict()
    restored: Any = iter(EpochSampler(data)) if isinstance(data, CTReportDataset) else iter(data)
    restored.load_state_dict(state)
    rest = [STUDIES[each] if isinstance(each, int) else each[3] for each in restored]
    assert rest == order(data, 3)[2 * batches :]
    assert restored.state_dict() == {"epoch": 3, "done": 16}


def test_ranks_that_came_later(data: Data, tmp_path: Path) -> None:
    """torch.distributed was initialised after the data set: every loader refuses it, in its workers if need be."""
    data.rank, data.world_size = 0, 2  # where the group has one
    loaders: list[Any] = [data.make_loader(2, 0), data.make_loader(2, **options(2, "fork", True))]
    loaders += [plain(data, 0, "", False)]
    if not isinstance(data, CTReportDataset):  # whose sampler is in this process anyway
        loaders += [plain(data, 2, "fork", False)]
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        for loader in loaders:
            with pytest.raises(LoaderError, match="initialised after the data set was made: make it after that"):
                ids(loader)
    finally:
        torch.distributed.destroy_process_group()
