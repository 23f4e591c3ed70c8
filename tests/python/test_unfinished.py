"""Files that are being written: what a file system that cuts writes short, a lock that does not bind and a killed run
on another host can do to them. No wrong file ever gets a final name, and nothing that may be in use is removed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import FaultyFolder, faulty_folder
from harness import Program, digest, files_in, require_fuse, shards, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset

# A file system that accepts direct mode, cuts a write short, and then refuses direct writes: after a short write, an
# offset or an address may not be aligned any more. CUT is the bytes of the short write, AT its number from 0 on.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static int direct_writes, was_cut;

static ssize_t shimmed(int fd, const void *data, size_t len, off_t at, int positioned) {
    ssize_t (*append)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    ssize_t (*place)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_DIRECT))
        return positioned ? place(fd, data, len, at) : append(fd, data, len);
    if (was_cut) {
        errno = EINVAL;
        return -1;
    }
    if (direct_writes++ == atoi(getenv("AT")) && len > (size_t)atoi(getenv("CUT"))) {
        was_cut = 1;
        close(open(getenv("MARK"), O_CREAT | O_WRONLY, 0600));
        len = atoi(getenv("CUT"));
        fcntl(fd, F_SETFL, flags & ~O_DIRECT);
        if (len == 0) {
            fcntl(fd, F_SETFL, flags);
            errno = EINVAL;
            return -1;
        }
    }
    ssize_t done = positioned ? place(fd, data, len, at) : append(fd, data, len);
    fcntl(fd, F_SETFL, flags);
    return done;
}

ssize_t write(int fd, const void *data, size_t len) { return shimmed(fd, data, len, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return shimmed(fd, data, len, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t len, off_t at) { return shimmed(fd, data, len, at, 1); }
"""
FLAGS = ("--samples-per-shard", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six volumes in three shards of more than two blocks each."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 6, (64, 64, 200))


@pytest.fixture(scope="module")
def right(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run makes of them."""
    return program.materialize(data, tmp_path_factory.mktemp("right"), *FLAGS)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to preload."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    compile_it = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
    subprocess.run(compile_it, check=True, timeout=60)
    return folder / "shim.so"


def command(dataset: Dataset, out: Path, *more: object) -> list[object]:
    """The command whose results are compared."""
    return ["materialize", *dataset.flags(), *FLAGS, "--output-dir", out, *more]


@pytest.mark.parametrize("cut", [0, 1, 512, 4096, 5000, 65536, (1 << 20) - 512])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_write_that_is_cut_short(
    program: Program, data: Dataset, right: Path, shim: Path, tmp_path: Path, cut: int, at: int
) -> None:
    """What is written stays, and the rest follows it: no byte is written twice or left out."""
    mark, out = tmp_path / "mark", tmp_path / "out"
    environment = {**os.environ, "LD_PRELOAD": str(shim), "CUT": str(cut), "AT": str(at), "MARK": str(mark)}
    done = program.run(*command(data, out, "--num-workers", 1), env=environment)
    assert mark.exists(), "no write was cut short"
    assert "3 shards written" in done.stdout
    assert files_in(out) == files_in(right)


@pytest.fixture
def two_views(data: Dataset) -> Iterator[list[tuple[Dataset, FaultyFolder]]]:
    """The data set twice, each on a file system of its own that a test can make wait."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    require_fuse()
    with ExitStack() as stack:
        files = {path.name: path.read_bytes() for path in data.volumes()}
        folders = [stack.enter_context(faulty_folder(files)) for _ in range(2)]
        yield [(replace(data, folder=folder.point), folder) for folder in folders]


@pytest.mark.parametrize("first", ["the first run", "the second run"])
def test_two_runs_whose_locks_do_not_bind(
    program: Program, two_views: list[tuple[Dataset, FaultyFolder]], right: Path, tmp_path: Path, first: str
) -> None:
    """Both are in the middle of one shard when one goes on to its end and the other is killed: every final name holds
    the right file, and the next run completes the folder."""
    out = tmp_path / "out"
    waiting = [threading.Event(), threading.Event()]
    go_on = [threading.Event(), threading.Event()]

    def hold(number: int) -> None:
        def on_read(name: str) -> None:
            if name == "v03.npz" and list(out.glob("shard-000001.*")):
                waiting[number].set()
                go_on[number].wait(60)

        two_views[number][1].on_read = on_read

    ending = 0 if first == "the first run" else 1
    with ExitStack() as stack:
        runs = []
        for number, (dataset, _) in enumerate(two_views):
            program.run("plan", *dataset.flags(), *FLAGS)  # the run itself then reads no volume to plan it
            hold(number)
            runs.append(stack.enter_context(program.running(*command(dataset, out, "--num-workers", 1))))
            wait_until(waiting[number].is_set, "the run is in the middle of a shard", 60)
            # The lock is on this file: the other run gets one of its own, as where a lock binds on one host only.
            for journal in (out / ".ctwds").glob("journal*"):
                journal.unlink()
        go_on[ending].set()
        runs[ending].wait(timeout=60)
        runs[1 - ending].kill()
        go_on[1 - ending].set()
        runs[1 - ending].wait(timeout=60)
        for path in shards(out):
            assert digest(path) == digest(right / path.name), f"{path.name} is a wrong file under its final name"
    for _, folder in two_views:
        folder.on_read = lambda name: None
    program.run(*command(two_views[0][0], out))
    assert files_in(out) == files_in(right)


def unfinished(host: str, process: int, started: int, name: str = "shard-000001.tar") -> str:
    """The name of an unfinished file."""
    return f"{name}.{host}-{process}-{started}-0.partial"


def this_host() -> str:
    """The host as such a name says it."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in platform.node())


def ended_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def start_of(process: int) -> int:
    """When it was started."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])


def test_what_is_left_and_what_may_be_in_use(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """Only a file whose process ran on this host and has ended is removed; the run names those that stay, and --clean
    removes them."""
    out = tmp_path / "out"
    shutil.copytree(right, out)
    (out / "shard-000001.tar").unlink()
    gone, alive = ended_process(), os.getpid()
    ours = [
        unfinished(this_host(), gone, 1),
        unfinished(this_host(), alive, start_of(alive) + 1),  # the number was given to another process
        unfinished(this_host(), gone, 1, "manifest.json"),
        unfinished(this_host(), gone, 1, "shard-000001.tar.idx"),
        f".nv-meta/{unfinished(this_host(), gone, 1, 'split.yaml')}",
        "shard-000001.tar.partial",  # version 0.1: only the holder of the lock can have written it
    ]
    theirs = [
        unfinished("elsewhere", gone, 1),
        unfinished(this_host(), alive, start_of(alive)),
        f".nv-meta/{unfinished('elsewhere', gone, 1, 'split.yaml')}",
    ]
    nobodys = ["notes.partial", unfinished(this_host(), gone, 1, "notes.txt")]
    for name in ours + theirs + nobodys:
        (out / name).write_bytes(b"half")
    done = program.run(*command(data, out))
    assert "1 shard written, 2 kept" in done.stdout
    assert {name for name in ours + theirs + nobodys if (out / name).exists()} == {*theirs, *nobodys}
    assert "--clean" in done.stderr and all(Path(name).name in done.stderr for name in theirs)
    assert all(digest(path) == digest(right / path.name) for path in shards(out))
    again = program.run(*command(data, out, "--clean"))
    assert {name for name in ours + theirs + nobodys if (out / name).exists()} == set(nobodys)
    assert "--clean" not in again.stderr
    for name in nobodys:
        (out / name).unlink()
    assert files_in(out) == files_in(right)


def test_clean_leaves_a_run_of_this_machine_alone(
    program: Program, two_views: list[tuple[Dataset, FaultyFolder]], data: Dataset, right: Path, tmp_path: Path
) -> None:
    """Its file is locked, whatever process its name says (that of another container may have any number)."""
    out = tmp_path / "out"
    dataset, folder = two_views[0]
    acted: list[str] = []

    def act(name: str) -> None:
        if name == "v03.npz" and list(out.glob("shard-000001.*.partial")) and not acted:
            acted.append(name)
            (written,) = out.glob("shard-000001.*.partial")
            elsewhere = written.rename(out / unfinished("elsewhere", 1, 1))
            for journal in (out / ".ctwds").glob("journal*"):
                journal.unlink()
            program.run(*command(data, out, "--clean"))
            assert elsewhere.exists()
            elsewhere.unlink()

    folder.on_read = act
    message = program.refuses(*command(dataset, out, "--num-workers", 1))
    assert acted and "another process" in message and "--recheck" in message
    assert {path.name: digest(path) for path in shards(out)} == {path.name: digest(path) for path in shards(right)}
