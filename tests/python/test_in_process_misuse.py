"""What may be done to the package by mistake: forks, limits, wrong arguments, arrays that do not fit. Each raises an
exception of the package that says what to do; and no process waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import ctwds
import numpy as np
import pytest
import torch
import torch.distributed
from harness import REPOSITORY
from small_datasets import noise_dataset
from test_in_process import options

COUNT, SHAPE = 5, (8, 9, 10)
DEADLINE = 60


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the small volumes are opened."""
    return options(noise_dataset(tmp_path_factory.mktemp("data"), COUNT, SHAPE))


@pytest.fixture(scope="module")
def data(flags: dict[str, Any]) -> ctwds.Volumes:
    """Small volumes of one shape."""
    return ctwds.open(**flags)


def test_an_iteration_in_a_forked_process(data: ctwds.Volumes) -> None:
    """It has no threads there: it says so, and ends, and neither process waits; another one can begin."""
    iterator = iter(ctwds.Loader(data, threads=2))
    next(iterator)

    def child() -> None:
        with pytest.raises(ctwds.Error, match="forked: begin one here"):
            next(iterator)
        assert len(list(ctwds.Loader(data))) == COUNT

    forked = multiprocessing.get_context("fork").Process(target=child)
    forked.start()
    forked.join(DEADLINE)
    forked.kill()
    forked.join()
    assert forked.exitcode == 0
    assert len(list(iterator)) == COUNT - 1


def test_no_room_for_threads(flags: dict[str, Any]) -> None:
    """Of those that read, some can be started and others not: it is an error, and none is left."""
    text = (
        "import ctwds, resource, sys, threading\n"
        f"data = ctwds.open(**{ {name: str(value) for name, value in flags.items()}!r})\n"
        "used = 4096 * int(open('/proc/self/statm').read().split()[0])\n"
        "ctwds.Loader, threading.stack_size(1 << 30)\n"
        "used = 4096 * int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (5 << 29), -1))\n"
        "try: list(ctwds.Loader(data, threads=4))\n"
        "except ctwds.ReadError as error: print(error)\n"
        "print([thread.name for thread in threading.enumerate()])\n"
    )
    paths = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python")}
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    reason, left = done.stdout.splitlines()
    assert "cannot start 5 threads" in reason and "ulimit" in reason and "fewer threads" in reason
    assert left == "['MainThread']"


@pytest.mark.parametrize(
    "wrong",
    [
        *({"batch_size": value} for value in (0, -1, 2.0, "2", None)),
        *({"seed": value} for value in (-1, 2**64, 0.5, "1")),
        {"threads": 1.5},
        {"ahead": 1.5},
        {"rank": -1, "world_size": 2},
        {"rank": 1, "world_size": 1},
        {"world_size": 0, "rank": 0},
        {"rank": 1},
        {"world_size": 2},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_wrong_options_of_a_loader(data: ctwds.Volumes, wrong: dict[str, Any]) -> None:
    """They are refused when it is made, not in the middle of a training."""
    with pytest.raises(ctwds.Error, match=next(iter(wrong))):
        ctwds.Loader(data, **wrong)


def test_ranks_that_were_not_given(data: ctwds.Volumes, tmp_path: Path) -> None:
    """Each rank would train with all samples, and nobody would know."""

    def rank(number: int) -> None:
        torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=number, world_size=2)
        with pytest.warns(UserWarning, match="each of the 2 ranks reads all samples"):
            assert len(list(ctwds.Loader(data))) == COUNT
        for ranks, count in ((2, 2), (1, COUNT)):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                loader = ctwds.Loader(data, rank=number % ranks, world_size=ranks, drop_last=True)
                assert len(list(loader)) == count

    processes = [multiprocessing.get_context("fork").Process(target=rank, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE)
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_numbers_of_numpy_become_pythons(data: ctwds.Volumes) -> None:
    """A state is plain: `torch.load` reads no others with `weights_only`."""
    loader = ctwds.Loader(data, batch_size=np.int64(2), seed=np.int64(3))  # type: ignore[arg-type]  # NumPy's numbers on purpose
    loader.set_epoch(np.int64(1))  # type: ignore[arg-type]  # NumPy's numbers on purpose
    next(iter(loader))
    assert {type(value) for value in loader.state_dict().values()} == {int, str}
    again = ctwds.Loader(data, seed=3)
    again.load_state_dict(loader.state_dict() | {"consumed": np.int64(2)})
    assert sum(len(batch.id) for batch in again) == COUNT - 2


@pytest.mark.parametrize("what", [None, "ctwds.toml", "dictionaries"])
def test_what_is_no_data_set(data: ctwds.Volumes, what: Any) -> None:
    """A loader is of what `open` returns."""
    given: Any = data.dictionaries() if what == "dictionaries" else what
    with pytest.raises(ctwds.UsageError, match=r"must be what ctwds\.open returns"):
        ctwds.Loader(given)


@pytest.mark.parametrize(
    ("stored", "wanted"), [("float32", "float16"), ("uint8", "float32"), ("uint8", "float16")], ids=str
)
def test_a_dtype_that_does_not_fit(flags: dict[str, Any], stored: str, wanted: str) -> None:
    """It names the option that helps."""
    more: dict[str, Any] = {"volume": "rescaled", "window": (-1000, 1000)} if stored == "uint8" else {}
    opened = ctwds.open(**flags, output_dtype=stored, **more)
    with pytest.raises(ctwds.UsageError, match=f"voxels of the data set are {stored}.*output_dtype='{wanted}'"):
        ctwds.Loader(opened, dtype=wanted)
    assert next(iter(ctwds.Loader(opened, dtype=None))).volume.dtype == getattr(torch, stored)


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("<f4"), torch.float32], ids=str)
def test_dtypes_by_any_name(flags: dict[str, Any], data: ctwds.Volumes, dtype: Any) -> None:
    """The other loader takes PyTorch's, and NumPy's are at hand; a flag takes them too."""
    assert next(iter(ctwds.Loader(data, dtype=dtype))).volume.dtype == torch.float32
    assert ctwds.open(**flags, output_dtype=dtype)[0].volume.dtype == np.float32
    for half in ("float16", np.float16, torch.float16):
        assert ctwds.load(Path(flags["data_folder"]) / "v00.npz", dtype=half).dtype == np.float16
    with pytest.raises(ctwds.Error, match="float64"):
        ctwds.Loader(data, dtype=torch.float64)


@pytest.mark.parametrize("wrong", [{"consumed": -1}, {"consumed": COUNT + 1}, {"epoch": -1}, {"batches": -1}], ids=str)
def test_a_place_that_is_none(data: ctwds.Volumes, wrong: dict[str, Any]) -> None:
    """It would have been some samples of the end, or none."""
    loader = ctwds.Loader(data)
    with pytest.raises(ctwds.UsageError, match=f"not a state of ctwds.Loader, as {next(iter(wrong))}"):
        loader.load_state_dict(loader.state_dict() | wrong)
    with pytest.raises(ctwds.UsageError, match="not a state"):
        loader.load_state_dict(None)  # type: ignore[arg-type]  # no state on purpose
    with pytest.raises(ctwds.UsageError, match="epoch is -1"):
        loader.set_epoch(-1)
    assert len(list(loader)) == COUNT


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": -1}, {"cache": -1}, {"threads": "2"}], ids=str)
def test_wrong_numbers_of_open(flags: dict[str, Any], wrong: dict[str, Any]) -> None:
    """Nothing is a default that nobody chose."""
    with pytest.raises(ctwds.UsageError, match=next(iter(wrong))):
        ctwds.open(**flags, **wrong)


def test_an_empty_source() -> None:
    """A variable that is not set does not name the current folder."""
    with pytest.raises(ctwds.UsageError, match="empty text"):
        ctwds.open("")


def test_numbers_of_one_option(flags: dict[str, Any]) -> None:
    """As a tuple or list, where the flag has them with commas."""
    for shape in ((6, 7, 8), [6, 7, 8], "6,7,8"):
        with ctwds.open(**flags, volume="preprocessed", shape=shape) as opened:
            assert opened[0].volume.shape == (6, 7, 8)


@pytest.mark.parametrize("key", [None, 1.0, [1], (1,), b"v01", np.array([1]), np.array([True] * COUNT)], ids=str)
def test_keys_of_other_types(data: ctwds.Volumes, key: Any) -> None:
    """NumPy would take some for an index."""
    with pytest.raises(ctwds.UsageError, match="an index or a study id"):
        _ = data[key]


def test_keys(data: ctwds.Volumes) -> None:
    """Numbers of NumPy and PyTorch, from the end, and beyond it; a sample is no key."""
    assert [data[key].id for key in (np.int64(1), torch.tensor(2), -1)] == ["v01", "v02", "v04"]
    with pytest.raises(IndexError, match=f"no sample {COUNT}: the data set has {COUNT}"):
        _ = data[COUNT]
    keys: list[Any] = ["v01", "v09", 1, data[1]]
    assert [key in data for key in keys] == [True, False, False, False]
    assert data.subset(ids="v03").keys() == ["v03"]
    assert data[1:1].keys() == [] and list(ctwds.Loader(data[1:1])) == [] and data[::-2].keys() == ["v04", "v02", "v00"]


@pytest.mark.parametrize(
    "slices",
    [[1, 2, 3], slice(3), [slice(0.5)] * 3, [...] * 3, [slice(None, None, -1)] * 3, [slice(1)] * 4, [slice(1), 0, 0]],
    ids=str,
)
def test_what_is_no_region(data: ctwds.Volumes, slices: Any) -> None:
    """A box is three slices."""
    with pytest.raises(ctwds.UsageError, match="a region is three slices"):
        data.region(0, slices)


def test_arrays_that_do_not_fit(data: ctwds.Volumes) -> None:
    """Of another byte order, not aligned, of a gradient; subclasses of NumPy's array do."""
    right, size = data[0].volume, 4 * data[0].volume.size
    crooked = np.frombuffer(bytearray(size + 1), np.float32, right.size, offset=1).reshape(SHAPE)
    for wrong in (crooked, np.empty(SHAPE, ">f2"), np.empty(SHAPE, ">f4"), torch.empty(SHAPE, requires_grad=True)):
        with pytest.raises(ctwds.UsageError, match=r"`out`"):
            data.read_into(0, wrong)
    masked = np.ma.masked_all(SHAPE, np.float16)
    data.read_into(0, masked)
    assert np.array_equal(np.asarray(masked), right)


def test_two_threads_and_one_array(tmp_path: Path) -> None:
    """One of them reads, the other one is refused."""
    made = noise_dataset(tmp_path, 1, (128, 128, 64), deflated=True)
    data = ctwds.open(**options(made), threads=1, cache=1)
    out = np.empty(data.info(0).shape, np.float16)
    errors: list[BaseException] = []

    def read() -> None:
        for _ in range(20):
            try:
                data.read_into(0, out)
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert errors and all(isinstance(error, ctwds.UsageError) for error in errors), errors[:1]
    assert "another thread reads into `out`" in str(errors[0])
