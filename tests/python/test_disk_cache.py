"""Volumes that a mount keeps on a local disk: the next mount makes none of them, and nobody who reads can tell.

Whatever is wrong with the folder costs time only."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from faulty import small_disk
from harness import Program, Stored, daemon_of, digest, force_unmount, mount_folder, needs_root, shards, wait_until
from make_dataset import Dataset
from small_datasets import noise_dataset

pytestmark = pytest.mark.timeout(300)

SAMPLES = 7
HOW = ("--page-cache", "off", "--threads", 2)
FLAGS = ("--samples-per-shard", 3, *HOW)
VOLUME = 64 * 64 * 96 * 2
"""The bytes of a volume: three blocks of a cache's file, the last of them no whole one."""
FILE = 4096 + VOLUME


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven deflated volumes, which cannot be looked at without unpacking them."""
    return noise_dataset(tmp_path_factory.mktemp("data"), SAMPLES, deflated=True)


@pytest.fixture(scope="module")
def right(program: Program, dataset: Dataset) -> dict[str, str]:
    """The digests of all shards without a disk cache, which has no part in the status then."""
    with program.mounted(dataset, *FLAGS, "--shuffle-seed", 3) as point:
        found = digests(point)
        assert stats(program, point)["disk_cache"] is None
        assert "Disk cache   none" in program.run("status", point).stdout
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "new" / "cache"


def digests(point: Path) -> dict[str, str]:
    """The digests of the plain shards and of those of a shuffled view, if there is one."""
    epoch = point / "epochs" / "000000"
    folders = [point, epoch] if epoch.exists() else [point]
    return {str(path.relative_to(point)): digest(path) for folder in folders for path in shards(folder)}


def stats(program: Program, point: Path) -> dict[str, Any]:
    """The counters of a mount."""
    found: dict[str, Any] = json.loads(program.run("status", "--json", point).stdout)["stats"]
    return found


def files(cache: Path) -> list[Path]:
    """The volumes in a cache's folder."""
    return sorted(cache.glob("*.volume"))


def others(cache: Path) -> list[str]:
    """What else is in a cache's folder."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".volume")


def read_once(program: Program, dataset: Dataset | Stored, cache: Path, *flags: object) -> dict[str, Any]:
    """Read all plain shards once through a mount with the cache; its counters, and the digests of the shards."""
    with program.mounted(dataset, *FLAGS, "--disk-cache", cache, *flags) as point:
        read = digests(point)
        return {"digests": read} | stats(program, point)


def plain(right: dict[str, str]) -> dict[str, str]:
    """The digests of the plain shards."""
    return {name: found for name, found in right.items() if "/" not in name}


def test_the_second_mount_makes_no_volume(
    program: Program, dataset: Dataset, cache: Path, right: dict[str, str], tmp_path: Path
) -> None:
    """Neither in the plain order nor shuffled, and also where samples have other slots; with the very same bytes."""
    first = read_once(program, dataset, cache)
    assert first["digests"] == plain(right) and first["volumes_decoded"] == SAMPLES
    assert first["disk_cache"]["hits"] == 0 and first["disk_cache"]["misses"] == SAMPLES
    assert len(files(cache)) == SAMPLES and others(cache) == ["CACHEDIR.TAG"]
    assert {path.stat().st_size for path in files(cache)} == {FILE}
    assert (cache.stat().st_mode & 0o777, files(cache)[0].stat().st_mode & 0o777) == (0o700, 0o600)

    log = tmp_path / "log"
    with program.mounted(dataset, *FLAGS, "--disk-cache", cache, "--shuffle-seed", 3) as point:
        assert digests(point) == right
        found = stats(program, point)
        assert found["volumes_decoded"] == 0 and found["volumes_failed"] == 0
        about = found["disk_cache"]
        assert about["hits"] >= SAMPLES and about["misses"] == about["kept"] == about["errors"] == 0
        assert (about["bytes"], about["volumes"]) == (SAMPLES * FILE, SAMPLES)
        text = program.run("status", point).stdout
        assert f"for {SAMPLES} volumes in {cache}; {about['hits']} came from there" in text, text
    with program.mounted(dataset, *HOW, "--disk-cache", cache, "--limit", 3, "--samples-per-shard", 1) as point:
        digests(point)
        assert stats(program, point)["volumes_decoded"] == 0
    with mount_folder() as base:
        said = program.run(
            "mount",
            *dataset.flags(),
            "--disk-cache",
            cache,
            "--disk-cache-size",
            "1GiB",
            "--log-file",
            log,
            base / "mount",
        )
        assert f"volumes are kept in {cache}, up to 1.0 GiB" in said.stdout
        program.run("unmount", base / "mount")


@pytest.mark.parametrize(
    "flags", [("--output-dtype", "float32"), ("--volume", "rescaled", "--rescale", "none"), ("--overflow", "saturate")]
)
def test_other_options_make_other_volumes(
    program: Program, dataset: Dataset, cache: Path, flags: tuple[str, ...]
) -> None:
    """What is made in another way is not taken from there, and kept beside."""
    read_once(program, dataset, cache)
    with program.mounted(dataset, *FLAGS, *flags) as point:
        wanted = digests(point)
    other = read_once(program, dataset, cache, *flags)
    assert other["digests"] == wanted and other["volumes_decoded"] == SAMPLES and other["disk_cache"]["hits"] == 0
    assert len(files(cache)) == 2 * SAMPLES
    assert read_once(program, dataset, cache, *flags)["volumes_decoded"] == 0


@pytest.mark.parametrize("packed", [(), ("--disk-cache-compress",)], ids=["plain", "packed"])
@pytest.mark.parametrize("place", [0.0, 2e-5, 0.003, 0.006, 0.4, 1.0])
def test_damage_costs_time_only(
    program: Program, dataset: Dataset, cache: Path, right: dict[str, str], place: float, packed: tuple[str, ...]
) -> None:
    """A flipped byte anywhere: right bytes, the one volume made anew, the file mended."""
    read_once(program, dataset, cache, *packed)
    damaged = files(cache)[2]
    content = damaged.read_bytes()
    at = int(place * (len(content) - 1))
    damaged.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    found = read_once(program, dataset, cache, *packed)
    assert found["digests"] == plain(right)
    assert found["volumes_decoded"] == 1 and found["disk_cache"]["errors"] == 1
    assert damaged.read_bytes() == content
    assert read_once(program, dataset, cache)["volumes_decoded"] == 0


def test_packed_volumes(program: Program, dataset: Dataset, cache: Path, right: dict[str, str], tmp_path: Path) -> None:
    """They take less room, and come back as the same bytes, in any order; plain ones beside them are used on."""
    first = read_once(program, dataset, cache, "--disk-cache-compress")
    assert first["digests"] == plain(right) and first["volumes_decoded"] == SAMPLES
    sizes = [path.stat().st_size for path in files(cache)]
    assert len(sizes) == SAMPLES and max(sizes) < FILE and sum(sizes) == first["disk_cache"]["bytes"], sizes
    with program.mounted(dataset, *FLAGS, "--disk-cache", cache, "--shuffle-seed", 3) as point:
        assert digests(point) == right
        assert stats(program, point)["volumes_decoded"] == 0
    both = tmp_path / "both"
    read_once(program, dataset, both, "--limit", 3)
    mixed = read_once(program, dataset, both, "--disk-cache-compress")
    assert mixed["digests"] == plain(right) and mixed["volumes_decoded"] == SAMPLES - 3
    assert len([path for path in files(both) if path.stat().st_size == FILE]) == 3
    for how in (
        ("--volume", "rescaled", "--rescale", "none", "--output-dtype", "int16"),
        ("--output-dtype", "float32"),
    ):
        with program.mounted(dataset, *FLAGS, *how) as point:
            wanted = digests(point)
        for decoded in (SAMPLES, 0):
            found = read_once(program, dataset, cache, "--disk-cache-compress", *how)
            assert (found["digests"], found["volumes_decoded"]) == (wanted, decoded)


def test_foreign_files_are_no_volumes(program: Program, dataset: Dataset, cache: Path, right: dict[str, str]) -> None:
    """Under the name of a volume: another volume, nothing, a folder, a link. Under other names, they stay."""
    read_once(program, dataset, cache)
    kept = files(cache)
    kept[0].write_bytes(kept[1].read_bytes())
    kept[2].write_bytes(b"")
    kept[3].unlink()
    kept[3].mkdir()
    kept[4].unlink()
    kept[4].symlink_to(kept[5])
    (cache / "notes.txt").write_text("mine")
    found = read_once(program, dataset, cache)
    assert found["digests"] == plain(right) and found["volumes_decoded"] == 4
    assert (cache / "notes.txt").read_text() == "mine" and kept[3].is_dir()


def test_a_source_that_changed_is_an_error_all_the_same(program: Program, tmp_path: Path, cache: Path) -> None:
    """While it is mounted, although the volume is kept; the next plan then has another volume."""
    changing = noise_dataset(tmp_path / "data", 2, deflated=True)
    flags = ("--cache-size", "1MiB", "--read-ahead", 0)
    read_once(program, changing, cache, *flags)
    with program.mounted(changing, *HOW, "--samples-per-shard", 1, *flags, "--disk-cache", cache) as point:
        first, second = shards(point)
        before = digest(first)
        assert stats(program, point)["volumes_decoded"] == 0
        source = changing.folder / "v01.npz"
        other = noise_dataset(tmp_path / "other", 3, deflated=True).folder / "v01.npz"
        os.replace(other, source)
        with pytest.raises(OSError) as raised:
            second.read_bytes()
        assert raised.value.errno == errno.ESTALE
        assert digest(first) == before
    found = read_once(program, changing, cache, *flags)
    assert found["volumes_decoded"] == 1 and found["disk_cache"]["hits"] == 1


def test_the_limit_is_kept(program: Program, dataset: Dataset, cache: Path, right: dict[str, str]) -> None:
    """Room for three of seven: no more are there, and those that were used least recently go. Some may be packed, as
    they have no room and processors may idle; their noise packs little."""
    found = read_once(program, dataset, cache, "--disk-cache-size", 3 * FILE)
    assert found["digests"] == plain(right)
    before = files(cache)
    assert len(before) == 3 and 2 * FILE < sum(path.stat().st_size for path in before) <= 3 * FILE
    for age, path in enumerate(before):
        os.utime(path, (1_700_000_000 - age,) * 2)
    with (
        program.mounted(
            dataset, *FLAGS, "--disk-cache", cache, "--disk-cache-size", 3 * FILE, "--read-ahead", 0
        ) as point,
        (point / "shard-000000.tar").open("rb") as shard,
    ):  # whose volumes were displaced: the first of seven
        shard.read(VOLUME + 4096)
        wait_until(lambda: stats(program, point)["disk_cache"]["kept"] >= 1, "a volume is kept")
    assert before[-1] not in files(cache), "the one that was used least recently"


@needs_root
def test_a_full_disk_costs_time_only(program: Program, dataset: Dataset, right: dict[str, str]) -> None:
    """With a warning that says what to do; what is there is used."""
    with small_disk("2600k") as disk:
        disk.chmod(0o700)
        with mount_folder() as base:
            point, log = base / "mount", base / "log"
            said = program.run(
                *("mount", *dataset.flags(), *FLAGS, "--disk-cache", disk, "--disk-cache-size", "1GiB"),
                *("--log-file", log, point),
            )
            assert "room for 2.5 MiB" in said.stderr and "--disk-cache-size" in said.stderr
            assert digests(point) == plain(right)
            wait_until(lambda: stats(program, point)["disk_cache"]["waiting_bytes"] == 0, "nothing waits")
            assert digests(point) == plain(right)
            program.run("unmount", point)
        assert 1 <= len(files(disk)) <= 3 and others(disk) == ["CACHEDIR.TAG"]


def test_a_killed_daemon_leaves_nothing_that_harms(
    program: Program, dataset: Dataset, cache: Path, right: dict[str, str]
) -> None:
    """Whatever it was writing: the next mount removes what is unfinished, and makes what is missing."""
    for moment in range(4):
        with mount_folder() as base:
            point = base / "mount"
            program.run("mount", *dataset.flags(), *FLAGS, "--disk-cache", cache, "--log-file", base / "log", point)
            pid = daemon_of(point)
            with (point / f"shard-00000{moment % 3}.tar").open("rb") as shard:
                shard.read(VOLUME + moment * 100_000)
            os.kill(pid, signal.SIGKILL)
            force_unmount(point)
    host = re.sub(r"[^A-Za-z0-9-]", "_", os.uname().nodename)
    (cache / f"{'0' * 64}.volume.{host}-4194303-1-0.partial").write_bytes(b"x" * 1000)
    found = read_once(program, dataset, cache)
    assert found["digests"] == plain(right) and found["disk_cache"]["errors"] == 0
    assert len(files(cache)) == SAMPLES and others(cache) == ["CACHEDIR.TAG"]


def test_two_daemons_share_a_folder(program: Program, dataset: Dataset, cache: Path, right: dict[str, str]) -> None:
    """At the same time, from nothing: each has the right bytes, and what one has made, the other need not."""
    with (
        program.mounted(dataset, *FLAGS, "--disk-cache", cache, "--shuffle-seed", 3) as one,
        program.mounted(dataset, *FLAGS, "--disk-cache", cache, "--shuffle-seed", 3) as other,
    ):
        found: list[dict[str, str]] = []
        threads = [threading.Thread(target=lambda p=point: found.append(digests(p))) for point in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert found == [right, right]
        for point in (one, other):
            assert stats(program, point)["disk_cache"]["errors"] == 0
    assert len(files(cache)) == SAMPLES and others(cache) == ["CACHEDIR.TAG"]


def test_finished_shards_are_kept_too(program: Program, dataset: Dataset, cache: Path, tmp_path: Path) -> None:
    """Of compressed shards, the second mount unpacks none; a shard that was made again has other volumes."""
    out = program.materialize(dataset, tmp_path / "out", "--samples-per-shard", 3, "--compress", "zstd")
    stored = Stored(out)
    flags = ("--page-cache", "off", "--disk-cache", cache)
    with program.mounted(stored, *flags) as point:
        wanted = digests(point)
        assert stats(program, point)["volumes_decoded"] == SAMPLES
    with program.mounted(stored, *flags) as point:
        assert digests(point) == wanted
        assert stats(program, point)["volumes_decoded"] == 0
    shard = shards(out)[0]
    shard.write_bytes(shard.read_bytes())  # other times
    with program.mounted(stored, *flags) as point:
        assert digests(point) == wanted
        assert stats(program, point)["volumes_decoded"] == 3


def test_a_run_uses_it_too(program: Program, dataset: Dataset, cache: Path, tmp_path: Path) -> None:
    """What one job has made, the next one has."""
    read = f"cat '{tmp_path}'/shards/shard-*.tar | sha256sum; cat '{tmp_path}'/shards/.ctwds/stats.json"
    said = [
        program.run(
            *("run", *dataset.flags(), *FLAGS, "--disk-cache", cache, "--at", tmp_path / "shards", "--"),
            *("sh", "-c", read),
        ).stdout.partition("\n")
        for _ in range(2)
    ]
    (first, _, before), (second, _, after) = said
    assert first == second and len(files(cache)) == SAMPLES
    assert [json.loads(text)["volumes_decoded"] for text in (before, after)] == [SAMPLES, 0]


def test_ls_and_clear(program: Program, dataset: Dataset, cache: Path, tmp_path: Path) -> None:
    """They say how much there is; what is removed is the cache's alone; other folders are refused and stay."""
    read_once(program, dataset, cache)
    (cache / "notes.txt").write_text("mine")
    listed = json.loads(program.run("cache", "ls", "--json", cache).stdout)
    assert listed["bytes"] == SAMPLES * FILE and listed["foreign"] == 1 and listed["unfinished"] == 0
    assert [volume["bytes"] for volume in listed["volumes"]] == [FILE] * SAMPLES
    text = program.run("cache", "ls", cache).stdout
    assert f"{cache}: {SAMPLES} volumes, " in text and "1 file: not of the cache" in text
    removed = program.run("cache", "clear", cache).stdout
    assert f"removed {SAMPLES} volumes, " in removed and "1 file not of the cache left in place" in removed
    assert files(cache) == [] and others(cache) == ["CACHEDIR.TAG", "notes.txt"]
    assert json.loads(program.run("cache", "clear", "--json", cache).stdout)["volumes"] == 0
    for wrong in (dataset.folder, tmp_path, tmp_path / "missing"):
        before = sorted(tmp_path.rglob("*"))
        assert str(wrong) in program.refuses("cache", "clear", wrong)
        assert str(wrong) in program.refuses("cache", "ls", wrong)
        assert sorted(tmp_path.rglob("*")) == before


def test_places_that_are_refused(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """Each with the reason and what to do, and nothing is written there."""
    full, open_to_others, point = tmp_path / "full", tmp_path / "open", tmp_path / "mount"
    for folder in (full, open_to_others, point):
        folder.mkdir()
    (full / "a.npz").write_text("")
    open_to_others.chmod(0o777)
    for place, reason in {
        dataset.folder / "cache": "inside the data folder",
        point / "cache": "inside the mountpoint",
        full: "other files",
        full / "a.npz": "no folder",
        open_to_others: "chmod go-w",
    }.items():
        said = program.refuses("mount", *dataset.flags(), "--disk-cache", place, "--log-file", tmp_path / "log", point)
        assert str(place) in said and reason in said, said
    assert not (dataset.folder / "cache").exists() and not list(point.iterdir()) and not list(open_to_others.iterdir())
    said = program.refuses(
        *("mount", *dataset.flags(), "--disk-cache", tmp_path / "c", "--disk-cache-size", "0"),
        *("--log-file", tmp_path / "log", point),
    )
    assert "--disk-cache-size must be more than 0" in said and not (tmp_path / "c").exists()
    alone = program.run("mount", *dataset.flags(), "--disk-cache-size", "1GiB", point, check=False)
    assert alone.returncode == 2 and "--disk-cache" in alone.stderr


@needs_root
def test_a_read_only_disk_is_refused(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """When it is mounted, not later."""
    point = tmp_path / "mount"
    point.mkdir()
    with small_disk("1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=30)
        said = program.refuses(
            "mount", *dataset.flags(), "--disk-cache", disk / "cache", "--log-file", tmp_path / "log", point
        )
        assert str(disk) in said and "Read-only" in said.replace("read-only", "Read-only")
