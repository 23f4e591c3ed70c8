"""Mountpoints and output folders that cannot be used are refused with reason and remedy, and stay as they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import Program, digest, is_mounted, shards
from make_dataset import Dataset
from small_datasets import write_dataset


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four volumes of a few voxels, in folders."""
    volumes = {f"p/v{n}.npz": {"data": np.full((2, 3, 4), n, "f4")} for n in range(4)}
    return write_dataset(tmp_path_factory.mktemp("tiny"), volumes)


def tree(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file below a folder: content, time of change and inode."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (digest(path), path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


# --- mountpoints -----------------------------------------------------------------------------------------------------


def refused_mount(program: Program, dataset: Dataset, base: Path, point: Path) -> str:
    """The message of a mount that must not come about, in the background and in the foreground alike."""
    logs = ["--log-file", base / "log"]
    message = program.refuses("mount", *dataset.flags(), *logs, point)
    assert program.refuses("mount", "--foreground", *dataset.flags(), *logs, point) == message
    assert str(point) in message
    return message


def test_missing_mountpoint(program: Program, tiny: Dataset, base: Path) -> None:
    """It is not made on the way: a typo would leave a folder behind."""
    for point in (base / "nothing", base / "nothing" / "below"):
        message = refused_mount(program, tiny, base, point)
        assert "does not exist" in message and "mkdir" in message
    assert not (base / "nothing").exists()


def test_mountpoint_that_is_a_file(program: Program, tiny: Dataset, base: Path) -> None:
    """Said as it is."""
    (base / "file").write_bytes(b"")
    assert "not a folder" in refused_mount(program, tiny, base, base / "file")


def test_mountpoint_that_is_not_empty(program: Program, tiny: Dataset, tmp_path: Path, base: Path) -> None:
    """What is in it would be hidden; a hidden file counts."""
    for name in ("file", ".hidden"):
        point = tmp_path / name
        point.mkdir()
        (point / name).write_bytes(b"")
        assert "not empty" in refused_mount(program, tiny, base, point)


@pytest.mark.parametrize("by_link", [False, True])
def test_mountpoint_inside_the_data_folder(
    program: Program, tiny: Dataset, base: Path, tmp_path: Path, by_link: bool
) -> None:
    """The mount would become part of its own sources."""
    point = tiny.folder / "inside"
    point.mkdir(exist_ok=True)
    if by_link:
        point = tmp_path / "link"
        point.symlink_to(tiny.folder / "inside")
    message = refused_mount(program, tiny, base, point)
    assert "inside the data folder" in message and str(tiny.folder) in message and "choose" in message


def test_mountpoint_that_contains_the_data_folder(program: Program, tiny: Dataset, base: Path) -> None:
    """The mount would hide its own sources; the same for the data folder itself."""
    for point in (tiny.folder, tiny.folder.parent):
        message = refused_mount(program, tiny, base, point)
        assert "hide the data folder" in message and "choose" in message


@pytest.mark.parametrize("by_link", [False, True])
def test_mountpoint_with_a_mount(program: Program, tiny: Dataset, base: Path, tmp_path: Path, by_link: bool) -> None:
    """One of ours is named with its process; the mount that is there goes on."""
    point = base / "mount"
    program.run("mount", *tiny.flags(), "--log-file", base / "log", point)
    named = point
    if by_link:
        named = tmp_path / "link"
        named.symlink_to(point)
    message = refused_mount(program, tiny, base, named)
    assert "already" in message and "unmount" in message and "process" in message
    assert len(shards(point)) == 1
    program.run("unmount", point)


def test_mountpoint_with_another_mount(program: Program, tiny: Dataset, base: Path) -> None:
    """Somebody else's file system is neither covered nor ended."""
    message = refused_mount(program, tiny, base, Path("/proc"))
    assert "already mounted" in message and "choose" in message
    message = program.refuses("unmount", "/proc")
    assert "not a mount of ctwds-fs" in message and is_mounted(Path("/proc"))


def test_unmount_where_nothing_is_mounted(program: Program, base: Path) -> None:
    """A folder, and no folder."""
    assert "nothing is mounted" in program.refuses("unmount", base / "mount")
    assert str(base / "nothing") in program.refuses("unmount", base / "nothing")


def test_sizes_and_numbers_that_make_no_sense(program: Program, tiny: Dataset, base: Path, tmp_path: Path) -> None:
    """The flag is named, whether it is the parser that refuses it (usage errors exit with 2) or the command."""
    for flag, value in {
        "--cache-size": "0",
        "--threads": "0",
        "--samples-per-shard": "0",
        "--limit": "x",
        "--overflow": "clip",
    }.items():
        done = program.run("mount", *tiny.flags(), flag, value, base / "mount", check=False)
        assert done.returncode in (1, 2) and flag in done.stderr, done.stderr
    assert not is_mounted(base / "mount")
    done = program.run("materialize", *tiny.flags(), "--num-workers=0", "--output-dir", tmp_path / "out", check=False)
    assert done.returncode == 2 and "--num-workers" in done.stderr and not (tmp_path / "out").exists()


# --- output folders --------------------------------------------------------------------------------------------------


def another_option(dataset: Dataset) -> list[str]:
    """Other shards by an option."""
    return [*dataset.flags(), "--samples-per-shard", "3"]


def another_table(dataset: Dataset) -> list[str]:
    """The same shards but for one label."""
    dataset.labels.write_text(dataset.labels.read_text().replace("0.1,2", "0.1,7"))
    return dataset.flags()


def another_volume(dataset: Dataset) -> list[str]:
    """The same names and sizes, other voxels."""
    np.savez(dataset.folder / "p" / "v2.npz", data=np.full((2, 3, 4), 77, "f4"))
    return dataset.flags()


@pytest.mark.parametrize("change", [another_option, another_table, another_volume])
def test_output_folder_of_another_plan(
    program: Program, tmp_path: Path, change: Callable[[Dataset], list[str]]
) -> None:
    """Refused, with the remedy, and not a byte of it is touched; the plan that made it still fits."""
    volumes = {f"p/v{n}.npz": {"data": np.full((2, 3, 4), n, "f4")} for n in range(4)}
    dataset = write_dataset(tmp_path, volumes, writer="numpy")
    out = program.materialize(dataset, tmp_path / "out")
    (out / "shard-000000.tar.partial").write_bytes(b"of the other plan")
    before = tree(out)
    message = program.refuses("materialize", *change(dataset), "--output-dir", out)
    assert str(out) in message and "another plan" in message and "empty folder" in message
    assert tree(out) == before


@pytest.mark.parametrize("name", ["shard-000000.tar", "shard-000007.tar", "manifest.json"])
def test_output_folder_with_foreign_shards(program: Program, tiny: Dataset, tmp_path: Path, name: str) -> None:
    """Nobody knows what they are: they are neither kept as ours nor overwritten."""
    (tmp_path / name).write_bytes(b"precious")
    message = program.refuses("materialize", *tiny.flags(), "--output-dir", tmp_path)
    assert str(tmp_path) in message and "another plan" in message
    assert (tmp_path / name).read_bytes() == b"precious"
    assert not [path for path in tmp_path.iterdir() if path.is_file() and path.name != name]


def test_output_folder_that_was_refused_stays_refused(program: Program, tiny: Dataset, tmp_path: Path) -> None:
    """The first, refused run must not leave a record that lets the second one in."""
    (tmp_path / "shard-000000.tar").write_bytes(b"precious")
    for _ in range(2):
        program.refuses("materialize", *tiny.flags(), "--output-dir", tmp_path)
    assert (tmp_path / "shard-000000.tar").read_bytes() == b"precious"


def test_output_folder_with_other_files(program: Program, tiny: Dataset, tmp_path: Path) -> None:
    """They are none of our business and stay."""
    (tmp_path / "notes.txt").write_bytes(b"precious")
    out = program.materialize(tiny, tmp_path)
    assert (out / "notes.txt").read_bytes() == b"precious" and len(shards(out)) == 1


def test_output_folder_that_cannot_be_made(program: Program, tiny: Dataset, tmp_path: Path) -> None:
    """A file is in its place, or the file system is read-only."""
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/out")):
        assert str(out) in program.refuses("materialize", *tiny.flags(), "--output-dir", out)


def test_output_folder_inside_the_mount(program: Program, tiny: Dataset) -> None:
    """The mount is read-only for us as well, and says so."""
    with program.mounted(tiny) as point:
        message = program.refuses("materialize", *tiny.flags(), "--output-dir", point / "out")
        assert "Read-only file system" in message
        assert "out" not in os.listdir(point)
