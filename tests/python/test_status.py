"""What a mount tells of itself, and the ways to end it while it is in use."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty import faulty_folder
from harness import (
    Program,
    daemon_of,
    digest,
    is_mounted,
    is_running,
    mount_folder,
    require_fuse,
    shards,
    wait_until,
)
from make_dataset import Dataset
from small_datasets import noise_dataset

STRANGER = 65_432  # a user who mounts nothing, in no other test that goes on meanwhile either
READER = """
import sys
with open(sys.argv[1], "rb", buffering=0) as file:
    file.read(512)
    print("open", flush=True)
    sys.stdin.readline()
    total = 512
    try:
        while piece := file.read(1 << 20):
            total += len(piece)
    except OSError as error:
        total = error.errno
    print(total, flush=True)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four volumes, the second of which is damaged."""
    dataset = noise_dataset(tmp_path_factory.mktemp("data"), 4, (32, 64, 64), deflated=True)
    volume = dataset.folder / "v01.npz"
    content = bytearray(volume.read_bytes())
    content[len(content) // 2] ^= 0xFF
    volume.write_bytes(content)
    return dataset


@contextlib.contextmanager
def unended(program: Program, dataset: Dataset, *flags: object) -> Iterator[Path]:
    """A mount that the test ends in its own way."""
    require_fuse()
    with mount_folder() as base:
        point = base / "mount"
        program.run("mount", *dataset.flags(), "--samples-per-shard", 1, *flags, "--log-file", base / "log", point)
        yield point


@contextlib.contextmanager
def reader(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a file open, and reads on when it gets a line."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", READER, str(path)], text=True, **pipes) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def test_status_tells_what_happened(program: Program, dataset: Dataset) -> None:
    """In numbers that can be checked, with every error and its study; as text, as JSON, and as files."""
    with program.mounted(dataset, "--samples-per-shard", 1, "--cache-size", "64MiB") as point:
        for shard in shards(point):
            with contextlib.suppress(OSError):
                shard.read_bytes()
        found = json.loads(program.run("status", "--json", point).stdout)
        assert found["mount"]["samples"] == 4 and found["mount"]["shards"] == 4
        assert found["mount"]["pid"] == daemon_of(point)
        assert found["stats"]["volumes_decoded"] >= 4 and found["stats"]["cache_limit"] == 64 << 20
        assert [error["study_id"] for error in found["errors"]] == ["v01"]
        assert "v01.npz" in found["errors"][0]["error"]
        assert found["errors"] == json.loads((point / ".ctwds" / "errors.json").read_text())
        text = program.run("status", point).stdout
        for part in ("4 with 4 samples", "Errors       1", "v01: ", "64.0 MiB", found["mount"]["plan_digest"]):
            assert part in text


def test_all_mounts_of_this_user(program: Program, dataset: Dataset) -> None:
    """Also one whose process is gone, with the remedy; and none where there is none."""
    with (
        unended(program, dataset) as first,
        unended(program, dataset, "--volume", "rescaled", "--rescale", "none") as second,
    ):
        text = program.run("status").stdout
        for point in (first, second):
            assert f"{point}\n  4 samples in 4 shards, " in text
        assert "rescaled volumes as float16" in text
        os.kill(daemon := daemon_of(second), 9)
        wait_until(lambda: not is_running(daemon), "the daemon is dead")
        assert f"ctwds-fs unmount {second}" in program.run("status").stdout
        found = {one["mountpoint"]: one for one in json.loads(program.run("status", "--json").stdout)}
        assert found[str(first)]["mount"]["samples"] == 4 and "is gone" in found[str(second)]["error"]
        if os.geteuid() == 0:
            others = subprocess.run([program.path, "status"], user=STRANGER, capture_output=True, text=True, check=True)
            assert others.stdout == "no mount of this user\n"
        for point in (first, second):
            program.run("unmount", point)
        assert str(first) not in program.run("status").stdout


def test_watch_goes_on_until_the_mount_ends(program: Program, dataset: Dataset) -> None:
    """An object a line; it ends well with the mount, and as every command by Ctrl-C."""
    with unended(program, dataset) as point, program.running("status", "--watch", "--json", point) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["mount"]["samples"] == 4
        program.run("unmount", point)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0 and "the mount has ended" in said
    with unended(program, dataset) as point:
        with program.running("status", "--watch", point) as process:
            assert process.stdout is not None and process.stdout.readline().startswith("Mount ")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert process.returncode == 130
        program.run("unmount", point)


def test_read_ahead_is_counted(program: Program, tmp_path: Path) -> None:
    """The volumes of a shard that were begun before their reader came to them."""
    dataset = noise_dataset(tmp_path, 4, (64, 128, 256), deflated=True)
    for ahead, hits in ((0, 0), (2, 3)):
        with program.mounted(dataset, "--read-ahead", ahead, "--page-cache", "off") as point:
            shards(point)[0].read_bytes()
            assert json.loads(program.run("status", "--json", point).stdout)["stats"]["read_ahead_hits"] == hits


def test_status_of_what_is_no_mount(program: Program, tmp_path: Path) -> None:
    """The path itself is not asked."""
    assert "nothing is mounted here" in program.refuses("status", tmp_path)
    assert "not a mount of ctwds-fs" in program.refuses("status", "/proc")


def test_status_of_a_dead_mount(program: Program, dataset: Dataset) -> None:
    """It says what to do."""
    with unended(program, dataset) as point:
        os.kill(daemon := daemon_of(point), 9)
        wait_until(lambda: not is_running(daemon), "the daemon is dead")
        assert f"ctwds-fs unmount {point}" in program.refuses("status", point)
        program.run("unmount", point)
        assert not is_mounted(point)


def test_watch_asks_a_mount_once_that_does_not_answer(program: Program, dataset: Dataset) -> None:
    """One thread for each such mount waits, however often it is looked at, and the mount is back when it answers."""
    with unended(program, dataset) as point:
        daemon = daemon_of(point)
        os.kill(daemon, signal.SIGSTOP)
        try:
            with program.running("status", "--watch", "--json") as process:
                assert process.stdout is not None
                for _ in range(3):
                    told = json.loads(process.stdout.readline())
                    silent = [one for one in told if "has not answered" in one.get("error", "")]
                    assert str(point) in [one["mountpoint"] for one in silent]
                tasks = Path(f"/proc/{process.pid}/task").iterdir()
                asking = [task for task in tasks if (task / "comm").read_text().strip() == "ask"]
                assert 1 <= len(asking) <= len(silent) + 1, "and the one of the look that goes on"
                os.kill(daemon, signal.SIGCONT)
                deadline = time.monotonic() + 30
                while time.monotonic() < deadline:
                    told = json.loads(process.stdout.readline())
                    if not next(one for one in told if one["mountpoint"] == str(point)).get("error"):
                        break
                else:
                    pytest.fail("the mount did not come back")
        finally:
            os.kill(daemon, signal.SIGCONT)
        program.run("unmount", point)


def test_a_busy_mount_names_who_holds_it(program: Program, dataset: Dataset) -> None:
    """And stays."""
    with unended(program, dataset) as point:
        path = point / "shard-000000.tar"
        with reader(path) as process:
            message = program.refuses("unmount", point)
            assert f"(process {process.pid}): {path}" in message and "--lazy" in message and "--force" in message
            assert is_mounted(point)
        program.run("unmount", point)


def test_lazy_lets_readers_finish(program: Program, dataset: Dataset) -> None:
    """Nothing is mounted any more, and nobody reads less."""
    with unended(program, dataset) as point:
        path, daemon = point / "shard-000000.tar", daemon_of(point)
        size = path.stat().st_size
        with reader(path) as process:
            assert "detached" in program.run("unmount", "--lazy", point).stdout
            assert not is_mounted(point)
            answer, _ = process.communicate("go on\n", timeout=60)
            assert int(answer) == size
        wait_until(lambda: not is_running(daemon), "the daemon ends with its last reader")


def test_force_ends_it_at_once(program: Program, dataset: Dataset) -> None:
    """Readers get an error instead of bytes."""
    with unended(program, dataset, "--page-cache", "off") as point:
        daemon = daemon_of(point)
        with reader(point / "shard-000000.tar") as process:
            program.run("unmount", "--force", point)
            assert not is_mounted(point)
            answer, _ = process.communicate("go on\n", timeout=60)
            assert int(answer) < 200, "an errno, not a length"
        wait_until(lambda: not is_running(daemon), "the daemon is gone")


def test_a_source_that_does_not_answer_holds_up_nothing_else(program: Program, tmp_path: Path) -> None:
    """`status`, `ls`, healthy shards and `unmount --force` while a read of a volume never returns."""
    real = noise_dataset(tmp_path, 3, (32, 64, 64))
    files = {path.name: path.read_bytes() for path in real.volumes()}
    with faulty_folder(files) as folder:
        hung: list[str] = []
        dataset = Dataset(folder.point, real.reports, real.meta, real.labels)
        with unended(program, dataset, "--threads", 2) as point:
            release = threading.Event()

            def stall(name: str) -> None:
                if name == "v01.npz":
                    hung.append(name)
                    release.wait(120)

            (point / "shard-000002.tar").read_bytes()
            folder.on_read = stall
            with reader_of_whole(point / "shard-000001.tar") as process:
                wait_until(lambda: bool(hung), "the source hangs")
                text = program.run("status", point, timeout=20).stdout
                assert "3 with 3 samples" in text and "1 file open" in text
                told = json.loads(program.run("status", "--json", point, timeout=20).stdout)
                assert told["stats"]["waiting_reads"] >= 1 and told["stats"]["open_files"] >= 1
                assert told["stats"]["volumes_failed"] == 0 and told["errors"] == [] and told["mount"]["samples"] == 3
                assert len(shards(point)) == 3
                assert digest(point / "shard-000002.tar")
                program.run("unmount", "--force", point, timeout=60)
                assert not is_mounted(point)
                release.set()
                process.wait(timeout=60)


@contextlib.contextmanager
def reader_of_whole(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that reads a file from its begin to its end."""
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
