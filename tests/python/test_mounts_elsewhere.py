"""Daemons whose mounts live on in other places, device numbers that others got meanwhile, and mounts whose process is
gone: signals and `unmount` do not wait for nothing, and every command that meets a dead mount says what it is."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damages import UNCHECKED
from harness import SMALL_FLAGS, Program, daemon_of, is_mounted, is_running, needs_root, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset
from test_mount_ends import AT_ONCE, DEADLINE, LOOKS, copy_of_the_namespace, has_ended, umount


def without_core() -> None:
    """A process that is killed leaves no image of its memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def begin(program: Program, data: Dataset, base: Path) -> tuple[Path, int]:
    """A mount, and its daemon; what is left of it is ended with `base`."""
    point = base / "mount"
    program.run("mount", *data.flags(), *SMALL_FLAGS, "--log-file", base / "log", point, preexec_fn=without_core)
    return point, daemon_of(point)


@needs_root
@pytest.mark.parametrize("unmounted", [True, False], ids=["unmounted here", "mounted here"])
@pytest.mark.parametrize("place", ["namespace", "folder"])
def test_a_signal_to_a_daemon_whose_mount_lives_on(
    program: Program, small: Dataset, base: Path, tmp_path: Path, place: str, unmounted: bool
) -> None:
    """Nobody has a file open: it ends at once."""
    point, daemon = begin(program, small, base)
    with contextlib.ExitStack() as stack:
        if place == "namespace":
            stack.enter_context(copy_of_the_namespace())
        else:
            bound = tmp_path.resolve() / "bound"
            bound.mkdir()
            subprocess.run(["mount", "--bind", point, bound], check=True, timeout=DEADLINE)
            stack.callback(umount, bound)
        if unmounted:
            umount(point)
        os.kill(daemon, signal.SIGTERM)
        wait_until(lambda: not is_running(daemon), "the daemon has ended", AT_ONCE)
    assert not is_mounted(point)


@needs_root
def test_a_file_that_is_open_where_a_mount_lives_on(program: Program, small: Dataset, base: Path) -> None:
    """It is read to its end; with it the daemon ends."""
    point, daemon = begin(program, small, base)
    with copy_of_the_namespace() as copy:
        umount(point)
        script = f"exec 3< {point}/shard-000000.tar; echo; read line; cat <&3 | wc -c; exec 3<&-; echo; read line"
        inside = ["nsenter", "--mount", "--target", str(copy.pid), "sh", "-c", script]
        with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdin and reader.stdout and reader.stdout.readline() == "\n"
            os.kill(daemon, signal.SIGTERM)
            time.sleep(1)
            assert is_running(daemon), "a file is open"
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert int(reader.stdout.readline()) > 1000
            assert reader.stdout.readline() == "\n"
            wait_until(lambda: not is_running(daemon), "the daemon has ended", AT_ONCE)
            reader.communicate("\n", timeout=DEADLINE)


def device_of(point: Path) -> str:
    """The number of the device that is mounted there."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()]
    return next(fields[2] for fields in lines if fields[4] == str(point))


@contextlib.contextmanager
def any_fuse_mount(folder: Path) -> Iterator[None]:
    """A FUSE file system of another program, mounted in microseconds; nobody serves it."""
    libc = ctypes.CDLL(None, use_errno=True)
    connection = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={connection},rootmode=40000,user_id=0,group_id=0".encode()
    assert libc.mount(b"next", os.fsencode(folder), b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        os.close(connection)
        umount(folder)


@needs_root
def test_a_device_that_another_file_system_got(program: Program, small: Dataset, base: Path, tmp_path: Path) -> None:
    """The kernel gives it to the next one at once. Of a stopped daemon whose mount is gone, nobody says that it serves
    on."""
    following = tmp_path.resolve() / "next"
    following.mkdir()
    for _ in range(5):  # whatever else is mounted meanwhile may have taken it
        point, daemon = begin(program, small, base)
        device = device_of(point)
        os.kill(daemon, signal.SIGSTOP)  # between the end of its mount and its own
        try:
            with program.running("unmount", point) as process:
                wait_until(lambda: not is_mounted(base / "mount"), "it is unmounted")
                with any_fuse_mount(following):
                    got_it = device_of(following) == device
                    time.sleep(1)  # `unmount` has looked
                    os.kill(daemon, signal.SIGCONT)
                    said, errors = process.communicate(timeout=DEADLINE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGCONT)
        assert process.returncode == 0, errors
        wait_until(functools.partial(has_ended, daemon), "the daemon has ended")
        if got_it:
            assert said == f"unmounted {point}\n"
            return
    pytest.skip("no file system was given the device of the one before: other programs mount meanwhile")


# Commands that meet a dead mount on a path of theirs, besides those that look for one.
MEETS: dict[str, Callable[[Dataset, Path, Path], list[object]]] = {
    "verify": lambda data, point, out: ["verify", "--webdataset-dir", point],
    "plan --shards": lambda data, point, out: ["plan", "--shards", point],
    "mount --shards": lambda data, point, out: ["mount", "--shards", point, out / "mount"],
    "reclaim": lambda data, point, out: ["reclaim", *data.flags(), "--shards", point],
    "plan": lambda data, point, out: ["plan", "--data-folder", point],
    "plan, a table": lambda data, point, out: ["plan", *data.flags()[:2], "--meta-file", point / "meta.csv"],
    "plan, a list": lambda data, point, out: ["plan", *data.flags(), "--exclude", point / "list.csv"],
    "materialize": lambda data, point, out: ["materialize", *data.flags(), "--output-dir", point / "out"],
    "init": lambda data, point, out: ["init", point, "--yes", "--output", out / "ctwds.toml"],
    "bench": lambda data, point, out: ["bench", *data.flags(), "--work-dir", point],
    "mount --materialized": lambda data, point, out: [
        *("mount", *data.flags(), "--materialized", point, out / "mount"),
    ],
}


@pytest.mark.parametrize("how", ["KILL", "ABRT"])
@pytest.mark.parametrize("look", ["nobody", "ls -l"])
def test_the_next_command_names_a_dead_mount(
    program: Program, small: Dataset, base: Path, tmp_path: Path, how: str, look: str
) -> None:
    """However its process ended, for lack of memory say: the mount stays, and each command that meets it says that its
    process is gone, and how the mount is cleared. Nothing hangs."""
    (tmp_path / "mount").mkdir()
    point, daemon = begin(program, small, base)
    LOOKS[look](point)
    os.kill(daemon, getattr(signal, f"SIG{how}"))
    wait_until(lambda: not is_running(daemon), "the daemon is dead")
    for name, arguments in MEETS.items():
        done = program.run(*arguments(small, point, tmp_path), check=False, timeout=DEADLINE)
        said = done.stdout + done.stderr
        assert done.returncode == 1 or (name == "verify" and done.returncode == UNCHECKED), f"{name}: {said}"
        assert "unmount" in said and "gone" in said, f"{name}: {said}"
    said = program.refuses("status", point)
    assert f"process {daemon} is gone" in said and f"ctwds-fs unmount {point}" in said
    program.run("unmount", point, timeout=DEADLINE)
    assert not is_mounted(point)


@needs_root
def test_a_daemon_that_got_no_memory_is_named(program: Program, tmp_path: Path, base: Path) -> None:
    """The address space of a daemon becomes too small while it serves: a read is an error that names the limit, or the
    process ends and `status` says so. `unmount` clears both."""
    data = noise_dataset(tmp_path / "data", 4, (64, 64, 64))
    point, daemon = begin(program, data, base)
    subprocess.run(["prlimit", f"--as={1 << 20}", "--pid", str(daemon)], check=True, timeout=DEADLINE)
    for shard in sorted(point.glob("*.tar")):
        with contextlib.suppress(OSError):
            shard.read_bytes()
    done = program.run("status", point, check=False, timeout=DEADLINE)
    said = done.stdout + done.stderr
    assert "ulimit -v" in said if done.returncode == 0 else f"process {daemon} is gone" in said
    program.run("unmount", point, timeout=DEADLINE)
    assert not is_mounted(point)
