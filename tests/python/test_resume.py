"""Whatever ended a run, and whatever was cut or lost meanwhile, the same command goes on to the bytes of an undisturbed
run. (An interrupted run, a full disk and a cut record are in test_materialize.py and test_io_errors.py as well.)"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import faulty_folder
from harness import (
    Program,
    digest,
    files_in,
    force_unmount,
    identities,
    mount_folder,
    needs_root,
    require_fuse,
    shards,
    wait_until,
)
from make_dataset import Dataset
from small_datasets import flip_voxel, noise_dataset

COUNT = 40
FLAGS = ("--samples-per-shard", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty volumes of a few kilobytes."""
    return noise_dataset(tmp_path_factory.mktemp("data"), COUNT, (8, 8, 8))


@pytest.fixture(scope="module")
def right(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run makes of them."""
    return program.materialize(data, tmp_path_factory.mktemp("right"), *FLAGS)


@pytest.fixture
def few(tmp_path: Path) -> Dataset:
    """Six volumes that a test may change."""
    return noise_dataset(tmp_path / "few", 6, (8, 8, 8))


def kills(program: Program, arguments: list[object], out: Path, wanted: int, seed: int) -> Iterator[None]:
    """Kill the command at moments that are spread over its whole run, so many times; each time, pause for a look at
    what it left. A folder that it finished is begun anew."""
    rng = random.Random(seed)
    begin = time.monotonic()
    program.run(*arguments)
    whole = time.monotonic() - begin
    shutil.rmtree(out)
    killed = 0
    while killed < wanted:
        with program.running(*arguments, "--num-workers", rng.choice([1, 2])) as process:
            time.sleep(rng.random() * whole)
            process.kill()
            is_killed = process.wait(timeout=30) == -signal.SIGKILL
        killed += is_killed
        if out.exists():
            yield
            if not is_killed:
                shutil.rmtree(out)


def test_forty_kills(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """At any moment, every final name holds a whole file."""
    out, expected = tmp_path / "out", files_in(right)
    command = ["materialize", *data.flags(), *FLAGS, "--output-dir", out]
    partials = 0
    for _ in kills(program, command, out, 40, seed=11):
        found = files_in(out)
        unfinished = {name for name in found if name.endswith(".partial")}
        partials += bool(unfinished)
        assert {name: found[name] for name in found if name not in unfinished}.items() <= expected.items()
    assert partials > 0, "no kill met a file that was being written"
    program.run(*command)
    assert files_in(out) == expected


def test_kills_while_bad_samples_are_skipped(program: Program, few: Dataset, tmp_path: Path) -> None:
    """The second pass, which makes shards without samples, is no weaker than the first."""
    for volume in few.volumes()[1::3]:
        flip_voxel(volume)
    flags = [*few.flags(), "--samples-per-shard", 2, "--on-error", "skip"]
    program.run("materialize", *flags, "--output-dir", tmp_path / "right")
    expected, out = files_in(tmp_path / "right"), tmp_path / "out"
    command = ["materialize", *flags, "--output-dir", out]
    for _ in kills(program, command, out, 12, seed=5):
        assert {path.name: digest(path) for path in shards(out)}.items() <= expected.items()
    program.run(*command)
    assert files_in(out) == expected


@contextmanager
def ext4(image: Path) -> Iterator[Path]:
    """The file system of an image, mounted until the block ends."""
    with mount_folder() as base:
        point = base / "mount"
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, point], check=True, timeout=30)
        try:
            yield point
        finally:
            force_unmount(point)


@needs_root
def test_file_system_that_becomes_read_only(program: Program, few: Dataset, tmp_path: Path) -> None:
    """As the kernel does it when a disk fails, while files are open for writing: the run ends with the reason, and once
    the disk is back, the same command goes on from what was finished."""
    require_fuse()
    right = program.materialize(few, tmp_path / "right", *FLAGS)
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, timeout=30)
    with faulty_folder({path.name: path.read_bytes() for path in few.volumes()}) as sources:
        flags = [*replace(few, folder=sources.point).flags(), *FLAGS, "--output-dir"]
        with ext4(image) as disk:
            failed: list[str] = []

            def fail(name: str) -> None:
                if name == "v03.npz" and (disk / "out" / "shard-000001.tar").exists() and not failed:
                    failed.append(name)
                    subprocess.run(["mount", "-o", "remount,abort", disk], check=True, timeout=30)

            sources.on_read = fail
            message = program.refuses("materialize", *flags, disk / "out", "--num-workers", 1)
            reasons = ("Read-only file system", "Input/output error")  # of what was begun before, and of what after
            assert failed and any(reason in message for reason in reasons) and str(disk / "out") in message
            assert "Read-only file system" in program.refuses("materialize", *flags, disk / "out")
        with ext4(image) as disk:
            finished = identities(disk / "out")
            assert len(finished) >= 2 and all(digest(disk / "out" / name) == digest(right / name) for name in finished)
            kept = re.search(r"(\d+) kept", program.run("materialize", *flags, disk / "out").stdout)
            # The last one may have got its name, and no line in the record: then it is made again.
            assert kept and len(finished) - 1 <= int(kept[1]) <= len(finished)
            assert files_in(disk / "out") == files_in(right)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 20_000], ids=["empty", "garbage", "zeros"])
def test_temporaries_of_a_crash(program: Program, few: Dataset, tmp_path: Path, content: bytes) -> None:
    """Ours vanish, whatever is in them; other files that end so are none of our business."""
    right = program.materialize(few, tmp_path / "right", *FLAGS)
    out = tmp_path / "out"
    shutil.copytree(right, out)
    (out / "shard-000002.tar").unlink()
    for name in ("shard-000002.tar", "shard-000004.tar", "manifest.json", "manifest-0-of-2.json", "quarantine.csv"):
        (out / f"{name}.partial").write_bytes(content)
    (out / "notes.partial").write_bytes(content)
    assert "1 shard written, 5 kept" in program.run("materialize", *few.flags(), *FLAGS, "--output-dir", out).stdout
    (out / "notes.partial").unlink()
    assert files_in(out) == files_in(right)


def test_manifest_that_was_cut(program: Program, few: Dataset, tmp_path: Path) -> None:
    """At any length, with all shards there or one missing."""
    out = program.materialize(few, tmp_path / "out", *FLAGS)
    right, manifest = files_in(out), (out / "manifest.json").read_bytes()
    for length in sorted({0, 1, len(manifest) - 1, *range(0, len(manifest), 61)}):
        (out / "manifest.json").write_bytes(manifest[:length])
        if length % 2:
            (out / "shard-000003.tar").unlink()
        program.run("materialize", *few.flags(), *FLAGS, "--output-dir", out)
        assert files_in(out) == right, length


def test_recheck(program: Program, few: Dataset, tmp_path: Path) -> None:
    """A resume trusts the record; `--recheck` reads every finished shard, names those that differ and makes them
    again."""
    command = ["materialize", *few.flags(), *FLAGS, "--output-dir", tmp_path / "out"]
    program.run(*command)
    out = tmp_path / "out"
    right, before = files_in(out), identities(out)
    flip_voxel(out / "shard-000003.tar")
    assert "0 shards written, 6 kept" in program.run(*command).stdout
    done = program.run(*command, "--recheck")
    (line,) = [line for line in done.stderr.splitlines() if "made again" in line]
    assert "shard-000003.tar" in line and "1 shard written, 5 kept" in done.stdout
    assert files_in(out) == right
    after = identities(out)
    assert {name for name in before if after[name] != before[name]} == {"shard-000003.tar"}
    assert "0 shards written, 6 kept" in program.run(*command, "--recheck").stdout


# --- plans that change -----------------------------------------------------------------------------------------------


def change_row(dataset: Dataset, study: str) -> None:
    """Another text of the same length for one study."""
    text = dataset.reports.read_text()
    assert f"findings of {study}" in text
    dataset.reports.write_text(text.replace(f"findings of {study}", f"FINDINGS of {study}"))


def test_a_plan_that_differs_in_one_sample_remakes_its_shard(program: Program, few: Dataset, tmp_path: Path) -> None:
    """The others are kept. The new shard has the size of the old one: only the record tells them apart, also after a
    kill between the file and its record, and when the user goes back to the old plan."""
    out = tmp_path / "out"
    command = ["materialize", *few.flags(), *FLAGS, "--output-dir", out]
    program.run(*command)
    before, old_reports = identities(out), few.reports.read_bytes()
    old = files_in(out)
    change_row(few, "v02")
    right = files_in(program.materialize(few, tmp_path / "right", *FLAGS))
    assert "1 shard written, 5 kept" in program.run(*command).stdout
    assert files_in(out) == right
    after = identities(out)
    assert {name for name in before if after[name] != before[name]} == {"shard-000002.tar"}
    # As if the run had been killed before it recorded the new shard.
    journal = out / ".ctwds" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    few.reports.write_bytes(old_reports)
    assert "1 shard written, 5 kept" in program.run(*command).stdout
    assert files_in(out) == old


def test_a_longer_plan_keeps_what_it_has(program: Program, few: Dataset, tmp_path: Path) -> None:
    """More volumes at the end are more shards; fewer are refused, because the shards beyond them would stay."""
    out = tmp_path / "out"
    command = ["materialize", *few.flags(), *FLAGS, "--output-dir", out]
    program.run(*command, "--limit", 4)
    assert "2 shards written, 4 kept" in program.run(*command).stdout
    before = files_in(out)
    assert "another plan" in program.refuses(*command, "--limit", 4)
    assert files_in(out) == before
    for path in shards(out)[4:]:
        path.unlink()
    assert "0 shards written, 4 kept" in program.run(*command, "--limit", 4).stdout


def test_other_shards_of_the_same_sizes_are_not_replaced(program: Program, few: Dataset, tmp_path: Path) -> None:
    """Without a record, only their bytes tell: they are compared with what is made, and stay. The rest is made."""
    right = program.materialize(few, tmp_path / "right", *FLAGS)
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(right / "shard-000001.tar", out)
    shutil.copy(right / "shard-000003.tar", out / "shard-000002.tar")
    theirs = digest(out / "shard-000002.tar")
    command = ["materialize", *few.flags(), *FLAGS, "--output-dir", out]
    for kept in (0, 5):
        message = program.refuses(*command)
        assert "shard-000002.tar" in message and "no record" in message and "remove or rename" in message
        assert ("continuing: 5" in message) == (kept == 5)
        assert digest(out / "shard-000002.tar") == theirs and len(shards(out)) == 6
    (out / "shard-000002.tar").unlink()
    assert "1 shard written, 5 kept" in program.run(*command).stdout
    assert files_in(out) == files_in(right)


def test_a_run_that_was_stopped_is_gone(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """The lock dies with its owner: SIGSTOP, a refusal, SIGKILL, and at once the next run goes on."""
    command = ["materialize", *data.flags(), *FLAGS, "--output-dir", tmp_path, "--num-workers", 1]
    with program.running(*command) as process:
        wait_until(lambda: len(shards(tmp_path)) >= 2 or process.poll() is not None, "two shards")
        os.kill(process.pid, signal.SIGSTOP)
        assert "another materialize" in program.refuses(*command)
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
    program.run(*command)
    assert files_in(tmp_path) == files_in(right)
