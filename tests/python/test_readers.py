"""Every reader that people use, over the mount and over the materialised files: both give the reference's samples."""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from harness import READER_OPTIONS, Program, digest, shards, snapshot
from make_dataset import Dataset

Samples = dict[str, dict[str, bytes]]
MANIFEST_FIELDS = (
    "num_shards",
    "samples_per_shard",
    "total_samples",
    "total_size_mb",
    "total_size_gb",
    "average_sample_size_mb",
)


def from_tar(paths: Iterable[Path]) -> Samples:
    """The samples of some shards by plain tarfile."""
    samples: Samples = {}
    for path in paths:
        with tarfile.open(path) as tar:
            for info in tar:
                key, _, suffix = info.name.partition(".")
                member = tar.extractfile(info)
                assert member is not None, f"{info.name} is no regular file"
                samples.setdefault(key, {})[suffix] = member.read()
    return samples


def from_webdataset(stream: Iterable[dict[str, bytes]]) -> Samples:
    """The samples of a webdataset pipeline, without what it adds."""
    samples: Samples = {}
    for sample in stream:
        key = str(sample["__key__"])
        assert key not in samples, f"{key} came twice"
        samples[key] = {k: v for k, v in sample.items() if not k.startswith("__")}
    return samples


@pytest.fixture(scope="module")
def wanted(expected: Path) -> Samples:
    """The samples of the reference converter."""
    return from_tar(shards(expected))


def pipeline(folder: Path) -> wds.WebDataset:
    """The usual webdataset pipeline over all shards of a folder."""
    return wds.WebDataset([str(path) for path in shards(folder)], shardshuffle=False)


def test_webdataset(folder: Path, wanted: Samples) -> None:
    """A plain pipeline gives every sample, in order."""
    got = from_webdataset(pipeline(folder))
    assert got == wanted
    assert list(got) == list(wanted)


def test_webdataset_decodes(folder: Path, dataset: Dataset) -> None:
    """Decoded as a training loader does it, each volume is the NPZ's array."""
    count = 0
    for sample in pipeline(folder).decode():
        meta = sample["json"]
        volume = np.frombuffer(sample["bin"], np.float16).reshape(meta["volume_shape"])
        (source,) = dataset.folder.rglob(meta["study_id"] + ".npz")
        np.testing.assert_array_equal(volume, np.load(source)["data"].astype(np.float16))
        assert np.frombuffer(sample["labels"], np.float32).shape == (18,)
        assert isinstance(sample["txt"], str)
        count += 1
    assert count == 13


def test_webdataset_dataloader_of_two_workers(folder: Path, wanted: Samples) -> None:
    """Two processes read different shards at the same time; together they give every sample once."""
    from torch.utils.data import DataLoader

    loader = DataLoader(pipeline(folder), batch_size=None, num_workers=2)
    assert from_webdataset(loader) == wanted


def test_tarfile_random_access(folder: Path, wanted: Samples) -> None:
    """Members read by name in a random order, each a second time in part."""
    rng = random.Random(1)
    for path in shards(folder):
        with tarfile.open(path, "r") as tar:
            names = tar.getnames()
            rng.shuffle(names)
            for name in names:
                key, _, suffix = name.partition(".")
                member = tar.extractfile(name)
                assert member is not None
                assert member.read() == wanted[key][suffix]
                member.seek(len(wanted[key][suffix]) // 3)
                assert member.read(100) == wanted[key][suffix][len(wanted[key][suffix]) // 3 :][:100]


def test_tarfile_stream(folder: Path, wanted: Samples) -> None:
    """Strictly forward, as from a pipe."""
    samples: Samples = {}
    for path in shards(folder):
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for info in tar:
                key, _, suffix = info.name.partition(".")
                member = tar.extractfile(info)
                assert member is not None
                samples.setdefault(key, {})[suffix] = member.read()
    assert samples == wanted


def test_gnu_tar(folder: Path, wanted: Samples, tmp_path: Path) -> None:
    """GNU tar lists and extracts the same files, without a word of complaint."""
    for path in shards(folder):
        listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True, timeout=60)
        extracted = subprocess.run(["tar", "-xf", path, "-C", tmp_path], capture_output=True, check=True, timeout=60)
        assert (listed.stderr, extracted.stderr) == ("", b"")
        for name in listed.stdout.split():
            key, _, suffix = name.partition(".")
            assert (tmp_path / name).read_bytes() == wanted[key][suffix]
    assert len(list(tmp_path.iterdir())) == sum(map(len, wanted.values()))


def test_wids_through_mmap(folder: Path, wanted: Samples, tmp_path: Path) -> None:
    """wids maps the shard itself. It copies a shard that its cache folder lacks and puts a lock file beside it, so on
    a read-only file system its cache is a folder of symbolic links."""
    import wids

    listing = []
    for path in shards(folder):
        (tmp_path / path.name).symlink_to(path)
        keys = [key for key in wanted if key.startswith(path.name[6:12])]
        listing.append({"url": str(path), "nsamples": len(keys)})
    data = wids.ShardListDataset(listing, cache_dir=str(tmp_path), transformations=[])
    order = list(range(len(data)))
    random.Random(2).shuffle(order)
    samples: Samples = {}
    for index in order:
        sample = data[index]
        parts = {k[1:]: v.read() for k, v in sample.items() if k.startswith(".")}
        samples[sample["__key__"]] = parts
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(folder) in maps.read(), "wids read a copy, not the shard"
    data.close()
    assert samples == wanted


def test_whole_files(folder: Path, expected: Path, tmp_path: Path) -> None:
    """cp, sha256sum, copyfile (sendfile or copy_file_range) and mmap give the reference's bytes."""
    assert [path.name for path in shards(folder)] == [path.name for path in shards(expected)]
    for path in shards(folder):
        right = expected / path.name
        content = right.read_bytes()
        subprocess.run(["cp", path, tmp_path / "cp"], check=True, timeout=60)
        shutil.copyfile(path, tmp_path / "copyfile")
        told = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True, timeout=60)
        assert told.stdout.split()[0] == digest(right) == digest(tmp_path / "cp") == digest(tmp_path / "copyfile")
        with path.open("rb") as file:
            for access in (mmap.ACCESS_READ, mmap.ACCESS_COPY):  # shared and private
                with mmap.mmap(file.fileno(), 0, access=access) as view:
                    assert view[:] == content


def test_any_offset_and_length(folder: Path, expected: Path) -> None:
    """Reads that begin and end anywhere, past the end as well."""
    rng = random.Random(3)
    for path in shards(folder):
        content = (expected / path.name).read_bytes()
        fd = os.open(path, os.O_RDONLY)
        try:
            for _ in range(300):
                offset = rng.randrange(len(content) + 1000)
                length = rng.choice([1, 511, 512, 4096, 10_240, rng.randrange(1, 300_000)])
                assert os.pread(fd, length, offset) == content[offset : offset + length]
        finally:
            os.close(fd)


def test_size_is_exact_before_any_read(program: Program, dataset: Dataset, expected: Path) -> None:
    """A fresh mount tells sizes without touching a voxel; blocks are 1 MiB, so that Python's buffers are."""
    with program.mounted(dataset, *READER_OPTIONS.flags()) as fresh:
        for path in shards(expected):
            seen = (fresh / path.name).stat()
            assert seen.st_size == path.stat().st_size
            assert seen.st_blksize == 2**20
        stats = json.loads((fresh / ".ctwds" / "stats.json").read_text())
        assert stats["volumes_decoded"] == 0


@pytest.mark.parametrize(
    "what", ["open", "append", "create", "unlink", "mkdir", "rename", "truncate", "chmod", "utime"]
)
def test_writing_gets_erofs(mount: Path, what: str) -> None:
    """Whatever would change something is refused in the same way."""
    shard, new = shards(mount)[0], mount / "new"
    attempts: dict[str, Callable[[], object]] = {
        "open": lambda: os.open(shard, os.O_RDWR),
        "append": lambda: os.open(shard, os.O_WRONLY | os.O_APPEND),
        "create": lambda: os.open(new, os.O_WRONLY | os.O_CREAT),
        "unlink": lambda: os.unlink(shard),
        "mkdir": lambda: os.mkdir(new),
        "rename": lambda: os.rename(shard, new),
        "truncate": lambda: os.truncate(shard, 0),
        "chmod": lambda: os.chmod(shard, 0o600),
        "utime": lambda: os.utime(shard),
    }
    with pytest.raises(OSError) as caught:
        attempts[what]()
    assert caught.value.errno == errno.EROFS


def test_a_name_that_is_not_there(mount: Path) -> None:
    """ENOENT, not some other error, for names like those of shards too."""
    for name in ("shard-999999.tar", "shard-0.tar", "nothing", ".ctwds/nothing"):
        assert not (mount / name).exists()
        with pytest.raises(FileNotFoundError):
            (mount / name).open("rb")


def test_globs_find_only_shards(folder: Path, expected: Path) -> None:
    """What a training script globs for trips over nothing."""
    names = [path.name for path in shards(expected)]
    assert sorted(path.name for path in folder.glob("**/*.tar")) == names
    seen = {name for name in os.listdir(folder) if not name.startswith(".")}
    indexes = {index for name in names for index in (name.replace(".tar", ".idx"), name + ".idx")}
    assert seen == {"manifest.json", "shardindex.json", "README.md", *names, *indexes}


def leaves(value: object, path: str = "") -> dict[str, Any]:
    """A JSON value as a flat dictionary from paths to leaves."""
    if isinstance(value, dict):
        items = [(f"{path}.{key}", item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {path: value}
    return {key: leaf for name, item in items for key, leaf in leaves(item, name).items()}


def test_manifest_has_upstreams_fields(folder: Path, expected: Path) -> None:
    """The loader takes its length from these six fields, first in the file and unrounded."""
    got = json.loads((folder / "manifest.json").read_text())
    right = json.loads((expected / "manifest.json").read_text())
    assert tuple(got)[:6] == MANIFEST_FIELDS
    assert {field: got[field] for field in MANIFEST_FIELDS} == pytest.approx(right)
    assert got["total_samples"] == right["total_samples"] == 13
    assert isinstance(got["num_shards"], int) and isinstance(got["total_samples"], int)


def test_manifest_of_the_mount_equals_the_files(mount: Path, files: Path) -> None:
    """The same fields and values; only what needs the shards' bytes (the digests) is null in the mount."""
    virtual = leaves(json.loads((mount / "manifest.json").read_text()))
    real = leaves(json.loads((files / "manifest.json").read_text()))
    assert virtual.keys() == real.keys()
    unknown = {path for path in real if virtual[path] != real[path]}
    assert all(virtual[path] is None and real[path] is not None for path in unknown), sorted(unknown)
    assert sorted(real[path] for path in unknown) == sorted(digest(path) for path in shards(files))


def test_the_sources_are_unchanged(
    mount: Path, files: Path, dataset: Dataset, sources_before: dict[str, tuple[str, int, int]]
) -> None:
    """After a mount and a conversion: the same files with the same content, times and modes."""
    from_tar(shards(mount))
    assert snapshot(dataset) == sources_before
