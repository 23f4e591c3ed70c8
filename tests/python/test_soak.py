"""Everything at once for a while: readers of every kind, mounts that come and go, `materialize` beside them, and
sources that break under them. Bytes are right or the expected error all the way; at the end nothing has grown and
nothing is left.

`CTWDS_SOAK_SECONDS` is how long (60 by default); `scripts/soak.sh` takes ten minutes."""

from __future__ import annotations

import errno
import io
import json
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import (
    Program,
    daemon_of,
    digest,
    force_unmount,
    is_mounted,
    is_running,
    mount_folder,
    require_fuse,
    shards,
    wait_until,
)
from make_dataset import Dataset
from numpy.typing import NDArray
from small_datasets import write_dataset
from test_damage import exchange, flip

pytestmark = pytest.mark.alone  # all cores are its own
SECONDS = float(os.environ.get("CTWDS_SOAK_SECONDS", "60"))
PER_SHARD = 3
FLAGS = ("--samples-per-shard", PER_SHARD)
CACHE, DECODERS = 6 << 20, 2
ALLOWED = CACHE + DECODERS * (32 << 20) + (64 << 20)  # bytes of memory for the whole process
GROWTH = 16 << 20  # bytes: what the allocator keeps, more or less, of what was given back
PAUSE = 0.02  # seconds between the reads of one reader, so that the machine stays usable
VOLUMES = 24
BROKEN, ROTTING, REPLACED = 4, 10, 16  # damaged from the start, damaged on the way, replaced by another on the way
FAILING = {f"v{number:02d}" for number in (BROKEN, ROTTING, REPLACED)}
EXPECTED = (errno.EIO, errno.ESTALE)


def soak_dataset(out: Path) -> Dataset:
    """Volumes of both orders and compressions, and one that is large enough for its ends to be read on their own."""
    rng = np.random.default_rng(5)

    def volume(number: int) -> NDArray[Any]:
        shape = (192, 192, 128) if number == 1 else (48, 64, 96)
        values = rng.integers(-1000, 1000, shape).astype("f4" if number % 2 else "i2")
        return np.asfortranarray(values) if number % 3 == 0 else values

    dataset = write_dataset(out, {f"v{n:02d}.npz": {"data": volume(n)} for n in range(VOLUMES)}, writer="numpy")
    for path in dataset.volumes()[::2]:
        with np.load(path) as arrays:
            np.savez_compressed(path, data=arrays["data"])
    return dataset


@dataclass
class Soak:
    """What the readers look at, and what they may find."""

    point: Path
    right: Path
    bad: dict[str, dict[int, range]]  # by shard and volume
    stop: Event
    wrong: multiprocessing.Queue[str]

    def names(self, sound: bool = False) -> list[str]:
        """The shards, or those that no fault touches."""
        return [path.name for path in shards(self.right) if not (sound and path.name in self.bad)]

    def check(self, name: str, start: int, content: bytes, right: bytes) -> None:
        """What was read is what should be there. Of a damaged volume, whose checksum comes last, the begin may be
        wrong: nobody gets all of it."""
        stop = start + len(content)
        if not content and start < len(right):
            self.wrong.put(f"{name}: nothing at {start}")
        damaged = [self.bad.get(name, {}).get(number, range(0)) for number in (BROKEN, ROTTING)]
        for at, end in pieces(range(start, stop), damaged):
            if content[at - start : end - start] != right[at:end]:
                self.wrong.put(f"{name}: wrong bytes between {at} and {end}")

    def excuse(self, name: str, start: int, length: int, error: OSError) -> None:
        """An error is expected only where a broken volume is."""
        wanted = range(start, start + length)
        near = any(wanted.start < bad.stop and bad.start < wanted.stop for bad in self.bad.get(name, {}).values())
        if error.errno not in EXPECTED or not near:
            self.wrong.put(f"{name}: {error} for {length} bytes from {start} on")


def pieces(wanted: range, holes: list[range]) -> Iterator[tuple[int, int]]:
    """What is left of a range without others, which do not overlap."""
    at = wanted.start
    for hole in sorted(holes, key=lambda hole: hole.start):
        if hole and hole.start < wanted.stop and hole.stop > at:
            yield at, max(at, hole.start)
            at = hole.stop
    yield at, max(at, wanted.stop)


# --- readers, each a pass over something -----------------------------------------------------------------------------


def sequential(soak: Soak, rng: random.Random) -> None:
    """A shard from its begin on, as `tarfile` reads, to its end or to a broken volume."""
    name = rng.choice(soak.names())
    right = (soak.right / name).read_bytes()
    size = rng.choice([10_240, 131_072, 1 << 20])
    with (soak.point / name).open("rb", buffering=0) as file:
        at = 0
        while at < len(right) and not soak.stop.is_set():
            try:
                part = file.read(size)
            except OSError as error:
                # The kernel's read-ahead is no excuse: it asks for more, but the error is that of our bytes.
                soak.excuse(name, at, size, error)
                return
            soak.check(name, at, part, right)
            if not part:
                return
            at += len(part)
    if BROKEN in soak.bad.get(name, {}) and at == len(right):
        soak.wrong.put(f"{name}: the damaged volume was read to its end")


def scattered(soak: Soak, rng: random.Random) -> None:
    """Some reads of any length at any offset."""
    name = rng.choice(soak.names())
    right = (soak.right / name).read_bytes()
    file = os.open(soak.point / name, os.O_RDONLY)
    try:
        for _ in range(10):
            start, length = rng.randrange(len(right)), rng.choice([1, 512, 4096, 300_000])
            try:
                soak.check(name, start, os.pread(file, length, start), right)
            except OSError as error:
                soak.excuse(name, start, length, error)
            time.sleep(PAUSE)
    finally:
        os.close(file)


def mapped(soak: Soak, rng: random.Random) -> None:
    """Parts of a sound shard through a mapping, which outlives the file it came from."""
    name = rng.choice(soak.names(sound=True))
    right = (soak.right / name).read_bytes()
    with (soak.point / name).open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with view:
        for _ in range(5):
            start = rng.randrange(len(right))
            soak.check(name, start, view[start : start + 200_000], right)
            time.sleep(PAUSE)


def headers(soak: Soak, rng: random.Random) -> None:
    """The members of a sound shard without their voxels; and every name and size."""
    name = rng.choice(soak.names(sound=True))
    with tarfile.open(soak.point / name) as made, tarfile.open(soak.right / name) as right:
        if [(m.name, m.size, m.offset) for m in made] != [(m.name, m.size, m.offset) for m in right]:
            soak.wrong.put(f"{name}: other members")
    if sorted(os.listdir(soak.point)) != sorted(os.listdir(soak.right)):
        soak.wrong.put("other files")
    json.loads((soak.point / ".ctwds" / "stats.json").read_text())


def training(soak: Soak, rng: random.Random) -> None:
    """WebDataset's own pipeline over the sound shards."""
    import webdataset as wds

    names = soak.names(sound=True)
    rng.shuffle(names)
    right: dict[str, bytes] = {}
    for name in names:
        with tarfile.open(fileobj=io.BytesIO((soak.right / name).read_bytes())) as tar:
            right |= {m.name: file.read() for m in tar if (file := tar.extractfile(m))}
    seen = 0
    for sample in wds.WebDataset([str(soak.point / name) for name in names], shardshuffle=False, empty_check=False):
        for extension in ("bin", "json", "txt", "labels"):
            seen += 1
            if sample[extension] != right[f"{sample['__key__']}.{extension}"]:
                soak.wrong.put(f"{sample['__key__']}.{extension}: wrong bytes in the pipeline")
        if soak.stop.is_set():
            return
    if seen != len(right):
        soak.wrong.put(f"{seen} members of {len(right)} in the pipeline")


READERS: list[Callable[[Soak, random.Random], None]] = [sequential, scattered, mapped, headers, training]


def keep_reading(read: Callable[[Soak, random.Random], None], soak: Soak, seed: int, passes: Synchronized[int]) -> None:
    """A process of its own: pass after pass until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rng = random.Random(seed)
    while not soak.stop.is_set():
        try:
            read(soak, rng)
        except Exception as error:  # whatever it is, it is not what a reader should see
            soak.wrong.put(f"{read.__name__}: {error!r}")
        passes.value += 1
        time.sleep(PAUSE)


# --- what the daemon uses --------------------------------------------------------------------------------------------


def stats(point: Path) -> dict[str, int]:
    """The mount's counters; the file that they are read from is not among the open ones yet."""
    return json.loads((point / ".ctwds" / "stats.json").read_text())


def used(pid: int) -> tuple[int, int]:
    """Descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def memory(pid: int, field: str) -> int:
    """`VmRSS`, or its peak `VmHWM`, in bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field + ":")]
    return int(line.split()[1]) * 1024


# --- the soak --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The data set, sound."""
    return soak_dataset(tmp_path_factory.mktemp("soak"))


def bad_ranges(right: Path, numbers: list[int]) -> dict[str, dict[int, range]]:
    """Where in which shards the voxels of these volumes are."""
    found: dict[str, dict[int, range]] = {}
    for path in shards(right):
        with tarfile.open(path) as tar:
            for member in tar:
                key, extension = member.name.split(".")
                shard, place_in_it = map(int, key.split("_"))
                number = shard * PER_SHARD + place_in_it
                if extension == "bin" and number in numbers:
                    place = range(member.offset_data, member.offset_data + member.size)
                    found.setdefault(path.name, {})[number] = place
    assert sum(map(len, found.values())) == len(numbers)
    return found


def beside(program: Program, dataset: Dataset, soak: Soak, rng: random.Random, out: Path) -> None:
    """Another mount for a moment, and a conversion that it takes finished shards from, and that is stopped half-way."""
    with mount_folder() as base:
        point = base / "mount"
        arguments = [*dataset.flags(), *FLAGS, "--cache-size", CACHE, "--threads", 1, "--materialized", out]
        program.run("mount", *arguments, "--log-file", base / "log", point)
        daemon = daemon_of(point)
        with program.running("materialize", *dataset.flags(), *FLAGS, "--num-workers", 1, "--output-dir", out) as made:
            for name in rng.sample(soak.names(sound=True), 2):
                if digest(point / name) != digest(soak.right / name):
                    soak.wrong.put(f"{name}: wrong in the mount beside")
            made.send_signal(signal.SIGINT)
            made.communicate(timeout=60)
        program.run("unmount", point)
        assert not is_mounted(point) and not is_running(daemon)
    made_shards = shards(out)
    assert all(digest(path) == digest(soak.right / path.name) for path in made_shards)
    if len(made_shards) >= len(soak.names(sound=True)):
        shutil.rmtree(out)  # begin again


@pytest.fixture
def mounted(program: Program, soaked: Dataset) -> Iterator[tuple[Path, int]]:
    """The mount that all readers share, and its daemon, for as long as the soak takes."""
    require_fuse()
    with mount_folder(seconds=SECONDS + 120) as base:
        flags = ["--cache-size", CACHE, "--threads", DECODERS, "--page-cache", "off", "--log-file", base / "log"]
        program.run("mount", *soaked.flags(), *FLAGS, *flags, base / "mount")
        yield base / "mount", daemon_of(base / "mount")


@pytest.mark.timeout(SECONDS + 180)
def test_soak(program: Program, soaked: Dataset, mounted: tuple[Path, int], tmp_path: Path) -> None:
    """See above."""
    point, daemon = mounted
    right = program.materialize(soaked, tmp_path / "right", *FLAGS)
    assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(right)]
    begin_with = used(daemon)
    volumes = soaked.volumes()
    flip(volumes[BROKEN])
    context = multiprocessing.get_context("fork")
    soak = Soak(point, right, bad_ranges(right, [BROKEN, ROTTING, REPLACED]), context.Event(), context.Queue())
    passes = [context.Value("i", 0) for _ in READERS]
    readers = [
        context.Process(target=keep_reading, args=(read, soak, seed, count))
        for seed, (read, count) in enumerate(zip(READERS, passes, strict=True))
    ]
    for reader in readers:
        reader.start()
    rng, begin = random.Random(9), time.monotonic()
    faults = {0.5: lambda: flip(volumes[ROTTING]), 0.85: lambda: exchange(volumes[REPLACED])}
    warm, rounds = 0, 0
    try:
        while (passed := (time.monotonic() - begin) / SECONDS) < 1 or (
            # On a busy machine no reader may have come to the last of them yet.
            failed(point) != FAILING and time.monotonic() - begin < SECONDS + 60
        ):
            for moment in [moment for moment in faults if moment < passed]:
                faults.pop(moment)()
            warm = max(warm, memory(daemon, "VmRSS")) if passed < 0.3 else warm
            if faults:  # the plan of another mount would be that of the new volume
                beside(program, soaked, soak, rng, tmp_path / "out")
                rounds += 1
            assert soak.wrong.empty(), soak.wrong.get()
            assert all(reader.is_alive() for reader in readers), "a reader has died"
            time.sleep(0.5)
    finally:
        soak.stop.set()
        for reader in readers:
            reader.join(40)
        stuck = [reader.name for reader in readers if reader.is_alive()]
        if stuck:
            force_unmount(point)  # else nothing could end them
    assert not stuck, f"readers that never came back: {stuck}"
    assert soak.wrong.empty(), soak.wrong.get()
    assert rounds and all(count.value for count in passes), [count.value for count in passes]
    check_the_end(point, daemon, begin_with, warm)
    program.run("unmount", point)
    assert not is_mounted(point) and not is_running(daemon)


def failed(point: Path) -> set[str]:
    """The studies that somebody got an error for."""
    return {error["study_id"] for error in json.loads((point / ".ctwds" / "errors.json").read_text())}


def check_the_end(point: Path, daemon: int, begin_with: tuple[int, int], warm: int) -> None:
    """Nothing is open or waiting, nothing leaked, memory is what it was, and all errors were those that were made."""
    wait_until(lambda: stats(point)["open_files"] == 0, f"all files are closed: {stats(point)}")
    wait_until(lambda: stats(point)["waiting_reads"] == 0, "no read waits")
    found = stats(point)
    assert found["cache_bytes"] <= found["cache_limit"] == CACHE, found
    assert found["volumes_decoded"] > VOLUMES and found["volumes_failed"] > 0 and found["peeks"] > 0, found
    wait_until(lambda: used(daemon) == begin_with, f"descriptors and threads are {begin_with}, not {used(daemon)}")
    assert memory(daemon, "VmRSS") <= warm + GROWTH, (memory(daemon, "VmRSS"), warm)
    assert memory(daemon, "VmHWM") <= ALLOWED, memory(daemon, "VmHWM")
    assert failed(point) == FAILING
    log = (point.parent / "log").read_text()
    assert "panicked" not in log and "internal error" not in log
