"""Runs the program under test: its commands, and mounts that never outlive their test."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import tarfile
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
import reference
from make_dataset import Dataset

REPOSITORY = Path(__file__).resolve().parents[2]
SKIP_FUSE = "CTWDS_SKIP_FUSE"
COMMAND_DEADLINE = 120  # seconds; the slowest command of the tests takes a few
MOUNT_DEADLINE = 200  # seconds of one test, below its own deadline, that a mount may live
# What the data set of the readers is converted with: small shards, so that there are several.
READER_OPTIONS = reference.Options(samples_per_shard=4)
SMALL_FLAGS = ("--samples-per-shard", 3)  # two shards of the small data set
# Temporary folders of this run; another one may go on at the same time, and its mounts are its own.
PREFIX = f"ctwds-test-{os.getpid()}-"
NOBODY = 65_534  # a user without rights
SOURCE = "ctwds-fs:"  # how the mount table names our mounts, before the daemon's process id
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs and become another user")


def find_program() -> Path:
    """The binary: `CTWDS_FS`, or the release build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    path = Path(os.environ.get("CTWDS_FS", target / "release" / "ctwds-fs")).absolute()
    if not os.access(path, os.X_OK):
        pytest.fail(f"{path} is not there: build it with `cargo build --release`, or set CTWDS_FS", pytrace=False)
    return path


def require_fuse() -> None:
    """Skip where that was asked for; a machine without FUSE fails otherwise."""
    if os.environ.get(SKIP_FUSE) == "1":
        pytest.skip(f"{SKIP_FUSE}=1: no FUSE on this machine")
    if not os.path.exists("/dev/fuse"):
        pytest.fail(f"/dev/fuse is not there; set {SKIP_FUSE}=1 to go without these tests", pytrace=False)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted exactly there; asks the mount table, never the file system, which may hang."""
    return str(path) in mount_points()


def mount_points() -> list[str]:
    """Every mount point of this machine."""
    with open("/proc/self/mounts", encoding="utf-8") as table:
        return [line.split()[1].encode().decode("unicode_escape") for line in table]


def daemon_of(path: Path) -> int:
    """The process that serves the mount there."""
    with open("/proc/self/mounts", encoding="utf-8") as table:
        sources = [line.split()[0] for line in table if line.split()[1].encode().decode("unicode_escape") == str(path)]
    assert sources and sources[-1].startswith(SOURCE), f"{path} is no mount of ours: {sources}"
    return int(sources[-1].removeprefix(SOURCE))


def is_running(pid: int) -> bool:
    """Whether a process still does anything; one that only waits for its parent to notice its end does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def children_of(pid: int) -> list[int]:
    """The processes that it started."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    """Poll, because neither processes nor mount tables tell us; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s still not true: {what}"
        time.sleep(0.002)


def force_unmount(path: Path) -> None:
    """Abort the file system's connection, so that hanging readers get an error, and detach it."""
    for command in (["umount", "--force", "--lazy", str(path)], ["fusermount3", "-u", "-z", str(path)]):
        if is_mounted(path):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, timeout=30, check=False)


class Watchdog:
    """Unmounts by force what a test waits for too long. A mount may serve all tests of a file: each that begins sets
    the clock back to zero."""

    going: ClassVar[set[Watchdog]] = set()

    def __init__(self, point: Path, seconds: float) -> None:
        self._point, self._seconds = point, seconds
        self._start()
        Watchdog.going.add(self)

    def _start(self) -> None:
        self._timer = threading.Timer(self._seconds, force_unmount, [self._point])
        self._timer.daemon = True
        self._timer.start()

    def again(self) -> None:
        """A test begins."""
        self._timer.cancel()
        self._start()

    def end(self) -> None:
        """The mount's own tests are over."""
        self._timer.cancel()
        Watchdog.going.discard(self)


@contextlib.contextmanager
def mount_folder(mode: int = 0o700, seconds: float = MOUNT_DEADLINE) -> Iterator[Path]:
    """A new folder with an empty folder `mount` in it, for a test that mounts there itself; a mount that is left, and
    its daemon, are ended, after so many seconds of one test at the latest. Whatever else is put into the folder must be
    single files."""
    base = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()  # as the mount table names it
    point = base / "mount"
    point.mkdir()
    base.chmod(mode)
    watchdog = Watchdog(point, seconds)
    try:
        yield base
    finally:
        watchdog.end()
        for _ in range(2):  # a test may have put one mount over another
            if is_mounted(point):
                with contextlib.suppress(AssertionError, ProcessLookupError):
                    os.kill(daemon_of(point), signal.SIGKILL)
                force_unmount(point)
        # Never a recursive delete: were the mount still there, it would walk into it.
        with contextlib.suppress(OSError):
            for path in base.iterdir():
                if path != point:
                    path.unlink()
            point.rmdir()
            base.rmdir()


class Named(Protocol):
    """What the program can mount: something that is named on its command line."""

    def flags(self) -> list[str]:
        """The arguments that name it."""
        ...


def on_a_terminal(
    program: Program, *arguments: object, columns: int = 80, variables: Mapping[str, str] | None = None
) -> str:
    """What a command shows on a terminal that is so wide; the variables are added to the environment, of which the
    caller's own wishes for colours and width are taken away."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    environment |= {"TERM": "xterm"} | dict(variables or {})
    shown = bytearray()
    command = [str(program.path), *map(str, arguments)]
    try:
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            while select.select([ours], [], [], COMMAND_DEADLINE)[0]:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # the last process has closed the terminal
                    break
            process.wait(COMMAND_DEADLINE)
    finally:
        os.close(ours)
    return shown.decode()


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a command of long work reports with `--json`: the last line of its output. All lines must be objects."""
    events: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] == "end" for event in events] == [False] * (len(events) - 1) + [True], done.stdout
    return events[-1]


@dataclass(frozen=True)
class Program:
    """The binary under test."""

    path: Path

    def run(self, *arguments: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with `check`, anything but exit code 0 fails the test with what it printed.
        `options` are those of `subprocess.run`: another user, say, or another environment."""
        command = [str(self.path), *map(str, arguments)]
        # Pipes on purpose: a daemon that kept one open would make this wait until the deadline.
        options = {"timeout": COMMAND_DEADLINE, "stdin": subprocess.DEVNULL} | options
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        if check and done.returncode != 0:
            pytest.fail(f"exit code {done.returncode}: {' '.join(command)}\n{done.stdout}{done.stderr}")
        return done

    def refuses(self, *arguments: object, **options: Any) -> str:
        """The message of a command that must fail: with exit code 1, and with a message instead of a panic."""
        done = self.run(*arguments, check=False, **options)
        assert done.returncode == 1, f"exit code {done.returncode}: {arguments}\n{done.stdout}{done.stderr}"
        assert "ctwds-fs: error: " in done.stderr and "panicked" not in done.stderr, done.stderr
        return done.stderr

    @contextlib.contextmanager
    def running(self, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """A command while it runs; it is killed if the block leaves it."""
        command = [str(self.path), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
        with subprocess.Popen(command, text=True, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    def materialize(self, dataset: Dataset, out: Path, *flags: object) -> Path:
        """The data set as files in `out`."""
        self.run("materialize", *dataset.flags(), *flags, "--output_dir", out)
        return out

    @contextlib.contextmanager
    def mounted(self, dataset: Named, *flags: object, **options: Any) -> Iterator[Path]:
        """The data set as a mount, until the block ends. The mount point and the log are in a folder of their own. The
        options are those of the process that mounts."""
        require_fuse()
        with mount_folder() as base:
            point, log = base / "mount", base / "log"
            try:
                self.run("mount", *dataset.flags(), *flags, "--log-file", log, point, **options)
                assert is_mounted(point), "mount returned 0, but nothing is mounted"
                yield point
                self.run("unmount", point)
                assert not is_mounted(point), "unmount returned 0, but the mount is still there"
            except BaseException as error:
                if log.exists():
                    error.add_note(f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
                raise

    @contextlib.contextmanager
    def produced(self, via: str, dataset: Dataset, out: Path, *flags: object) -> Iterator[Path]:
        """A folder with the shards, made the way that `via` names: `materialize` or `mount`."""
        if via == "mount":
            with self.mounted(dataset, *flags) as point:
                yield point
        else:
            yield self.materialize(dataset, out, *flags)


@dataclass(frozen=True)
class Stored:
    """A folder of shards, where the program takes a data set."""

    folder: Path

    def flags(self) -> list[str]:
        """The arguments that name the folder on the command line."""
        return ["--shards", str(self.folder)]


def payload(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member of a tar file, which must be a regular file."""
    file = archive.extractfile(member)
    assert file is not None, f"{member.name} is no regular file"
    return file.read()


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shards(folder: Path) -> list[Path]:
    """The shards of a folder, as a training script finds them."""
    return sorted(folder.glob("*.tar"))


def snapshot(dataset: Dataset) -> dict[str, tuple[str, int, int]]:
    """Digest, modification time and mode of every source file."""
    files = [*dataset.volumes(), dataset.reports, dataset.meta, dataset.labels]
    return {str(path): (digest(path), path.stat().st_mtime_ns, path.stat().st_mode) for path in files}


def files_in(folder: Path) -> dict[str, str]:
    """Digests of all files, without the record of the run."""
    return {path.name: digest(path) for path in folder.iterdir() if path.is_file()}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a finished shard is written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards(folder)}
