"""`ctwds.Loader`: the right batches in the right order, resumed anywhere, and nothing left behind."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctwds
import numpy as np
import pytest
import torch
from harness import REPOSITORY, wait_until
from small_datasets import noise_dataset
from test_epochs import order
from test_in_process import mixed, options

COUNT = 13


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ctwds.Volumes:
    """Small volumes of one shape."""
    return ctwds.open(**options(noise_dataset(tmp_path_factory.mktemp("data"), COUNT, (8, 9, 10))))


def ids(batches: list[ctwds.Batch]) -> list[str]:
    """The ids of all samples."""
    return [name for batch in batches for name in batch.id]


def readers() -> list[threading.Thread]:
    """The threads of loaders."""
    return [thread for thread in threading.enumerate() if thread.name == "ctwds-reader"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_batches_hold_the_samples(data: ctwds.Volumes, dtype: str) -> None:
    """Also those that were handed out long ago."""
    loader = ctwds.Loader(data, batch_size=4, dtype=dtype)
    batches = list(loader)  # kept all at once, and none is overwritten
    assert ids(batches) == data.keys() and [len(batch.id) for batch in batches] == [4, 4, 4, 1]
    for batch in batches:
        for name, volume, labels, text in zip(batch.id, batch.volume, batch.labels, batch.text, strict=True):
            sample = data[name]
            assert volume.dtype == getattr(torch, dtype) and labels.dtype == torch.float32
            assert np.array_equal(volume.numpy(), sample.volume) and np.array_equal(labels, sample.labels)
            assert text == sample.text
    training = next(iter(ctwds.Loader(data, batch_size=2, layout="training")))
    assert training.volume.shape == (2, 1, 10, 8, 9)
    assert np.array_equal(training.volume[1, 0], data[1].volume.transpose(2, 0, 1))


def test_other_shapes_and_extras(tmp_path: Path) -> None:
    """A list in place of a tensor, and the arrays beside the volumes."""
    opened = ctwds.open(**options(mixed(tmp_path)), also="mask=mask")
    for batch in ctwds.Loader(opened, batch_size=3, threads=3):
        for place, name in enumerate(batch.id):
            volume = batch.volume[place] if isinstance(batch.volume, torch.Tensor) else batch.volume[place][0]
            assert np.array_equal(volume.numpy(), opened[name].volume)
            assert np.array_equal(batch.also["mask"][place].numpy(), opened[name].also["mask"])


def test_memory_is_used_again_when_nobody_has_it(data: ctwds.Volumes) -> None:
    """And never while a view of it lives."""
    places = []
    for batch in ctwds.Loader(data, batch_size=2):
        places.append(batch.volume.data_ptr())
        del batch
    assert len(set(places)) < len(places)
    kept = [batch.volume[0, :4, 1:] for batch in ctwds.Loader(data, batch_size=1)]  # views only
    for sample, view in zip(data, kept, strict=True):
        assert np.array_equal(view.numpy(), sample.volume[:4, 1:])


def test_the_order_is_that_of_the_epochs(data: ctwds.Volumes) -> None:
    """By the definition of the shuffled views."""
    loader = ctwds.Loader(data, batch_size=3, seed=42)
    for epoch in range(3):
        assert ids(list(loader)) == [f"v{n:02d}" for n in order(42, epoch, COUNT)]
    loader.set_epoch(1)
    assert ids(list(loader)) == [f"v{n:02d}" for n in order(42, 1, COUNT)]
    chosen = data.subset(where="a == 1")
    assert ids(list(ctwds.Loader(chosen, seed=42))) == [f"v{n:02d}" for n in order(42, 0, COUNT) if n % 2]


def taken(data: ctwds.Volumes, ranks: int, batches: int | None, state: Any = None, **given: Any) -> Any:
    """What all ranks read, in the order of the steps; and the state of each rank behind so many batches."""
    found, states = [], []
    for rank in range(ranks):
        loader = ctwds.Loader(data, rank=rank, world_size=ranks, **given)
        if state is not None:
            loader.load_state_dict(state)
        iterator = iter(loader)
        mine: list[list[str]] = []
        while batches is None or len(mine) < batches:
            batch = next(iterator, None)
            if batch is None:
                break
            mine.append(batch.id)
        states.append(loader.state_dict())
        del iterator
        found.append(mine)
    steps = max(map(len, found))
    return [name for step in range(steps) for mine in found if step < len(mine) for name in mine[step]], states


@pytest.mark.parametrize("case", range(40))
def test_resumed_anywhere_each_sample_comes_once(data: ctwds.Volumes, case: int) -> None:
    """In the order of the epoch, whatever the ranks, batches and threads were before and are then."""
    draw = random.Random(case)
    some = data[: draw.randint(1, COUNT)]
    ranks, batch, seed = draw.randint(1, 4), draw.randint(1, 4), draw.choice([None, 7])
    epochs = [name for epoch in range(2) for name in ids(list(_at(some, epoch, seed)))]
    steps = len(some) // (batch * ranks)
    stop = draw.randint(0, steps)
    before, states = taken(some, ranks, stop, batch_size=batch, threads=draw.randint(1, 3), seed=seed)
    assert all(state == states[0] for state in states)
    new = {"batch_size": draw.randint(1, 4), "threads": draw.randint(1, 3), "seed": seed}
    after, _ = taken(some, draw.randint(1, 4), None, states[0], **new)
    # A stop at an epoch's last batch goes on with the next epoch.
    assert before + after == epochs[: len(before) + len(after)]
    assert len(before) + len(after) == (2 if len(before) == len(some) else 1) * len(some)


def _at(data: ctwds.Volumes, epoch: int, seed: int | None) -> ctwds.Loader:
    loader = ctwds.Loader(data, seed=seed)
    loader.set_epoch(epoch)
    return loader


def test_ranks_share_an_epoch(data: ctwds.Volumes) -> None:
    """Every sample once over the ranks."""
    for drop in (False, True):
        every = [ctwds.Loader(data, batch_size=2, seed=1, rank=r, world_size=3, drop_last=drop) for r in range(3)]
        found = [list(loader) for loader in every]
        assert [len(batches) for batches in found] == [len(loader) for loader in every]
        names = [name for batches in found for name in ids(batches)]
        assert len(names) == len(set(names)) == (12 if drop else COUNT)


def test_a_state_and_what_comes_after_it(data: ctwds.Volumes) -> None:
    """Behind the last batch it goes on with the next epoch, also where samples are dropped; `set_epoch` of a state's
    epoch keeps the place in it, as training scripts call it before every epoch."""
    loader = ctwds.Loader(data, batch_size=4, seed=7, drop_last=True)
    orders = [[f"v{n:02d}" for n in order(7, epoch, COUNT)[:12]] for epoch in range(3)]
    iterator = iter(loader)
    assert ids([next(iterator)]) == orders[0][:4]
    middle = loader.state_dict()
    assert ids(list(iterator)) == orders[0][4:]
    assert (loader.state_dict()["epoch"], loader.state_dict()["consumed"]) == (1, 0)
    for chosen, rest in ((None, orders[0][4:]), (0, orders[0][4:]), (1, orders[1])):
        again = ctwds.Loader(data, batch_size=4, seed=7, drop_last=True)
        again.load_state_dict(middle)
        if chosen is not None:
            again.set_epoch(chosen)
        assert ids(list(again)) == rest and ids(list(again)) == orders[2 if chosen else 1]
        again.set_epoch(0)
        assert ids(list(again)) == orders[0]


def test_lightning_chooses_late(data: ctwds.Volumes) -> None:
    """By `sampler.set_epoch`, for an iteration that has begun and of which nothing was read."""
    loader = ctwds.Loader(data, seed=7)
    orders = [[f"v{n:02d}" for n in order(7, epoch, COUNT)] for epoch in range(4)]
    first = iter(loader)
    loader.sampler.set_epoch(2)
    assert ids(list(first)) == orders[2] and ids(list(loader)) == orders[3]
    first = iter(loader)
    next(first)
    loader.sampler.set_epoch(1)
    assert loader.state_dict()["epoch"] == 1
    assert ids(list(loader)) == orders[1]


@pytest.mark.parametrize("read", [0, 1, 2])
def test_the_next_epoch_is_chosen_within_an_iteration(data: ctwds.Volumes, read: int) -> None:
    """Behind `iter` or some batches: it changes nothing of this epoch, nor of its states."""
    orders = [[f"v{n:02d}" for n in order(7, epoch, COUNT)] for epoch in range(10)]
    begun = ctwds.Loader(data, seed=7)
    begun.set_epoch(3)
    first = iter(begun)
    next(first), next(first)
    middle = begun.state_dict()
    ways: list[tuple[Callable[[ctwds.Loader], None], tuple[int, int, int]]] = [
        (lambda loader: loader.set_epoch(0), (0, 0, 0)),
        (lambda loader: loader.set_epoch(8), (8, 0, 0)),
        (lambda loader: loader.load_state_dict(middle), (3, 2, 2)),
    ]
    for choose, place in ways:
        for resumed in (False, True):
            loader = ctwds.Loader(data, seed=7)
            if resumed:
                loader.load_state_dict(middle | {"epoch": 0})
            done = 2 if resumed else 0
            iterator = iter(loader)
            assert ids(list(itertools.islice(iterator, read))) == orders[0][done : done + read]
            choose(loader)
            state = loader.state_dict()
            assert (state["epoch"], state["consumed"], state["batches"]) == place
            assert next(iterator).id == [orders[0][done + read]]
            state = loader.state_dict()
            assert (state["epoch"], state["consumed"], state["batches"]) == (0, done + read + 1, done + read + 1)
            assert ids(list(iterator)) == orders[0][done + read + 1 :]
            state = loader.state_dict()
            assert (state["epoch"], state["consumed"], state["batches"]) == place
            epoch, consumed, _ = place
            assert ids(list(loader)) == orders[epoch][consumed:] and ids(list(loader)) == orders[epoch + 1]


def test_a_rank_without_a_part_of_the_last_batch(data: ctwds.Volumes) -> None:
    """Behind the iteration its state is of the next epoch, as that of all ranks."""
    loaders = [ctwds.Loader(data[:5], batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    assert [len(list(loader)) for loader in loaders] == [2, 1]
    states = [loader.state_dict() for loader in loaders]
    assert states[0] == states[1] and (states[0]["epoch"], states[0]["consumed"]) == (1, 0)


def test_an_iteration_of_which_nothing_was_read(data: ctwds.Volumes) -> None:
    """It does not count: StatefulDataLoader begins one, and then another, with the state of an epoch's end."""
    orders = [[f"v{n:02d}" for n in order(7, epoch, COUNT)] for epoch in range(3)]
    loader = ctwds.Loader(data, seed=7)
    iter(loader)
    assert ids(list(itertools.islice(loader, 2))) == orders[0][:2]
    again = ctwds.Loader(data, seed=7)
    again.load_state_dict(state := loader.state_dict())
    iter(again), iter(again)
    assert again.state_dict() == state
    assert ids(list(again)) == orders[0][2:] and ids(list(again)) == orders[1]
    iter(again)
    again.set_epoch(1)
    assert ids(list(again)) == orders[1] and ids(list(again)) == orders[2]


def test_worker_processes_are_refused(data: ctwds.Volumes) -> None:
    """Each would read all samples."""
    loader = torch.utils.data.DataLoader(ctwds.Loader(data), batch_size=None, num_workers=1)
    with pytest.raises(ctwds.UsageError, match="num_workers=0"):
        list(loader)
    alone = torch.utils.data.DataLoader(ctwds.Loader(data, batch_size=4), batch_size=None)
    assert ids(list(alone)) == data.keys()


def test_other_data_is_not_resumed(data: ctwds.Volumes, tmp_path: Path) -> None:
    """The message says what differs."""
    state = ctwds.Loader(data, seed=1).state_dict()
    other = ctwds.open(**options(noise_dataset(tmp_path, 3, (8, 9, 10))))
    for loader, what in (
        (ctwds.Loader(other, seed=1), "another data set"),
        (ctwds.Loader(data, seed=2), "another seed"),
        (ctwds.Loader(data.subset(where="a == 1"), seed=1), "another selection"),
    ):
        with pytest.raises(ctwds.UsageError, match=what):
            loader.load_state_dict(state)
    for name in ("epoch", "consumed", "batches"):
        with pytest.raises(ctwds.UsageError, match="not a state of ctwds"):
            ctwds.Loader(data, seed=1).load_state_dict({key: state[key] for key in state if key != name})


def test_a_copy_is_told_by_itself(data: ctwds.Volumes) -> None:
    """Lightning may copy a loader, and tells the copy's sampler the epoch."""
    loader = ctwds.Loader(data, seed=1)
    copied = copy.copy(loader)
    copied.sampler.set_epoch(4)
    assert (copied.state_dict()["epoch"], loader.state_dict()["epoch"]) == (4, 0)
    copied = pickle.loads(pickle.dumps(loader))
    copied.sampler.set_epoch(4)
    assert (copied.state_dict()["epoch"], loader.state_dict()["epoch"]) == (4, 0)


def test_a_damaged_volume(tmp_path: Path) -> None:
    """It reaches the training loop, or is left out, warned of and listed."""
    made = noise_dataset(tmp_path, 5, (16, 16, 16), deflated=True)
    content = bytearray((made.folder / "v02.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (made.folder / "v02.npz").write_bytes(content)
    opened = ctwds.open(**options(made))
    with pytest.raises(ctwds.DamagedError, match=r"v02\.npz: "):
        list(ctwds.Loader(opened, batch_size=2))
    assert not readers()
    loader = ctwds.Loader(opened, batch_size=2, on_error="skip")
    with pytest.warns(UserWarning, match="v02"):
        batches = list(loader)
    assert [batch.id for batch in batches] == [["v00", "v01"], ["v03"], ["v04"]]
    assert np.array_equal(batches[1].volume[0].numpy(), opened["v03"].volume)
    assert list(loader.skipped) == ["v02"]


def test_nothing_is_left(data: ctwds.Volumes) -> None:
    """No thread outlives its iteration."""
    iterator = iter(ctwds.Loader(data, threads=3))
    next(iterator)
    assert len(readers()) == 4
    del iterator
    assert not readers()
    before = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        for _batch in ctwds.Loader(data, threads=3):
            break
    del _batch
    # Python counts a thread as ended shortly before the system does.
    wait_until(lambda: len(os.listdir("/proc/self/task")) <= before, "the threads of loaders end")


def test_no_memory_is_left(tmp_path: Path) -> None:
    """Neither of decoders nor of batches, also where an iteration was broken off."""
    data = ctwds.open(**options(noise_dataset(tmp_path, 6, (128, 128, 96))))

    def held() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def read() -> int:
        """The bytes that a loader was allowed."""
        loader = ctwds.Loader(data, batch_size=3, threads=3, dtype="float32")
        for _batch in loader:
            pass
        next(iter(loader))
        return loader.memory

    read()  # what Python, NumPy and PyTorch keep for good
    before = held()
    allowed = sum(read() for _ in range(4))
    assert held() - before < allowed / 16, "a quarter of what one loader may take"


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"threads": 0}, {"ahead": 0}, {"rank": 2, "world_size": 2}, {"dtype": "int8"}, {"layout": "x"}],
    ids=str,
)
def test_wrong_options(data: ctwds.Volumes, wrong: dict[str, Any]) -> None:
    """The message names the option."""
    with pytest.raises(ctwds.Error, match=next(iter(wrong))):
        ctwds.Loader(data, **wrong)


@pytest.mark.alone  # how long it takes
def test_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """In the middle of decoding."""
    made = noise_dataset(tmp_path, 8, (128, 128, 64), deflated=True)
    text = (
        "import ctwds, sys\n"
        f"data = ctwds.open(**{ {name: str(value) for name, value in options(made).items()}!r})\n"
        "while True:\n    for batch in ctwds.Loader(data, threads=2):\n        print(batch.id, flush=True)\n"
    )
    paths = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python")}
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=paths
    ) as it:
        assert it.stdout and it.stdout.readline()
        begun = time.monotonic()
        it.send_signal(signal.SIGINT)
        _, said = it.communicate(timeout=60)
        assert time.monotonic() - begun < 10 and b"KeyboardInterrupt" in said
        assert it.returncode == -signal.SIGINT
