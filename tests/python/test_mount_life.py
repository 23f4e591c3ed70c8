"""How a mount begins, what it allows and serves, and every way in which it ends."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import SMALL_FLAGS, Program, daemon_of, digest, is_mounted, is_running, shards, wait_until
from make_dataset import Dataset

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def begin(program: Program, small: Dataset, base: Path) -> Callable[..., Path]:
    """Mounts the data set and returns the mountpoint; what a test leaves there is ended after it."""

    def mount(*flags: object, **options: Any) -> Path:
        log = [] if options else ["--log-file", base / "log"]
        program.run("mount", *small.flags(), *SMALL_FLAGS, *log, *flags, base / "mount", **options)
        return base / "mount"

    return mount


def assert_ended(point: Path, pid: int) -> None:
    """No mount, no daemon, and a folder that can be used again."""
    wait_until(lambda: not is_mounted(point), "the mount table is clean")
    wait_until(lambda: not is_running(pid), "the daemon has ended")
    assert os.listdir(point) == []


# --- the beginning ---------------------------------------------------------------------------------------------------


def test_ready_when_the_command_returns(begin: Callable[..., Path], right: Path) -> None:
    """No waiting and no polling: all shards can be read at once."""
    point = begin()
    assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(right)]
    about = json.loads((point / ".ctwds" / "mount.json").read_text())
    assert about["pid"] == daemon_of(point) and about["log_file"] == str(point.parent / "log")


def test_no_inherited_pipe_is_kept(program: Program, small: Dataset, base: Path) -> None:
    """A script that reads the command's output, or holds any pipe of its own, must see the pipe's end."""
    reading, writing = os.pipe()
    try:
        # `run` itself waits for the end of standard output and standard error.
        program.run("mount", *small.flags(), "--log-file", base / "log", base / "mount", pass_fds=[writing])
        os.close(writing)
        assert select.select([reading], [], [], 10)[0] and os.read(reading, 1) == b""
        assert is_mounted(base / "mount")
    finally:
        os.close(reading)


def test_the_daemon_does_not_stay_where_it_was_started(begin: Callable[..., Path], tmp_path: Path) -> None:
    """It has left the folder, the terminal's session, and the standard streams of its parent."""
    pid = daemon_of(begin("--log-file", "log", cwd=tmp_path))
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    assert [os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)] == ["/dev/null", *[str(tmp_path / "log")] * 2]


def test_error_of_the_daemon(program: Program, small: Dataset, base: Path, tmp_path: Path) -> None:
    """It reaches the user's terminal and the exit code, whichever step fails; nothing is mounted or left running."""
    flags = small.flags()
    broken = tmp_path / "labels.csv"
    broken.write_text("Name,a\nv00.nii.gz,1\n")
    message = program.refuses("mount", *flags[:-1], broken, "--log-file", base / "log", base / "mount")
    assert str(broken) in message and "'VolumeName'" in message
    message = program.refuses("mount", *flags, "--log-file", "/proc/none/log", base / "mount")
    assert "/proc/none" in message and not is_mounted(base / "mount")


def test_a_program_of_another_name(program: Program, small: Dataset, base: Path, tmp_path: Path) -> None:
    """Its daemon is known as one of this program all the same: `unmount --force` kills no other."""
    renamed = Program(Path(shutil.copy(program.path, tmp_path / "another-name")))
    renamed.run("mount", *small.flags(), "--log-file", base / "log", base / "mount")
    assert Path(f"/proc/{daemon_of(base / 'mount')}/comm").read_text() == "ctwds-fs\n"


@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "HOME"])
def test_default_log(program: Program, small: Dataset, base: Path, tmp_path: Path, variable: str) -> None:
    """In the user's state folder, named by the command, for the user only: study ids are patient data."""
    env = {"PATH": os.environ["PATH"], variable: str(tmp_path)}
    done = program.run("mount", *small.flags(), base / "mount", env=env)
    (log,) = tmp_path.rglob("*.log")
    lines = done.stdout.splitlines()
    assert lines[0] == f"mounted {base / 'mount'} (log: {log})" and lines[-1].startswith("to end it: ctwds-fs unmount ")
    assert log.parent == tmp_path / ("ctwds-fs" if variable == "XDG_STATE_HOME" else ".local/state/ctwds-fs")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600 and stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    assert str(base / "mount") in log.read_text()


def test_what_the_next_command_needs(program: Program, small: Dataset, base: Path) -> None:
    """Samples, shards, size, kind, and the pattern of all shards, which a shell expands to exactly these files."""
    for flags, names in (
        (("--samples-per-shard", 3), ["shard-000000.tar", "shard-000001.tar"]),
        (
            ("--samples-per-shard", 10, "--volume", "rescaled", "--rescale", "none", "--shuffle-seed", 1),
            ["shard-000000.tar"],
        ),
    ):
        done = program.run("mount", *small.flags(), *flags, "--log-file", base / "log", base / "mount")
        try:
            assert f"6 samples in {len(names)} shard" in done.stdout and "iB" in done.stdout
            assert ("stored" if len(names) == 2 else "rescaled") + " volumes as float16" in done.stdout
            patterns = [line.split("'")[1] for line in done.stdout.splitlines() if ".tar'" in line]
            assert len(patterns) == (2 if "--shuffle-seed" in flags else 1)
            for pattern in patterns:
                found = subprocess.run(["bash", "-c", f"ls {pattern}"], capture_output=True, text=True, check=True)
                assert [Path(path).name for path in found.stdout.split()] == names
        finally:
            program.run("unmount", base / "mount")


def test_opening_files_writes_no_log(begin: Callable[..., Path]) -> None:
    """Python asks each file that it opens whether it is a terminal; a training opens files for weeks."""
    point = begin()
    before = (point.parent / "log").read_text()
    for _ in range(3):
        with (point / "shard-000000.tar").open("rb") as file, (point / "manifest.json").open() as text:
            assert file.read(10) and text.read(10) and not file.isatty()
    assert (point.parent / "log").read_text() == before


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["SIGINT", "SIGTERM", "unmount", "umount", "fusermount3"])
def test_every_end_is_clean(program: Program, begin: Callable[..., Path], right: Path, way: str) -> None:
    """After each the daemon is gone, the mount table is clean, and the folder can be mounted again."""
    for _ in range(2):
        point = begin()
        pid = daemon_of(point)
        assert digest(point / "shard-000001.tar") == digest(right / "shard-000001.tar")
        if way.startswith("SIG"):
            os.kill(pid, getattr(signal, way))
        elif way == "unmount":
            program.run("unmount", point)
            assert not is_mounted(point) and not is_running(pid), "unmount returned too early"
        else:
            how = {"umount": ["umount"], "fusermount3": ["fusermount3", "-u"]}[way]
            subprocess.run([*how, point], check=True, timeout=30)
        assert_ended(point, pid)


def test_mount_and_unmount_by_a_link(program: Program, small: Dataset, base: Path, tmp_path: Path) -> None:
    """The folder may be named by any path that leads to it."""
    point, link = base / "mount", tmp_path / "link"
    link.symlink_to(point)
    for mounted, unmounted in [(link, link), (point, link), (link, f"{base}/./mount/")]:
        program.run("mount", *small.flags(), "--log-file", base / "log", mounted)
        pid = daemon_of(point)
        program.run("unmount", unmounted)
        assert_ended(point, pid)


def test_signal_while_a_file_is_open(begin: Callable[..., Path], right: Path) -> None:
    """The mount is gone at once, the open file can still be read, and the daemon ends when it is closed."""
    point = begin()
    pid = daemon_of(point)
    with (point / "shard-000000.tar").open("rb", buffering=0) as file:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_mounted(point), "the mount table is clean")
        assert os.pread(file.fileno(), 5000, 500_000) == (right / "shard-000000.tar").read_bytes()[500_000:505_000]
    wait_until(lambda: not is_running(pid), "the daemon has ended", 5)
    assert_ended(point, pid)


@pytest.mark.parametrize("busy", ["open file", "working folder", "mapping"])
def test_unmount_of_a_busy_mount_is_refused(
    program: Program, begin: Callable[..., Path], right: Path, busy: str
) -> None:
    """With a message; nothing breaks, and it works once the reader has gone."""
    point = begin()
    code = {
        "open file": "f=open('shard-000000.tar','rb'); os.chdir('/')",
        "working folder": "pass",
        "mapping": "f=open('shard-000000.tar','rb'); m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ); f.close(); "
        "os.chdir('/')",
    }[busy]
    command = [sys.executable, "-c", f"import mmap,os,sys; {code}; print('ready',flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, cwd=point, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout and reader.stdout.readline() == b"ready\n"
        message = program.refuses("unmount", point)
        assert str(point) in message and "open" in message and "again" in message
        assert is_mounted(point) and digest(point / "shard-000001.tar") == digest(right / "shard-000001.tar")
        reader.communicate(timeout=30)
    pid = daemon_of(point)
    program.run("unmount", point)
    assert_ended(point, pid)


def test_unmount_from_inside(program: Program, begin: Callable[..., Path]) -> None:
    """A command that was started in the mount does not keep it busy; its own input from there does, and is named."""
    point = begin()
    with (point / "manifest.json").open() as file:
        message = program.refuses("unmount", point, stdin=file)
    assert "this command's own input or output: " in message and "another user" not in message
    assert "ctwds-fs (process" not in message
    pid = daemon_of(point)
    program.run("unmount", ".", cwd=point)
    assert_ended(point, pid)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_foreground(program: Program, small: Dataset, base: Path, right: Path, sent: signal.Signals) -> None:
    """The command stays, logs to the terminal, and ends well with the mount."""
    point = base / "mount"
    with program.running("mount", "--foreground", *small.flags(), *SMALL_FLAGS, point) as process:
        wait_until((point / "shard-000000.tar").exists, "the mount is ready")
        assert digest(point / "shard-000000.tar") == digest(right / "shard-000000.tar")
        assert daemon_of(point) == process.pid and process.poll() is None
        process.send_signal(sent)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0 and "6 samples in 2 shards" in log and f"signal {sent.value}" in log
    assert_ended(point, process.pid)


@pytest.fixture
def adopting() -> Iterator[None]:
    """Daemons become children of the tests, which do not notice their end: as in a container without an init."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def is_dead(point: Path) -> bool:
    """Whether the kernel has noticed that nobody serves the mount (`stat` may be answered from its cache)."""
    try:
        os.listdir(point)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def test_killed_daemon(program: Program, adopting: None, begin: Callable[..., Path], right: Path) -> None:
    """It leaves a dead mount, which `mount` replaces and `unmount` clears, although the daemon is still a zombie; and
    `unmount` does not wait for one."""
    killed = []
    for clear in ("mount", "unmount"):
        point = begin()
        killed.append(daemon_of(point))
        os.kill(killed[-1], signal.SIGKILL)
        wait_until(partial(is_dead, point), "the mount is dead")
        if clear == "mount":
            begin()
            assert digest(point / "shard-000000.tar") == digest(right / "shard-000000.tar")
            ended = daemon_of(point)
            done = program.run("unmount", point, timeout=10)
            assert "warning" not in done.stderr
            assert os.waitstatus_to_exitcode(os.waitpid(ended, 0)[1]) == 0
        else:
            assert "warning" not in program.run("unmount", point, timeout=10).stderr
        assert not is_mounted(point) and os.listdir(point) == []
    for pid in killed:
        os.waitpid(pid, 0)
