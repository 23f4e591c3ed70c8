"""What the states of loaders of make_loader say when epochs are chosen, ranks end early, or errors were caught; and of
which shards they are."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctreport_webdataset import CTReportDataset, CTReportWebDataset, LoaderError
from harness import Program
from loading import DEADLINE
from make_dataset import Dataset
from small_datasets import write_dataset
from test_loader_resume import (
    STUDIES,
    TINY,
    Reading,
    folder,
    in_order,
    npz,
    place,
    point,
    resumed,
    steps_of,
    stopped,
)

__all__ = ["folder", "npz", "place", "point"]  # fixtures


@pytest.mark.parametrize("workers", [0, 1])
def test_ranks_with_fewer_batches(npz: Dataset, program: Program, tmp_path: Path, workers: int) -> None:
    """With "keep" their states are those of the ranks with more behind as many batches, and of the next epoch when the
    iteration has ended."""
    folder = program.materialize(npz, tmp_path / "shards", "--samples-per-shard", 6)
    loaders = Reading(4, workers, 1).loaders(folder)
    states = [[loader.state_dict() for _ in loader] for loader in loaders]
    assert [len(mine) for mine in states] == [6, 6, 6, 5]
    assert states[0][:5] == states[3] and states[0] == states[1] == states[2]
    assert [(state["epoch"], state["consumed"]) for state in states[0]] == [(0, 4 * n) for n in range(1, 6)] + [(1, 0)]
    assert all(loader.state_dict() == states[0][5] for loader in loaders)
    loaders = resumed(folder, Reading(4, workers, 1), states[3][4])
    assert list(map(len, steps_of(loaders))) == [1, 1, 1, 0]
    assert all(loader.state_dict() == states[0][5] for loader in loaders)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_that_was_caught(folder: Path, tmp_path: Path, workers: int) -> None:
    """What goes on behind it is not in order: the state stays before it, and the batch with the error comes again."""
    shutil.copytree(folder, tmp_path / "copy")
    good, damaged = folder / "shard-000004.tar", tmp_path / "copy" / "shard-000004.tar"
    damaged.write_bytes(b"damaged " * 64 + good.read_bytes()[512:])
    how = Reading(1, workers, 2)
    (whole_epoch,) = steps_of(how.loaders(folder))
    (loader,) = how.loaders(tmp_path / "copy")
    iterator, found, errors = iter(loader), list[Any](), 0
    while True:
        try:
            found.append(next(iterator)[3])
        except LoaderError:
            errors += 1
            before = len(found)
        except StopIteration:
            break
    assert errors == 1 and found[:before] == whole_epoch[:before] and (len(found) > before) == bool(workers)
    state = loader.state_dict()
    assert (state["epoch"], state["batches"], state["consumed"]) == (0, before, 2 * before)
    damaged.write_bytes(good.read_bytes())
    assert steps_of(resumed(tmp_path / "copy", how, state)) == [whole_epoch[before:]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("of_data", [False, True])
def test_the_next_epoch_is_chosen_within_an_iteration(place: Path, workers: int, of_data: bool) -> None:
    """It changes nothing of this one, nor of its states; behind its last batch a state is of the chosen one."""
    how = Reading(1, workers, 2)
    options: dict[str, Any] = {"multiprocessing_context": "fork", "timeout": DEADLINE} if workers else {}
    data = CTReportWebDataset(place, (place / "epochs").is_dir(), seed=3, **TINY)
    loader = data.make_loader(2, workers, **options)
    (whole_epoch,) = steps_of([loader])
    loader.set_epoch(0)
    iterator = iter(loader)
    next(iterator), next(iterator)
    (data if of_data else loader).set_epoch(5)
    assert (loader.state_dict()["epoch"], loader.state_dict()["consumed"]) == (5, 0)
    next(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"], state["batches"]) == (0, 6, 3)
    assert steps_of(resumed(place, how, state)) == [whole_epoch[3:]]
    assert [batch[3] for batch in iterator] == whole_epoch[3:]
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (5, 0)
    assert steps_of(resumed(place, how, state)) == steps_of([loader])
    assert loader.state_dict()["epoch"] == 6


def test_a_start_is_of_its_iteration_alone(place: Path) -> None:
    """Whoever reads the loader's data set without it gets a whole epoch."""
    how = Reading(1, 0, 2)
    _, state = stopped(place, how, 0, 3)
    (loader,) = resumed(place, how, state)
    assert len(next(iter(loader))[3]) == 2
    assert sorted(sample[3] for sample in loader.dataset) == STUDIES
    assert sorted(in_order(steps_of([loader]))) == STUDIES


def test_another_view_or_order_of_folders_is_refused(
    program: Program, npz: Dataset, point: Path, tmp_path: Path
) -> None:
    """Of shards that have the same names and as many samples."""
    one = program.materialize(npz, tmp_path / "one", "--samples-per-shard", 2)
    volumes = {f"{study}.npz": {"data": np.ones((4, 4, 4), np.float32)} for study in STUDIES}
    other_npz = write_dataset(tmp_path / "npz", volumes)
    two = program.materialize(other_npz, tmp_path / "two", "--samples-per-shard", 2)
    both: list[tuple[Any, Any]] = [
        (point / "epochs" / "000000", point / "epochs" / "000001"),
        ([one, two], [two, one]),
    ]
    for read, other in both:
        loader = CTReportWebDataset(read, False, **TINY).make_loader(2, 0)
        next(iter(loader))
        state = loader.state_dict()
        CTReportWebDataset(read, False, **TINY).make_loader(2, 0).load_state_dict(state)
        with pytest.raises(LoaderError, match="the state is of another choice or order of shards"):
            CTReportWebDataset(other, False, **TINY).make_loader(2, 0).load_state_dict(state)


@pytest.mark.parametrize("kind", ["buffer", "files", "no length"])
def test_lightning_without_an_order(npz: Dataset, folder: Path, tmp_path: Path, kind: str) -> None:
    """Lightning warns only of loaders that have no `state_dict`: so the state of one that has no order does it, but not
    at an epoch's ends, where nothing is wrong."""

    def make() -> Any:
        if kind == "files":
            files = CTReportDataset(npz.folder, npz.reports, npz.meta, npz.labels, **TINY)
            return files.make_loader(4, 0)
        return CTReportWebDataset(tmp_path if kind == "no length" else folder, **TINY).make_loader(4, 0)

    for path in folder.glob("*.tar"):
        shutil.copy(path, tmp_path)
    loader = make()
    assert loader._only_warns("why") == {}
    iterator = iter(loader)
    assert loader._only_warns("why") == {}
    next(iterator), next(iterator)
    with pytest.warns(UserWarning, match="in the middle of an epoch.*some samples come twice.*saved"):
        make().load_state_dict(loader._only_warns(loader._unsaved()))
    assert len(list(iterator)) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().load_state_dict(loader._only_warns("why"))
    assert [len(batch[3]) for batch in iter(loader)] == [4, 4, 4, 4, 4, 3]
