"""`ctwds-fs run` for root and for an ordinary user: nobody else sees its mount, and nothing is left of it, whichever of
its processes is killed. Where it has its mount, and what it says where it may have none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import (
    NOBODY,
    SMALL_FLAGS,
    SOURCE,
    Program,
    digest,
    is_running,
    needs_root,
    require_fuse,
    shards,
    wait_until,
)
from make_dataset import Dataset
from small_datasets import noise_dataset

DEADLINE = 30
HERE = Path(__file__).parent

# Says which processes there are, and waits for a signal.
WAIT = """
import os, signal, sys, time
caught = lambda number, frame: (os.write(1, b"got %d\\n" % number), os._exit(40 + number))  # print is not reentrant
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, caught)
mount = [line.split()[0] for line in open("/proc/self/mounts") if line.split()[1] == sys.argv[1]]
print(os.getpid(), mount[-1].split(":")[1], flush=True)
for _ in range(1000):  # one long sleep would not notice a signal that comes just before it
    time.sleep(0.1)
"""
# A launcher whose workers hold a shard open and ignore a signal; one of them is in a session of its own, as daemons
# are. Says which processes there are, and waits or ends.
LAUNCH = """
import os, subprocess, sys, time
at, ignored, then = sys.argv[1:]
mount = [line.split()[0] for line in open("/proc/self/mounts") if line.split()[1] == at]
pipes = {"stdin": open(f"{at}/shard-000000.tar"), "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
worker = ["sh", "-c", f"trap '' {ignored}; sleep 100 & echo $! $$; wait"]
workers = [subprocess.Popen(worker, text=True, start_new_session=is_daemon, **pipes) for is_daemon in (False, True)]
print(os.getpid(), mount[-1].split(":")[1], *(worker.stdout.readline().strip() for worker in workers), flush=True)
time.sleep(100 if then == "wait" else 0)
os._exit(3)
"""
# Becomes a user who may open /dev/fuse, which most machines allow, in a mount namespace that the machine does not see.
BECOME = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from user_session import offer_fuse
offer_fuse(Path(sys.argv[2]))
user = sys.argv[3]
os.execvp("setpriv", ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *sys.argv[4:]])
"""


@dataclass(frozen=True)
class Runner:
    """Somebody who runs the program, and what he has."""

    program: Program
    become: list[str]
    data: Dataset
    home: Path

    @property
    def at(self) -> Path:
        """Where the shards are shown."""
        return self.home / "at"

    def line(self, *command: object, at: Path | None = None) -> list[str]:
        """The command line."""
        flags = [*self.data.flags(), *SMALL_FLAGS, "--at", at or self.at]
        return [*self.become, *map(str, [self.program.path, "run", *flags, "--", *command])]

    def run(self, *command: object, at: Path | None = None) -> subprocess.CompletedProcess[str]:
        """To its end."""
        return subprocess.run(
            self.line(*command, at=at),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.environment(),
        )

    def waiting(self, script: str = WAIT, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """With a command that waits."""
        line = self.line(sys.executable, "-c", script, self.at, *arguments)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(line, text=True, env=self.environment(), **pipes)

    def environment(self) -> dict[str, str]:
        """Logs and saved plans are the user's own."""
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.home)}


@pytest.fixture(params=["root", pytest.param("user", marks=needs_root)])
def runner(request: pytest.FixtureRequest, program: Program, open_folder: Path) -> Iterator[Runner]:
    """Root, or somebody without any right."""
    require_fuse()
    data = noise_dataset(open_folder / "data", 6)
    home, scratch = open_folder / "home", open_folder / "scratch"
    home.mkdir()
    scratch.mkdir()
    become: list[str] = []
    if request.param == "user":
        os.chown(home, NOBODY, NOBODY)
        become = ["unshare", "--mount", sys.executable, "-c", BECOME, str(HERE), str(scratch), str(NOBODY)]
    yield Runner(program, become, data, home)
    assert str(open_folder) not in Path("/proc/self/mountinfo").read_text()


def processes(process: subprocess.Popen[str]) -> list[int]:
    """The command, the mount and further ones, once they are there; their numbers are those of this machine."""
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        pytest.fail(f"the command has not begun: {process.communicate(timeout=DEADLINE)[1]}")
    numbers = [int(number) for number in line.split()]
    assert all(map(is_running, numbers[1:]))  # the command may have ended after this line
    return numbers


@contextmanager
def launched(runner: Runner, ignored: str, then: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A launcher, and the numbers of the processes: itself, the mount, four workers. None of them outlives the test."""
    numbers: list[int] = []
    with runner.waiting(LAUNCH, ignored, then) as process:
        try:
            numbers += processes(process)
            assert len(numbers) == 6
            yield process, numbers
        finally:
            process.kill()
            for number in filter(is_running, numbers):
                os.kill(number, signal.SIGKILL)


def test_bytes_and_exit_code(runner: Runner, tmp_path: Path) -> None:
    """The shards of `materialize`, read by the user himself; then nothing, not even the folder."""
    right = shards(runner.program.materialize(runner.data, tmp_path / "right", *SMALL_FLAGS))
    done = runner.run("sh", "-c", f"id -u; sha256sum {runner.at}/*.tar; exit 7")
    assert done.returncode == 7, done.stderr
    user, *lines = done.stdout.splitlines()
    assert user == str(NOBODY if runner.become else os.getuid())
    assert [line.split()[0] for line in lines] == [digest(shard) for shard in right] and len(right) == 2
    assert not runner.at.exists() and not list((runner.home / ".local/state/ctwds-fs").iterdir())


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(runner: Runner, sent: signal.Signals) -> None:
    """Once; the command decides what becomes of them, and its mount lives until it has."""
    with runner.waiting() as process:
        try:
            command, mount = processes(process)
            process.send_signal(sent)
            out, message = process.communicate(timeout=DEADLINE)
            assert process.returncode == 40 + sent and out == f"got {int(sent)}\n", message
            assert not is_running(command) and not is_running(mount) and not runner.at.exists()
        finally:
            process.kill()


def test_nobody_else_sees_it(runner: Runner) -> None:
    """Neither in the mount table nor in the folder; so several may have the same one, and none removes it early."""
    with runner.waiting() as first:
        _, mount = processes(first)  # it has made the folder
        with runner.waiting() as second:
            try:
                processes(second)
                table = Path("/proc/self/mountinfo").read_text()
                assert f"{SOURCE}{mount}" not in table and str(runner.at) not in table
                assert runner.at.is_dir() and not list(runner.at.iterdir())
                # Were it to remove the folder now, the kernel would end the other's mount.
                first.send_signal(signal.SIGTERM)
                assert first.wait(DEADLINE) == 40 + signal.SIGTERM
                assert second.poll() is None and runner.at.is_dir()
                second.send_signal(signal.SIGUSR1)
                message = second.communicate(timeout=DEADLINE)[1]
                assert second.returncode == 40 + signal.SIGUSR1 and "has died" not in message
            finally:
                first.kill()
                second.kill()


@pytest.mark.parametrize("who", ["run", "mount", "command"])
def test_whoever_is_killed(runner: Runner, who: str) -> None:
    """The others end too. Without `run` the folder that was made is left, empty."""
    with runner.waiting() as process:
        try:
            command, mount = processes(process)
            os.kill({"run": process.pid, "mount": mount, "command": command}[who], signal.SIGKILL)
            _, message = process.communicate(timeout=DEADLINE)
            wait_until(lambda: not is_running(command) and not is_running(mount), "all have ended")
            expected = {"run": -9, "mount": 1, "command": 128 + 9}[who]
            assert process.returncode == expected, message
            if who == "mount":
                assert f"the mount at {runner.at} has died (signal: 9 (SIGKILL)" in message
                assert "; ending the command" in message
            if who == "run":
                assert not list(runner.at.iterdir())
            else:
                assert not runner.at.exists()
        finally:
            process.kill()


@pytest.mark.parametrize("who", ["run", "mount"])
def test_all_that_the_command_has_started_ends(runner: Runner, who: str) -> None:
    """If `run` or the mount is killed: also what has a session of its own, and what ignores being asked."""
    with launched(runner, "TERM", "wait") as (process, numbers):
        os.kill({"run": process.pid, "mount": numbers[1]}[who], signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, numbers)), "all have ended")
        process.communicate(timeout=DEADLINE)
        assert process.returncode == {"run": -9, "mount": 1}[who]


@pytest.mark.parametrize("who", ["nobody", "command"])
def test_what_the_command_leaves_goes_on(runner: Runner, who: str) -> None:
    """As under a shell. But the mount ends, in the eyes of those that are left as well, though they hold a file
    open."""
    with launched(runner, "USR2", "wait" if who == "command" else "end") as (process, numbers):
        command, mount, *workers = numbers
        if who == "command":
            os.kill(command, signal.SIGKILL)
        _, message = process.communicate(timeout=DEADLINE)
        assert process.returncode == (128 + 9 if who == "command" else 3), message
        assert not is_running(mount) and not runner.at.exists()
        assert all(map(is_running, workers))
        for worker in workers:
            assert f"{SOURCE}{mount} " not in Path(f"/proc/{worker}/mountinfo").read_text()


def test_signals_to_the_mount(runner: Runner) -> None:
    """A scheduler may send one to every process of a job. The command decides, and has its shards until it has
    ended."""
    with runner.waiting() as process:
        try:
            _, mount = processes(process)
            for sent in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2"):
                os.kill(mount, signal.Signals[f"SIG{sent}"])
            process.send_signal(signal.SIGUSR1)
            _, message = process.communicate(timeout=DEADLINE)
            assert process.returncode == 40 + signal.SIGUSR1 and "volumes decoded" in message, message
        finally:
            process.kill()


def test_the_folder(runner: Runner) -> None:
    """One that is there stays; one that is missing is made with its parents, and removed with those that were made."""
    runner.at.mkdir()
    runner.at.chmod(0o755)
    if runner.become:
        os.chown(runner.at, NOBODY, NOBODY)
    assert runner.run("true").returncode == 0 and runner.at.is_dir()
    deep = runner.at / "a" / "b"
    done = runner.run("test", "-f", deep / "shard-000000.tar", at=deep)
    assert done.returncode == 0, done.stderr
    assert not list(runner.at.iterdir())
    inside = runner.data.folder / "shards"
    done = runner.run("true", at=inside)
    assert done.returncode == 1 and str(inside) in done.stderr and not inside.exists()
    (runner.at / "file").write_bytes(b"")
    done = runner.run("true")
    assert done.returncode == 1 and "not empty" in done.stderr and (runner.at / "file").exists()
    if runner.become:
        done = runner.run("true", at=Path("/ctwds-fs-none/at"))
        assert done.returncode == 1 and "mkdir -p" in done.stderr and "/ctwds-fs-none" in done.stderr


@pytest.mark.parametrize("what", ["pipe", "file", "socket", "loop", "dangling link"])
def test_a_place_that_is_no_folder(program: Program, small: Dataset, tmp_path: Path, what: str) -> None:
    """Refused at once, whatever it is; and it stays."""
    at = tmp_path / "at"
    with socket.socket(socket.AF_UNIX) as listener:
        if what == "pipe":
            os.mkfifo(at)
        elif what == "file":
            at.write_bytes(b"")
        elif what == "socket":
            listener.bind(os.path.relpath(at))  # a name of 108 bytes at most
        else:
            at.symlink_to("at" if what == "loop" else tmp_path / "nowhere")
        message = program.refuses("run", *small.flags(), "--at", at, "--", "touch", tmp_path / "ran", timeout=DEADLINE)
    assert f"{at}: " in message and not (tmp_path / "ran").exists() and os.path.lexists(at)


def test_a_command_that_cannot_be_run(runner: Runner) -> None:
    """The exit codes are a shell's, and nothing is left."""
    for command, code in {"no-such-command": 127, "/etc/passwd": 126}.items():
        done = runner.run(command)
        assert done.returncode == code and f"error: {command}: cannot run" in done.stderr
        assert not runner.at.exists()


@needs_root
def test_where_namespaces_are_forbidden(program: Program, small: Dataset, tmp_path: Path) -> None:
    """Reason and remedy, and the command is not run. The limit is one of the test's own user namespace."""
    inner = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
    line = [program.path, "run", *small.flags(), "--at", tmp_path / "at", "--", "touch", tmp_path / "ran"]
    command = ["unshare", "--user", "--map-root-user", "bash", "-c", inner, "bash", *map(str, line)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1, done.stderr
    for text in ("private mount namespace", "max_user_namespaces", "`ctwds-fs mount` before the command"):
        assert text in done.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "at").exists()


def test_the_place_of_the_configuration(program: Program, small: Dataset, tmp_path: Path) -> None:
    """The same file says where the data set is and where the training looks for its shards."""
    require_fuse()
    (tmp_path / "config.yaml").write_text(
        f"data:\n  train_dir: {small.folder}\n  reports_train: {small.reports}\n  train_meta: {small.meta}\n"
        f"  labels_train: {small.labels}\n  webdataset_shards_train: shards/train/shard-{{000000..000001}}.tar\n"
    )
    flags = ["--config", "config.yaml", "--split", "train", "--where", "a == 1", "--samples-per-shard", 2]
    done = program.run("run", *flags, "--", "sh", "-c", "ls shards/train", cwd=tmp_path)
    assert [name for name in done.stdout.split() if name.endswith(".tar")] == ["shard-000000.tar", "shard-000001.tar"]
    assert not (tmp_path / "shards").exists()
