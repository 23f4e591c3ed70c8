"""`ctwds-fs bench` measures what it says, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

import pytest
from harness import Program, daemon_of, is_running, mount_points, report_of, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six small volumes."""
    return noise_dataset(tmp_path_factory.mktemp("bench"), 6, (16, 16, 8), deflated=True)


def flags(dataset: Dataset, work: Path, *more: object) -> list[object]:
    """A short run in a folder of its own."""
    return [*dataset.flags(), "--samples", 4, "--runs", 2, "--work-dir", work, *more]


def mounted_below(folder: Path) -> list[Path]:
    """The mounts of a run in this folder."""
    return [Path(point) for point in mount_points() if Path(point).is_relative_to(folder)]


def processes_of(folder: Path) -> list[int]:
    """The processes that run with this folder as an argument, or in one."""
    found = []
    for process in filter(lambda path: path.name.isdigit(), Path("/proc").iterdir()):
        with contextlib.suppress(OSError):  # it has just ended
            arguments = (process / "cmdline").read_bytes()
            found += [int(process.name)] if bytes(folder) in arguments and is_running(int(process.name)) else []
    return found


def test_every_combination_is_measured(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """With the numbers of the data set, and in both forms."""
    wanted = ["--readers", "1,2", "--read-ahead", "0,3", "--python", sys.executable]
    report = report_of(program.run("bench", *flags(dataset, tmp_path, *wanted, "--json")))
    sources = ["npz", {"mount": {"read_ahead": 0}}, {"mount": {"read_ahead": 3}}, "files"]
    expected = [(source, readers) for source in sources for readers in (1, 2)]
    assert [(row["source"], row["readers"]) for row in report["rows"]] == expected
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in report["rows"])
    data = report["data"]
    assert (data["samples"], data["samples_in_all"], data["voxels"]) == (4, 6, 4 * 16 * 16 * 8)
    text = program.run("bench", *flags(dataset, tmp_path, *wanted)).stdout
    for part in ("samples/s", "NPZ by np.load", "mount --read-ahead 3", "materialised files", "times as fast as"):
        assert part in text
    assert list(tmp_path.iterdir()) == []


def test_without_numpy_the_rest_is_measured(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """And the report says why a row is missing."""
    result = program.run("bench", *flags(dataset, tmp_path, "--readers", 1, "--python", "/bin/false"))
    assert "was not measured (/bin/false" in result.stdout and "--python" in result.stdout
    assert "materialised files" in result.stdout


def test_a_damaged_volume_is_named(program: Program, tmp_path: Path) -> None:
    """It cannot be measured, and nothing stays."""
    dataset = noise_dataset(tmp_path / "data", 4, (16, 16, 8), deflated=True)
    volume = dataset.folder / "v01.npz"
    content = bytearray(volume.read_bytes())
    content[len(content) // 2] ^= 0xFF
    volume.write_bytes(content)
    work = tmp_path / "work"
    work.mkdir()
    assert "v01.npz" in program.refuses("bench", *flags(dataset, work))
    assert list(work.iterdir()) == []


def test_a_mount_ends_with_a_bench_that_is_killed(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """As by the kernel, for lack of memory: nobody would know of the mount in its folder. The folder itself is removed
    by the next run there; that of one that goes on stays."""
    endless = [*dataset.flags(), "--runs", 100_000, "--work-dir", tmp_path, "--python", sys.executable]
    with program.running("bench", *endless) as process:
        wait_until(lambda: bool(mounted_below(tmp_path)), "a mount")
        process.kill()
        process.wait(60)
    assert process.returncode == -signal.SIGKILL
    # Also the next mount, which the bench may have begun to make when it was killed.
    wait_until(lambda: processes_of(tmp_path) == [], "the daemon has ended")
    assert mounted_below(tmp_path) == []
    (left,) = tmp_path.iterdir()
    with program.running("bench", *endless) as process:
        wait_until(lambda: bool(mounted_below(tmp_path)), "a mount of a run that goes on")
        assert not left.exists()
        (working,) = tmp_path.iterdir()
        program.run("bench", *flags(dataset, tmp_path, "--readers", 1, "--read-ahead", 0))
        assert [working] == list(tmp_path.iterdir()) and process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(program: Program, dataset: Dataset, tmp_path: Path, number: int) -> None:
    """No mount, no daemon, no folder."""
    endless = [*dataset.flags(), "--runs", 100_000, "--work-dir", tmp_path, "--python", sys.executable]
    with program.running("bench", *endless) as process:
        daemons: list[int] = []

        def note_daemon() -> bool:
            with contextlib.suppress(AssertionError):  # it was unmounted between two looks
                daemons.extend(daemon_of(path) for path in mounted_below(tmp_path))
            return bool(daemons)

        wait_until(note_daemon, "a mount")
        process.send_signal(number)
        _, message = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "interrupted" in message
    assert mounted_below(tmp_path) == [] and list(tmp_path.iterdir()) == []
    assert not any(is_running(pid) for pid in daemons)
