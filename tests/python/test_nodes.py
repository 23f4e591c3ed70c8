"""Several nodes: each has its mount, its plan and its processes, and no more. Together they read each sample once."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from harness import Program, require_fuse
from node_reader import EPOCHS, SEED
from small_datasets import noise_dataset
from test_epochs import order

HERE = Path(__file__).resolve().parent
SAMPLES = 21
TOML = """
data_folder = "{0.folder}"
reports_file = "{0.reports}"
meta_file = "{0.meta}"
labels_file = "{0.labels}"
samples_per_shard = 2
"""


def test_two_nodes_of_two_ranks(program: Program, tmp_path: Path) -> None:
    """Without a word between them, in each epoch, through mounts and in the trainings' processes."""
    require_fuse()
    data = noise_dataset(tmp_path / "data", SAMPLES, (8, 8, 8))
    (tmp_path / "ctwds.toml").write_text(TOML.format(data))
    at = tmp_path / "at" / "shards"  # the same path on both nodes, in a name space of each
    with ExitStack() as stack:
        nodes = []
        for node in range(2):
            ranks = [str(2 * node + process) for process in range(2)]
            reader = [sys.executable, HERE / "node_reader.py", at, "4", *ranks]
            options = ["--shuffle-seed", SEED, "--epochs", EPOCHS, "--at", at, "--"]
            environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / f"cache-{node}")}
            environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1] / "python"), *sys.path[1:]])
            command = [str(part) for part in ("run", *options, *reader)]
            nodes.append(stack.enter_context(program.running(*command, cwd=tmp_path, env=environment)))
        outputs = [node.communicate(timeout=240) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    found: dict[str, dict[str, list[list[str]]]] = {}
    for printed, _ in outputs:
        found |= json.loads(printed)
    assert sorted(found) == list("0123")
    for epoch in range(EPOCHS):
        right = [f"v{n:02}" for n in order(SEED, epoch, SAMPLES)]
        by_shard = [right[first : first + 2] for first in range(0, SAMPLES, 2)]
        for rank in range(4):
            views, own = found[str(rank)]["views"][epoch], found[str(rank)]["own"][epoch]
            assert views == [study for shard in by_shard[rank::4] for study in shard]
            whole = 8 * (SAMPLES // 8)  # steps that are full: a batch of two for each rank
            assert own[: whole // 4] == [study for at in range(2 * rank, whole, 8) for study in right[at : at + 2]]
        for way in ("views", "own"):
            assert sorted(study for rank in found.values() for study in rank[way][epoch]) == sorted(right), way
