"""No path leaves a daemon, a mount or a lock behind, or waits for what does not answer: killed commands, stopped
daemons, stuck sources, readers that do not leave. And what is left on purpose, logs and saved plans, is for the user's
eyes only."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from faulty import FaultyFolder, faulty_folder
from harness import (
    SMALL_FLAGS,
    Program,
    children_of,
    daemon_of,
    is_mounted,
    is_running,
    needs_root,
    require_fuse,
    shards,
    wait_until,
)
from make_dataset import Dataset

AT_ONCE = 4.5  # seconds; what answers at all takes milliseconds, and what does not, five seconds
ANSWER = 5  # seconds that the commands wait for a daemon's answer
PATIENCE = 10  # seconds that readers of a mount that was told to end may go on


def processes_about(folder: Path) -> list[int]:
    """Those whose command names something in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in (process / "cmdline").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


@pytest.fixture
def stalling(small: Dataset) -> Iterator[tuple[FaultyFolder, Dataset, threading.Event]]:
    """The data set on a file system whose next read waits for the event; nothing there answers until then."""
    require_fuse()
    release = threading.Event()
    with faulty_folder({path.name: path.read_bytes() for path in small.volumes()}) as folder:
        yield folder, replace(small, folder=folder.point), release
        release.set()


def stall(folder: FaultyFolder, release: threading.Event) -> list[str]:
    """The next read does not return; the list then has its name."""
    waiting: list[str] = []

    def wait(name: str) -> None:
        waiting.append(name)
        release.wait(120)

    folder.on_read = wait
    return waiting


# --- the beginning ---------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_killed_before_the_mount_is_ready(
    program: Program, stalling: tuple[FaultyFolder, Dataset, threading.Event], base: Path, sent: signal.Signals
) -> None:
    """Its daemon ends with it: nobody would know of the mount."""
    folder, dataset, release = stalling
    waiting = stall(folder, release)
    with program.running("mount", *dataset.flags(), "--log-file", base / "log", base / "mount") as process:
        wait_until(lambda: bool(waiting), "the scan hangs")
        (daemon,) = children_of(process.pid)
        process.send_signal(sent)
        process.wait(AT_ONCE)
    release.set()
    wait_until(lambda: not is_running(daemon), "the daemon has ended")
    assert not is_mounted(base / "mount") and processes_about(base) == []


def test_a_start_that_fails_leaves_nothing(program: Program, small: Dataset, base: Path, tmp_path: Path) -> None:
    """Whatever the reason; and the folder can be used afterwards."""
    full = base / "full"
    full.write_bytes(b"")
    flags = [*small.flags(), *SMALL_FLAGS, "--log-file", base / "log"]
    (tmp_path / "file").write_bytes(b"")
    for point in (tmp_path, full, base / "none", small.folder):
        program.refuses("mount", *flags, point)
    program.refuses("mount", *flags, "--array", "other", base / "mount")
    assert processes_about(base) == [] and not is_mounted(base / "mount")
    program.run("mount", *flags, base / "mount")
    program.run("unmount", base / "mount")


@needs_root
def test_allow_other_says_so(program: Program, small: Dataset, base: Path) -> None:
    """Where the user looks, and in the log; without the flag there is nothing to say."""
    for flag in ([], ["--allow-other"]):
        flags = [*small.flags(), *SMALL_FLAGS, "--log-file", base / "log", *flag]
        said = program.run("mount", *flags, base / "mount").stdout
        program.run("unmount", base / "mount")
        for text in (said, (base / "log").read_text()):
            assert ("every user of this machine can read the mount, reports" in text) == bool(flag)


def test_what_is_kept_is_for_the_user_only(program: Program, small: Dataset, base: Path, tmp_path: Path) -> None:
    """Logs, saved scans and plans have study ids in them, which are patient data; whatever the umask is."""
    places = {"XDG_STATE_HOME": tmp_path / "state", "XDG_CACHE_HOME": tmp_path / "cache"}
    for place in places.values():
        place.mkdir(mode=0o755)
    env = dict(os.environ) | {name: str(place) for name, place in places.items()}
    program.run("mount", *small.flags(), *SMALL_FLAGS, base / "mount", env=env, umask=0)
    program.run("unmount", base / "mount", env=env)
    program.run("materialize", *small.flags(), *SMALL_FLAGS, "--output-dir", tmp_path / "out", env=env, umask=0)
    for place in places.values():
        found = list(place.rglob("*"))
        assert found, f"nothing is kept in {place}"
        for path in found:
            mode = path.stat().st_mode
            assert stat.S_ISDIR(mode) or stat.S_ISREG(mode), f"{path}: {stat.filemode(mode)}"
            assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), f"{path}: {stat.filemode(mode)}"


# --- what does not answer --------------------------------------------------------------------------------------------

Result = TypeVar("Result")


def timed(action: Callable[[], Result], limit: float) -> Result:
    """The result of a call that must not take longer."""
    begin = time.monotonic()
    result = action()
    assert time.monotonic() - begin < limit, f"took {time.monotonic() - begin:.1f} s"
    return result


def test_a_stopped_daemon(program: Program, small: Dataset, base: Path) -> None:
    """`mount` sees it without asking it, `status` gives up after a while, and `unmount --force` ends it."""
    point = base / "mount"
    flags = [*small.flags(), *SMALL_FLAGS, "--log-file", base / "log", point]
    program.run("mount", *flags)
    daemon = daemon_of(point)
    os.kill(daemon, signal.SIGSTOP)
    assert f"process {daemon}" in timed(lambda: program.refuses("mount", *flags), AT_ONCE)
    message = timed(lambda: program.refuses("status", point), ANSWER + AT_ONCE)
    assert f"process {daemon} has not answered" in message and "unmount --force" in message
    done = timed(lambda: program.run("unmount", "--force", point), ANSWER + AT_ONCE)
    assert f"process {daemon}" in done.stderr and not is_mounted(point) and not is_running(daemon)
    program.run("mount", *flags)
    os.kill(daemon := daemon_of(point), signal.SIGSTOP)
    assert "detached" in program.run("unmount", "--lazy", point).stdout
    assert not is_mounted(point)
    os.kill(daemon, signal.SIGCONT)
    wait_until(lambda: not is_running(daemon), "it ends when it goes on")


@needs_root
def test_a_killed_daemon_that_is_stuck(
    program: Program, stalling: tuple[FaultyFolder, Dataset, threading.Event], base: Path
) -> None:
    """A decoder that waits for a dead server cannot be killed and keeps the connection: nobody serves it any more, so
    the commands may not wait for it."""
    folder, dataset, release = stalling
    point = base / "mount"
    flags = [*dataset.flags(), *SMALL_FLAGS, "--log-file", base / "log", point]
    program.run("mount", *flags)
    waiting = stall(folder, release)
    with subprocess.Popen(["cat", shards(point)[0]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        wait_until(lambda: bool(waiting), "a decoder is stuck")
        os.kill(daemon_of(point), signal.SIGKILL)
        timed(lambda: program.refuses("status", point), 2 * ANSWER + AT_ONCE)
        timed(lambda: program.run("unmount", "--force", point), 2 * ANSWER + AT_ONCE)
        assert not is_mounted(point)
        release.set()
        reader.wait(AT_ONCE)
    wait_until(lambda: processes_about(base) == [], "the process has gone")


@needs_root
def test_a_foreign_mount_that_hangs_is_not_touched(
    program: Program, small: Dataset, stalling: tuple[FaultyFolder, Dataset, threading.Event]
) -> None:
    """A `stat` there would never return."""
    folder, _, release = stalling
    waiting = stall(folder, release)
    with subprocess.Popen(["cat", folder.point / "v00.npz"], stdout=subprocess.DEVNULL) as reader:
        wait_until(lambda: bool(waiting), "nothing answers there")
        for command in (["mount", *small.flags()], ["unmount"], ["unmount", "--force"], ["status"]):
            message = timed(partial(program.refuses, *command, folder.point), AT_ONCE)
            assert str(folder.point) in message
        assert is_mounted(folder.point)
        release.set()
        reader.wait(AT_ONCE)


# --- the end ---------------------------------------------------------------------------------------------------------

HOLDER = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
print(len(os.pread(file, 4096, 0)), flush=True)
sys.stdin.readline()
try:
    print(len(os.pread(file, 4096, 600_000)), flush=True)
except OSError as error:
    print(-error.errno, flush=True)
"""


def test_readers_that_do_not_leave(program: Program, small: Dataset, base: Path) -> None:
    """After SIGTERM they may read on for the stated time, which further signals do not prolong; then they get errors,
    and the daemon ends."""
    point = base / "mount"
    program.run("mount", *small.flags(), *SMALL_FLAGS, "--page-cache", "off", "--log-file", base / "log", point)
    daemon, path = daemon_of(point), point / "shard-000000.tar"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", HOLDER, str(path)]
    with (
        subprocess.Popen(command, text=True, **pipes) as during,
        subprocess.Popen(command, text=True, **pipes) as after,
    ):
        assert during.stdout and after.stdout and during.stdout.readline() == after.stdout.readline() == "4096\n"
        os.kill(daemon, signal.SIGTERM)
        begin = time.monotonic()
        wait_until(lambda: not is_mounted(point), "it is detached at once", 5)
        assert during.communicate("\n", timeout=AT_ONCE)[0] == "4096\n"
        time.sleep(PATIENCE / 2)
        os.kill(daemon, signal.SIGTERM)
        wait_until(lambda: not is_running(daemon), "the daemon has ended", PATIENCE)
        assert PATIENCE - 1 < time.monotonic() - begin < PATIENCE + 4
        answer = int(after.communicate("\n", timeout=AT_ONCE)[0])
        assert -answer in (errno.ENOTCONN, errno.ECONNABORTED), answer
    assert f"for {PATIENCE} s more" in (base / "log").read_text()
    assert os.listdir(point) == []
