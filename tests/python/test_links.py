"""Others may write to an output folder: what they put there as links is never written through."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Program, digest, files_in
from make_dataset import Dataset
from reclaiming import DELETE, journal
from small_datasets import noise_dataset

FLAGS = ("--samples-per-shard", 2)
DEADLINE = 20  # seconds that a command may take, which takes less than one


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four volumes."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 4, (8, 8, 8))


@pytest.fixture(scope="module")
def made(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their two shards, and all that stands beside them."""
    return program.materialize(data, tmp_path_factory.mktemp("made") / "out", *FLAGS)


def state(folder: Path) -> dict[str, tuple[int, int, str]]:
    """What a write would change, of all entries below a folder."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        stat = path.lstat()
        content = digest(path) if path.is_file() else "folder"
        found[str(path)] = (stat.st_ino, stat.st_mtime_ns, content)
    return found


def trapped(made: Path, folder: Path, extra: tuple[str, ...] = ()) -> Iterator[tuple[str, Path, Path]]:
    """Copies of a finished folder, in each of which one entry leads out of it: to what it was, or to nothing that is
    there yet. The entry, the copy, and the folder that nothing may be written to."""
    entries = [str(path.relative_to(made)) for path in sorted(made.rglob("*"))]
    for number, (entry, kind) in enumerate((e, k) for e in [*entries, *extra] for k in ("copy", "nothing")):
        out, outside = folder / f"{number}" / "out", folder / f"{number}" / "outside"
        shutil.copytree(made, out)
        outside.mkdir()
        if (out / entry).exists() and kind == "copy":
            (out / entry).rename(outside / "victim")
        elif (out / entry).is_dir():
            shutil.rmtree(out / entry)
        else:
            (out / entry).unlink(missing_ok=True)
        (out / entry).symlink_to(outside / "victim")
        yield entry, out, outside


@pytest.mark.parametrize("command", ["again", "rebuild"])
def test_no_entry_leads_out(program: Program, data: Dataset, made: Path, tmp_path: Path, command: str) -> None:
    """Of all that the program writes: it is replaced, or the command refuses and names it."""
    right, tried = files_in(made), 0
    for entry, out, outside in trapped(made, tmp_path):
        before = state(outside)
        if command == "again":
            for path in (out / "shard-000001.tar", out / "manifest.json"):
                if entry != path.name:
                    path.unlink()
            arguments = ["materialize", *data.flags(), *FLAGS, "--output_dir", out]
        else:
            arguments = ["manifest", "rebuild", *data.flags(), *FLAGS, out]
        done = program.run(*arguments, check=False, timeout=DEADLINE)
        assert state(outside) == before, (entry, done.stderr)
        if done.returncode == 0:
            assert files_in(out) == right, entry
        else:
            assert done.returncode in (1, 3, 4) and entry.split("/")[0] in done.stdout + done.stderr, (entry, done)
        tried += 1
    assert tried > 20


def test_reclaim_follows_no_link(program: Program, data: Dataset, made: Path, tmp_path: Path) -> None:
    """Neither its own journal is written somewhere else, nor is a file removed for a shard that is somewhere else."""
    own = str(journal(made).relative_to(made))
    for entry, out, outside in trapped(made, tmp_path / "traps", (own,)):
        if not entry.startswith((".ctwds", "manifest", "shard-000001.tar")) or entry.endswith(".idx"):
            continue
        copy = tmp_path / "data" / out.parent.name
        shutil.copytree(data.folder.parent, copy)
        flags = [str(flag).replace(str(data.folder.parent), str(copy)) for flag in data.flags()]
        before = state(outside)
        arguments = ["reclaim", *flags, *FLAGS, "--shards", out, *DELETE]
        done = program.run(*arguments, check=False, timeout=DEADLINE)
        assert state(outside) == before and done.returncode != 0, (entry, done)
        assert entry.split("/")[0] in done.stdout + done.stderr, (entry, done)
        left = sorted(path.name for path in copy.rglob("*.npz"))
        wanted = ["v02.npz", "v03.npz"] if entry.startswith("shard") else ["v00.npz", "v01.npz", "v02.npz", "v03.npz"]
        assert left == wanted or (entry.startswith("shard") and len(left) == 4), entry


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_unfinished_files_that_are_none(program: Program, data: Dataset, tmp_path: Path, kind: str) -> None:
    """Of every shape of name: they are not opened, so no pipe makes the command wait."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    (out / ".nv-meta").mkdir(parents=True)
    host = socket.gethostname()
    for output in ("shard-000000.tar", "manifest.json", ".nv-meta/split.yaml", "shard-000001.tar.idx"):
        for name in (f"{output}.partial", f"{output}.{host}-999999999-1-0.partial", f"{output}.other-1-1-0.partial"):
            if kind == "pipe":
                os.mkfifo(out / name)
            else:
                (out / name).symlink_to(victim)
    if kind == "link":
        victim.write_text("whatever")
    for clean in ([], ["--clean"]):
        program.run("materialize", *data.flags(), *FLAGS, "--output_dir", out, *clean, timeout=DEADLINE)
    assert not victim.exists() if kind != "link" else victim.read_text() == "whatever"
    assert [path.name for path in out.rglob("*.partial")] == []
