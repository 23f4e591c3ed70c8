"""`ctwds.open` under Lightning with DDP and under Accelerate, in two processes, and `ctwds.Loader` there: every sample
once over the ranks in each epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_dataset import Dataset
from test_loader_epochs import STUDIES, folder, npz
from test_loader_frameworks import FRAMEWORKS, read

READER = Path(__file__).with_name("frameworks_in_process.py")

pytestmark = pytest.mark.skipif(
    not FRAMEWORKS.exists(), reason="Lightning and Accelerate are 1.5 GB: scripts/setup.sh --frameworks installs them"
)
__all__ = ["folder", "npz"]  # fixtures


@pytest.mark.parametrize("framework", ["lightning", "accelerate"])
def test_every_sample_comes_once(framework: str, folder: Path, npz: Dataset) -> None:
    """Whether the framework deals the samples to the ranks, or the package's loader does."""
    ranks = read(framework, folder, npz, 2, READER, restarts=0)
    for name in ("plain", "Loader"):
        seen = [rank[name] for rank in ranks]
        assert [len(epochs) for epochs in seen] == [2, 2]
        for one, other in zip(*seen, strict=True):
            assert len(one) == len(other) and sorted(one + other) == STUDIES, (framework, name)
    assert seen[0][0] + seen[1][0] != seen[0][1] + seen[1][1]
