"""`state_dict` of a loader of make_loader: the rest of the epoch on any ranks and workers, each sample once, in the
same order over all ranks; and what has no such order is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctreport_webdataset import CTReportDataset, CTReportWebDataset, LoaderError
from ctwds.resume import Start, in_turn, order_of, rest, whole
from ctwds.tasks import Dealing
from harness import Program
from loading import DEADLINE
from make_dataset import Dataset
from small_datasets import flip_voxel, write_dataset

COUNT = 23
STUDIES = [f"v{n:02d}" for n in range(COUNT)]
TINY: dict[str, Any] = {"shape": (4, 4, 4), "spacing": (0.75, 0.75, 1.5)}
EPOCHS = 2
Steps = list[list[str]]  # the studies of each batch of a rank


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Tiny volumes."""
    volumes = {f"{study}.npz": {"data": np.zeros((4, 4, 4), np.float32)} for study in STUDIES}
    return write_dataset(tmp_path_factory.mktemp("npz"), volumes)


@pytest.fixture(scope="module")
def folder(program: Program, npz: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards on disk."""
    return program.materialize(npz, tmp_path_factory.mktemp("shards"), "--samples-per-shard", 2)


@pytest.fixture(scope="module")
def point(program: Program, npz: Dataset) -> Iterator[Path]:
    """The same in a mount with two shuffled views."""
    flags = ("--samples-per-shard", 2, "--shuffle-seed", 11, "--epochs", EPOCHS)
    with program.mounted(npz, *flags) as point:
        yield point


@pytest.fixture(params=["views", "unshuffled"])
def place(request: pytest.FixtureRequest) -> Path:
    """Either of them."""
    found: Path = request.getfixturevalue("point" if request.param == "views" else "folder")
    return found


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a data set is read."""

    ranks: int
    workers: int
    batch: int
    uneven: str = "keep"
    drop_last: bool = False

    def loaders(self, place: Path) -> list[Any]:
        """Of all ranks."""
        found = []
        for rank in range(self.ranks):
            shuffle = (place / "epochs").is_dir()
            data = CTReportWebDataset(
                place, shuffle, rank=rank, world_size=self.ranks, uneven=self.uneven, seed=3, **TINY
            )
            options: dict[str, Any] = {"timeout": DEADLINE, "multiprocessing_context": "fork"} if self.workers else {}
            found.append(data.make_loader(self.batch, self.workers, drop_last=self.drop_last, **options))
        return found


def steps_of(loaders: Sequence[Any], most: int | None = None) -> list[Steps]:
    """What each rank gives in its next iteration, at most so many batches."""
    return [[batch[3] for batch in itertools.islice(loader, most)] for loader in loaders]


def in_order(ranks: Sequence[Steps]) -> list[str]:
    """The samples of all ranks, step by step."""
    rounds = itertools.zip_longest(*ranks)
    return [study for step in rounds for batch in step if batch is not None for study in batch]


def once(studies: Sequence[str]) -> list[str]:
    """Without those that ranks were padded with."""
    return list(dict.fromkeys(studies))


def stopped(place: Path, how: Reading, epoch: int, most: int) -> tuple[list[Steps], dict[str, Any]]:
    """What was read before a stop, and the state, which is the same on all ranks and may be pickled and be JSON."""
    loaders = how.loaders(place)
    for loader in loaders:
        loader.set_epoch(epoch)
    before = steps_of(loaders, most)
    states = [loader.state_dict() for loader in loaders]
    assert all(state == states[0] for state in states)
    assert json.loads(json.dumps(states[0])) == pickle.loads(pickle.dumps(states[0])) == states[0]
    return before, states[0]


def resumed(place: Path, how: Reading, state: dict[str, Any]) -> list[Any]:
    """The loaders of all ranks that go on from a state."""
    loaders = how.loaders(place)
    for loader in loaders:
        loader.load_state_dict(state)
        assert loader.state_dict() == state | {"dealt": loader.state_dict()["dealt"]}
    return loaders


@pytest.mark.parametrize("case", range(16))
def test_resumed_anywhere_each_sample_comes_once(place: Path, case: int) -> None:
    """Whatever ranks, workers and batches were before and are then; and once more after that."""
    draw = random.Random(case)

    def reading() -> Reading:
        return Reading(draw.randint(1, 4), draw.choice([0, 0, 1, 2]), draw.randint(1, 4), draw.choice(["keep", "pad"]))

    epoch, first = draw.randint(0, EPOCHS), reading()
    loaders = first.loaders(place)
    for loader in loaders:
        loader.set_epoch(epoch)
    undisturbed = once(in_order(steps_of(loaders)))
    assert sorted(undisturbed) == STUDIES
    most = draw.randint(1, max(1, COUNT // (first.ranks * first.batch) - 1))
    before, state = stopped(place, first, epoch, most)
    found = once(in_order(before))
    second = reading()
    left = (COUNT - len(found)) // (second.ranks * second.batch)
    loaders = resumed(place, second, state)
    found = once(found + in_order(steps_of(loaders, left if second != first else max(0, left - 1))))
    states = [loader.state_dict() for loader in loaders]
    assert all(state == states[0] for state in states)
    is_over = len(found) == COUNT
    assert (states[0]["epoch"], states[0]["consumed"]) == ((epoch + 1, 0) if is_over else (epoch, len(found)))
    loaders = resumed(place, reading(), states[0])
    if not is_over:
        found = once(found + in_order(steps_of(loaders)))
    assert found == undisturbed
    assert all(loader.state_dict()["epoch"] == epoch + 1 for loader in loaders)
    assert sorted(once(in_order(steps_of(loaders)))) == STUDIES, "the next epoch is a whole one"


@pytest.mark.parametrize("case", range(400))
def test_every_dealing(case: int) -> None:
    """By the definition alone, without workers: shards of any lengths, more ranks, padded and dropped samples."""
    draw = random.Random(case)

    def dealing() -> Dealing:
        uneven = draw.choice(["pad", "drop", "keep"])
        return Dealing(draw.randint(1, 5), draw.randint(1, 4), draw.randint(1, 5), draw.random() < 0.3, uneven)

    before = dealing()
    after = draw.choice([before, dealing()])
    first = before.ranks * before.workers  # each worker has a sample, or it has none to pad with
    counts = [draw.randint(int(n < first), 7) for n in range(draw.randint(first, 40))]
    undisturbed = [[batch.tolist() for _, batch in in_turn(each, before)] for each in whole(counts, before)]
    total = sum(counts)
    order, ends = order_of(whole(counts, before), total, before)
    assert sorted(order.tolist()) == list(range(total))
    for consumed in {0, *draw.sample(ends, min(4, len(ends)))}:
        lists, ends_after = rest(counts, Start(consumed, 0, before), after)
        ranks = [[batch.tolist() for _, batch in in_turn(each, after)] for each in lists]
        steps = [[number for batch in step if batch for number in batch] for step in itertools.zip_longest(*ranks)]
        given = list(itertools.chain(*steps))
        done, left = set(order[:consumed].tolist()), order[consumed:].tolist()
        once = [number for number in dict.fromkeys(given) if number not in done]
        assert once == left[: len(once)] and (after.uneven == "pad" or given == once)
        for step, end in enumerate(ends_after[1 : len(steps) + 1], 1):
            assert set(itertools.chain(*steps[:step])) | done == set(order[:end].tolist())
        if after == before:
            assert ranks == [batches[ends.index(consumed) :] for batches in undisturbed]
        else:
            may_drop = after.drop_last or after.uneven == "drop"
            assert len(left) - len(once) < (after.ranks * after.batch if may_drop else 1)
        if after.ranks > 1 and after.uneven != "keep":
            assert len({len(batches) for batches in ranks}) == 1, "else all-reduce would hang"
        assert ends_after[0] == consumed and max(ends_after) <= total and len(ends_after) > len(steps)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("uneven", ["pad", "drop", "keep"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_same_ranks_go_on_with_the_same_batches(place: Path, workers: int, uneven: str, drop_last: bool) -> None:
    """As if there had been no stop, to the last padded one."""
    how = Reading(2, workers, 3, uneven, drop_last)
    whole_epoch = steps_of(how.loaders(place))
    for most in range(1, len(whole_epoch[1]) + 1):
        before, state = stopped(place, how, 0, most)
        if most == max(map(len, whole_epoch)):
            assert (before, state["epoch"], state["consumed"]) == (whole_epoch, 1, 0)
            break
        loaders = resumed(place, how, state)
        lengths = [len(loader) for loader in loaders]
        after = steps_of(loaders)
        assert [one + two for one, two in zip(before, after, strict=True)] == whole_epoch
        assert lengths == [len(loader) for loader in loaders] == list(map(len, whole_epoch))


def test_kept_workers_go_on(place: Path) -> None:
    """A loader whose workers have read other epochs before; `set_epoch` of the state's epoch changes nothing."""
    how = Reading(1, 2, 2)
    before, state = stopped(place, how, 1, 3)
    (loader,) = how.loaders(place)
    (whole_epoch,) = steps_of([loader], None)
    assert len(whole_epoch) == 12
    for again in (False, True):
        loader.load_state_dict(state)
        if again:
            loader.set_epoch(1)
        assert sorted(in_order(before) + in_order(steps_of([loader]))) == STUDIES
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert steps_of([loader]) == [whole_epoch]
    loader.set_epoch(1)
    assert sorted(in_order(steps_of([loader]))) == STUDIES, "the state is gone"
    iter(loader)
    assert loader.state_dict()["consumed"] == 0
    del loader


def test_compressed_shards(program: Program, npz: Dataset, tmp_path: Path) -> None:
    """They have no index that says where samples begin."""
    flags = ("--samples-per-shard", 2, "--compress", "zstd")
    folder = program.materialize(npz, tmp_path / "packed", *flags)
    before, state = stopped(folder, Reading(2, 0, 3), 0, 2)
    found = in_order(before) + in_order(steps_of(resumed(folder, Reading(1, 0, 2), state)))
    assert found == in_order(steps_of(Reading(2, 0, 3).loaders(folder)))


def test_shards_without_indexes(folder: Path, tmp_path: Path) -> None:
    """The headers say where samples begin; shards that are shorter than the manifest says are refused."""
    shutil.copytree(folder, tmp_path / "copy")
    for index in (tmp_path / "copy").glob("*.idx"):
        index.unlink()
    before, state = stopped(folder, Reading(2, 0, 3), 0, 2)
    loaders = resumed(tmp_path / "copy", Reading(1, 0, 2), state)
    found = in_order(before) + in_order(steps_of(loaders))
    assert sorted(found) == STUDIES
    loaders = resumed(tmp_path / "copy", Reading(1, 0, 2), state)
    for shard in (tmp_path / "copy").glob("*.tar"):
        shard.write_bytes(bytes(10_240))
    with pytest.raises(LoaderError, match=r"shard-.*tar: its index: sample \d is not there, it has 0: compare"):
        steps_of(loaders)


@pytest.mark.parametrize("change", ["volume", "samples per shard", "fewer shards", "seed", "views", "later"])
def test_other_data_is_refused(program: Program, npz: Dataset, point: Path, tmp_path: Path, change: str) -> None:
    """The message says what differs."""
    _, state = stopped(point, Reading(1, 0, 2), 1, 2)
    flags: dict[str, Any] = {"--samples-per-shard": 2, "--shuffle-seed": 11, "--epochs": EPOCHS}
    what = {"volume": "data set", "seed": "seed of the views"}.get(change, "choice or order of shards")
    if change == "volume":
        shutil.copytree(npz.folder.parent, tmp_path / "npz")
        npz = dataclasses.replace(npz, folder=tmp_path / "npz" / npz.folder.name)
        flip_voxel(npz.folder / "v03.npz")
        np.savez(npz.folder / "v03.npz", data=np.ones((4, 4, 4), np.float32))
    elif change == "samples per shard":
        flags["--samples-per-shard"], what = 3, "data set"
    elif change == "seed":
        flags["--shuffle-seed"] = 12
    elif change == "views":
        flags["--epochs"] = 1
    if change == "fewer shards":
        data = CTReportWebDataset(sorted(point.glob("*.tar"))[:-1], False, **TINY)
        _, state = stopped(point, Reading(1, 0, 2), 1, 2)
        state |= {"seed": None}
        with pytest.raises(LoaderError, match=f"another {what}"):
            data.make_loader(2, 0).load_state_dict(state)
        return
    if change == "later":  # of this version's states there is one form
        without = [{name: state[name] for name in state if name != left_out} for left_out in state]
        for wrong in (state | {"version": 2}, state | {"dealt": {"ranks": 1}}, *without):
            with pytest.raises(LoaderError, match=f"{point}.*: (not a state of this loader|the state is of another)"):
                resumed(point, Reading(1, 0, 2), wrong)
        return
    with (
        program.mounted(npz, *itertools.chain(*flags.items())) as other,
        pytest.raises(LoaderError, match=f"{other}.*another {what}"),
    ):
        resumed(other, Reading(1, 0, 2), state)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, r"shuffle buffer is known to its worker alone: mount with --shuffle-seed S"),
        ({"buffer_size": 1}, r"--shuffle-seed S, and read its views"),
        ({"resampled": True}, "resampled or epoch_length"),
        ({"shuffle": False, "epoch_length": 4}, "resampled or epoch_length"),
        ({"shuffle": False, "on_error": "skip"}, "on_error='skip' moves all samples"),
    ],
)
def test_where_the_order_is_not_known(folder: Path, options: dict[str, Any], why: str) -> None:
    """The message names what helps."""
    loader = CTReportWebDataset(folder, **TINY, **options).make_loader(2, 0)
    next(iter(loader))
    for call in (loader.state_dict, lambda: loader.load_state_dict({"version": 1})):
        with pytest.raises(LoaderError, match=why):
            call()


def test_other_places_without_an_order(npz: Dataset, point: Path, folder: Path, tmp_path: Path) -> None:
    """A buffer over views, no manifest, one of another program, and files."""
    for path in folder.glob("*.tar"):
        shutil.copy(path, tmp_path)
    files = CTReportDataset(npz.folder, npz.reports, npz.meta, npz.labels, **TINY)
    wrong: list[tuple[Any, str]] = [
        (CTReportWebDataset(point, buffer_size=3, **TINY), "views need no buffer_size"),
        (CTReportWebDataset(tmp_path, False, **TINY), f"no manifest.json beside {tmp_path}/shard-000000.tar"),
        (files, "the state of a loader of files cannot be saved: take ctwds.Loader, or shards: the views"),
    ]
    for data, why in wrong:
        with pytest.raises(LoaderError, match=why):
            data.make_loader(2, 0).state_dict()
