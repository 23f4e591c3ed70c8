"""A training that was stopped goes on at once: of a warm plan of as many studies as CT-RATE's training set has, the
first batch is there within a second of the imports, in a new process, from the middle of an epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import REPOSITORY, Program
from make_dataset import Dataset
from openings import wait_until_settled
from test_epochs_scale import SAMPLES, large
from test_in_process import options

__all__ = ["large"]  # a fixture

pytestmark = pytest.mark.alone  # seconds to a batch

# The promise is of a machine that does nothing else: there the debug build takes 0.3 s, and 0.7 s with a mount, which
# needs longer than that of a release to write two manifests. Other load only ever adds, so the best of some counts.
DEADLINE, OF_A_DEBUG_MOUNT, TRIES = 1.0, 2.0, 6
MIDDLE = SAMPLES // 3 * 2

IN_PROCESS = """
import json, sys, time
import ctwds, torch
flags, state = json.loads(sys.argv[1])
ctwds.Loader  # imported when it is first used
begun = time.monotonic()
loader = ctwds.Loader(ctwds.open(**flags), batch_size=2, seed=5)
if state: loader.load_state_dict(state)
batch = next(iter(loader))
taken = time.monotonic() - begun
print(json.dumps([taken, batch.id, loader.state_dict()]))
"""

OF_SHARDS = """
import json, sys, time
import ctwds, torch
(place, workers), state = json.loads(sys.argv[1])
ctwds.CTReportWebDataset
begun = time.monotonic()
data = ctwds.CTReportWebDataset(place, shape=(2, 2, 2), spacing=(0.75, 0.75, 1.5))
loader = data.make_loader(2, workers)
if state: loader.load_state_dict(state)
batch = next(iter(loader))
taken = time.monotonic() - begun
print(json.dumps([taken, batch[3], loader.state_dict()]))
"""


def read(code: str, how: Any, state: dict[str, Any] | None = None) -> tuple[float, list[str], dict[str, Any]]:
    """The seconds to the first batch in a new process, the studies in that batch, and the state behind it."""
    command = [sys.executable, "-c", code, json.dumps([how, state])]
    paths = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python")}
    done = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    taken, studies, after = json.loads(done.stdout.splitlines()[-1])
    return taken, studies, after


def goes_on_at_once(code: str, how: Any, deadline: float = DEADLINE) -> None:
    """In the middle of an epoch, in one of some tries."""
    _, _, state = read(code, how)
    middle = state | {"consumed": MIDDLE, "batches": MIDDLE // 2}
    tries: list[float] = []
    while len(tries) < TRIES and min(tries, default=deadline) >= deadline:
        taken, studies, after = read(code, how, middle)
        assert len(studies) == 2 and (after["epoch"], after["consumed"]) == (0, MIDDLE + 2)
        tries.append(taken)
    assert min(tries) < deadline, f"seconds to the first batch: {tries}"


@pytest.fixture(scope="module")
def flags(program: Program, large: Dataset) -> dict[str, Any]:
    """How the data set is opened; its plan is saved."""
    wait_until_settled()
    found = {name: str(value) for name, value in options(large).items()}
    read(IN_PROCESS, found)
    return found


@pytest.fixture(scope="module")
def point(program: Program, large: Dataset) -> Iterator[Path]:
    """A mount of it with shuffled views."""
    with program.mounted(large, "--rescale", "none", "--shuffle-seed", 5) as point:
        yield point


def test_the_loader_in_the_process(flags: dict[str, Any]) -> None:
    """`ctwds.Loader`, the opening of the data set included."""
    goes_on_at_once(IN_PROCESS, flags)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_of_shards(program: Program, point: Path, workers: int) -> None:
    """`make_loader`, the start of its workers included; the mount is there."""
    deadline = OF_A_DEBUG_MOUNT if "debug" in program.path.parts else DEADLINE
    goes_on_at_once(OF_SHARDS, (str(point), workers), deadline)
