"""Errors of the file system, not of a file's content: they are fatal while planning, because a plan must not depend on
the weather; they fail the reads that meet them afterwards; and a full disk costs nothing that was finished."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import FaultyFolder, faulty_folder, small_disk
from harness import NOBODY, Program, digest, files_in, needs_root, require_fuse, shards, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset, write_dataset

VOLUME = {"data": np.arange(24, dtype="f4").reshape(2, 3, 4)}
AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}


# --- no permission ---------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("what", ["volume", "folder", "data folder", "reports", "meta", "labels"])
def test_no_permission_is_fatal(program: Program, open_folder: Path, what: str) -> None:
    """EACCES names the file and is no reason to leave a sample out."""
    dataset = write_dataset(open_folder, {f"p{n}/v{n}.npz": VOLUME for n in range(4)})
    public = Program(Path(shutil.copy(program.path, open_folder)))  # the build folder may be closed to that user
    assert "Samples      4 " in public.run("plan", *dataset.flags(), **AS_NOBODY).stdout
    closed = {
        "volume": dataset.folder / "p2" / "v2.npz",
        "folder": dataset.folder / "p2",
        "data folder": dataset.folder,
        "reports": dataset.reports,
        "meta": dataset.meta,
        "labels": dataset.labels,
    }[what]
    closed.chmod(0)
    for command in (["plan"], ["materialize", "--output-dir", open_folder / "out"]):
        message = public.refuses(*command, *dataset.flags(), **AS_NOBODY)
        assert "Permission denied" in message and str(closed) in message and "left out" not in message
    closed.chmod(0o755)
    assert not (open_folder / "out").exists()


# --- links -----------------------------------------------------------------------------------------------------------


# What a link of a volume's name leads to, and where the volume is put to mend it.
BROKEN = {
    "nothing": ("../annex/v1", "annex/v1"),  # git-annex, where the content was not fetched
    "itself": ("v1.npz", "volumes/v1.npz"),
    "a circle": ("../circle", "circle"),
    "below a file": ("../labels.csv/v1", "volumes/v1.npz"),
    "a name that is too long": ("x" * 300, "volumes/v1.npz"),
}


@pytest.mark.parametrize("leads_to", BROKEN)
def test_a_volume_that_is_a_broken_link(program: Program, tmp_path: Path, leads_to: str) -> None:
    """It is left out with the reason, and keeps its slot: no other key changes when it comes."""
    dataset = write_dataset(tmp_path, {f"v{n}.npz": VOLUME for n in range(3)})
    right = files_in(program.materialize(dataset, tmp_path / "right", "--samples-per-shard", 1))
    link = dataset.folder / "v1.npz"
    content = link.read_bytes()
    link.unlink()
    target, place = BROKEN[leads_to]
    link.symlink_to(target)
    if leads_to == "a circle":
        (tmp_path / "circle").symlink_to("volumes/v1.npz")
    for _ in range(2):  # from the volumes, and from what the first run kept
        said = program.run("plan", *dataset.flags(), "--samples-per-shard", 1).stdout
        assert "v1.npz: it is a symbolic link to" in said and "slots stay empty" in said, said
    said = program.refuses("plan", *dataset.flags(), "--strict")
    assert str(link) in said and "symbolic link" in said and "--strict" in said, said
    out = program.materialize(dataset, tmp_path / "out", "--samples-per-shard", 1)
    (left_out,) = json.loads((out / "manifest.json").read_text())["left_out"]
    assert left_out["study_id"] == "v1" and "symbolic link" in left_out["reason"]
    made = {name: content for name, content in files_in(out).items() if name.endswith(".tar")}
    assert all((made[name] == right[name]) == (name != "shard-000001.tar") for name in made) and len(made) == 3
    (tmp_path / "list.csv").write_text("study_id\nv1\n")
    said = program.run("plan", *dataset.flags(), "--strict", "--exclude", tmp_path / "list.csv").stdout
    assert "excluded by" in said, said
    if place == "volumes/v1.npz":
        link.unlink()
    (tmp_path / place).unlink(missing_ok=True)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(content)
    mended = files_in(program.materialize(dataset, tmp_path / "mended", "--samples-per-shard", 1))
    assert mended == right


def test_names_that_are_not_utf8(program: Program, tmp_path: Path) -> None:
    """No table can name them: they are no samples, and each has an id of its own in lists."""
    dataset = write_dataset(tmp_path, {f"{name}.npz": VOLUME for name in ("v0", "", "v\ufffd", "x1", "x2")})
    for name, other in ((b"x1.npz", b"v\xff.npz"), (b"x2.npz", b"v\xfe.npz")):
        os.rename(os.fsencode(dataset.folder) + b"/" + name, os.fsencode(dataset.folder) + b"/" + other)
    said = program.run("plan", *dataset.flags()).stdout
    assert r"2 volumes: not in any table, as its name is not UTF-8 (b'v\xfe', b'v\xff')" in said, said
    out = program.materialize(dataset, tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    found = [sample["study_id"] for shard in manifest["shards"] for sample in shard["samples"]]
    assert sorted(found) == ["v0", "v\ufffd"] and len({each["study_id"] for each in manifest["unmatched"]}) == 2


@pytest.mark.parametrize("target", ["..", "../..", "."])
def test_cycle_of_folders(program: Program, tmp_path: Path, target: str) -> None:
    """The link and what it leads back to are named."""
    dataset = write_dataset(tmp_path, {"a/b/v0.npz": VOLUME, "a/b/v1.npz": VOLUME})
    (dataset.folder / "a" / "back").symlink_to(target)
    message = program.refuses("plan", *dataset.flags())
    assert "cycle" in message and str(dataset.folder / "a" / "back") in message and "remove" in message


def test_a_link_to_itself_that_is_no_volume(program: Program, tmp_path: Path) -> None:
    """It is no part of the data set, as a link to nothing is none."""
    dataset = write_dataset(tmp_path, {"v0.npz": VOLUME})
    (dataset.folder / "loop").symlink_to("loop")
    assert "1 " in program.run("plan", *dataset.flags(), "--strict").stdout


# --- a file system that fails ----------------------------------------------------------------------------------------


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[FaultyFolder, Dataset]]:
    """A data set of four volumes on a file system that works until it is told otherwise."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    require_fuse()
    dataset = noise_dataset(tmp_path, 4, (32, 32, 64))
    with faulty_folder({path.name: path.read_bytes() for path in dataset.volumes()}) as folder:
        yield folder, replace(dataset, folder=folder.point)


def test_the_faulty_folder_works_otherwise(
    program: Program, faulty: tuple[FaultyFolder, Dataset], tmp_path: Path
) -> None:
    """The tests below would prove nothing if it did not."""
    right = program.materialize(replace(faulty[1], folder=tmp_path / "volumes"), tmp_path / "right")
    made = program.materialize(faulty[1], tmp_path / "made")
    assert [digest(path) for path in shards(made)] == [digest(path) for path in shards(right)]


@pytest.mark.parametrize(
    ("operation", "name", "code"),
    [
        *itertools.product(["open", "read"], ["v02.npz"], [errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT]),
        *itertools.product(["list"], [""], [errno.EIO, errno.ESTALE]),
        ("lookup", "v02.npz", errno.EIO),
        ("open", "v02.npz", errno.ENOENT),  # it was listed a moment ago
    ],
)
def test_error_while_planning_is_fatal(
    program: Program, faulty: tuple[FaultyFolder, Dataset], tmp_path: Path, operation: str, name: str, code: int
) -> None:
    """The message names the file or folder, and the kernel's reason; no plan without the volume comes about."""
    folder, dataset = faulty
    folder.faults[operation, name] = code
    for command in (["plan"], ["materialize", "--output-dir", tmp_path / "out"]):
        message = program.refuses(*command, *dataset.flags())
        assert name in message and os.strerror(code) in message and "left out" not in message
    assert not (tmp_path / "out").exists()
    folder.faults.clear()
    assert "Samples      4 " in program.run("plan", *dataset.flags()).stdout


def test_error_while_mounted(program: Program, faulty: tuple[FaultyFolder, Dataset], tmp_path: Path) -> None:
    """Readers get EIO and the log has the reason; when the storage is back, so are the bytes: errors are not kept."""
    folder, dataset = faulty
    right = program.materialize(dataset, tmp_path / "right", "--samples-per-shard", 1)
    with program.mounted(dataset, "--samples-per-shard", 1) as point:
        log = point.parent / "log"
        for number, operation in enumerate(["read", "open"], start=1):
            shard, volume = f"shard-00000{number}.tar", f"v0{number}.npz"
            folder.faults[operation, volume] = errno.EIO
            with pytest.raises(OSError, match="Input/output error"):
                (point / shard).read_bytes()
            errors = [line for line in log.read_text().splitlines() if "ERROR" in line]
            assert len(errors) == number and volume in errors[-1] and "Input/output error" in errors[-1]
            assert (point / "shard-000000.tar").read_bytes() == (right / "shard-000000.tar").read_bytes()
            folder.faults.clear()
            assert (point / shard).read_bytes() == (right / shard).read_bytes()


def test_error_while_materializing(program: Program, faulty: tuple[FaultyFolder, Dataset], tmp_path: Path) -> None:
    """Only the shard that needs the volume fails; the same command makes it when the storage is back."""
    folder, dataset = faulty
    out = tmp_path / "out"
    flags = [*dataset.flags(), "--samples-per-shard", "1", "--output-dir", out]

    def break_the_third(name: str) -> None:
        # The shard before may still be on its way to the disk; the one before that is there.
        if name == "v02.npz" and (out / "shard-000000.tar").exists():
            folder.faults["read", name] = errno.EIO

    folder.on_read = break_the_third
    message = program.refuses("materialize", *flags, "--num-workers", 1)
    assert "shard-000002.tar" in message and "v02.npz" in message and "Input/output error" in message
    assert [path.name for path in shards(out)] == [f"shard-00000{n}.tar" for n in (0, 1, 3)]
    assert not (out / "manifest.json").exists()
    folder.on_read = lambda name: None
    folder.faults.clear()
    assert "1 shard written, 3 kept" in program.run("materialize", *flags).stdout


# --- a full disk -----------------------------------------------------------------------------------------------------


@needs_root
def test_no_space_is_refused_before_anything_is_written(program: Program, tmp_path: Path) -> None:
    """The message says what is needed and what there is."""
    dataset = noise_dataset(tmp_path, 4, (32, 32, 64))
    with small_disk("400k") as disk:
        message = program.refuses("materialize", *dataset.flags(), "--output-dir", disk / "out")
        assert str(disk / "out") in message and "needed" in message and "free" in message
        assert not [path for path in (disk / "out").iterdir() if path.name != ".ctwds"]


def test_disk_that_fills_up_half_way(program: Program, faulty: tuple[FaultyFolder, Dataset], tmp_path: Path) -> None:
    """The partial file is removed, finished shards stay, and after making room the same command goes on."""
    folder, dataset = faulty
    right = program.materialize(dataset, tmp_path / "right", "--samples-per-shard", 1)
    with small_disk("2M") as disk:
        out, ballast = disk / "out", disk / "ballast"
        command = ["materialize", *dataset.flags(), "--samples-per-shard", "1", "--output-dir", out]

        def fill_the_disk(name: str) -> None:
            # Not while planning; and a shard is written out while the next one is made.
            if name == "v02.npz" and (out / "shard-000000.tar").exists() and not ballast.exists():
                wait_until((out / "shard-000001.tar").exists, "the second shard is finished")
                stat = os.statvfs(disk)
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, stat.f_bavail * stat.f_frsize - 50_000)

        folder.on_read = fill_the_disk
        message = program.refuses(*command, "--num-workers", 1)
        assert "No space left" in message and "run the same command" in message and "shard-000002.tar" in message
        assert sorted(path.name for path in out.iterdir()) == [".ctwds", "shard-000000.tar", "shard-000001.tar"]
        assert all(digest(path) == digest(right / path.name) for path in shards(out))
        assert "needed" in program.refuses(*command)  # still full: nothing begins
        ballast.unlink()
        folder.on_read = lambda name: None
        assert "2 shards written, 2 kept" in program.run(*command).stdout
        for path in [*shards(right), right / "manifest.json"]:
            assert (out / path.name).read_bytes() == path.read_bytes()
