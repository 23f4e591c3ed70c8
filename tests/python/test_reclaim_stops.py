"""`reclaim` asks before it removes anything, lets nobody else change the folder meanwhile, and may be stopped at any
moment."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from harness import Program, files_in, payload, shards, wait_until
from make_dataset import Dataset
from reclaiming import COUNT, DELETE, FLAGS, journal, names, reclaim
from small_datasets import noise_dataset

MANY = 24


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Six volumes that a test may lose, in three shards."""
    return noise_dataset(tmp_path / "data", COUNT, (24, 24, 16), deflated=True)


@pytest.fixture
def plain(program: Program, data: Dataset, tmp_path: Path) -> Path:
    """Their plain shards."""
    return program.materialize(data, tmp_path / "plain", *FLAGS)


def ask(program: Program, command: list[object], answer: str) -> tuple[int, str]:
    """Run a command on a terminal and answer its question; exit code and what it printed to stderr."""
    ours, theirs = pty.openpty()
    try:
        with program.running(*command, stdin=theirs) as process:
            os.write(ours, answer.encode())
            _, err = process.communicate(timeout=60)
            return process.returncode, err
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_word_is_wanted(program: Program, data: Dataset, plain: Path) -> None:
    """Typed on a terminal; without one, and without --yes, nothing happens."""
    command = ["reclaim", *data.flags(), *FLAGS, "--delete", "--shards", plain]
    assert "--yes" in program.refuses(*command)
    for answer in ("\n", "yes\n", "\x04"):
        code, err = ask(program, command, answer)
        assert code == 1 and "nothing was removed" in err and len(names(data)) == COUNT
    code, err = ask(program, command, "delete\n")
    assert code == 0 and "Type delete" in err and "cannot be undone" in err and names(data) == []
    assert program.run("reclaim", *data.flags(), "--yes", "--shards", plain, check=False).returncode == 2


def test_another_run_at_work(program: Program, data: Dataset, plain: Path, tmp_path: Path) -> None:
    """Neither a materialize nor a second reclaim may change the folder meanwhile; a dry run may look."""
    ours, theirs = pty.openpty()
    command = ["reclaim", *data.flags(), *FLAGS, "--shards", plain]
    try:
        with program.running(*command, "--delete", stdin=theirs, stderr=(tmp_path / "err").open("w")) as process:
            wait_until(lambda: "Type delete" in (tmp_path / "err").read_text(), "the question")
            assert "reclaim" in program.refuses("materialize", *data.flags(), *FLAGS, "--output-dir", plain)
            assert "reclaim" in program.refuses(*command, *DELETE)
            assert reclaim(program, data, plain)["files"] == COUNT
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert len(names(data)) == COUNT


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Small volumes that stay."""
    return noise_dataset(tmp_path_factory.mktemp("saved"), MANY, (16, 16, 16), deflated=True)


def held(folder: Path) -> set[tuple[str, str]]:
    """The studies of plain shards with the digests of their voxels, by `tarfile`."""
    found = set()
    for shard in shards(folder):
        with tarfile.open(shard) as tar:
            payloads = {info.name: payload(tar, info) for info in tar}
        for name, content in payloads.items():
            if name.endswith(".json"):
                voxels = payloads[name.removesuffix(".json") + ".bin"]
                found.add((json.loads(content)["study_id"], hashlib.sha256(voxels).hexdigest()))
    return found


def restore(saved: Dataset, data: Dataset) -> None:
    """Brings back what was removed."""
    for path in saved.volumes():
        if not (data.folder / path.name).exists():
            shutil.copy2(path, data.folder)


def lost(saved: Dataset, data: Dataset) -> set[tuple[str, str]]:
    """The studies whose NPZ is gone, with the digest of their voxels as NumPy converts them."""
    gone = [path for path in saved.volumes() if not (data.folder / path.name).exists()]
    voxels = {path.stem: np.ascontiguousarray(np.load(path)["data"]).astype("<f2").tobytes() for path in gone}
    return {(study, hashlib.sha256(value).hexdigest()) for study, value in voxels.items()}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_stopped_at_any_moment(program: Program, saved: Dataset, tmp_path: Path, end: signal.Signals) -> None:
    """Whatever is gone is in a shard, and in the journal; the next run goes on. An interrupted run says so."""
    data = Dataset(tmp_path / "npz", saved.reports, saved.meta, saved.labels)
    data.folder.mkdir()
    restore(saved, data)
    made = program.materialize(data, tmp_path / "made", *FLAGS)
    right = files_in(made)
    command = ["reclaim", *data.flags(), *FLAGS, *DELETE, "--shards", made, "--num-workers", 2]
    rng = random.Random(int(end))
    begin = time.monotonic()
    program.run(*command)
    whole = time.monotonic() - begin
    in_shards = held(made)
    wanted, stopped, halves = (20 if end == signal.SIGKILL else 4), 0, 0
    deadline = time.monotonic() + 60
    while stopped < wanted:
        assert time.monotonic() < deadline, f"only {stopped} runs were stopped before their end"
        if not names(data):
            restore(saved, data)
            if rng.random() < 0.5:
                journal(made).unlink()
        before = len(names(data))
        with program.running(*command) as process:
            time.sleep(rng.random() * whole)
            process.send_signal(end)
            _, err = process.communicate(timeout=30)
        missing = lost(saved, data)
        assert missing <= in_shards
        removing = journal(made).read_text() if journal(made).exists() else ""
        assert all(f'"study_id":"{study}"' in removing for study, _ in missing)
        is_stopped = process.returncode != 0
        assert process.returncode in (0, -end) or (end == signal.SIGINT and process.returncode == 128 + end), err
        stopped += is_stopped
        halves += is_stopped and 0 < len(names(data)) < before
        if process.returncode == 128 + end:
            assert "interrupted" in err and "same command" in err
    assert halves > 0, "no run was stopped between two removals"
    assert files_in(made) == right
    done = program.run(*command)
    assert names(data) == [] and f"{MANY - before_last(done)} removed earlier" in done.stdout


def before_last(done: subprocess.CompletedProcess[str]) -> int:
    """How many files a finished run removed."""
    return int(done.stdout.split(" source file")[0].rpartition(" ")[2])


def test_a_journal_that_was_cut(program: Program, data: Dataset, plain: Path) -> None:
    """A line that a crash cut short is no line: what it spoke of is there, or its shard is in doubt."""
    keep = data.folder.parent / "keep"
    keep.mkdir()
    shutil.move(data.volumes()[5], keep)
    reclaim(program, data, plain, *DELETE, code=1)
    shutil.move(keep / "v05.npz", data.folder)
    with journal(plain).open("a") as file:
        file.write('{"removing":{"study_id":"v05","pa')
    assert reclaim(program, data, plain, *DELETE)["files"] == 2
    text = journal(plain).read_text().splitlines()
    assert sum("removing" in line and json.loads(line) is not None for line in text if line.endswith("}")) == COUNT
