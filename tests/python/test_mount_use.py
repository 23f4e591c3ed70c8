"""Who may use a mount and for what: no writing, no other users unless allowed, ordinary users as owners, and many
readers at once, with a cache of any size."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from harness import (
    NOBODY,
    SMALL_FLAGS,
    Program,
    digest,
    force_unmount,
    mount_folder,
    needs_root,
    require_fuse,
    shards,
    wait_until,
)
from make_dataset import Dataset
from small_datasets import noise_dataset

AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def errno_of(action: Callable[[], object]) -> int:
    """The error of a call that must fail."""
    with pytest.raises(OSError) as caught:
        action()
    return caught.value.errno or 0


# --- writing ---------------------------------------------------------------------------------------------------------


@needs_root
def test_even_root_cannot_write(program: Program, small: Dataset) -> None:
    """EROFS for every call that would change something, in every place."""
    with program.mounted(small, *SMALL_FLAGS) as point:
        shard, manifest, status = point / "shard-000000.tar", point / "manifest.json", point / ".ctwds"
        attempts: list[Callable[[], object]] = [
            lambda: os.symlink("x", point / "new"),
            lambda: os.link(shard, point / "new"),
            lambda: os.mkfifo(point / "new"),
            lambda: os.rmdir(status),
            lambda: os.chown(shard, 1, 1),
            lambda: os.chmod(point, 0o777),
            lambda: os.setxattr(shard, "user.x", b""),
            lambda: os.removexattr(shard, "user.x"),
            lambda: os.open(shard, os.O_RDONLY | os.O_TRUNC),
            lambda: os.open(manifest, os.O_WRONLY),
            lambda: os.unlink(status / "stats.json"),
            lambda: os.open(status / "new", os.O_WRONLY | os.O_CREAT),
            lambda: os.rename(manifest, status / "new"),
            lambda: os.mkdir(status / "new"),
            lambda: os.truncate(manifest, 0),
            lambda: os.utime(point),
        ]
        assert [errno_of(attempt) for attempt in attempts] == [errno.EROFS] * len(attempts)
        assert os.access(shard, os.R_OK) and not os.access(shard, os.W_OK) and not os.access(shard, os.X_OK)


# --- users -----------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("allowed", [False, True])
def test_other_users(program: Program, small: Dataset, right: Path, allowed: bool) -> None:
    """Nobody but the owner may look into a mount, unless the owner says so; and nobody may write."""
    require_fuse()
    with mount_folder(0o755) as base:
        point, flag = base / "mount", ["--allow-other"] if allowed else []
        program.run("mount", *small.flags(), *SMALL_FLAGS, *flag, "--log-file", base / "log", point)
        for tool, path in {"cat": point / "shard-000000.tar", "ls": point, "stat": point}.items():
            done = subprocess.run([tool, path], capture_output=True, timeout=60, check=False, **AS_NOBODY)
            if not allowed:
                assert done.returncode != 0 and b"Permission denied" in done.stderr
            else:
                assert done.returncode == 0
                if tool == "cat":
                    assert done.stdout == (right / "shard-000000.tar").read_bytes()
        done = subprocess.run(["touch", point / "new"], capture_output=True, timeout=60, check=False, **AS_NOBODY)
        assert done.returncode != 0
        message = program.refuses("unmount", point, **AS_NOBODY)
        assert str(point) in message
        program.run("unmount", point)


@needs_root
def test_an_ordinary_user(program: Program, small: Dataset, right: Path, open_folder: Path) -> None:
    """Mounts, reads and unmounts with fusermount3, keeps even root out, and clears the mount of a dead daemon."""
    require_fuse()
    public = Path(shutil.copy(program.path, open_folder))
    data = noise_dataset(open_folder / "data", 6)
    home, scratch = open_folder / "home", open_folder / "scratch"
    for folder in (home, scratch, home / "mount"):
        folder.mkdir()
    for folder in (home, home / "mount"):
        os.chown(folder, NOBODY, NOBODY)
    script = Path(__file__).with_name("user_session.py")
    arguments = [public, home, NOBODY, scratch, *data.flags(), *SMALL_FLAGS]
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, script, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    happened = json.loads(done.stdout)
    sound = f"{digest(right / 'shard-000000.tar')}  {home}/mount/shard-000000.tar\n"

    code, output, _, table = happened["mount"]
    assert code == 0 and len(table) == 1 and f"user_id={NOBODY}" in table[0], happened["mount"]
    assert str(home / "state") in output
    assert happened["log"] == [NOBODY, 0o600]
    assert happened["read"][:2] == [0, sound]
    assert happened["write"][0] != 0 and "Read-only" in happened["write"][2]
    assert happened["root looks"] == errno.EACCES
    assert happened["busy"][0] == 1 and "open" in happened["busy"][2] and "again" in happened["busy"][2]
    assert happened["unmount"][0] == 0 and happened["after unmount"] == []
    if happened["fuse.conf allows"]:
        assert happened["allow other"][0] == 0
    else:
        assert happened["allow other"][0] == 1 and "user_allow_other" in happened["allow other"][2]
        assert "/etc/fuse.conf" in happened["allow other"][2]
    assert happened["again"][0] == 0
    assert happened["fusermount3"][0] == 0 and happened["after fusermount3"] == []
    assert happened["once more"][0] == 0
    assert happened["over the dead"][0] == 0, happened["over the dead"]
    assert len(happened["over the dead"][3]) == 1 and happened["read over the dead"][:2] == [0, sound]
    assert happened["unmount the dead"][0] == 0 and happened["after the dead"] == []


# --- many readers ----------------------------------------------------------------------------------------------------


def read_at_random(folder: Path, right: Path, seed: int, times: int) -> int:
    """Reads of any length at any offset, now and then past the kernel's cache; the number of those that were right."""
    rng = random.Random(seed)
    contents = {path.name: path.read_bytes() for path in shards(right)}
    files = {name: os.open(folder / name, os.O_RDONLY) for name in contents}
    count = 0
    for _ in range(times):
        name = rng.choice(sorted(contents))
        offset, length = rng.randrange(len(contents[name])), rng.choice([1, 512, 4096, 300_000, 2_000_000])
        if rng.random() < 0.1:
            os.posix_fadvise(files[name], 0, 0, os.POSIX_FADV_DONTNEED)
        if rng.random() < 0.1:
            os.close(files[name])
            files[name] = os.open(folder / name, os.O_RDONLY)
        wanted = contents[name][offset : offset + length]
        count += os.pread(files[name], length, offset) == wanted
    return count


def read_through(folder: Path, right: Path, seed: int, times: int) -> int:
    """All shards from front to end as a loader's worker does, in an order of its own; the number that were right."""
    rng, names = random.Random(seed), [path.name for path in shards(right)]
    count = 0
    for _ in range(times):
        for name in rng.sample(names, len(names)):
            with (folder / name).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                count += b"".join(iter(lambda: file.read(10_240), b"")) == (right / name).read_bytes()
    return count


def read_with_many(point: Path, right: Path, readers: int, read: Callable[..., int], times: int) -> list[int]:
    """Several processes at once; what each says of itself."""
    with ProcessPoolExecutor(readers, multiprocessing.get_context("fork")) as pool:
        counts = [pool.submit(read, point, right, seed, times) for seed in range(readers)]
        _, stuck = wait(counts, timeout=60)
        if stuck:
            told = stats(point)
            force_unmount(point)  # else nothing could end the readers
            pytest.fail(f"{len(stuck)} of {readers} readers are stuck; {told}")
        return [count.result() for count in counts]


def stats(point: Path) -> dict[str, int]:
    """The counters of the mount, as they are now."""
    return json.loads((point / ".ctwds" / "stats.json").read_text())


@pytest.mark.parametrize("kind", ["stored", "deflated", "fortran"])
def test_many_readers(program: Program, tmp_path: Path, kind: str) -> None:
    """Eight processes at random offsets see exactly the materialised bytes, whatever the sources are."""
    data = noise_dataset(tmp_path, 6, dtype="i2", deflated=kind == "deflated", order="F" if kind == "fortran" else "C")
    right = program.materialize(data, tmp_path / "right", *SMALL_FLAGS)
    with program.mounted(data, *SMALL_FLAGS) as point:
        assert read_with_many(point, right, 8, read_at_random, 100) == [100] * 8
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(right)]


@pytest.mark.parametrize(("size", "threads"), [("1B", 1), ("100kB", 3), ("1MiB", 1), ("2MiB", 3)])
def test_cache_of_any_size(program: Program, small: Dataset, right: Path, size: str, threads: int) -> None:
    """Smaller than one volume, or than what all readers want at once: it costs time and never a byte; afterwards the
    memory is back within the limit."""
    with program.mounted(small, *SMALL_FLAGS, "--cache-size", size, "--threads", threads) as point:
        assert read_with_many(point, right, 3, read_through, 1) == [2] * 3
        if size == "2MiB":  # two volumes; with less, whoever leaves a volume half read makes the next one wait
            assert read_with_many(point, right, 2, read_at_random, 4) == [4] * 2
        wait_until(lambda: stats(point)["cache_bytes"] <= stats(point)["cache_limit"], "the memory is within its limit")
        assert stats(point)["volumes_failed"] == 0


@pytest.mark.parametrize("known", ["begin", "middle", "end"])
def test_the_kernel_finishes_volumes(program: Program, small: Dataset, tmp_path: Path, known: str) -> None:
    """Readers that keep their files open, and find a part of each volume in the kernel's page cache, are finished with
    it for all that the mount sees. They do not wait seconds for each other's room."""
    right = program.materialize(small, tmp_path / "right", "--samples-per-shard", 1)
    third = 262_144  # bytes of a volume of 768 KiB
    begin = {"begin": 0, "middle": third, "end": 2 * third}[known]
    flags = ["--samples-per-shard", 1, "--page-cache", "on", "--cache-size", "1MiB", "--read-ahead", 0]
    with program.mounted(small, *flags) as point, contextlib.ExitStack() as kept:
        for shard in shards(point):
            with shard.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # the kernel reads what is asked for
                assert len(os.pread(file.fileno(), third, begin)) == third
        began = time.monotonic()
        for shard in shards(point):
            file = kept.enter_context(shard.open("rb", buffering=0))
            assert file.readall() == (right / shard.name).read_bytes()
        assert time.monotonic() - began < 5  # seconds; it was two for each of six


def test_status_files(program: Program, small: Dataset) -> None:
    """They tell what happens, and the log's place; a listing does not show them."""
    with program.mounted(small, *SMALL_FLAGS, "--cache-size", "3MiB", "--threads", 2) as point:
        assert stats(point)["cache_limit"] == 3 << 20 and stats(point)["volumes_decoded"] == 0
        size = len((point / "shard-000001.tar").read_bytes())
        after = stats(point)
        assert after["bytes_served"] >= size and 3 <= after["volumes_decoded"] <= 4 and after["cache_peak_bytes"] > 0
        assert stat.S_ISDIR((point / ".ctwds").stat().st_mode)
        assert sorted(os.listdir(point / ".ctwds")) == ["errors.json", "mount.json", "stats.json"]
