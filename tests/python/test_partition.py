"""Parts of a conversion, side by side in one folder: what they make together is what one run makes, whatever happens to
one of them; and parts that do not belong together are not joined."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import FaultyFolder, faulty_folder, small_disk
from harness import Program, digest, files_in, identities, needs_root, require_fuse, shards, wait_until
from make_dataset import Dataset
from small_datasets import flip_voxel, noise_dataset

PARTS = 3
COUNT = 20
FLAGS = ("--samples-per-shard", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twenty volumes of a few kilobytes, a shard each."""
    return noise_dataset(tmp_path_factory.mktemp("data"), COUNT, (8, 8, 8))


@pytest.fixture(scope="module")
def right(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run makes of them."""
    return program.materialize(data, tmp_path_factory.mktemp("right"), *FLAGS)


def part(dataset: Dataset, out: Path, index: object, of: int = PARTS, *more: object) -> list[object]:
    """The command of one part."""
    return ["materialize", *dataset.flags(), *FLAGS, "--output-dir", out, "--partition", f"{index}/{of}", *more]


def parts_of(folder: Path) -> set[str]:
    """The manifests of parts."""
    return {path.name for path in folder.glob("manifest-*")}


def assert_merged(out: Path, right: Path) -> None:
    """Everything that one run writes is there, to the byte; besides, only the parts' manifests."""
    found = files_in(out)
    assert {name: value for name, value in found.items() if name not in parts_of(out)} == files_in(right)


def test_parts_at_once(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """Three processes fill a folder that none of them found there; the merged manifest is that of one run."""
    with ExitStack() as stack:
        runs = [stack.enter_context(program.running(*part(data, tmp_path / "out", index))) for index in range(PARTS)]
        outputs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0] * PARTS, outputs
    counts = sorted(int(out.split(": ")[1].split()[0]) for out, _ in outputs)
    assert counts == [6, 7, 7]
    assert sum("manifest merge" in out for out, _ in outputs) >= 1
    out = tmp_path / "out"
    assert parts_of(out) == {f"manifest-{index}-of-{PARTS}.json" for index in range(PARTS)}
    assert "20 shards" in program.run("manifest", "merge", out).stdout
    assert_merged(out, right)
    assert "20 shards" in program.run("manifest", "merge", out).stdout
    assert "0 shards written, 20 kept" in program.run("materialize", *data.flags(), *FLAGS, "--output-dir", out).stdout


def test_kills_of_one_part_while_the_others_go_on(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """Submitted again after each kill, as an array is for some of its indexes."""
    rng, out, expected = random.Random(3), tmp_path / "out", files_in(right)
    with ExitStack() as stack:
        others = [stack.enter_context(program.running(*part(data, out, index))) for index in (0, 2)]
        killed = 0
        while killed < 10:
            with program.running(*part(data, out, 1, PARTS, "--num-workers", 1)) as process:
                time.sleep(rng.random() * 0.1)
                process.kill()
                killed += process.wait(timeout=30) == -signal.SIGKILL
            assert {path.name: digest(path) for path in shards(out)}.items() <= expected.items()
            (out / f"manifest-1-of-{PARTS}.json").unlink(missing_ok=True)
            for path in list(shards(out))[1::PARTS][:2]:  # so that there is always something left to do
                if path.name in {f"shard-{number:06d}.tar" for number in range(1, COUNT, PARTS)}:
                    path.unlink()
        assert all(run.wait(timeout=60) == 0 for run in others), [run.communicate() for run in others]
    done = program.run("manifest", "merge", out, check=False)
    assert done.returncode == 1 and "part 1/3: shard-000001.tar" in done.stderr and "manifest.json" in done.stderr
    assert not (out / "manifest.json").exists()
    program.run(*part(data, out, 1))
    program.run("manifest", "merge", out)
    assert_merged(out, right)


@pytest.fixture
def held(data: Dataset) -> Iterator[tuple[Dataset, FaultyFolder]]:
    """The data set on a file system that a test can make wait."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    require_fuse()
    with faulty_folder({path.name: path.read_bytes() for path in data.volumes()}) as folder:
        yield replace(data, folder=folder.point), folder


def while_a_shard_is_made(
    program: Program,
    held: tuple[Dataset, FaultyFolder],
    command: Callable[[Dataset], list[object]],
    out: Path,
    volume: str,
    act: Callable[[], object],
) -> None:
    """Run the command to its end, and `act` while it waits in the middle of its third shard."""
    dataset, folder = held
    acted: list[str] = []

    def on_read(name: str) -> None:
        if name == volume and shards(out) and not acted:  # not while it is planned
            acted.append(name)
            wait_until(lambda: len(shards(out)) >= 2, "the shard before is on the disk: another thread writes it")
            act()

    folder.on_read = on_read
    program.run(*command(dataset), "--num-workers", 1)
    assert acted


def test_what_may_run_beside_a_part(
    program: Program, data: Dataset, right: Path, held: tuple[Dataset, FaultyFolder], tmp_path: Path
) -> None:
    """Other parts of the same partition may, and leave its unfinished file alone. The same part, the whole, a part of
    another partition that shares a shard, and a merge may not."""
    out = tmp_path / "out"

    def act() -> None:
        wait_until(lambda: any(out.glob("*.partial")), "a file is being written")
        partials = {path.name: path.stat().st_ino for path in out.glob("*.partial")}
        for index in (1, 2):
            program.run(*part(data, out, index))
        assert {path.name: path.stat().st_ino for path in out.glob("*.partial")}.items() <= partials.items()
        before = identities(out)
        whole = ["materialize", *data.flags(), *FLAGS, "--output-dir", out]
        for refused in (part(data, out, 0), whole, part(data, out, 0, 2), part(data, out, 1, 2)):
            message = program.refuses(*refused)
            assert "another materialize" in message and str(out) in message
        assert "another materialize" in program.refuses("manifest", "merge", out)
        program.run(*part(data, out, 4, 6))  # numbers 4, 10, …: of part 1 of 3
        assert before.items() <= identities(out).items()

    while_a_shard_is_made(program, held, lambda dataset: part(dataset, out, 0), out, "v06.npz", act)
    (out / "manifest-4-of-6.json").unlink()
    program.run("manifest", "merge", out)
    assert_merged(out, right)


def test_what_may_run_beside_the_whole(
    program: Program, data: Dataset, right: Path, held: tuple[Dataset, FaultyFolder], tmp_path: Path
) -> None:
    """No part may."""
    out = tmp_path / "out"

    def act() -> None:
        for index in range(2):
            assert "another materialize" in program.refuses(*part(data, out, index, 2))

    def whole(dataset: Dataset) -> list[object]:
        return ["materialize", *dataset.flags(), *FLAGS, "--output-dir", out]

    while_a_shard_is_made(program, held, whole, out, "v02.npz", act)
    assert files_in(out) == files_in(right)


def test_one_run_goes_on_where_parts_were(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """And another partition as well: all read all records."""
    program.run(*part(data, tmp_path, 0))
    program.run(*part(data, tmp_path, 2))
    assert "4 shards written, 6 kept" in program.run(*part(data, tmp_path, 1, 2)).stdout
    done = program.run("materialize", *data.flags(), *FLAGS, "--output-dir", tmp_path)
    assert "3 shards written, 17 kept" in done.stdout
    assert parts_of(tmp_path) == set(), "manifests that speak of fewer shards than there are"
    assert files_in(tmp_path) == files_in(right)


@needs_root
def test_parts_that_fill_the_disk_together(program: Program, tmp_path: Path) -> None:
    """Each fits on its own, so neither is refused before it begins: both end cleanly, with what was finished kept, and
    go on when there is room."""
    dataset = noise_dataset(tmp_path / "data", 12, (64, 64, 32))
    right = program.materialize(dataset, tmp_path / "right", *FLAGS)
    with small_disk("2600k") as disk:  # of 3.2 MB
        out = disk / "out"
        with ExitStack() as stack:
            runs = [stack.enter_context(program.running(*part(dataset, out, index, 2))) for index in range(2)]
            outputs = [run.communicate(timeout=60)[1] for run in runs]
        failed = [output for run, output in zip(runs, outputs, strict=True) if run.returncode == 1]
        assert failed and all("No space left" in text or "are needed" in text for text in failed), outputs
        finished = identities(out)
        expected = files_in(right)
        assert {path.name: digest(path) for path in shards(out)}.items() <= expected.items()
        assert not list(out.glob("*.partial"))
        assert "are needed" in program.run(*part(dataset, out, 0, 1), check=False).stderr
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True, timeout=30)
        for index in range(2):
            program.run(*part(dataset, out, index, 2))
        program.run("manifest", "merge", out)
        assert finished.items() <= identities(out).items()
        assert_merged(out, right)


# --- who am I --------------------------------------------------------------------------------------------------------


INDEXES = {
    "SLURM_ARRAY_TASK_ID": "2",
    "JOB_COMPLETION_INDEX": "2",
    "PBS_ARRAY_INDEX": "2",
    "PBS_ARRAYID": "2",
    "LSB_JOBINDEX": "3",
    "SGE_TASK_ID": "3",
}


@pytest.mark.parametrize("variable", INDEXES)
def test_index_from_the_environment(
    program: Program, data: Dataset, right: Path, tmp_path: Path, variable: str
) -> None:
    """An array that is submitted again for one of its indexes has another minimum and count: neither is asked for. The
    others' variables say that this is no array of theirs."""
    outside = {
        "LSB_JOBINDEX": "0",
        "SGE_TASK_ID": "undefined",
        "SLURM_ARRAY_TASK_MIN": "2",
        "SLURM_ARRAY_TASK_COUNT": "1",
    }
    done = program.run(*part(data, tmp_path, "auto"), env={**os.environ, **outside, variable: INDEXES[variable]})
    assert f"Part 2 of the parts 0 to 2, by {variable}" in done.stderr
    assert [path.name for path in shards(tmp_path)] == [path.name for path in shards(right)][2::PARTS]
    assert parts_of(tmp_path) == {"manifest-2-of-3.json"}


def test_an_index_beyond_the_parts_is_refused(program: Program, data: Dataset, tmp_path: Path) -> None:
    """With the remedy; so is a partition without an index."""
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "3"}
    message = program.refuses(*part(data, tmp_path, "auto"), env=environment)
    assert "SLURM_ARRAY_TASK_ID" in message and "--array=0-2" in message
    for index in ("0", "2", "3"):  # every task, not only the last: none makes a part of what cannot be finished
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": index, "SLURM_ARRAY_TASK_MAX": "3"}
        message = program.refuses(*part(data, tmp_path, "auto"), env=environment)
        assert "largest number is 3 (SLURM_ARRAY_TASK_MAX)" in message and "--array=0-2" in message
    assert "--partition 0/3" in program.refuses(*part(data, tmp_path, "auto"))
    assert program.run(*part(data, tmp_path, 3), check=False).returncode == 2
    assert not list(tmp_path.iterdir())


def test_one_part_is_the_whole(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """An array of one job needs no merge."""
    program.run(*part(data, tmp_path, 0, 1))
    assert files_in(tmp_path) == files_in(right)


def test_more_parts_than_shards(program: Program, tmp_path: Path) -> None:
    """Some have nothing to do and say so in a manifest."""
    few = noise_dataset(tmp_path / "few", 2, (8, 8, 8))
    out, right = tmp_path / "out", program.materialize(few, tmp_path / "right", *FLAGS)
    for index in range(PARTS):
        program.run(*part(few, out, index))
    program.run("manifest", "merge", out)
    assert_merged(out, right)


# --- merging ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(program: Program, data: Dataset, tmp_path: Path) -> Path:
    """A folder in which all parts are finished."""
    for index in range(PARTS):
        program.run(*part(data, tmp_path / "parts", index))
    return tmp_path / "parts"


def test_parts_of_different_plans_are_not_merged(program: Program, data: Dataset, parts: Path, tmp_path: Path) -> None:
    """The message names the two."""
    other = program.run(*part(data, tmp_path / "other", 1, PARTS, "--limit", 19))
    assert other.returncode == 0
    shutil.copy(tmp_path / "other" / "manifest-1-of-3.json", parts)
    message = program.refuses("manifest", "merge", parts)
    assert "different plans" in message and "manifest-1-of-3.json" in message and "run its part again" in message
    assert not (parts / "manifest.json").exists()


def test_parts_of_different_partitions_are_not_merged(
    program: Program, data: Dataset, parts: Path, tmp_path: Path
) -> None:
    """Which of them is out of date, only the user knows."""
    program.run(*part(data, tmp_path / "other", 0, 2))
    shutil.copy(tmp_path / "other" / "manifest-0-of-2.json", parts)
    message = program.refuses("manifest", "merge", parts)
    assert "different partitions" in message and "manifest-0-of-2.json" in message


def test_a_damaged_manifest_is_not_merged(program: Program, data: Dataset, parts: Path, right: Path) -> None:
    """However much of it is left; its part writes it again."""
    path = parts / "manifest-1-of-3.json"
    whole = path.read_bytes()
    for length in range(0, len(whole), 397):
        path.write_bytes(whole[:length])
        message = program.refuses("manifest", "merge", parts)
        assert str(path) in message and "run its part again" in message
    assert "0 shards written, 7 kept" in program.run(*part(data, parts, 1)).stdout
    program.run("manifest", "merge", parts)
    assert_merged(parts, right)


def test_shards_that_are_gone_are_listed(program: Program, data: Dataset, parts: Path, right: Path) -> None:
    """Also those that were cut."""
    (parts / "shard-000003.tar").unlink()
    os.truncate(parts / "shard-000007.tar", 100)
    done = program.run("manifest", "merge", parts, check=False)
    assert done.returncode == 1 and "shard-000003.tar: the file is gone" in done.stderr
    assert "shard-000007.tar: it has 100 bytes" in done.stderr and not (parts / "manifest.json").exists()
    for index in (0, 1):
        assert "1 shard written" in program.run(*part(data, parts, index)).stdout
    program.run("manifest", "merge", parts)
    assert_merged(parts, right)


def test_nothing_to_merge(program: Program, right: Path, tmp_path: Path) -> None:
    """Refused, and no folder comes into being."""
    assert "no manifest of a part" in program.refuses("manifest", "merge", right)
    assert str(tmp_path / "no") in program.refuses("manifest", "merge", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_bad_samples_of_all_parts(program: Program, tmp_path: Path) -> None:
    """Each part has a list of its own; merging joins them, also where shards are missing because of them."""
    bad = noise_dataset(tmp_path / "bad", 6, (8, 8, 8))
    for number in (1, 2, 4):
        flip_voxel(bad.folder / f"v{number:02d}.npz")
    out = tmp_path / "out"
    for index in range(PARTS):
        done = program.run(*part(bad, out, index), check=False)
        assert done.returncode == (0 if index == 0 else 1)
    done = program.run("manifest", "merge", out, check=False)
    assert done.returncode == 1 and "part 1/3: shard-000001.tar, shard-000004.tar" in done.stderr
    rows = [line.split(",")[0] for line in (out / "quarantine.csv").read_text().splitlines()]
    assert rows == ["study_id", "v01", "v02", "v04"]
    for index in range(PARTS):
        program.run(*part(bad, out, index, PARTS, "--on-error", "skip"))
    program.run("manifest", "merge", out)
    whole = program.materialize(bad, tmp_path / "whole", *FLAGS, "--on-error", "skip")
    assert (out / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()
    assert [entry["study_id"] for entry in json.loads((out / "manifest.json").read_text())["left_out"]] == rows[1:]


# --- a mount beside them ---------------------------------------------------------------------------------------------


def test_a_mount_uses_the_shards_of_all_parts(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """Those that were there, and those that a part finishes later."""
    out = tmp_path / "out"
    program.run(*part(data, out, 0))
    program.run(*part(data, out, 2))
    with program.mounted(data, *FLAGS, "--materialized", out) as point:

        def used() -> int:
            return json.loads((point / ".ctwds" / "stats.json").read_text())["materialized_shards"]

        assert used() == 13
        program.run(*part(data, out, 1))
        wait_until(lambda: used() == COUNT, "all shards are files")
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(right)]


def test_no_process_is_left(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Parts end on a signal like the whole."""
    with program.running(*part(data, tmp_path, 0, 2, "--num-workers", 1)) as process:
        wait_until(lambda: len(shards(tmp_path)) >= 1 or process.poll() is not None, "a shard")
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=30) in (0, 128 + signal.SIGTERM)
        except subprocess.TimeoutExpired:
            pytest.fail("the part does not end")
    program.run(*part(data, tmp_path, 0, 2))
    assert parts_of(tmp_path) == {"manifest-0-of-2.json"}
