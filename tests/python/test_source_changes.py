"""Sources that change under readers who have begun: by any change, with and without the kernel's cache, through the
handle that was open and through a mapping. Each part that they get is of the planned bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Program, digest
from small_datasets import noise_dataset
from test_damage import BLOCK, LARGE, Case, cut, exchange, flip, overwrite, rewrite

# Prints the digest of each block as it goes, because a page that cannot be had ends the process with SIGBUS.
READ = """
import hashlib, mmap, os, sys
path, how, start, stop, block = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
file = os.open(path, os.O_RDONLY)
view = mmap.mmap(file, 0, access=mmap.ACCESS_READ) if how == "mapped" else None
def read(at, size):
    return view[at : at + size] if view else os.pread(file, size, at)
read(start, 4096)
print("begun", flush=True)
sys.stdin.readline()
for at in range(start, stop, block):
    try:
        got = read(at, min(block, stop - at))
        print(at, len(got), hashlib.sha256(got).hexdigest(), flush=True)
    except OSError as error:
        print(at, 0, error.errno, flush=True)
"""


@pytest.mark.parametrize(("page_cache", "how"), [("on", "handle"), ("on", "mapped"), ("off", "handle")])
@pytest.mark.parametrize("change", [overwrite, rewrite, flip, exchange, cut, Path.unlink])
def test_readers_who_have_begun(
    program: Program, tmp_path: Path, change: Callable[[Path], None], page_cache: str, how: str
) -> None:
    """What was cached is served on; all else is ESTALE; nothing is new, or mixed. The cache holds no whole volume, so
    that the rest has to be read from the changed source."""
    dataset = noise_dataset(tmp_path, 4, LARGE)
    case = Case(dataset, program.materialize(dataset, tmp_path / "right", "--samples-per-shard", 3))
    right, wanted = (case.right / "shard-000000.tar").read_bytes(), case.bad_range()
    flags = ["--samples-per-shard", 3, "--page-cache", page_cache, "--cache-size", "1MiB", "--read-ahead", 0]
    with program.mounted(dataset, *flags) as point:
        place = [str(number) for number in (wanted.start, wanted.stop, BLOCK)]
        command = [sys.executable, "-c", READ, str(point / "shard-000000.tar"), how, *place]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as reader:
            assert reader.stdout and reader.stdout.readline() == "begun\n"
            # The volume stays in memory for its reader until another one needs the room.
            assert digest(point / "shard-000001.tar") == digest(case.right / "shard-000001.tar")
            change(case.bad)
            output, _ = reader.communicate("\n", timeout=60)
        assert reader.returncode == 0 or (how == "mapped" and reader.returncode == -signal.SIGBUS)
        failed = reader.returncode != 0
        for line in output.splitlines():
            at, length, answer = line.split()
            start = int(at)
            if int(length):  # fewer than asked for where the next page is not to be had
                part = right[start : start + int(length)]
                assert answer == hashlib.sha256(part).hexdigest(), f"other bytes at {start - wanted.start}"
            else:
                assert int(answer) in (errno.ESTALE, errno.EIO), os.strerror(int(answer))
                failed = True
        assert failed, "the changed source was read to its end"
        case.check_all_but_the_bad(point)
