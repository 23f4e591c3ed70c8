"""What the tests of `reclaim` share: how many volumes there are, the command, and what it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import Program, report_of
from make_dataset import Dataset

COUNT, PER_SHARD = 6, 2
FLAGS = ("--samples-per-shard", PER_SHARD)
DELETE = ("--delete", "--yes")


def names(dataset: Dataset) -> list[str]:
    """The file names of the volumes that a data set still has."""
    return [path.name for path in dataset.volumes()]


def reclaim(
    program: Program, dataset: Dataset, folder: Path, *flags: object, code: int = 0, given: tuple[object, ...] = FLAGS
) -> dict[str, Any]:
    """The report of `ctwds-fs reclaim` on a folder of shards; fails if the exit code is not `code`."""
    command = ["reclaim", *dataset.flags(), *given, "--shards", folder, "--json", *flags]
    done = program.run(*command, check=False)
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return report_of(done)


def journal(folder: Path) -> Path:
    """The file in which `ctwds-fs reclaim` lists what it removed from the data set of these shards."""
    return folder / ".ctwds" / "reclaim.jsonl"
