"""The look at a data set before a command's work: on slow storage nobody faces an empty screen."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import faulty_folder
from harness import Program, needs_root, on_a_terminal, require_fuse
from make_dataset import Dataset
from small_datasets import noise_dataset

COUNT = 60
DELAY = 0.04  # seconds a read: more than two in all, as the test's file system answers one read at a time


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """Volumes on storage that takes its time."""
    require_fuse()
    data = noise_dataset(tmp_path_factory.mktemp("data"), COUNT, (4, 4, 4))
    with faulty_folder({path.name: path.read_bytes() for path in data.volumes()}) as folder:
        folder.on_read = lambda name: time.sleep(DELAY)
        yield Dataset(folder.point, data.reports, data.meta, data.labels)


@needs_root
@pytest.mark.parametrize("columns", [80, 120])
def test_a_slow_scan_shows_how_far_it_is(program: Program, slow: Dataset, columns: int) -> None:
    """Studies seen, of how many, the rate and the time left, in one line that is redrawn and then taken away."""
    shown = on_a_terminal(program, "plan", "--rescan", *slow.flags(), columns=columns)
    drawn = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", shown)]
    bars = [line for line in drawn if "files looked into" in line]
    assert len(bars) > 1
    counts = [re.match(rf"(\d+)/{COUNT} files looked into, \S+/s, \d+\w+ left", line) for line in bars]
    seen = [int(count[1]) for count in counts if count]
    assert len(seen) == len(bars) and seen == sorted(seen) and 0 < seen[0] < COUNT, bars
    assert max(len(line) for line in bars) <= columns
    assert "Samples      60" in shown and "files looked into" not in shown[shown.index("Samples  ") :]


@needs_root
def test_no_display_without_a_terminal_or_a_reason(program: Program, slow: Dataset, tmp_path: Path) -> None:
    """A log gets no line of it, and a scan that is over in a moment shows nothing."""
    assert "looked into" not in program.run("plan", "--rescan", *slow.flags()).stderr
    fast = noise_dataset(tmp_path, 4)
    assert "looked into" not in on_a_terminal(program, "plan", "--rescan", *fast.flags())
