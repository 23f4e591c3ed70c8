"""The loader under Lightning and Accelerate, in two processes, and under StatefulDataLoader: every sample once over the
ranks, in each epoch's own order, also after a resume; and with the PyTorch and the NumPy that they come with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from harness import REPOSITORY, Program
from make_dataset import Dataset
from test_loader_epochs import STUDIES, folder, npz, order_of

FRAMEWORKS = REPOSITORY / ".venv-frameworks" / "bin" / "python"
READER = Path(__file__).with_name("frameworks_reader.py")
LIMIT = 150  # seconds for all cases of a framework, which take 30 on an idle machine

pytestmark = pytest.mark.skipif(
    not FRAMEWORKS.exists(), reason="Lightning and Accelerate are 1.5 GB: scripts/setup.sh --frameworks installs them"
)
__all__ = ["folder", "npz"]  # fixtures

Epochs = list[list[str]]


class LeftInFork(Exception):
    """A worker of a DataLoader never came out of its fork."""


def read(
    cases: str, folder: Path, npz: Dataset, ranks: int, reader: Path = READER, restarts: int = 2
) -> list[dict[str, Any]]:
    """What each rank printed. None of them is left, whatever happens.

    CPython 3.11 can leave a worker of a DataLoader in its fork for ever: it waits for a lock that another thread of the
    rank held at that moment (PyOS_AfterFork_Child, _PyThreadState_DeleteExcept; 4 of 40 runs beside others). No line of
    Python has run in such a worker. Then, and only then, all ranks begin anew. Where the package's own threads are in
    the rank, it could be their fault: `restarts` is 0."""
    for _ in range(restarts):
        with contextlib.suppress(LeftInFork):
            return read_once(cases, folder, npz, ranks, reader)
    return read_once(cases, folder, npz, ranks, reader)


def is_left_in_fork(parents: list[int]) -> bool:
    """Whether a child of these processes has no thread but the one of the fork: workers have several soon."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) in parents and int(fields[17]) == 1:
                return True
    return False


def read_once(cases: str, folder: Path, npz: Dataset, ranks: int, reader: Path) -> list[dict[str, Any]]:
    """What each rank printed; LeftInFork if it took too long, and a worker is in its fork still."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "TORCHELASTIC_RUN_ID": "test",  # as torchrun sets it, for Lightning
        "GROUP_RANK": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(str(REPOSITORY / name) for name in ("scripts", "python")),
    }
    command = [str(FRAMEWORKS), str(reader), cases, str(folder), str(npz.folder.parent)]
    with tempfile.TemporaryFile("w+") as log:
        processes = [
            subprocess.Popen(
                command,
                env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
            for rank in range(ranks)
        ]
        end = time.monotonic() + LIMIT
        try:
            printed = [process.communicate(timeout=max(1, end - time.monotonic()))[0] for process in processes]
        except subprocess.TimeoutExpired:
            if is_left_in_fork([process.pid for process in processes]):
                raise LeftInFork from None
            raise
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with its workers
                process.wait()
            log.seek(0)
            sys.stderr.write(log.read()[-5000:])
    assert [process.returncode for process in processes] == [0] * ranks
    return [json.loads(text.splitlines()[-1]) for text in printed]


def shares(name: str, epoch: int) -> Epochs:
    """What two ranks read in an epoch, each in its order."""
    whole = order_of(name.split()[0], epoch)
    if name.startswith("npz"):
        return [whole[rank::2] for rank in range(2)]
    pairs = [whole[at : at + 2] for at in range(0, 16, 2)]
    return [[study for pair in pairs[rank::2] for study in pair] for rank in range(2)]


def by_epoch(ranks: list[dict[str, Any]], name: str) -> list[Epochs]:
    """What the ranks read, epoch by epoch."""
    return [list(epoch) for epoch in zip(*(rank[name] for rank in ranks), strict=True)]


@pytest.fixture(scope="module")
def lightning(folder: Path, npz: Dataset) -> list[dict[str, Any]]:
    """Read by two ranks of Lightning."""
    return read("lightning", folder, npz, 2)


@pytest.fixture(scope="module")
def accelerate(folder: Path, npz: Dataset) -> list[dict[str, Any]]:
    """Read by two ranks of Accelerate."""
    return read("accelerate", folder, npz, 2)


def test_lightning(lightning: list[dict[str, Any]]) -> None:
    """Loaders of make_loader, with and without Lightning's own sampler; and a DataLoader with an EpochSampler."""
    names = [name for name in lightning[0] if name != "refused"]
    assert len(names) == 11
    for name in names:
        seen = by_epoch(lightning, name)
        assert len(seen) == (4 if "resumed" in name else 2 if "without" in name else 3), name
        for epoch, read in enumerate(seen):
            assert read == shares(name, epoch), (name, epoch)
            assert sorted(read[0] + read[1]) == STUDIES
    for rank in lightning:
        assert rank["refused"].startswith("refused: Lightning goes on with epoch 2, and has let a DataLoader"), rank
        assert "take a loader of data.make_loader(...)" in rank["refused"]


def test_accelerate(accelerate: list[dict[str, Any]]) -> None:
    """Loaders of make_loader, whatever Accelerate is told to do with loaders."""
    names = [name for name in accelerate[0] if "plain" not in name and "whole" not in name]
    assert len(names) == 20
    for name in names:
        first = 2 if "resumed" in name else 0
        for epoch, read in enumerate(by_epoch(accelerate, name), first):
            assert read == shares(name, epoch), (name, epoch)
            assert sorted(read[0] + read[1]) == STUDIES


def test_accelerate_that_splits_by_itself(accelerate: list[dict[str, Any]]) -> None:
    """A DataLoader over a data set of one rank: batches in turn, as Accelerate deals them."""
    for kind in ("shards", "npz"):
        for epoch, read in enumerate(by_epoch(accelerate, f"{kind} given whole")):
            whole = order_of(kind, epoch)
            pairs = [whole[at : at + 2] for at in range(0, 16, 2)]
            assert read == [[study for pair in pairs[rank::2] for study in pair] for rank in range(2)]


def test_what_accelerate_would_split_twice_is_refused(accelerate: list[dict[str, Any]]) -> None:
    """A DataLoader over a data set that is split already, however Accelerate would do it."""
    names = [name for name in accelerate[0] if "plain" in name]
    assert len(names) == 8
    for name in names:
        for rank in accelerate:
            assert rank[name].startswith("refused: Accelerate would deal to the ranks once more"), (name, rank[name])
            assert "data.make_loader(...), which accelerator.prepare() leaves as it is" in rank[name]


def test_stateful_dataloader(folder: Path, npz: Dataset) -> None:
    """At the end of an epoch and in the midst of one: the rest of that epoch, then the next one."""
    (found,) = read("stateful", folder, npz, 1)
    assert len(found) == 12
    for name, (before, after) in found.items():
        kind, _, _, at = name.split()
        orders = [order_of(kind, epoch) for epoch in range(3)]
        assert before[0] == orders[0]
        assert before[1] + after[0] == orders[1] and len(before[1]) == 2 * int(at), name
        assert after[1:] == [orders[2]], name


def test_epochs_with_the_pytorch_of_today(program: Program) -> None:
    """The tests of test_loader_epochs.py, in that environment."""
    command = [str(FRAMEWORKS), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-k", "not spawn"]
    done = subprocess.run(
        [*command, "--override-ini=cache_dir=", "tests/python/test_loader_epochs.py"],
        cwd=REPOSITORY,
        env=os.environ | {"CTWDS_FS": str(program.path)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
