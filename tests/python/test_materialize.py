"""Shards on disk: the same bytes however often the run was interrupted and with however many workers; nothing that is
finished is written again; no name ever holds a partial file; and progress that suits a terminal or a log."""

from __future__ import annotations

import errno
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import FaultyFolder, faulty_folder
from harness import Program, digest, files_in, identities, require_fuse, shards, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset

COUNT = 24
FLAGS = ("--samples-per-shard", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One volume of 768 KiB (as float16) for each of 24 shards."""
    return noise_dataset(tmp_path_factory.mktemp("data"), COUNT)


@pytest.fixture(scope="module")
def right(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run makes of it."""
    return program.materialize(data, tmp_path_factory.mktemp("right"), *FLAGS, "--num-workers", 1)


@pytest.fixture(scope="module")
def tiny(program: Program, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """Four shards of a few kilobytes, and what an undisturbed run makes of them."""
    out = tmp_path_factory.mktemp("tiny")
    dataset = noise_dataset(out, 4, (8, 8, 8))
    return dataset, program.materialize(dataset, out / "right", *FLAGS, "--num-workers", 1)


def command(dataset: Dataset, out: Path, *more: object) -> list[object]:
    """The arguments that write a data set to `out`."""
    return ["materialize", *dataset.flags(), *FLAGS, "--output_dir", out, *more]


# --- the result ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 8, 100])
def test_any_number_of_workers(program: Program, data: Dataset, right: Path, tmp_path: Path, workers: int) -> None:
    """The same files, the manifest included."""
    program.run(*command(data, tmp_path / "deep" / "out", "--num_workers", workers))
    assert files_in(tmp_path / "deep" / "out") == files_in(right)


def test_manifest(right: Path) -> None:
    """Names, sizes and digests are those of the files; the order is that of the shards."""
    manifest = json.loads((right / "manifest.json").read_text())
    told = [(entry["name"], entry["size"], entry["sha256"]) for entry in manifest["shards"]]
    assert told == [(path.name, path.stat().st_size, digest(path)) for path in shards(right)]
    assert manifest["num_shards"] == manifest["total_samples"] == COUNT
    assert [entry["sample_count"] for entry in manifest["shards"]] == [1] * COUNT


def test_a_finished_run_does_nothing_again(program: Program, tiny: tuple[Dataset, Path], tmp_path: Path) -> None:
    """It says so and leaves the shards alone."""
    dataset, right = tiny
    program.run(*command(dataset, tmp_path))
    before = identities(tmp_path)
    done = program.run(*command(dataset, tmp_path))
    assert "0 shards written, 4 kept" in done.stdout
    assert identities(tmp_path) == before and files_in(tmp_path) == files_in(right)


# --- interruptions ---------------------------------------------------------------------------------------------------


def recorded_in(out: Path) -> list[str]:
    """The shards that the record of a run calls finished."""
    (journal,) = [path for path in (out / ".ctwds").glob("*") if path.is_file()]
    return re.findall(r'"(shard-\d+\.tar)".*}\n', journal.read_text())


def kill_once(program: Program, data: Dataset, out: Path, rng: random.Random) -> bool:
    """Begin or continue a run and kill it at a random moment, if it is still there then."""
    goal = len(shards(out)) + rng.randrange(4)
    with program.running(*command(data, out, "--num-workers", rng.choice([1, 2]))) as process:
        wait_until(lambda: len(shards(out)) >= goal or process.poll() is not None, "some more shards")
        time.sleep(rng.random() * 0.006)  # a shard takes a few milliseconds
        process.kill()
        return process.wait(timeout=30) == -signal.SIGKILL


def test_resume_after_kills(program: Program, data: Dataset, right: Path, tmp_path: Path) -> None:
    """After SIGKILL at random moments every final name holds a whole shard, what is recorded as finished is not written
    again, and in the end all is as if nothing had happened."""
    rng = random.Random(7)
    expected = files_in(right)
    out = tmp_path / "out"
    recorded: dict[str, tuple[int, int]] = {}
    killed = 0
    while killed < 8:
        if (out / "manifest.json").exists():  # finished before enough kills: once more from the beginning
            assert files_in(out) == expected
            shutil.rmtree(out)
            recorded.clear()
        killed += kill_once(program, data, out, rng)
        now = identities(out)
        assert {name: now.get(name) for name in recorded} == recorded, "a finished shard was written again"
        assert {path.name: digest(path) for path in shards(out)}.items() <= expected.items(), "a shard is not whole"
        recorded = {name: now[name] for name in recorded_in(out)} if now else {}
    assert f"{len(recorded)} kept" in program.run(*command(data, out)).stdout
    now = identities(out)
    assert {name: now[name] for name in recorded} == recorded
    assert files_in(out) == expected


@pytest.fixture
def watched(tiny: tuple[Dataset, Path]) -> Iterator[tuple[FaultyFolder, Dataset]]:
    """The tiny data set on a file system that tells when it is read."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    require_fuse()
    dataset = tiny[0]
    with faulty_folder({path.name: path.read_bytes() for path in dataset.volumes()}) as folder:
        yield folder, replace(dataset, folder=folder.point)


def half_way(folder: FaultyFolder, out: Path, act: Callable[[], object]) -> None:
    """Call `act` once, when two shards of `out` are finished and the third is begun."""
    called: list[str] = []

    def on_read(name: str) -> None:
        # The first shard is there before the third is begun; the second is written out beside it.
        if name == "v02.npz" and (out / "shard-000000.tar").exists() and not called:
            called.append(name)
            wait_until((out / "shard-000001.tar").exists, "the second shard is finished")
            act()

    folder.on_read = on_read


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal(
    program: Program,
    watched: tuple[FaultyFolder, Dataset],
    tiny: tuple[Dataset, Path],
    tmp_path: Path,
    sent: signal.Signals,
) -> None:
    """The run ends soon with a message that says how to go on; no unfinished file is left; and it goes on."""
    folder, dataset = watched
    with program.running(*command(dataset, tmp_path, "--num-workers", 1)) as process:
        half_way(folder, tmp_path, lambda: process.send_signal(sent))
        _, message = process.communicate(timeout=30)
    assert process.returncode == 128 + sent and "interrupted" in message and "same command" in message
    finished = identities(tmp_path)
    assert len(finished) in (2, 3) and sorted(files_in(tmp_path)) == sorted(finished)
    done = program.run(*command(dataset, tmp_path))
    assert f"{len(finished)} kept" in done.stdout and "continuing" in done.stderr
    now = identities(tmp_path)
    assert {name: now[name] for name in finished} == finished
    assert files_in(tmp_path) == files_in(tiny[1])


def test_a_second_run_at_the_same_time_is_refused(
    program: Program, watched: tuple[FaultyFolder, Dataset], tiny: tuple[Dataset, Path], tmp_path: Path
) -> None:
    """It changes nothing, and the first goes on."""
    folder, dataset = watched
    refusals: list[str] = []

    def try_a_second() -> None:
        before = set(os.listdir(tmp_path))
        # From the files themselves: those of `dataset` answer nobody until this function ends.
        refusals.append(program.refuses(*command(tiny[0], tmp_path)))
        # The first run may publish meanwhile what it had made by then.
        after = set(os.listdir(tmp_path))
        assert all(name in after or re.sub(r"\.[^.]+\.partial$", "", name) in after for name in before)

    half_way(folder, tmp_path, try_a_second)
    program.run(*command(dataset, tmp_path, "--num-workers", 1))
    assert len(refusals) == 1 and str(tmp_path) in refusals[0] and "another materialize" in refusals[0]
    assert files_in(tmp_path) == files_in(tiny[1])


# --- folders that somebody changed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["delete", "truncate", "empty", "grow", "link to nowhere"])
def test_only_what_is_not_whole_is_made_again(
    program: Program, tiny: tuple[Dataset, Path], tmp_path: Path, change: str
) -> None:
    """A finished shard that was deleted or cut is remade, the others are left alone."""
    dataset, right = tiny
    out = tmp_path / "out"
    program.run(*command(dataset, out))
    before = identities(out)
    victim = out / "shard-000002.tar"
    if change == "truncate":
        os.truncate(victim, victim.stat().st_size - 1)
    elif change == "grow":
        with victim.open("ab") as file:
            file.write(b"\0" * 512)
    else:
        victim.unlink()
        if change == "empty":
            victim.touch()
        elif change != "delete":
            victim.symlink_to(tmp_path / "nowhere")
    done = program.run(*command(dataset, out))
    assert "1 shard written, 3 kept" in done.stdout
    after = identities(out)
    assert {name for name in before if after[name] != before[name]} == {victim.name}
    assert files_in(out) == files_in(right) and not victim.is_symlink() and not (tmp_path / "nowhere").exists()


def test_record_that_was_cut(program: Program, tiny: tuple[Dataset, Path], tmp_path: Path) -> None:
    """A crash may leave any beginning of the record. Whatever the length, the same command ends with the right result,
    and what is wholly recorded is not made again. Without the record's head, the shards might be anybody's: they are
    made again beside them, compared, and left alone."""
    dataset, right = tiny
    program.run(*command(dataset, tmp_path / "whole", "--num-workers", 1))
    (journal,) = [path for path in (tmp_path / "whole" / ".ctwds").glob("*") if path.is_file()]
    record = journal.read_bytes()
    head = record.index(b"\n") + 1
    ends = [at + 1 for at, byte in enumerate(record) if byte == ord("\n")]
    around = {end + by for end in ends for by in (-60, -1, 0, 1, 40) if 0 <= end + by <= len(record)}
    for length in sorted({0, 1, *around, *range(0, len(record), 41)}):
        out = tmp_path / "out"
        shutil.copytree(tmp_path / "whole", out)
        (out / ".ctwds" / journal.name).write_bytes(record[:length])
        (out / "manifest.json").unlink()
        before = identities(out)
        done = program.run(*command(dataset, out))
        whole = max(sum(end <= length for end in ends) - 1, 0)
        assert re.search(rf"\b{4 - whole} shards? written, {whole} kept", done.stdout), length
        assert files_in(out) == files_in(right), length
        assert identities(out) == before or length >= head
        assert "0 shards written, 4 kept" in program.run(*command(dataset, out)).stdout, length
        shutil.rmtree(out)


@pytest.mark.parametrize("noise", [b"\0" * 300, b"\xff\xfe\n", b"{}\n[]\nnull\n", b'{"name":"shard-000001.tar"}\n'])
def test_record_with_rubbish(program: Program, tiny: tuple[Dataset, Path], tmp_path: Path, noise: bytes) -> None:
    """What a file system leaves at the end of a file after a power cut is passed over."""
    dataset, right = tiny
    program.run(*command(dataset, tmp_path))
    (journal,) = [path for path in (tmp_path / ".ctwds").glob("*") if path.is_file()]
    with journal.open("ab") as file:
        file.write(noise)
    (tmp_path / "shard-000003.tar").unlink()
    for written in (1, 0):
        done = program.run(*command(dataset, tmp_path))
        assert re.search(rf"\b{written} shards? written", done.stdout)
        assert files_in(tmp_path) == files_in(right)


# --- progress --------------------------------------------------------------------------------------------------------


def test_plain_lines_without_a_terminal(program: Program, data: Dataset, tmp_path: Path) -> None:
    """A line for each shard, with the count, the rate and the time left; nothing that only a terminal understands."""
    done = program.run(*command(data, tmp_path, "--num-workers", 2))
    lines = [line for line in done.stderr.splitlines() if "shard-" in line]
    assert sorted(line.split()[0] for line in lines) == sorted(path.name for path in shards(tmp_path))
    counts = [re.search(r"\((\d+)/24 shards, [\d.]+ [KMG]?i?B/s, \d+ s left\)", line) for line in lines]
    assert sorted(int(count[1]) for count in counts if count) == list(range(1, COUNT + 1))
    assert "\r" not in done.stderr and "\x1b" not in done.stderr and "\x1b" not in done.stdout
    assert "24 shards written, 0 kept" in done.stdout
    size = sum(path.stat().st_size for path in shards(tmp_path))
    assert re.search(rf"^{size / (1 << 20):.1f} MiB in \d+\.\d s, \d+(\.\d)? [KMG]iB/s$", done.stdout, re.MULTILINE)


def test_a_compressed_run_says_how_far(program: Program, data: Dataset, tmp_path: Path) -> None:
    """The bytes of the files against those of the plain shards; a run that finds all done says nothing of that."""
    done = program.run(*command(data, tmp_path, "--compress", "zstd"))
    found = re.search(r"^(\S+) [KM]iB in .*/s, compressed from \S+ MiB to (\d+\.\d) %$", done.stdout, re.MULTILINE)
    assert found and 0 < float(found[2]) < 120
    assert "compressed from" not in program.run(*command(data, tmp_path, "--compress", "zstd")).stdout


def test_a_bar_on_a_terminal(program: Program, data: Dataset, tmp_path: Path) -> None:
    """It has the rate and the time left, is drawn in place, and leaves the result behind."""
    terminal, ours = pty.openpty()
    shown = bytearray()
    options = {"stdin": ours, "stdout": ours, "stderr": ours, "env": {**os.environ, "TERM": "xterm", "COLUMNS": "100"}}
    with program.running(*command(data, tmp_path, "--num-workers", 1), **options) as process:
        os.close(ours)
        try:
            while select.select([terminal], [], [], 30)[0]:
                shown += os.read(terminal, 65536)
        except OSError as error:  # how a terminal says that the other side is closed
            assert error.errno == errno.EIO
        finally:
            os.close(terminal)
        assert process.wait(timeout=30) == 0
    text = shown.decode()
    assert re.search(r"[KM]iB/\d+.*[KM]iB.*/s.* left \(\d+/24 shards\)", text), text
    assert "\r" in text and "shard-0000" not in text
    assert "24 shards written, 0 kept" in text.splitlines()[-2]
