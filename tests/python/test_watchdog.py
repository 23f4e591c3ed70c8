"""The deadline of the mounts of these tests: of one test, however long the mount's file takes."""

from __future__ import annotations

import time

from conftest import pytest_runtest_setup
from harness import SMALL_FLAGS, Program, is_mounted, mount_folder, require_fuse, wait_until
from make_dataset import Dataset

SECONDS = 4.0  # more than a slow machine needs for a mount


def test_each_test_begins_the_deadline_anew(program: Program, small: Dataset) -> None:
    """The mount outlives its deadline while tests begin; and is gone when one takes longer."""
    require_fuse()
    with mount_folder(seconds=SECONDS) as base:
        point = base / "mount"
        pytest_runtest_setup()
        program.run("mount", *small.flags(), *SMALL_FLAGS, "--log-file", base / "log", point)
        for _ in range(4):
            pytest_runtest_setup()
            time.sleep(SECONDS / 3)
            assert is_mounted(point)
        wait_until(lambda: not is_mounted(point), "the deadline is over", 3 * SECONDS)
