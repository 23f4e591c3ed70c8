"""Shuffled views of a mount: every sample once an epoch, in an order that only seed and epoch determine."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import webdataset as wds
from harness import Program, digest, mount_folder, shards
from make_dataset import Dataset, dataset_at
from small_datasets import noise_dataset

PER_SHARD = 4
FLAGS = ("--samples-per-shard", PER_SHARD)
SAMPLES = 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eleven volumes of 768 KiB as float16."""
    return noise_dataset(tmp_path_factory.mktemp("data"), SAMPLES)


@pytest.fixture(scope="module")
def files(program: Program, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain shards."""
    return program.materialize(dataset, tmp_path_factory.mktemp("files"), *FLAGS)


@pytest.fixture(scope="module")
def point(program: Program, dataset: Dataset) -> Iterator[Path]:
    """A mount with three epochs."""
    with program.mounted(dataset, *FLAGS, "--shuffle-seed", 42, "--epochs", 3) as point:
        yield point


def stats(point: Path) -> dict[str, int]:
    """The mount's counters."""
    return json.loads((point / ".ctwds" / "stats.json").read_text())


def epoch(point: Path, number: int) -> Path:
    """The folder of an epoch."""
    return point / "epochs" / f"{number:06d}"


def order(seed: int, number: int, count: int) -> list[int]:
    """The order of an epoch as the documentation defines it."""

    def words() -> Iterator[int]:
        for counter in range(1 << 30):
            block = b"ctwds-fs shuffle 1" + struct.pack("<3Q", seed, number, counter)
            yield from struct.unpack("<4Q", hashlib.sha256(block).digest())

    stream, places = words(), list(range(count))
    for last in range(count - 1, 0, -1):
        x = next(x for x in stream if x < 2**64 - 2**64 % (last + 1))
        other = x % (last + 1)
        places[last], places[other] = places[other], places[last]
    return places


def blocks(paths: list[Path]) -> dict[str, bytes]:
    """Each sample's bytes in the tar files, headers and padding included, by key and in their order."""
    samples: dict[str, bytes] = {}
    for path in paths:
        content = path.read_bytes()
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        for info in members:
            end = info.offset_data + (info.size + 511) // 512 * 512
            key = info.name.partition(".")[0]
            samples[key] = samples.get(key, b"") + content[info.offset : end]
    return samples


def test_each_epoch_has_every_sample_once_and_unchanged(point: Path, files: Path) -> None:
    """The bytes of a member, header included, are those in the plain shards; the order is the documented one."""
    plain = blocks(shards(files))
    keys = list(plain)
    assert len(keys) == SAMPLES
    for number in range(3):
        paths = shards(epoch(point, number))
        assert [path.name for path in paths] == [path.name for path in shards(files)]
        found = blocks(paths)
        assert list(found) == [keys[index] for index in order(42, number, SAMPLES)]
        assert found == plain, "a member differs"
        sizes = [len(blocks([path])) for path in paths]
        assert sizes == [4, 4, 3]
    for path in shards(files):
        assert digest(point / path.name) == digest(path), "the plain shards are not what they were"


def test_only_seed_and_epoch_count(program: Program, dataset: Dataset, point: Path) -> None:
    """Two mounts of one seed are equal, whatever else differs; another seed gives another order."""
    digests = {number: [digest(path) for path in shards(epoch(point, number))] for number in range(3)}
    assert len({tuple(found) for found in digests.values()}) == 3
    with program.mounted(dataset, *FLAGS, "--shuffle-seed", 42, "--threads", 1, "--cache-size", "2MiB") as other:
        assert sorted(os.listdir(other / "epochs")) == [f"{number:06d}" for number in range(10)]
        assert {n: [digest(path) for path in shards(epoch(other, n))] for n in range(3)} == digests
    with program.mounted(dataset, *FLAGS, "--shuffle-seed", 43, "--epochs", 1) as other:
        assert os.listdir(other / "epochs") == ["000000"]
        assert [digest(path) for path in shards(epoch(other, 0))] not in digests.values()


def test_another_machine(program: Program, dataset: Dataset, point: Path, tmp_path: Path) -> None:
    """Files that were written in another order, at other paths and times, and tables with other orders of rows: the
    same views. (Of the plain shards they are the same as well: the order is that of the paths.)"""
    copy = dataset_at(tmp_path / "elsewhere")
    copy.folder.mkdir(parents=True)
    for path in reversed(dataset.volumes()):
        shutil.copyfile(path, copy.folder / path.name)
    for table, right in zip(
        (copy.reports, copy.meta, copy.labels), (dataset.reports, dataset.meta, dataset.labels), strict=True
    ):
        header, *rows = right.read_text().splitlines()
        table.write_text("\n".join([header, *reversed(rows), ""]))
    with program.mounted(copy, *FLAGS, "--shuffle-seed", 42, "--epochs", 3) as other:
        for number in range(3):
            paths = shards(epoch(other, number))
            assert [digest(path) for path in paths] == [digest(path) for path in shards(epoch(point, number))]
            one, two = (json.loads((epoch(at, number) / "manifest.json").read_text()) for at in (point, other))
            assert one == two


def test_random_offsets(point: Path) -> None:
    """Any read of any view's shard gives what reading the shard through gives, also between other reads."""
    paths = [path for number in range(3) for path in shards(epoch(point, number))]
    contents = [path.read_bytes() for path in paths]
    assert [path.stat().st_size for path in paths] == [len(content) for content in contents]
    rng = random.Random(1)
    opened = [path.open("rb", buffering=0) for path in paths]
    try:
        for _ in range(400):
            which = rng.randrange(len(paths))
            offset, length = rng.randrange(len(contents[which]) + 600), rng.choice([1, 511, 4096, 70_000])
            found = os.pread(opened[which].fileno(), length, offset)
            assert found == contents[which][offset : offset + length], f"{paths[which]}: {length} bytes at {offset}"
    finally:
        for file in opened:
            file.close()


def test_webdataset_reads_an_epoch(point: Path, files: Path) -> None:
    """As it reads the plain shards."""
    url = str(files / "shard-{000000..000002}.tar")
    plain = {sample["__key__"]: sample for sample in wds.WebDataset(url, shardshuffle=False)}
    url = str(epoch(point, 1) / "shard-{000000..000002}.tar")
    found = list(wds.WebDataset(url, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [list(plain)[index] for index in order(42, 1, SAMPLES)]
    for sample in found:
        same = plain[sample["__key__"]]
        assert {k: v for k, v in sample.items() if k[0] != "_"} == {k: v for k, v in same.items() if k[0] != "_"}


def test_the_manifest_of_an_epoch(point: Path) -> None:
    """The same schema; it names seed and epoch and says which sample is where."""
    plain = json.loads((point / "manifest.json").read_text())
    for number in range(3):
        folder = epoch(point, number)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["shuffle"] == {"seed": 42, "epoch": number} and "shuffle" not in plain
        assert set(manifest) - {"shuffle"} == set(plain)
        for field in ("num_shards", "samples_per_shard", "total_samples", "total_size_mb", "plan_digest"):
            assert manifest[field] == plain[field], field
        for shard in manifest["shards"]:
            assert shard["size"] == (folder / shard["name"]).stat().st_size
            assert [sample["key"] for sample in shard["samples"]] == list(blocks([folder / shard["name"]]))
        by_key = [{s["key"]: s for shard in m["shards"] for s in shard["samples"]} for m in (plain, manifest)]
        assert by_key[0] == by_key[1]


def test_the_folders(point: Path, program: Program) -> None:
    """They list what can be opened, and nothing else is there."""
    assert "epochs" in os.listdir(point) and (point / "epochs").is_dir()
    assert sorted(os.listdir(point / "epochs")) == ["000000", "000001", "000002"]
    found = list(os.walk(point))
    assert len(found) == 1 + 1 + 1 + 1 + 3 * 2  # the mount, .ctwds, .nv-meta, epochs, and each with its own .nv-meta
    inodes = [(Path(folder) / name).stat().st_ino for folder, _, names in found for name in names]
    assert len(inodes) == len(set(inodes))
    for name in (
        "epochs/000003",
        "epochs/0",
        "epochs/000000/shard-000003.tar",
        "epochs/000000/.ctwds",
        "epochs/000000/epochs",
        "epochs/shard-000000.tar",
        "epochs/000003/manifest.json",
    ):
        assert not (point / name).exists(), name
    assert os.statvfs(point).f_files == 3 + 3 * 3
    status = json.loads(program.run("status", "--json", point).stdout)
    assert (status["mount"]["shuffle_seed"], status["mount"]["epochs"]) == (42, 3)
    assert "3 shuffled views, seed 42" in program.run("status", point).stdout


def test_read_ahead_follows_the_view(program: Program, tmp_path: Path) -> None:
    """Of what is read ahead, nothing is in another shard of the view, as it would be in the order of the plain ones."""
    dataset = noise_dataset(tmp_path, 8, (96, 128, 250))  # 6 MB as float16: a reader counts as one after 3.5 MB
    assert set(order(1, 0, 8)[:4]) not in ({0, 1, 2, 3}, {4, 5, 6, 7})
    flags = ("--shuffle-seed", 1, "--epochs", 1, "--threads", 2, "--read-ahead", 2, "--page-cache", "off")
    with program.mounted(dataset, *FLAGS, *flags) as point:
        for number, path in enumerate(shards(epoch(point, 0))):
            path.read_bytes()
            assert stats(point)["volumes_decoded"] == 4 * (number + 1)
        # At best 6: all but the first of each shard. A reader that was quicker than the decoders waits without a hit.
        assert stats(point)["read_ahead_hits"] >= 3


def test_a_volume_serves_all_views(program: Program, dataset: Dataset) -> None:
    """What was decoded for the plain shards is not decoded again for an epoch."""
    with program.mounted(dataset, *FLAGS, "--shuffle-seed", 1, "--cache-size", "64MiB", "--page-cache", "off") as point:
        for folder in (point, epoch(point, 0), epoch(point, 9)):
            for path in shards(folder):
                path.read_bytes()
        assert stats(point)["volumes_decoded"] == SAMPLES


def test_left_out_samples_leave_no_hole(program: Program, tmp_path: Path) -> None:
    """A view is made of the samples that are there, under their keys of the plain shards."""
    dataset = noise_dataset(tmp_path, 9, (8, 8, 8))
    (dataset.folder / "v03.npz").write_bytes(b"no zip")
    with program.mounted(dataset, *FLAGS, "--shuffle-seed", 5, "--epochs", 1) as point:
        plain, found = blocks(shards(point)), blocks(shards(epoch(point, 0)))
        assert len(plain) == 8 and found == plain and "000000_000003" not in plain
        assert len(shards(point)) == 3 and [len(blocks([path])) for path in shards(epoch(point, 0))] == [4, 4]


def test_it_is_ended_like_any_mount(program: Program, dataset: Dataset) -> None:
    """An open shard of a view keeps the mount, and is named."""
    with (
        program.mounted(dataset, *FLAGS, "--shuffle-seed", 5) as point,
        (epoch(point, 7) / "shard-000001.tar").open("rb") as file,
    ):
        file.read(1)
        assert str(os.getpid()) in program.refuses("unmount", point)
        assert file.read(511) != b""


def test_compressed_shards(program: Program, dataset: Dataset, point: Path, tmp_path: Path) -> None:
    """Views of volumes that are unpacked from compressed shards: as those of the NPZs."""
    packed = tmp_path / "packed"
    program.materialize(dataset, packed, *FLAGS, "--compress", "zstd")
    with mount_folder() as base:
        other = base / "mount"
        program.run("mount", "--shards", packed, "--shuffle-seed", 42, "--epochs", 2, "--log-file", base / "log", other)
        for number in range(2):
            assert [digest(path) for path in shards(epoch(other, number))] == [
                digest(path) for path in shards(epoch(point, number))
            ]
        program.run("unmount", other)


def test_epochs_need_a_seed(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """Without one there is no order to repeat."""
    done = program.run("mount", *dataset.flags(), "--epochs", 3, tmp_path, check=False)
    assert done.returncode == 2 and "--shuffle-seed" in done.stderr
    with program.mounted(dataset, *FLAGS) as point:
        assert not (point / "epochs").exists() and "epochs" not in os.listdir(point)
