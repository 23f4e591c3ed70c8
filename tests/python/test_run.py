"""`ctwds-fs run`: a command with the shards mounted for it alone, whoever ends first, and however."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness import (
    NOBODY,
    SMALL_FLAGS,
    Program,
    digest,
    files_in,
    is_mounted,
    is_running,
    needs_root,
    require_fuse,
    wait_until,
)
from make_dataset import Dataset
from small_datasets import noise_dataset

# Prints its own process and that of the mount, and waits for a signal. It sleeps in short pieces: Python runs a handler
# only between two calls, and a signal that comes just before one long sleep begins would be heard at its end.
WAIT = """
import os, signal, sys, time
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"):
    signal.signal(getattr(signal, name), lambda number, _: (print("got", number, flush=True), sys.exit(40 + number)))
mount = [line.split()[0] for line in open("/proc/self/mounts") if line.split()[1] == sys.argv[1]]
print(os.getpid(), mount[0].split(":")[1], flush=True)
for _ in range(1000):
    time.sleep(0.1)
"""


@pytest.fixture(autouse=True)
def _fuse() -> None:
    require_fuse()


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Path]:
    """Where the command finds the shards; nothing of it is seen here, before or after."""
    point = tmp_path / "at"
    point.mkdir()
    yield point
    assert not list(point.iterdir())
    assert not is_mounted(point)


def arguments(data: Dataset, at: Path, *command: object) -> list[object]:
    """The command line of `run`."""
    return ["run", *data.flags(), *SMALL_FLAGS, "--at", at, "--", *command]


def started(process: subprocess.Popen[str]) -> tuple[int, int]:
    """The command's process and the mount's, once the command is there."""
    assert process.stdout
    command, mount = process.stdout.readline().split()
    return int(command), int(mount)


def test_bytes_and_exit_code(program: Program, small: Dataset, at: Path, tmp_path: Path) -> None:
    """The shards are those of `materialize`; the command's streams and exit code are passed on."""
    out = program.materialize(small, tmp_path / "out", *SMALL_FLAGS)
    script = f"cd {at} && sha256sum *.tar && cat && echo oops >&2 && exit 7"
    done = program.run(*arguments(small, at, "bash", "-c", script), check=False, stdin=None, input="hello\n")
    assert done.returncode == 7
    *sums, hello = done.stdout.splitlines()
    expected = {name: value for name, value in files_in(out).items() if name.endswith(".tar")}
    assert {line.split()[1]: line.split()[0] for line in sums} == expected
    assert hello == "hello" and "oops\n" in done.stderr and "volumes decoded" in done.stderr
    assert program.run(*arguments(small, at, "true")).returncode == 0


def test_nobody_else_sees_it(program: Program, small: Dataset, at: Path) -> None:
    """Neither the mount table of others nor the folder shows anything while the command runs."""
    with program.running(*arguments(small, at, sys.executable, "-c", WAIT, at)) as process:
        started(process)
        assert not list(at.iterdir()) and not is_mounted(at)
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_signals_reach_the_command(program: Program, small: Dataset, at: Path, name: str) -> None:
    """Once, and the command decides what becomes of them."""
    number = getattr(signal, name)
    with program.running(*arguments(small, at, sys.executable, "-c", WAIT, at)) as process:
        _, mount = started(process)
        process.send_signal(number)
        assert process.wait(20) == 40 + number and process.stdout
        assert process.stdout.read() == f"got {int(number)}\n"
        wait_until(lambda: not is_running(mount), "the mount has ended")


def test_a_command_that_a_signal_ends(program: Program, small: Dataset, at: Path) -> None:
    """The exit code is that of a shell."""
    assert program.run(*arguments(small, at, "bash", "-c", "kill -KILL $$"), check=False).returncode == 128 + 9
    assert program.run(*arguments(small, at, "no-such-command"), check=False).returncode == 127
    assert program.run(*arguments(small, at, "/etc/passwd"), check=False).returncode == 126


def test_a_mount_that_dies(program: Program, small: Dataset, at: Path) -> None:
    """The command is ended, with an error that says why."""
    with program.running(*arguments(small, at, sys.executable, "-c", WAIT, at)) as process:
        command, mount = started(process)
        os.kill(mount, signal.SIGKILL)
        _, message = process.communicate(timeout=30)
        assert process.returncode == 1
        assert re.search(r"the mount at \S+ has died \(signal: 9.*log: .*\); ending the command", message), message
        assert not is_running(command)


def none_runs(*processes: int) -> bool:
    """Whether all of these processes have ended."""
    return not any(map(is_running, processes))


def test_nothing_is_left_of_a_killed_run(program: Program, small: Dataset, at: Path) -> None:
    """The command and the mount end with it, every time."""
    for _ in range(5):
        with program.running(*arguments(small, at, sys.executable, "-c", WAIT, at)) as process:
            command, mount = started(process)
            process.kill()
            wait_until(partial(none_runs, command, mount), "both have ended")


def test_files_that_are_left_open(program: Program, small: Dataset, at: Path, tmp_path: Path) -> None:
    """A process that the command leaves behind does not keep `run` or the mount."""
    script = f"sleep 60 < {at}/shard-000000.tar > /dev/null 2>&1 & echo $! > {tmp_path}/pid"
    begun = time.monotonic()
    done = program.run(*arguments(small, at, "bash", "-c", script))
    left = int((tmp_path / "pid").read_text())
    try:
        assert done.returncode == 0 and time.monotonic() - begun < 30
    finally:
        os.kill(left, signal.SIGKILL)


@needs_root
def test_a_root_that_is_no_mount_point(program: Program, tmp_path: Path) -> None:
    """In a chroot the kernel does not let it keep its mount to itself; it says why, and what to do. Where the root is
    a mount point, it works."""
    root = tmp_path / "root"
    data = noise_dataset(root / "data", 2, (8, 8, 8))
    flags = [str(flag).replace(str(root), "") for flag in data.flags()]
    for name in ("proc", "dev", "at", "usr", "tmp"):
        (root / name).mkdir()
    (root / "program").touch()
    binds = [f'mount --rbind "/{name}" "{root}/{name}"' for name in ("proc", "dev", "usr")]
    for name in ("bin", "lib", "lib64", "sbin"):
        here = Path("/", name)
        if here.is_symlink():
            (root / name).symlink_to(os.readlink(here))
        elif here.is_dir():
            (root / name).mkdir()
            binds.append(f'mount --rbind "{here}" "{root}/{name}"')
    script = " && ".join([*binds, f'mount --bind "{program.path}" "{root}/program"'])
    inside = 'HOME=/tmp chroot . /program run "$@" --at /at -- /bin/sh -c "ls /at"'
    for before, code in (("true", 1), ('mount --rbind "$PWD" "$PWD" && cd "$PWD"', 0)):
        line = f"{script} && cd {root} && {before} && {inside}"
        session = ["unshare", "--mount", "--propagation", "private", "bash", "-c", line, "bash", *flags]
        done = subprocess.run(session, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        if code == 0:
            assert "shard-000000.tar" in done.stdout
        else:
            for part in ("no mount point, as in a chroot", "mount --bind DIR DIR", "`ctwds-fs cat`"):
                assert part in done.stderr, done.stderr


@needs_root
def test_without_root(program: Program, open_folder: Path) -> None:
    """An ordinary user has the same where user namespaces are allowed."""
    public = shutil.copy(program.path, open_folder)
    data = noise_dataset(open_folder / "data", 6)
    home, scratch, at = (open_folder / name for name in ("home", "scratch", "at"))
    for folder in (home, scratch, at):
        folder.mkdir()
    os.chown(home, NOBODY, NOBODY)
    out = program.materialize(data, open_folder / "out", *SMALL_FLAGS)
    # /dev/fuse is for everybody on most machines; here it may be for root alone.
    fuse = 'mount -t tmpfs ctwds-test "$0" && mknod -m 666 "$0/fuse" c 10 229 && mount --bind "$0/fuse" /dev/fuse && '
    user = f'HOME={home} exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups "$@"'
    command = arguments(data, at, "bash", "-c", f"cd {at}; id -u; sha256sum shard-000000.tar; exit 3")
    session = ["unshare", "--mount", "--propagation", "private", "bash", "-c", fuse + user, scratch, public, *command]
    done = subprocess.run(list(map(str, session)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout.split()[:2] == [str(NOBODY), digest(out / "shard-000000.tar")]
