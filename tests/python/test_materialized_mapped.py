"""Finished shards that come and go while somebody maps them: nobody else gets an error, and no error is unsaid."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Program, digest, needs_root, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset
from test_materialized_mount import FLAGS, layered, status

__all__ = ["layered"]
NAME = "shard-000000.tar"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four volumes of 1.5 MiB in two shards."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 4, (64, 96, 128), deflated=True)


@pytest.fixture(scope="module")
def right(program: Program, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards, finished."""
    return program.materialize(dataset, tmp_path_factory.mktemp("right"), *FLAGS)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[None]:
    """Open, and read a little."""
    with path.open("rb") as file:
        assert len(file.read(4096)) == 4096
        yield


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Mapped, and read a little; the file itself is closed, as NumPy and wids do it."""
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with contextlib.closing(view):
        assert view[1 << 20]
        yield


@contextlib.contextmanager
def mapped_later(path: Path) -> Iterator[None]:
    """Opened now, and mapped when the others have read."""
    with path.open("rb") as file:
        yield
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            assert view[:4096] == file.read(4096)


HOLDERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {
    "opened": opened,
    "mapped": mapped,
    "mapped later": mapped_later,
}


def assert_readable(point: Path, right: Path) -> None:
    """Whoever opens the shard gets its bytes, in every way of reading."""
    content = (right / NAME).read_bytes()
    for _ in range(2):
        assert (point / NAME).read_bytes() == content
        with mapped(point / NAME), (point / NAME).open("rb") as file:
            assert file.read() == content
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                assert view[:] == content


@pytest.mark.parametrize("when", ["before", "while it is gone", "after"])
@pytest.mark.parametrize("holder", list(HOLDERS))
def test_a_shard_that_is_removed_and_made_again(
    program: Program, dataset: Dataset, right: Path, tmp_path: Path, holder: str, when: str
) -> None:
    """Whoever holds it, and since when: all others can open, read and map it, before, meanwhile and after."""
    out = tmp_path / "out"
    shutil.copytree(right, out)
    with program.mounted(dataset, *FLAGS, "--materialized", out) as point:
        with contextlib.ExitStack() as held:
            for moment in ("before", "while it is gone", "after"):
                if moment == "while it is gone":
                    (out / NAME).unlink()
                elif moment == "after":
                    shutil.copy(right / NAME, out)
                if moment == when:
                    held.enter_context(HOLDERS[holder](point / NAME))
                assert_readable(point, right)
            time.sleep(1.2)  # by now the name may lead to the new file
            assert_readable(point, right)
        assert json.loads((point / ".ctwds" / "errors.json").read_text()) == []


@needs_root
def test_the_kernel_reads_the_new_file_by_itself(
    program: Program, dataset: Dataset, right: Path, tmp_path: Path
) -> None:
    """A reader of the time when the file was gone keeps nobody from it: the name leads to it by a new inode."""
    out = tmp_path / "out"
    shutil.copytree(right, out)
    with program.mounted(dataset, *FLAGS, "--materialized", out) as point:
        (out / NAME).unlink()
        with mapped(point / NAME):
            inode = (point / NAME).stat().st_ino
            shutil.copy(right / NAME, out)
            wait_until(lambda: (point / NAME).stat().st_ino != inode, "the name leads to the new file")
            served = status(point)["bytes_served"]
            assert digest(point / NAME) == digest(right / NAME)
            found = status(point)
            assert found["bytes_served"] == served and found["waiting_reads"] == 0
        # A file that nobody missed keeps its inode.
        inode = (point / NAME).stat().st_ino
        (out / NAME).unlink()
        shutil.copy(right / NAME, out)
        with pytest.raises(AssertionError):
            wait_until(lambda: (point / NAME).stat().st_ino != inode, "never", 2.5)


@needs_root
def test_every_error_of_a_finished_shard_is_told(
    program: Program, dataset: Dataset, right: Path, layered: Path
) -> None:
    """A file that is cut while it is open gives an error, never fewer bytes; status and log name it, once."""
    out = layered / "out"
    shutil.copytree(right, out)
    with program.mounted(dataset, *FLAGS, "--materialized", out) as point:
        with (point / NAME).open("rb", buffering=0) as file:
            assert file.read(512)
            os.truncate(out / NAME, 1 << 20)
            for _ in range(2):
                with pytest.raises(OSError, match="Stale"):
                    os.pread(file.fileno(), 1 << 20, 2 << 20)
        found = json.loads(program.run("status", "--json", point).stdout)["errors"]
        assert [(error["shard"], str(out / NAME) in error["error"]) for error in found] == [(NAME, True)]
        assert f"  {NAME}: {out / NAME}" in program.run("status", point).stdout
        assert (point.parent / "log").read_text().count(f"ERROR] {NAME}") == 1
        assert_readable(point, right)
