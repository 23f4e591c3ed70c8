"""Pipes where files are expected: those that a user names (`<(…)`, /dev/stdin) are read to their end, one that nobody
writes into is an error in time, and one that lies in a folder is no file of it. Nothing waits for ever."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import SMALL_FLAGS, Program, mount_folder
from make_dataset import Dataset
from small_datasets import noise_dataset

DEADLINE = 60  # seconds; a pipe that nobody writes into is waited for for ten
COUNT = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A data set, and beside it one file for each option that names one; never changed."""
    dataset = noise_dataset(tmp_path_factory.mktemp("data"), COUNT)
    beside = dataset.folder.parent
    (beside / "excluded").write_text("study_id,path,reason\nv01,v01.npz,damaged\n")
    (beside / "studies").write_text("v00\nv02\n")
    (beside / "config").write_text(f"data:\n  train_dir: {dataset.folder}\n")
    (beside / "dataset").write_text(f'data_folder = "{dataset.folder}"\n')
    return dataset


def arguments(data: Dataset, option: str, path: object) -> list[object]:
    """A command line on which an option names this file, and what else belongs to it."""
    folder = ["--data-folder", data.folder]
    return {
        "--exclude": [*folder, "--exclude", path],
        "--studies": [*folder, "--studies", path],
        "--reports-file": [*folder, "--reports-file", path],
        "--meta-file": [*folder, "--meta-file", path],
        "--labels-file": [*folder, "--labels-file", path],
        "--config": ["--config", path, "--split", "train"],
        "--dataset": ["--dataset", path],
    }[option]


def file_of(data: Dataset, option: str) -> Path:
    """The regular file for an option."""
    beside = data.folder.parent
    files = {
        "--exclude": beside / "excluded",
        "--studies": beside / "studies",
        "--reports-file": data.reports,
        "--meta-file": data.meta,
        "--labels-file": data.labels,
        "--config": beside / "config",
        "--dataset": beside / "dataset",
    }
    return files[option]


OPTIONS = ["--exclude", "--studies", "--reports-file", "--meta-file", "--labels-file", "--config", "--dataset"]


@pytest.mark.parametrize("option", OPTIONS)
def test_a_pipe_that_nobody_writes_into(program: Program, data: Dataset, tmp_path: Path, option: str) -> None:
    """An error that names it, after ten seconds."""
    os.mkfifo(tmp_path / "pipe")
    said = program.refuses("plan", *arguments(data, option, tmp_path / "pipe"), timeout=DEADLINE)
    assert f"{tmp_path}/pipe: " in said and "nobody has written into this pipe" in said


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("way", ["substitution", "standard input", "a slow writer"])
def test_a_pipe_is_read_to_its_end(program: Program, data: Dataset, tmp_path: Path, option: str, way: str) -> None:
    """The plan is that of the file."""
    file = file_of(data, option)
    right = program.run("plan", "--json", *arguments(data, option, file)).stdout
    plan = [str(program.path), "plan", "--json"]
    if way == "a slow writer":
        os.mkfifo(tmp_path / "pipe")
        line = f"(sleep 1; head -c 10 {file}; sleep 1; tail -c +11 {file}) > {tmp_path}/pipe & "
        line += " ".join([*plan, *map(str, arguments(data, option, tmp_path / "pipe"))])
    elif way == "substitution":
        line = " ".join([*plan, *map(str, arguments(data, option, f"<(cat {file})"))])
    else:
        line = f"cat {file} | " + " ".join([*plan, *map(str, arguments(data, option, "/dev/stdin"))])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    # The plan names the list of those that are left out.
    assert re.sub(r"/dev/(fd/\d+|stdin)|[^ ]*/pipe", str(file), done.stdout) == right


def test_an_empty_pipe_is_an_empty_file(program: Program, data: Dataset) -> None:
    """Whoever has written nothing and has gone, has written: nobody is excluded."""
    line = " ".join(map(str, [program.path, "plan", *arguments(data, "--exclude", "<(true)")]))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=DEADLINE, check=False)
    empty = program.run("plan", *arguments(data, "--exclude", "/dev/null"), check=False)
    assert (done.returncode, done.stdout) == (empty.returncode, empty.stdout), done.stderr


@pytest.mark.parametrize("path", ["/dev/stdin", "<(cat {})"])
@pytest.mark.parametrize("command", ["mount", "run"])
def test_a_mount_reads_no_pipe_of_its_command(program: Program, data: Dataset, command: str, path: str) -> None:
    """The process that serves it has other ones: a refusal says so, and what to do."""
    with mount_folder() as base:
        given = path.format(file_of(data, "--studies"))
        tail: list[object] = [base / "mount"] if command == "mount" else ["--at", base / "mount", "--", "true"]
        line = [program.path, command, *arguments(data, "--studies", given), "--log-file", base / "log", *tail]
        shell = ["bash", "-c", f"cat {file_of(data, '--studies')} | " + " ".join(map(str, line))]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1 and "write it to a file" in done.stderr, done.stderr


PLACES: dict[str, Callable[[Dataset, Path], Path]] = {
    "a volume": lambda data, out: data.folder / "v00.npz",
    "a NIfTI volume": lambda data, out: data.folder / "v09.nii.gz",
    "a shard": lambda data, out: out / "shard-000000.tar",
    "the manifest": lambda data, out: out / "manifest.json",
    "an index": lambda data, out: out / "shard-000000.tar.idx",
    "a journal": lambda data, out: next((out / ".ctwds").glob("*.jsonl")),
    "an unfinished file": lambda data, out: out / "shard-000000.tar.host-1-1-0.partial",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "command", ["plan", "materialize", "verify", "verify --sources", "reclaim", "manifest", "mount --shards", "init"]
)
def test_a_pipe_in_a_folder(program: Program, tmp_path: Path, place: str, command: str) -> None:
    """It is no file of the folder: whatever the command says of that, it comes to an end."""
    data = noise_dataset(tmp_path / "data", COUNT)
    out = program.materialize(data, tmp_path / "out", *SMALL_FLAGS)
    path = PLACES[place](data, out)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    flags = [*data.flags(), *SMALL_FLAGS]
    with mount_folder() as base:
        line = {
            "plan": ["plan", *flags],
            "materialize": ["materialize", *flags, "--output-dir", out],
            "verify": ["verify", *flags, "--webdataset-dir", out],
            "verify --sources": ["verify", "--sources", *flags, "--quarantine", tmp_path / "list.csv"],
            "reclaim": ["reclaim", *flags, "--shards", out],
            "manifest": ["manifest", "rebuild", *flags, out],
            "mount --shards": ["mount", "--shards", out, "--log-file", base / "log", base / "mount"],
            "init": ["init", data.folder, "--yes", "--output", tmp_path / "ctwds.toml"],
        }[command]
        # A thread that waits to open the pipe would be let go by a writer: nobody writes.
        done = program.run(*line, check=False, timeout=DEADLINE)
        assert done.returncode in (0, 1, 3, 4, 5) and "panicked" not in done.stderr, done.stderr
        if command == "mount --shards" and done.returncode == 0:
            program.run("unmount", base / "mount", timeout=DEADLINE)
