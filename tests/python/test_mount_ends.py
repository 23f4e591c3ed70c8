"""The life of a mount in hard places: copies of it in other mount namespaces, daemons that were killed after somebody
had looked at their mount, or stopped, and mount tables with names that are no text."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import (
    SMALL_FLAGS,
    Program,
    daemon_of,
    digest,
    is_mounted,
    is_running,
    needs_root,
    shards,
    wait_until,
)
from make_dataset import Dataset

DEADLINE = 30  # seconds of a process that a test waits for
AT_ONCE = 4  # seconds; what does not wait for a daemon takes less

Begin = Callable[..., Path]


@pytest.fixture
def begin(program: Program, small: Dataset, base: Path) -> Begin:
    """Mounts the data set and returns the mountpoint; what a test leaves there is ended after it. Each mount has a log
    of its own, as an earlier one may go on elsewhere."""
    count = itertools.count()

    def mount(*flags: object) -> Path:
        log = base / f"log-{next(count)}"
        program.run("mount", *small.flags(), *SMALL_FLAGS, "--log-file", log, *flags, base / "mount")
        return base / "mount"

    return mount


@contextlib.contextmanager
def copy_of_the_namespace() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a mount namespace of its own, which has all mounts that there are now, as a container has."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"\n"
            yield process
        finally:
            process.kill()
            process.wait(DEADLINE)


def umount(point: Path) -> None:
    """As an administrator does it."""
    subprocess.run(["umount", point], check=True, timeout=DEADLINE)


def assert_serves(point: Path, right: Path, daemon: int) -> None:
    """The mount is there, is that of the daemon, and its shards are right."""
    assert is_mounted(point) and daemon_of(point) == daemon
    assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(right)]


# --- copies in other mount namespaces --------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(
    ("end", "next_one"),
    [("copy", "mount"), ("copy", "tmpfs"), ("SIGTERM", "mount"), ("unmount --force", "mount")],
)
def test_an_old_daemon_leaves_the_next_mount_alone(
    program: Program, begin: Begin, right: Path, end: str, next_one: str
) -> None:
    """A mount lives on in a copy of its namespace. However its daemon ends: what has taken its place stays."""
    point = begin()
    old = daemon_of(point)
    with copy_of_the_namespace() as copy:
        umount(point)
        if next_one == "mount":
            begin()
        else:
            subprocess.run(["mount", "-t", "tmpfs", "next", point], check=True, timeout=DEADLINE)
            (point / "kept").write_bytes(b"kept")
        assert is_running(old), "it serves the copy"
        if end == "copy":
            copy.kill()
        elif end == "SIGTERM":
            os.kill(old, signal.SIGTERM)
        else:
            inside = ["nsenter", "--mount", "--target", copy.pid, program.path, "unmount", "--force", point]
            subprocess.run(list(map(str, inside)), check=True, timeout=DEADLINE, capture_output=True)
        wait_until(lambda: not is_running(old), "the old daemon has ended", DEADLINE)
        if next_one == "mount":
            assert_serves(point, right, daemon_of(point))
        else:
            assert (point / "kept").read_bytes() == b"kept"
            umount(point)
    assert is_mounted(point) == (next_one == "mount")


@needs_root
def test_a_mount_that_was_moved(begin: Begin, right: Path, tmp_path: Path) -> None:
    """A signal to the daemon ends its mount where that is now, and nothing in its old place."""
    point = begin()
    daemon = daemon_of(point)
    moved = tmp_path.resolve() / "moved"
    moved.mkdir()
    subprocess.run(["mount", "--move", point, moved], check=True, timeout=DEADLINE)
    try:
        begin()
        os.kill(daemon, signal.SIGTERM)
        wait_until(lambda: not is_running(daemon), "the daemon has ended", DEADLINE)
        assert not is_mounted(moved)
        assert_serves(point, right, daemon_of(point))
    finally:
        if is_mounted(moved):
            umount(moved)


@needs_root
@pytest.mark.parametrize("place", ["namespace", "folder"])
def test_unmount_says_where_a_mount_lives_on(program: Program, begin: Begin, tmp_path: Path, place: str) -> None:
    """At once, instead of waiting for the daemon, whose mount is still there."""
    point = begin()
    daemon = daemon_of(point)
    bound = tmp_path.resolve() / "bound"
    bound.mkdir()
    with contextlib.ExitStack() as stack:
        if place == "namespace":
            copy = stack.enter_context(copy_of_the_namespace())
            named = f"in the mount namespace of sleep (process {copy.pid})"
        else:
            subprocess.run(["mount", "--bind", point, bound], check=True, timeout=DEADLINE)
            stack.callback(umount, bound)
            named = f"at {bound}"
        began = time.monotonic()
        done = program.run("unmount", point)
        assert time.monotonic() - began < AT_ONCE
        assert f"process {daemon} serves it on" in done.stdout and named in done.stdout
        assert not is_mounted(point) and is_running(daemon)
    wait_until(lambda: not is_running(daemon), "the daemon has ended with the last mount")


@needs_root
def test_run_beside_a_mount(program: Program, small: Dataset, begin: Begin, right: Path, tmp_path: Path) -> None:
    """Its namespace has a copy of all mounts, too: one that was ended meanwhile may be mounted again."""
    point = begin()
    old = daemon_of(point)
    line = ["run", *small.flags(), *SMALL_FLAGS, "--log-file", tmp_path / "log", "--at", tmp_path / "at", "--"]
    with program.running(*line, "sh", "-c", "echo ready; read line", stdin=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        done = program.run("unmount", point)
        assert f"process {old} serves it on" in done.stdout and "in the mount namespace of " in done.stdout
        begin()
        process.communicate("\n", timeout=DEADLINE)
    wait_until(lambda: not is_running(old), "the old daemon has ended")
    assert_serves(point, right, daemon_of(point))


# --- dead and stopped daemons ----------------------------------------------------------------------------------------

LOOKS: dict[str, Callable[[Path], object]] = {
    "nobody": lambda point: None,
    "os.stat": lambda point: point.stat(),
    "stat": lambda point: subprocess.run(["stat", point], capture_output=True, timeout=DEADLINE, check=True),
    "ls": lambda point: [os.listdir(point), os.listdir(point / ".ctwds")],
    "ls -l": lambda point: [path.stat() for path in point.iterdir()],
    "read": lambda point: [path.read_bytes() for path in shards(point)],
    "df": os.statvfs,
}


@pytest.mark.parametrize("look", list(LOOKS))
def test_a_dead_mount_that_was_looked_at(program: Program, begin: Begin, right: Path, look: str) -> None:
    """The kernel answers much for a daemon that is gone. Every command sees it, and `mount` replaces the mount."""
    point = begin("--page-cache", "on")
    LOOKS[look](point)
    os.kill(daemon := daemon_of(point), signal.SIGKILL)
    wait_until(lambda: not is_running(daemon), "the daemon is dead")
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        LOOKS[look](point)
    assert f"process {daemon} is gone" in program.refuses("status", point)
    begin()
    assert_serves(point, right, daemon_of(point))
    os.kill(daemon := daemon_of(point), signal.SIGKILL)
    wait_until(lambda: not is_running(daemon), "the daemon is dead")
    assert "warning" not in program.run("unmount", point, timeout=AT_ONCE).stderr
    assert not is_mounted(point)


@needs_root
def test_a_dead_mount_of_a_process_with_the_same_number(
    program: Program, small: Dataset, base: Path, right: Path
) -> None:
    """As when a container is started again: the numbers of its processes are those of the last time."""
    script = """set -e
    program=$1; point=$2; shift 2
    "$program" mount "$@" "$point"
    daemon=$(sed -n "s|^ctwds-fs:\\([0-9]*\\) $point .*|\\1|p" /proc/mounts)
    kill -KILL $daemon
    while [ -e /proc/$daemon ]; do read -t 0.01 || true; done
    echo $((daemon - 2)) > /proc/sys/kernel/ns_last_pid
    "$program" mount "$@" "$point"
    grep -c "^ctwds-fs:$daemon " /proc/mounts
    sha256sum < "$point/shard-000000.tar"
    "$program" unmount "$point"
    """
    reaping = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", script, "bash"]
    line = [program.path, base / "mount", *small.flags(), *SMALL_FLAGS, "--log-file", base / "log"]
    done = subprocess.run(
        [*reaping, *map(str, line)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n1\n" in done.stdout, "the second daemon has another number"
    assert digest(right / "shard-000000.tar") in done.stdout


@needs_root
def test_the_daemon_of_another_mount_with_the_number_of_a_dead_one(
    program: Program, small: Dataset, base: Path, right: Path, tmp_path: Path
) -> None:
    """It is not taken for the dead one's, and is never killed for it."""
    (tmp_path / "other").mkdir()
    script = """set -e
    program=$1; point=$2; other=$3; shift 3
    "$program" mount "$@" "$point"
    daemon=$(sed -n "s|^ctwds-fs:\\([0-9]*\\) $point .*|\\1|p" /proc/mounts)
    kill -KILL $daemon
    while [ -e /proc/$daemon ]; do read -t 0.01 || true; done
    echo $((daemon - 2)) > /proc/sys/kernel/ns_last_pid
    "$program" mount "$@" "$other"
    grep -c "^ctwds-fs:$daemon $other " /proc/mounts
    grep -q "^fuse_connection:" /proc/$daemon/fdinfo/* || exit 77
    if "$program" status "$point"; then exit 9; fi
    "$program" unmount --force "$point"
    sha256sum < "$other/shard-000000.tar"
    "$program" unmount "$other"
    """
    isolated = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", script, "bash", program.path]
    line = [*isolated, base / "mount", tmp_path / "other", *small.flags(), *SMALL_FLAGS, "--log-file", base / "log"]
    pipes: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run(list(map(str, line)), timeout=DEADLINE, check=False, **pipes)
    if done.returncode == 77:
        pytest.skip("this kernel does not tell which mount a process serves")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n1\n" in done.stdout, "the second daemon has another number"
    assert "is gone" in done.stderr and digest(right / "shard-000000.tar") in done.stdout


def test_a_stopped_daemon(program: Program, begin: Begin, right: Path) -> None:
    """It is not dead: its mount is never replaced, all commands say so in time, and it goes on when it is let."""
    point = begin("--page-cache", "on")
    LOOKS["stat"](point)
    os.kill(daemon := daemon_of(point), signal.SIGSTOP)
    try:
        with pytest.raises(pytest.fail.Exception, match=f"process {daemon}"):
            begin()
        assert f"process {daemon} has not answered" in program.refuses("status", point, timeout=DEADLINE)
        assert daemon_of(point) == daemon
        os.kill(daemon, signal.SIGCONT)
        assert_serves(point, right, daemon)
        os.kill(daemon, signal.SIGSTOP)
        program.run("unmount", "--force", point, timeout=DEADLINE)
        assert not is_mounted(point) and not is_running(daemon)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon, signal.SIGCONT)


# --- names that are no text ------------------------------------------------------------------------------------------


def has_ended(daemon: int) -> bool:
    """Whether a process is gone."""
    return not is_running(daemon)


@needs_root
def test_a_mount_with_the_number_and_device_of_one_that_is_gone(
    program: Program, small: Dataset, begin: Begin, right: Path
) -> None:
    """The kernel gives both to the next mount at once, anywhere. The daemon of the first one, which comes to know late
    that its mount is gone, leaves the other alone."""

    def number_and_device(point: Path) -> list[str]:
        lines = [line.split() for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()]
        return next([fields[0], fields[2]] for fields in lines if fields[4] == str(point))

    for _ in range(5):  # whatever else is mounted or unmounted meanwhile may have taken them
        point = begin("--page-cache", "on")
        gone, old = number_and_device(point), daemon_of(point)
        os.kill(old, signal.SIGSTOP)
        try:
            subprocess.run(["umount", "-i", "-l", point], check=True, timeout=DEADLINE)
            with program.mounted(small, *SMALL_FLAGS) as other:
                is_next = number_and_device(other) == gone
                os.kill(old, signal.SIGCONT)
                wait_until(functools.partial(has_ended, old), "the old daemon has ended", DEADLINE)
                assert_serves(other, right, daemon_of(other))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(old, signal.SIGCONT)
        if is_next:
            return
    pytest.skip("no mount was given the number and the device of the one before: other programs mount meanwhile")


@needs_root
@pytest.mark.parametrize("what", ["mountpoint", "source", "own mountpoint"])
def test_a_mount_table_that_is_no_text(
    program: Program, small: Dataset, right: Path, tmp_path: Path, what: str
) -> None:
    """One mountpoint of anybody whose name is not UTF-8: mount, status and unmount work beside it, and at it."""
    odd = os.fsencode(tmp_path) + b"/odd \xff\\\n#"
    plain = os.fsencode(tmp_path) + b"/plain"
    for folder in (odd, plain):
        os.mkdir(folder)
    source = b"odd\xff" if what == "source" else b"odd"
    program_path, flags = os.fsencode(program.path), [os.fsencode(flag) for flag in [*small.flags(), "--log-file"]]
    point = odd if what == "own mountpoint" else plain
    # In a mount namespace of its own: other programs of this machine may not like such a name.
    script = b"""set -e
    [ "$1" = "own mountpoint" ] || mount -t tmpfs "$2" "$3"
    program=$4; point=$5; first=$6; shift 6
    "$program" mount "$@" "$point"
    "$program" status "$point" > /dev/null
    sha256sum < "$point/shard-000000.tar"
    "$program" status --json "$point" > /dev/null
    if "$program" mount "$@" "$point" 2> /dev/null; then exit 9; fi
    "$program" unmount "$point"
    """
    line = [b"unshare", b"--mount", b"sh", b"-c", script, b"sh", what.encode(), source, odd, program_path, point, b""]
    more = [*flags, os.fsencode(tmp_path / "log"), b"--samples-per-shard", b"3"]
    done = subprocess.run([*line, *more], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert digest(right / "shard-000000.tar").encode() in done.stdout


# Maps files as C does: Python's own mapping keeps them open.
MAP = """
import ctypes, os, sys
map = ctypes.CDLL(None).mmap
map.restype, map.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
for path in sys.argv[1:]:
    file = os.open(path, os.O_RDONLY)
    assert map(None, 4096, 1, 2, file, 0) != ctypes.c_void_p(-1).value  # PROT_READ, MAP_PRIVATE
    os.close(file)
print("ready", flush=True)
sys.stdin.read()
"""


@needs_root
def test_a_reader_that_maps_beside_a_name_that_is_no_text(program: Program, begin: Begin, tmp_path: Path) -> None:
    """Who keeps a mount busy is found in tables of processes, which are bytes, too."""
    point = begin()
    odd = os.fsencode(tmp_path) + b"/odd\xff"
    Path(os.fsdecode(odd)).write_bytes(b"x" * 4096)
    command = [sys.executable, "-c", MAP, os.fsdecode(odd), str(point / "shard-000000.tar")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout and reader.stdout.readline() == b"ready\n"
        assert f"(process {reader.pid}): {point}/shard-000000.tar" in program.refuses("unmount", point)
        reader.communicate(timeout=DEADLINE)
    program.run("unmount", point)
