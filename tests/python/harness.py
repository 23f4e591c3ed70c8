"""Runs the program under test: its commands, and mounts that never outlive their test."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import reference
from make_dataset import Dataset

REPOSITORY = Path(__file__).resolve().parents[2]
SKIP_FUSE = "CTWDS_SKIP_FUSE"
COMMAND_DEADLINE = 120  # seconds; the slowest command of the tests takes a few
MOUNT_DEADLINE = 200  # seconds that a mount may live, below the deadline of a test
# What the data set of the readers is converted with: small shards, so that there are several.
READER_OPTIONS = reference.Options(samples_per_shard=4)


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


def force_unmount(path: Path) -> None:
    """Abort the file system's connection, so that hanging readers get an error, and detach it."""
    for command in (["umount", "--force", "--lazy", str(path)], ["fusermount3", "-u", "-z", str(path)]):
        if is_mounted(path):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, timeout=30, check=False)


@dataclass(frozen=True)
class Program:
    """The binary under test."""

    path: Path

    def run(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with `check`, anything but exit code 0 fails the test with what it printed."""
        command = [str(self.path), *map(str, arguments)]
        # Pipes on purpose: a daemon that kept one open would make this wait until the deadline.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_DEADLINE, check=False, stdin=subprocess.DEVNULL
        )
        if check and done.returncode != 0:
            pytest.fail(f"exit code {done.returncode}: {' '.join(command)}\n{done.stdout}{done.stderr}")
        return done

    def materialize(self, dataset: Dataset, out: Path, *flags: object) -> Path:
        """The data set as files in `out`."""
        self.run("materialize", *dataset.flags(), *flags, "--output_dir", out)
        return out

    @contextlib.contextmanager
    def mounted(self, dataset: Dataset, *flags: object) -> Iterator[Path]:
        """The data set as a mount, until the block ends. The mount point and the log are in a folder of their own."""
        require_fuse()
        base = Path(tempfile.mkdtemp(prefix="ctwds-test-mount-")).resolve()  # as the mount table names it
        point, log = base / "mount", base / "log"
        point.mkdir()
        watchdog = threading.Timer(MOUNT_DEADLINE, force_unmount, [point])
        watchdog.daemon = True
        watchdog.start()
        try:
            self.run("mount", *dataset.flags(), *flags, "--log-file", log, point)
            assert is_mounted(point), "mount returned 0, but nothing is mounted"
            yield point
            self.run("unmount", point)
            assert not is_mounted(point), "unmount returned 0, but the mount is still there"
        except BaseException as error:
            if log.exists():
                error.add_note(f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
            raise
        finally:
            watchdog.cancel()
            force_unmount(point)
            log.unlink(missing_ok=True)
            # Never a recursive delete: were the mount still there, it would walk into it.
            with contextlib.suppress(OSError):
                point.rmdir()
                base.rmdir()

    @contextlib.contextmanager
    def produced(self, via: str, dataset: Dataset, out: Path, *flags: object) -> Iterator[Path]:
        """A folder with the shards, made the way that `via` names: `materialize` or `mount`."""
        if via == "mount":
            with self.mounted(dataset, *flags) as point:
                yield point
        else:
            yield self.materialize(dataset, out, *flags)


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
