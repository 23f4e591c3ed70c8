"""Ctrl-C, and the other signals that end a command: one exit code for all commands, and a message that says what is
kept and how to go on. Later moments, in which something is half-done, are in the tests of the commands."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from every_command import COMMANDS, Place, demo_is_safe
from harness import (
    SMALL_FLAGS,
    Program,
    children_of,
    daemon_of,
    files_in,
    force_unmount,
    is_mounted,
    is_running,
    mount_folder,
    require_fuse,
    wait_until,
)
from make_dataset import Dataset
from small_datasets import noise_dataset

DEADLINE = 30  # seconds
# Commands that plan, with what the message must say. They wait for a table that is a pipe into which nobody writes.
PLANNING = {
    "plan": "nothing was changed",
    "mount": "nothing is mounted",
    "mount --foreground": "nothing is mounted",
    "run": "nothing is mounted",
    "materialize": "earlier ones are kept",
    "cat": "not whole",
    "manifest": "manifest is not written",
    "verify": "nothing was changed",
    "verify --sources": "nothing was changed",
    "reclaim": "nothing was removed",
    "bench": "nothing is kept",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four volumes."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 4)


@pytest.fixture
def place(program: Program, data: Dataset) -> Iterator[Place]:
    """Finished shards, an empty folder, and a mountpoint."""
    with mount_folder() as base:
        for name in ("out", "mount"):
            (base / name).mkdir(exist_ok=True)
        shards = program.materialize(data, base / "shards", *SMALL_FLAGS)
        try:
            yield Place(data, shards, base / "out", base / "mount")
        finally:
            if is_mounted(base / "mount"):
                force_unmount(base / "mount")


@contextlib.contextmanager
def silent_pipe(path: Path) -> Iterator[list[int]]:
    """A pipe that somebody holds open without a word, as soon as a command reads it: then the list has the writer."""
    os.mkfifo(path)
    writer: list[int] = []
    try:
        yield writer
    finally:
        for descriptor in writer:
            os.close(descriptor)
        path.unlink()


def hold(path: Path, writer: list[int]) -> None:
    """Wait until a command reads the pipe."""

    def is_read() -> bool:
        with contextlib.suppress(OSError):
            writer.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writer)

    wait_until(is_read, "the command reads the table")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", PLANNING)
def test_while_it_plans(program: Program, place: Place, name: str, sent: signal.Signals) -> None:
    """Nothing is left behind, no process and no mount."""
    require_fuse()
    before = files_in(place.shards)
    pipe = place.out.parent / "reports.csv"
    known, _, more = name.partition(" ")
    arguments = COMMANDS[name if name in COMMANDS else known].arguments(place)
    arguments[1:1] = [more] if name not in COMMANDS else []
    arguments[arguments.index("--reports-file") + 1] = pipe
    with silent_pipe(pipe) as writer, program.running(*arguments) as process:
        hold(pipe, writer)
        children = children_of(process.pid)
        process.send_signal(sent)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 128 + sent, said
        assert "ctwds-fs: error: interrupted; " in said and PLANNING[name] in said and said.count("interrupted") == 1
        wait_until(lambda: not any(map(is_running, children)), "the processes that it started have ended")
    assert not is_mounted(place.mount) and files_in(place.shards) == before
    assert not [path for path in place.out.iterdir() if path.name != "log"]


def test_the_whole_group_as_a_terminal_does(program: Program, place: Place) -> None:
    """A terminal sends Ctrl-C to the command and to the processes that it started: one message, the same code."""
    require_fuse()
    pipe = place.out.parent / "reports.csv"
    for name in ("mount", "bench", "run"):
        arguments = COMMANDS[name].arguments(place)
        arguments[arguments.index("--reports-file") + 1] = pipe
        with silent_pipe(pipe) as writer, program.running(*arguments, process_group=0) as process:
            hold(pipe, writer)
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=DEADLINE)
            assert process.returncode == 130 and said.count("interrupted") == 1, said
        assert not is_mounted(place.mount)


def test_init_while_it_asks(program: Program, place: Place) -> None:
    """Nothing is written."""
    ours, theirs = pty.openpty()
    output = place.out / "ctwds.toml"
    command = ["init", place.data.folder, "--output", output]
    said = place.out.parent / "said"
    try:
        with said.open("w") as file, program.running(*command, stdin=theirs, stderr=file) as process:
            wait_until(lambda: "[y/n]" in said.read_text(), "the question")
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
    finally:
        os.close(ours)
        os.close(theirs)
    assert "interrupted; nothing was written" in said.read_text() and not output.exists()


def test_a_mount_that_does_not_answer(program: Program, place: Place) -> None:
    """Whoever has had enough of waiting for its status is told what that means for the mount."""
    require_fuse()
    program.run("mount", *place.data.flags(), "--log-file", place.out / "log", place.mount)
    daemon = daemon_of(place.mount)
    os.kill(daemon, signal.SIGSTOP)
    try:
        with program.running("status", place.mount) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(signal.SIGINT)
            threading.Timer(3, os.kill, (daemon, signal.SIGCONT)).start()  # a thread in the kernel ends only then
            _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 130 and "no mount was changed" in said, said
    finally:
        os.kill(daemon, signal.SIGCONT)
    program.run("unmount", place.mount)


def test_demo_is_safe_after_each_moment(program: Program, place: Place) -> None:
    """Whatever it was doing, nothing stays mounted."""
    require_fuse()
    for moment in ("$ ctwds-fs init", "$ ctwds-fs mount", "$ ctwds-fs unmount"):
        folder = place.out / moment.rpartition(" ")[2]
        with program.running("demo", folder) as process:
            assert process.stdout
            next(line for line in process.stdout if line.startswith(moment))
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode in (130, 0), said  # 0: it had done its last step
        assert demo_is_safe(folder) and ("interrupted" in said) == (process.returncode == 130)


def test_an_ignored_signal_stays_ignored(program: Program, place: Place) -> None:
    """As under nohup, or in the background of a script."""
    pipe = place.out.parent / "reports.csv"
    arguments = COMMANDS["plan"].arguments(place)
    arguments[arguments.index("--reports-file") + 1] = pipe
    script = f"trap '' INT; exec {program.path} {' '.join(map(str, arguments))}"
    with silent_pipe(pipe) as writer:
        command = ["sh", "-c", script]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            hold(pipe, writer)
            process.send_signal(signal.SIGINT)
            os.write(writer[0], place.data.reports.read_bytes())
            os.close(writer.pop())
            _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said


def full_pipe() -> tuple[int, int]:
    """A pipe that takes no byte more: whoever writes waits."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, bytes(4096))
    os.set_blocking(theirs, True)
    return ours, theirs


def test_a_mount_that_nobody_was_told_of(program: Program, place: Place) -> None:
    """Ctrl-C when the mount is there, before the command has said so: it is ended again, as the exit code says."""
    require_fuse()
    ours, theirs = full_pipe()
    command = ["mount", *place.data.flags(), "--log-file", place.out / "log", place.mount]
    try:
        with program.running(*command, stdout=theirs) as process:
            wait_until(lambda: "work" in threads_of(process.pid), "the mount is ready, and the command says so")
            wait_until(lambda: is_mounted(place.mount), "the mount")
            daemon = daemon_of(place.mount)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=DEADLINE)
            assert process.returncode == 130 and "nothing is mounted" in said, said
    finally:
        os.close(ours)
        os.close(theirs)
    assert not is_mounted(place.mount)
    wait_until(lambda: not is_running(daemon), "the daemon has ended")


def threads_of(process: int) -> list[str]:
    """The names of the threads of a process."""
    names = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text().strip())
    return names
