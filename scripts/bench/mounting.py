"""The program under test: its commands, and mounts that are always ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import Failure

DEADLINE = 120  # seconds for mounting and unmounting, which take well under one
COMMAND_DEADLINE = 300  # seconds for a conversion or a scan


def run(*words: object, deadline: float = COMMAND_DEADLINE) -> str:
    """Run a command to its end and return what it printed. Its group is ended with it."""
    command = list(map(str, words))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=deadline)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failure(f"not done after {deadline} s: {' '.join(command)}") from error
            raise
    if process.returncode != 0:
        raise Failure(f"exit code {process.returncode}: {' '.join(command)}\n{errors}")
    return output


def command(*words: object) -> dict[str, float]:
    """A whole command, its start included."""

    def cpu() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    used, begin = cpu(), time.monotonic()
    run(*words)
    return {"wall": time.monotonic() - begin, "cpu": cpu() - used}


def is_mounted(point: Path) -> bool:
    """Asks the mount table, never the file system, which may hang."""
    with open("/proc/self/mounts", encoding="utf-8") as table:
        return any(line.split()[1].encode().decode("unicode_escape") == str(point) for line in table)


@dataclass(frozen=True)
class Mount:
    """A mount and the process that serves it."""

    point: Path
    pid: int

    def shards(self) -> list[Path]:
        """The shards, as a training script finds them."""
        return sorted(self.point.glob("*.tar"))

    def cpu_seconds(self) -> float:
        """User and system time of all threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def decoded(self) -> int:
        """How many volumes were decoded so far."""
        return json.loads((self.point / ".ctwds" / "stats.json").read_text())["volumes_decoded"]

    def peak_rss(self) -> int:
        """The most memory that was resident at a time, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        if peak is None:
            raise Failure(f"the kernel does not tell the memory of process {self.pid}")
        return int(peak[1]) * 1024

    def is_served(self) -> bool:
        """Whether the process still exists; a zombie has given its memory back."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def wait_for_end(self) -> None:
        """Giving back memory takes time that the next run must not pay for."""
        deadline = time.monotonic() + DEADLINE
        while self.is_served():
            if time.monotonic() > deadline:
                raise Failure(f"process {self.pid} is still there, {DEADLINE} s after unmounting")
            time.sleep(0.002)


def force_unmount(point: Path, pid: int | None) -> None:
    """End a mount that does not end in order: abort its connection, so that its readers get an error."""
    for command in (["umount", "--force", "--lazy", str(point)], ["fusermount3", "-u", "-z", str(point)]):
        if is_mounted(point):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, timeout=30, check=False)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def mounted(program: Path, folder: Path, *flags: object) -> Iterator[Mount]:
    """A mount on `folder`/mount until the block ends."""
    point, log = folder / "mount", folder / "mount.log"
    point.mkdir(exist_ok=True)
    mount: Mount | None = None
    try:
        run(program, "mount", *flags, "--log-file", log, point, deadline=DEADLINE)
        mount = Mount(point, json.loads((point / ".ctwds" / "mount.json").read_text())["pid"])
        yield mount
        run(program, "unmount", point, deadline=DEADLINE)
        mount.wait_for_end()
    except Failure as error:
        tail = log.read_text(errors="replace").splitlines()[-10:] if log.exists() else []
        raise Failure("\n".join([str(error), *tail])) from error
    finally:
        if is_mounted(point):
            force_unmount(point, mount.pid if mount else None)
