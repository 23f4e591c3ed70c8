"""Compressed shards: a lossless form of the plain ones that Python reads and writes as well, served as plain ones; and
nothing that is damaged in them reaches a reader."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import packed_damages
import packed_volume
import packing
import pytest
import pyzstd
from ctwds.reader import ShardReader
from harness import Program, Stored, digest, mount_folder, payload, require_fuse, shards
from make_dataset import Dataset
from npzfiles import write_npz
from numpy.typing import NDArray
from small_datasets import noise_dataset, on_slopes, write_dataset

COUNT, PER_SHARD = 6, 3
FLAGS = ("--samples-per-shard", PER_SHARD)
BLOCK = 256 << 10
STEPS = ["--shape", "40,30,20", "--spacing", "1.2,1.2,2"]
CODEC_FIELDS = ', "volume_codec": "zstd", "volume_filter": "split"}'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Volumes of three blocks each, in two shards: random integers, whose blocks are not split, then whole numbers that
    are, then others."""
    dataset = noise_dataset(tmp_path_factory.mktemp("data"), COUNT)
    for number, path in enumerate(dataset.volumes()):
        with np.load(path) as arrays:
            noise = arrays["data"]
        volume = (noise, on_slopes(noise), on_slopes(noise) / 1000)[number % 3]
        write_npz(path, {"data": volume.astype(np.float32)}, writer="numpy")
    return dataset


@pytest.fixture(scope="module")
def plain(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their plain shards."""
    return program.materialize(data, tmp_path_factory.mktemp("plain"), *FLAGS)


@pytest.fixture(scope="module")
def packed(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their compressed shards."""
    return program.materialize(data, tmp_path_factory.mktemp("packed"), *FLAGS, "--compress", "zstd")


def files_in(folder: Path) -> dict[str, str]:
    """Digests of all files, without the record of the run."""
    return {path.name: digest(path) for path in folder.iterdir() if path.is_file()}


def members(shard: Path) -> dict[str, bytes]:
    """All payloads by name, in order."""
    with tarfile.open(shard) as tar:
        return {info.name: payload(tar, info) for info in tar}


def volumes(shard: Path) -> list[tarfile.TarInfo]:
    """The volumes' members."""
    with tarfile.open(shard) as tar:
        return [info for info in tar if info.name.endswith((".bin", packed_volume.SUFFIX))]


@pytest.mark.parametrize("format_", ["ctclip", "npy"])
@pytest.mark.parametrize("kind", ["stored", "rescaled", "preprocessed"])
def test_there_and_back(program: Program, dataset: Dataset, tmp_path: Path, kind: str, format_: str) -> None:
    """Plain, compressed and plain again: every file is the same, the manifest as well; and from plain shards the same
    compressed ones are made as from the data set."""
    flags = (*FLAGS, "--volume", kind, "--format", format_, *(STEPS if kind == "preprocessed" else []))
    plain = program.materialize(dataset, tmp_path / "plain", *flags)
    packed = program.materialize(dataset, tmp_path / "packed", *flags, "--compress", "zstd")
    back = tmp_path / "back"
    program.run("materialize", *Stored(packed).flags(), "--output-dir", back)
    assert files_in(back) == files_in(plain)
    again = tmp_path / "again"
    program.run("materialize", *Stored(plain).flags(), "--output-dir", again, "--compress", "zstd")
    assert files_in(again) == files_in(packed)
    for shard in shards(plain):
        assert_same_content(members(shard), members(packed / shard.name))


def assert_same_content(plain: dict[str, bytes], packed: dict[str, bytes]) -> None:
    """Same keys, members and order; only the volume and the end of the JSON differ."""
    assert [name.removesuffix(packed_volume.SUFFIX) for name in packed] == list(plain)
    for (name, right), (packed_name, found) in zip(plain.items(), packed.items(), strict=True):
        if packed_name.endswith(packed_volume.SUFFIX):
            assert packed_volume.unpack(found).tobytes() == right, name
        elif name.endswith("json"):
            assert found.decode() == right.decode().removesuffix("}") + CODEC_FIELDS
            assert json.loads(found)["volume_codec"] == "zstd"
        else:
            assert found == right, name


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_bytes_with_any_number_of_workers(
    program: Program, data: Dataset, packed: Path, tmp_path: Path, workers: int
) -> None:
    """Blocks are packed on all cores, and land in order."""
    made = program.materialize(data, tmp_path, *FLAGS, "--compress", "zstd:1", "--num-workers", workers)
    assert files_in(made) == files_in(packed)


def test_a_killed_run_continues(program: Program, data: Dataset, packed: Path, tmp_path: Path) -> None:
    """Whenever it is killed: no name holds a partial file, and the next run completes it to the same bytes."""
    command = ["materialize", *data.flags(), "--samples-per-shard", 1, "--compress", "zstd", "--num-workers", 1]
    right = files_in(program.materialize(data, tmp_path / "right", *command[len(data.flags()) + 1 :]))
    rng = random.Random(0)
    for attempt in range(4):
        out = tmp_path / f"out{attempt}"
        with program.running(*command, "--output-dir", out) as process:
            time.sleep(rng.uniform(0.01, 0.15))
            process.send_signal(signal.SIGKILL)
            process.wait()
        for shard in shards(out):
            assert digest(shard) == right[shard.name]
        program.run(*command, "--output-dir", out)
        assert files_in(out) == right


def test_python_seeks_in_ours(plain: Path, packed: Path) -> None:
    """The container's own reader finds any part of it; what it gives are the filtered blocks, of all three ways."""
    ways = []
    for shard in shards(packed):
        right = members(plain / shard.name)
        for name, member in members(shard).items():
            if not name.endswith(packed_volume.SUFFIX):
                continue
            voxels = np.frombuffer(right[name.removesuffix(packed_volume.SUFFIX)], np.uint8)
            blocks = [voxels[at : at + BLOCK] for at in range(0, voxels.size, BLOCK)]
            row = json.loads(right[name.partition(".")[0] + ".json"])["volume_shape"][-1]
            found = [pyzstd.decompress(frame) for frame, size in packed_damages.frames_of(member) if size]
            ways += [content[-1] for content in found]
            contents = [
                packing.filtered(block.tobytes(), "split", row, like) for block, like in zip(blocks, found, strict=True)
            ]
            filtered = b"".join(contents)
            with pyzstd.SeekableZstdFile(io.BytesIO(member)) as file:
                assert len(packed_volume.seek_table(member)) == 1 + len(blocks)
                for at in (0, BLOCK - 3, BLOCK + 1, BLOCK * 2 + 17, len(filtered) - 5, 9):
                    file.seek(at)
                    assert file.read(11) == filtered[at : at + 11]
            assert pyzstd.decompress(member) == filtered  # the frame of the rows' length is passed over
    assert ways == [0, 0, 0, 2, 2, 2, 1, 1, 1] * 2


@pytest.mark.parametrize("block", [10_000, BLOCK, 1 << 20])
def test_python_writes_what_is_read(program: Program, plain: Path, packed: Path, tmp_path: Path, block: int) -> None:
    """Blocks of any size, whose sizes alone are in the table; rows of any length, whatever the shape is."""
    changed = Path(shutil.copytree(packed, tmp_path / "python"))
    rows = itertools.cycle([1, 2, 37, 64, 4096, 1 << 31])

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        is_volume = name.endswith(packed_volume.SUFFIX)
        return name, packing.packed(
            packed_volume.unpack(content).tobytes(), "split", next(rows), block
        ) if is_volume else content

    packing.rewrite(changed, change)
    program.run("materialize", *Stored(changed).flags(), "--output-dir", tmp_path / "back")
    assert files_in(tmp_path / "back") == files_in(plain)


@pytest.mark.parametrize("method", ["shuffle", "predict"])
@pytest.mark.parametrize("block", [10_000, BLOCK])
def test_folders_of_earlier_filters_are_read(
    program: Program,
    plain: Path,
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    method: str,
) -> None:
    """By a mount, `verify`, the way back to plain shards, and the loader."""
    old = Path(shutil.copytree(packed, tmp_path / "old"))
    packing.make_old(old, method, block)
    names = [name for shard in shards(old) for name in members(shard) if name.endswith(".zst")]
    assert len(names) == COUNT and all(name.endswith(f".bin.{method}.zst") for name in names)
    program.run("materialize", *Stored(old).flags(), "--output-dir", tmp_path / "back")
    assert files_in(tmp_path / "back") == files_in(plain)
    assert "compressed with zstd" in program.run("verify", "--webdataset_dir", old).stdout
    with program.mounted(Stored(old)) as point:
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(plain)]
    assert voxels(old) == voxels(packed) == voxels(plain)
    with monkeypatch.context() as patch:
        patch.setattr("ctwds.packed.native_unpack", lambda: None)
        assert voxels(old) == voxels(packed) == voxels(plain)


def voxels(folder: Path) -> list[bytes]:
    """Those of all samples, by the package's reader of shards."""
    return [raw.voxels.tobytes() for shard in shards(folder) for raw in ShardReader(str(shard), [])]


@pytest.mark.parametrize(("method", "codec"), [("shuffle", "zstd:1"), ("predict", "predict+zstd:1")])
def test_a_folder_that_was_begun_with_an_earlier_filter_goes_on_so(
    program: Program, data: Dataset, packed: Path, tmp_path: Path, method: str, codec: str
) -> None:
    """One folder, one filter: a run that finds a shard missing makes it as the others are; an empty folder gets the
    filter of today."""
    old = Path(shutil.copytree(packed, tmp_path / "old"))
    packing.make_old(old, method)
    kept = digest(shards(old)[1])
    shards(old)[0].unlink()
    program.run("materialize", *data.flags(), *FLAGS, "--compress", "zstd", "--output-dir", old)
    names = [name for shard in shards(old) for name in members(shard) if name.endswith(".zst")]
    assert len(names) == COUNT and all(name.endswith(f".bin.{method}.zst") for name in names)
    assert json.loads((old / "manifest.json").read_text())["compression"]["filter"] == method
    assert voxels(old) == voxels(packed)
    assert digest(shards(old)[1]) == kept
    program.run("verify", "--webdataset_dir", old, *data.flags(), *FLAGS)
    for line in (old / ".ctwds" / "journal.jsonl").read_text().splitlines():
        assert json.loads(line).get("run", {"codec": codec})["codec"] == codec


def test_blocks_without_checksums_are_refused(program: Program, packed: Path, tmp_path: Path) -> None:
    """Nobody could tell whether they are damaged."""
    changed = Path(shutil.copytree(packed, tmp_path / "python"))

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if not name.endswith(packed_volume.SUFFIX):
            return name, content
        (head, none), *frames = packed_damages.frames_of(content)
        bare = [(pyzstd.compress(pyzstd.decompress(frame), {}), plain) for frame, plain in frames]
        return name, packing.member_of([(head, none), *bare])

    packing.rewrite(changed, change)
    error = program.refuses("materialize", *Stored(changed).flags(), "--output-dir", tmp_path / "back")
    assert "shard-000000.tar" in error and "checksum" in error and not shards(tmp_path / "back")


@pytest.mark.parametrize("page_cache", ["on", "off"])
def test_a_mount_shows_plain_shards(program: Program, plain: Path, packed: Path, page_cache: str) -> None:
    """Sizes, manifest and bytes are those of the plain shards, in order and at any offset; no NPZ is given."""
    rng = random.Random(page_cache)
    with program.mounted(Stored(packed), "--page-cache", page_cache) as point:
        assert [path.name for path in shards(point)] == [path.name for path in shards(plain)]
        shown = json.loads((point / "manifest.json").read_text())
        right = json.loads((plain / "manifest.json").read_text())
        assert shown == right | {"shards": [shard | {"sha256": None} for shard in right["shards"]]}
        for shard in shards(plain):
            expected = shard.read_bytes()
            with (point / shard.name).open("rb", buffering=0) as file:
                assert os.fstat(file.fileno()).st_size == len(expected)
                for _ in range(60):
                    at, length = rng.randrange(len(expected)), rng.choice([1, 513, 10_240, 300_000])
                    assert os.pread(file.fileno(), length, at) == expected[at : at + length], (at, length)
            assert (point / shard.name).read_bytes() == expected
        assert json.loads((point / ".ctwds" / "stats.json").read_text())["volumes_failed"] == 0


def test_plain_shards_are_mounted_from_their_files(program: Program, plain: Path) -> None:
    """Nothing is decoded: the files are what a reader wants."""
    with program.mounted(Stored(plain)) as point:
        assert {path.name: digest(path) for path in shards(point)} == {p.name: digest(p) for p in shards(plain)}
        stats = json.loads((point / ".ctwds" / "stats.json").read_text())
        assert stats["materialized_shards"] == 2 and stats["volumes_decoded"] == 0


def test_plain_shards_without_a_record_are_read_all_the_same(program: Program, plain: Path, tmp_path: Path) -> None:
    """A folder that was copied without what begins with a dot."""
    copied = tmp_path / "copied"
    shutil.copytree(plain, copied, ignore=shutil.ignore_patterns(".*"))
    with program.mounted(Stored(copied)) as point:
        assert {path.name: digest(path) for path in shards(point)} == {p.name: digest(p) for p in shards(plain)}


def test_walking_headers_unpacks_no_volume(program: Program, tmp_path: Path) -> None:
    """The ends of a volume are peeked at: a block or two is cheap."""
    shape = (256, 256, 64)
    values = (np.arange(np.prod(shape), dtype=np.float32) % 2039).reshape(shape)
    dataset = write_dataset(tmp_path, {f"v{n}.npz": {"data": values} for n in range(3)}, writer="numpy")
    packed = program.materialize(dataset, tmp_path / "packed", "--compress", "zstd")
    with program.mounted(Stored(packed)) as point:
        with tarfile.open(point / "shard-000000.tar") as tar:
            assert len(tar.getmembers()) == 12
        assert json.loads((point / ".ctwds" / "stats.json").read_text())["volumes_decoded"] == 0


def entries(shard: Path, volume: tarfile.TarInfo) -> tuple[bytearray, NDArray[Any], list[int]]:
    """A member, its seek table without the first frame as a view of it (packed, plain, checksum), and where its blocks
    begin."""
    with shard.open("rb") as file:
        file.seek(volume.offset_data)
        member = bytearray(file.read(volume.size))
    count = len(packed_volume.seek_table(member))
    table = np.frombuffer(member, "<u4", count * 3, len(member) - 9 - count * 12).reshape(count, 3)
    return member, table[1:], np.cumsum(table[:, 0]).tolist()


def flip(block: int, where: float) -> Callable[[bytearray, NDArray[Any], list[int]], None]:
    """A changed bit in a block, at a fraction of it."""

    def change(member: bytearray, _table: NDArray[Any], starts: list[int]) -> None:
        first, last = starts[block], starts[block + 1] - 1
        member[first + round((last - first) * where)] ^= 0x20

    return change


def swap(member: bytearray, table: NDArray[Any], starts: list[int]) -> None:
    """Blocks 0 and 1 in each other's place, with sizes that fit."""
    first, second = member[starts[0] : starts[1]], member[starts[1] : starts[2]]
    member[starts[0] : starts[2]] = second + first
    table[[0, 1], 0] = table[[1, 0], 0]


def zeros(member: bytearray, _table: NDArray[Any], starts: list[int]) -> None:
    """A block that a disk has lost."""
    member[starts[1] : starts[2]] = bytes(starts[2] - starts[1])


DAMAGES = [flip(0, 0.5), flip(1, 1.0), flip(2, 0.001), swap, zeros]
SOUND = len(DAMAGES)  # the volume that nobody damages


def damage(packed: Path, out: Path) -> Path:
    """The shards with one kind of damage in each volume but the last."""
    shutil.copytree(packed, out)
    for number, change in enumerate(DAMAGES):
        shard = shards(out)[number // PER_SHARD]
        volume = volumes(shard)[number % PER_SHARD]
        member, table, starts = entries(shard, volume)
        before = bytes(member)
        change(member, table, starts)
        assert bytes(member) != before
        with shard.open("r+b") as file:
            file.seek(volume.offset_data)
            file.write(member)
    return out


def test_damage_reaches_no_reader(program: Program, plain: Path, packed: Path, tmp_path: Path) -> None:
    """Whatever happened to a block: EIO on the mount for whoever reads the volume, one message, and the others are
    served; the damaged shards are not made plain."""
    damaged = damage(packed, tmp_path / "damaged")
    with program.mounted(Stored(damaged)) as point:
        for number in range(COUNT):
            shard = shards(plain)[number // PER_SHARD]
            volume = volumes(shard)[number % PER_SHARD]
            with (point / shard.name).open("rb", buffering=0) as file, shard.open("rb") as right:
                right.seek(volume.offset_data)
                file.seek(volume.offset_data)
                expected = right.read(volume.size)
                if number == SOUND:
                    assert file.read(volume.size) == expected
                else:
                    with pytest.raises(OSError) as caught:
                        while chunk := file.read(min(4096, len(expected))):
                            assert chunk == expected[: len(chunk)], "other bytes than the right ones"
                            expected = expected[len(chunk) :]
                    assert caught.value.errno == errno.EIO
        errors = json.loads((point / ".ctwds" / "errors.json").read_text())
        assert [error["study_id"] for error in errors] == [f"v{n:02d}" for n in range(SOUND)]
        assert all("block" in error["error"] and "damaged" in error["error"] for error in errors)
    listed = program.refuses("materialize", "--shards", damaged, "--output-dir", tmp_path / "out")
    assert all(shard.name in listed for shard in shards(plain)) and not shards(tmp_path / "out")


@pytest.mark.parametrize("at", [-1, -5, -9, -20, -45, -46, -50])
def test_a_damaged_seek_table_is_refused(program: Program, packed: Path, tmp_path: Path, at: int) -> None:
    """Without it the volume's length is not known."""
    damaged = tmp_path / "damaged"
    shutil.copytree(packed, damaged)
    shard = shards(damaged)[1]
    volume = volumes(shard)[1]
    with shard.open("r+b") as file:
        file.seek(volume.offset_data + volume.size + at)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    error = program.refuses("materialize", "--shards", damaged, "--output-dir", tmp_path / "out")
    assert shard.name in error


def test_a_shard_that_is_cut_or_missing_is_named(program: Program, packed: Path, tmp_path: Path) -> None:
    """Before anything is mounted or written."""
    damaged = tmp_path / "damaged"
    shutil.copytree(packed, damaged)
    shard = shards(damaged)[1]
    os.truncate(shard, shard.stat().st_size - 10_240)
    with mount_folder() as base:
        assert shard.name in program.refuses("mount", "--shards", damaged, base / "mount")
        shard.unlink()
        assert shard.name in program.refuses("mount", "--shards", damaged, base / "mount")


def test_a_shard_that_changes_under_the_mount_is_stale(program: Program, packed: Path, tmp_path: Path) -> None:
    """As an NPZ that changes."""
    copied = tmp_path / "copied"
    shutil.copytree(packed, copied)
    with program.mounted(Stored(copied), "--page-cache", "off") as point:
        os.utime(shards(copied)[0])
        with (point / "shard-000000.tar").open("rb") as file, pytest.raises(OSError) as caught:
            file.read()
        assert caught.value.errno in (errno.ESTALE, errno.EIO)


def test_refusals(program: Program, data: Dataset, packed: Path, plain: Path, tmp_path: Path) -> None:
    """Each with its remedy."""
    require_fuse()
    both = program.run("plan", "--shards", packed, *data.flags(), check=False)
    assert both.returncode == 2 and "--shards" in both.stderr
    assert "finish" in program.refuses("plan", "--shards", tmp_path)
    codec = program.run("materialize", *data.flags(), "--compress", "lz4", "--output-dir", tmp_path / "o", check=False)
    assert codec.returncode == 2 and "zstd:LEVEL" in codec.stderr
    for flags in ([], ["--compress", "zstd:2"]):
        error = program.refuses("materialize", *data.flags(), *FLAGS, *flags, "--output-dir", packed)
        assert "zstd:1" in error and "--compress" in error
    with mount_folder() as base:
        error = program.refuses("mount", *data.flags(), *FLAGS, "--materialized", packed, base / "mount")
        assert "--shards" in error
        inside = packed / "mount"
        inside.mkdir()
        assert "inside" in program.refuses("mount", "--shards", packed, inside)
        inside.rmdir()
