"""Checkpoints of Lightning and Accelerate, and states of StatefulDataLoader, that were taken in the middle of an epoch:
each sample once, on as many ranks and on others."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from make_dataset import Dataset
from test_loader_epochs import STUDIES, folder, npz
from test_loader_frameworks import FRAMEWORKS, read

READER = Path(__file__).with_name("frameworks_resume.py")

pytestmark = pytest.mark.skipif(
    not FRAMEWORKS.exists(), reason="Lightning and Accelerate are 1.5 GB: scripts/setup.sh --frameworks installs them"
)
__all__ = ["folder", "npz"]  # fixtures


def over_ranks(ranks: list[dict[str, Any]], name: str, part: int) -> list[list[str]]:
    """What all ranks read in each epoch of a part: before the stop, or after it."""
    return [list(itertools.chain(*epochs)) for epochs in zip(*(rank[name][part] for rank in ranks), strict=True)]


@pytest.mark.parametrize("framework", ["lightning", "accelerate"])
def test_a_checkpoint_in_the_middle(
    framework: str, folder: Path, npz: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two ranks, gone on with by two and by one."""
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    two = read(framework, folder, npz, 2, READER)
    one = read(f"{framework}_again", folder, npz, 1, READER)
    names = {"lightning": ["Loader", "shards", "module"], "accelerate": ["Loader", "shards"]}[framework]
    for name in names:
        before = over_ranks(two, name, 0)
        assert len(before[-1]) == 8
        for after in (over_ranks(two, name, 1), over_ranks(one, name, 0)):
            assert sorted(before[-1] + after[0]) == STUDIES, name
            assert [sorted(epoch) for epoch in before[:-1] + after[1:]] == [STUDIES] * (len(before) + len(after) - 2)
            assert len(before) + len(after) == {"lightning": 4, "accelerate": 3}[framework]
        if framework == "lightning":
            epochs = over_ranks(two, f"{name} whole", 0) + over_ranks(two, f"{name} whole", 1)
            assert [sorted(epoch) for epoch in epochs] == [STUDIES] * 3, name


def test_a_checkpoint_of_one_rank(folder: Path, npz: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gone on with by two, for which Lightning counts fewer batches than were taken before."""
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    (one,) = read("lightning_first", folder, npz, 1, READER)
    two = read("lightning_again", folder, npz, 2, READER)
    for name in ("Loader", "shards", "module"):
        before, after = one[name][0], over_ranks(two, name, 0)
        assert len(before) == 1 and len(before[0]) == 12, name
        assert sorted(before[0] + after[0]) == STUDIES, name
        assert [sorted(epoch) for epoch in after[1:]] == [STUDIES] * 2, name


def test_lightning_without_an_order(
    folder: Path, npz: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning itself warns of no loader that has a `state_dict`."""
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    (found,) = read("lightning_unsaved", folder, npz, 1, READER)
    (epochs, said), (whole, nothing) = found["middle"], found["whole"]
    assert len(said) == 1 and "some samples come twice" in said[0] and "mount with --shuffle-seed S" in said[0]
    assert len(epochs[0]) < len(STUDIES) and not nothing
    assert [sorted(epoch) for epoch in whole] == [STUDIES]


def test_stateful_dataloader(folder: Path, npz: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the epoch, then a whole one. Behind a whole epoch that one follows which would have."""
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    (found,) = read("stateful", folder, npz, 1, READER)
    for name in ("data", "Loader"):
        before, after = found[name]
        assert len(before[0]) == 4
        assert sorted(before[0] + after[0]) == sorted(after[1]) == STUDIES, name
    whole, (resumed, undisturbed) = found["Loader whole"]
    assert resumed == undisturbed and resumed not in (whole[0], found["Loader"][1][1])
